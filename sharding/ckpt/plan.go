package ckpt

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/gomlx/compute/dtypes"

	"mix/sharding/axis"
)

// planned is a tensor to be written: the boxes of catalogue weights that follow one another in it.
type planned struct {
	name  string
	shape []int
	boxes []axis.Piece // of Float32
	layer int          // orders the tensors
	dtype dtypes.DType // in the file
}

// bytes is the size of the tensor in the file.
func (t *planned) bytes() int64 { return int64(axis.Count(t.shape)) * int64(bytesOf(t.dtype)) }

// plan names the tensors that hold a catalogue, in the order of use.
func plan(params []axis.Param, layout string) ([]planned, error) {
	if len(params) == 0 {
		return nil, errors.New("no weights")
	}
	byPath := map[string]axis.Param{}
	f32, _ := formatOf(dtypes.Float32)
	for _, p := range params {
		if _, twice := byPath[p.Path]; twice {
			return nil, fmt.Errorf("weight %s is there twice", p.Path)
		}
		if len(p.Axes) != len(p.Dims) {
			return nil, fmt.Errorf("weight %s: %d axes and %d dimensions", p.Path, len(p.Axes), len(p.Dims))
		}
		if n, err := f32.bytes(p.Dims); err != nil || n < 1 {
			return nil, fmt.Errorf("weight %s: shape %s, want sizes of at least 1", p.Path, shapeText(p.Dims))
		}
		byPath[p.Path] = p
	}
	if layout == Plain {
		return planPlain(params)
	}
	sizes, err := sizesOf(params)
	if err != nil {
		return nil, err
	}
	if err := agree(params); err != nil {
		return nil, err
	}
	var list []planned
	homes := map[string]bool{}
	layer := -1 // of what comes before the layers, then of what comes after
	for i := range mixtral {
		r := &mixtral[i]
		if r.perLayer() {
			layer = math.MaxInt
		}
		have, lacking := r.holds(byPath)
		if r.layout != "" && r.layout != layout || len(have) == 0 {
			continue
		}
		if len(lacking) > 0 {
			return nil, fmt.Errorf("weight %s without %s, the %s layout has them in one tensor", have[0], lacking[0], layout)
		}
		for _, path := range have {
			homes[path] = true
		}
		list = append(list, r.plan(byPath, sizes, layer)...)
	}
	for _, p := range params {
		if !homes[p.Path] {
			return nil, fmt.Errorf("no tensor of a Hugging Face Mixtral holds weight %s", p.Path)
		}
	}
	slices.SortStableFunc(list, func(a, b planned) int { return cmp.Compare(a.layer, b.layer) })
	return list, nil
}

// holds tells the row's weights that the catalogue has from those it lacks.
func (r *row) holds(params map[string]axis.Param) (have, lacking []string) {
	for _, path := range r.paths {
		if _, ok := params[path]; ok {
			have = append(have, path)
		} else {
			lacking = append(lacking, path)
		}
	}
	return have, lacking
}

// plan lists the row's tensors; without a layer of their own they come at the given place.
func (r *row) plan(params map[string]axis.Param, sizes map[axis.Logical]int, layer int) (list []planned) {
	for l, e := range numbers(r, sizes[axis.Layers], sizes[axis.Experts]) {
		t := planned{name: r.nameAt(l, e, false), shape: r.dims(sizes), layer: layer}
		if l >= 0 {
			t.layer = l
		}
		for _, x := range r.extents(nil, Info{Shape: t.shape, DType: dtypes.Float32}, params, l, e) {
			t.boxes = append(t.boxes, axis.Piece{Name: x.path, Path: x.path, Offset: x.offset, Size: x.size, DType: dtypes.Float32})
		}
		list = append(list, t)
	}
	return list
}

// window is the most elements of a tensor that one goroutine holds while it writes: enough that asking for
// them costs little, and 16 MiB of float32.
const window = 4 << 20

// buffers are the windows of one goroutine, before and after rounding.
type buffers struct{ wide, narrow []byte }

// write gives the tensor's elements to w, rounded to dtype.
func (t *planned) write(w io.Writer, from Reader, dtype dtypes.DType, b *buffers, stopped func() bool) error {
	convert, width := kernels[dtypes.Float32][dtype], bytesOf(dtype)
	for _, box := range t.boxes {
		for q := range windows(box, window) {
			if stopped() {
				return errStopped
			}
			n := q.Elements()
			b.wide = slices.Grow(b.wide[:0], 4*n)[:4*n]
			if err := from.Read(q, b.wide); err != nil {
				return err
			}
			out := b.wide
			if dtype != dtypes.Float32 {
				b.narrow = slices.Grow(b.narrow[:0], width*n)[:width*n]
				convert(b.narrow, b.wide)
				out = b.narrow
			}
			if _, err := w.Write(out); err != nil {
				return err
			}
		}
	}
	return nil
}

// windows cuts a box into boxes of at most n elements (of one, if n is less) that follow one another in its
// row-major order.
func windows(box axis.Piece, n int) func(yield func(axis.Piece) bool) {
	return func(yield func(axis.Piece) bool) {
		// Axes from k on are whole in a window, axis k-1 is cut into runs, those before are of size 1.
		k, inner := len(box.Size), 1
		for k > 0 && inner*box.Size[k-1] <= n {
			k--
			inner *= box.Size[k]
		}
		outer, run, length := 1, 1, 1
		if k > 0 {
			length = box.Size[k-1]
			run = max(1, n/inner)
			outer = axis.Count(box.Size[:k-1])
		}
		for i := range outer {
			for from := 0; from < length; from += run {
				q := box
				q.Offset, q.Size = slices.Clone(box.Offset), slices.Clone(box.Size)
				for a, rest := k-2, i; a >= 0; a-- {
					q.Offset[a] += rest % box.Size[a]
					q.Size[a] = 1
					rest /= box.Size[a]
				}
				if k > 0 {
					q.Offset[k-1] += from
					q.Size[k-1] = min(run, length-from)
				}
				q.Shape = q.Size
				if !yield(q) {
					return
				}
			}
		}
	}
}
