package train

import (
	"fmt"
	"unsafe"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"

	"mix/graph"
	"mix/lower"
	"mix/sharding/axis"
	"mix/train/lora"
)

// Reader gives the elements of a weight's piece: a checkpoint, or anything that can make them up.
type Reader interface {
	Read(q axis.Piece, dst []byte) error
}

// Fresh is the Reader of newly initialized weights, float32.
func Fresh(c graph.Config, seed uint64) Reader { return fresh{c, seed} }

type fresh struct {
	c    graph.Config
	seed uint64
}

func (f fresh) Read(q axis.Piece, dst []byte) error {
	if q.DType != dtypes.Float32 || len(dst) != q.Bytes() {
		return fmt.Errorf("weight %s: %d bytes of %s, want %d of Float32", q.Name, len(dst), q.DType, 4*q.Elements())
	}
	return graph.Init(f.c, q, f.seed, unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(dst))), q.Elements()))
}

// freshAdapters is the Reader of adapters before the first step, float32.
type freshAdapters struct {
	c graph.Config
	o lora.Options
}

func (f freshAdapters) Read(q axis.Piece, dst []byte) error {
	if q.DType != dtypes.Float32 || len(dst) != q.Bytes() {
		return fmt.Errorf("adapter %s: %d bytes of %s, want %d of Float32", q.Name, len(dst), q.DType, 4*q.Elements())
	}
	return lora.Init(f.c, f.o, q, unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(dst))), q.Elements()))
}

// zeros is the Reader of moments before the first step.
type zeros struct{}

func (zeros) Read(_ axis.Piece, dst []byte) error {
	clear(dst)
	return nil
}

// upload makes a piece on the device.
func upload(be *lower.Backend, r Reader, q axis.Piece) (*lower.Buffer, error) {
	block, err := be.Alloc(int64(q.Bytes()))
	if err != nil {
		return nil, fmt.Errorf("weight %s: %w", q.Name, err)
	}
	if err := r.Read(q, block.Bytes()); err != nil {
		block.Free()
		return nil, err
	}
	b, err := be.Adopt(shapes.Make(q.DType, q.Shape...), block)
	if err != nil {
		block.Free()
		return nil, fmt.Errorf("weight %s: %w", q.Name, err)
	}
	return b, nil
}

// Groups of a checkpoint.
const (
	groupWeights = ""
	groupFirst   = "optimizer/first"
	groupSecond  = "optimizer/second"
)

var groups = []string{groupWeights, groupFirst, groupSecond}

// device is a run's state as it lies there.
type device struct {
	be     *lower.Backend
	m      model
	state  []*lower.Buffer // weights, first moments, second moments, updates
	frozen []*lower.Buffer
}

// newDevice puts a state onto the device: of readers, one a group, and of the frozen weights.
func newDevice(be *lower.Backend, m model, readers map[string]Reader, frozen Reader, updates int32) (d *device, err error) {
	d = &device{be: be, m: m}
	defer func() {
		if err != nil {
			d.free()
		}
	}()
	for _, name := range groups {
		for _, q := range m.trained {
			b, err := upload(be, readers[name], q)
			if err != nil {
				return nil, err
			}
			d.state = append(d.state, b)
		}
	}
	for _, q := range m.frozen {
		b, err := upload(be, frozen, q)
		if err != nil {
			return nil, err
		}
		d.frozen = append(d.frozen, b)
	}
	b, err := be.Upload(shapes.Make(dtypes.Int32), []int32{updates})
	if err != nil {
		return nil, err
	}
	d.state = append(d.state, b)
	return d, nil
}

func (d *device) free() {
	free(d.state)
	free(d.frozen)
	d.state, d.frozen = nil, nil
}

// weights are the arguments of a program that only reads.
func (d *device) weights() []*lower.Buffer {
	return append(append([]*lower.Buffer{}, d.state[:len(d.m.trained)]...), d.frozen...)
}

// updates is how many were made.
func (d *device) updates() (int32, error) {
	var n [1]int32
	err := d.state[len(d.state)-1].ToFlatData(n[:])
	return n[0], err
}

// host is a copy of a state's groups in memory.
type host struct {
	params map[string]axis.Param
	pieces []axis.Piece
	data   map[string][][]byte // [group][piece]
}

// copyTo copies the state, into the memory of an older copy where there is one.
func (d *device) copyTo(h *host) (*host, error) {
	if h == nil {
		h = &host{params: map[string]axis.Param{}, pieces: d.m.trained, data: map[string][][]byte{}}
		for _, p := range d.m.params {
			h.params[p.Path] = p
		}
		for _, name := range groups {
			for _, q := range h.pieces {
				h.data[name] = append(h.data[name], make([]byte, q.Bytes()))
			}
		}
	}
	n := len(h.pieces)
	for i, name := range groups {
		for j, b := range d.state[i*n : (i+1)*n] {
			if err := b.ReadInto(h.data[name][j]); err != nil {
				return nil, fmt.Errorf("copy of %s %s: %w", name, h.pieces[j].Name, err)
			}
		}
	}
	return h, nil
}

// group is the Reader of one group.
func (h *host) group(name string) Reader { return hostGroup{h, h.data[name]} }

type hostGroup struct {
	*host
	data [][]byte
}

// Read implements Reader for float32 pieces of any box.
func (h hostGroup) Read(q axis.Piece, dst []byte) error {
	p, ok := h.params[q.Path]
	if !ok {
		return fmt.Errorf("state: no weight %q", q.Path)
	}
	if err := q.Check(p); err != nil {
		return err
	}
	if q.DType != dtypes.Float32 || len(dst) != q.Bytes() {
		return fmt.Errorf("state: %s: %d bytes of %s, want %d of Float32", q.Name, len(dst), q.DType, 4*q.Elements())
	}
	copied := 0
	for i, from := range h.pieces {
		if from.Path == q.Path {
			copied += copyBox(q, dst, from, h.data[i])
		}
	}
	if copied != len(dst) {
		return fmt.Errorf("state: %s: %d bytes of %d are there", q.Name, copied, len(dst))
	}
	return nil
}

// copyBox copies what two pieces of one weight share, both float32, and returns its bytes.
func copyBox(to axis.Piece, dst []byte, from axis.Piece, src []byte) int {
	rank := len(to.Size)
	size, a, b := make([]int, rank), make([]int, rank), make([]int, rank) // of the box, and where it begins in to and from
	for k := range rank {
		begin := max(to.Offset[k], from.Offset[k])
		size[k] = min(to.Offset[k]+to.Size[k], from.Offset[k]+from.Size[k]) - begin
		if size[k] <= 0 {
			return 0
		}
		a[k], b[k] = begin-to.Offset[k], begin-from.Offset[k]
	}
	const width = 4
	run := width // bytes of contiguous elements: the axes that the box takes whole in both, and one more
	split := rank
	for split > 0 && (split == rank || size[split] == to.Size[split] && size[split] == from.Size[split]) {
		split--
		run *= size[split]
	}
	copied := 0
	at := make([]int, split)
	for {
		i, j := 0, 0
		for k := range rank {
			x, y := a[k], b[k]
			if k < split {
				x, y = x+at[k], y+at[k]
			}
			i, j = i*to.Size[k]+x, j*from.Size[k]+y
		}
		copied += copy(dst[i*width:i*width+run], src[j*width:j*width+run])
		k := split - 1
		for ; k >= 0; k-- {
			if at[k]++; at[k] < size[k] {
				break
			}
			at[k] = 0
		}
		if k < 0 {
			return copied
		}
	}
}
