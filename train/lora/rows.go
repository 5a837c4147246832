package lora

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"unsafe"

	"github.com/gomlx/compute/dtypes"

	"mix/sharding/axis"
)

// chunkElements is what is worked on at a time: 4 MiB of float32.
const chunkElements = 1 << 20

// run is neighbouring rows of a box: n along the last of the axes that number rows.
type run struct {
	at    []int // indices in the Param of the first row
	first int   // its number in the box
	n     int
}

// eachRun calls f for the rows of a box whose first axes, offset and size, number rows. width is the
// elements that a row costs; what a run costs is bounded.
func eachRun(offset, size []int, width int, f func(r run) error) error {
	last := len(size) - 1
	most := max(1, chunkElements/width)
	for i := range axis.Count(size[:last]) {
		at := axis.Unravel(i, size[:last])
		for k := range at {
			at[k] += offset[k]
		}
		for from := 0; from < size[last]; from += most {
			r := run{at: append(slices.Clone(at), offset[last]+from), first: i*size[last] + from, n: min(most, size[last]-from)}
			if err := f(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// box is the piece of a weight at the given place, in float32.
func box(name, path string, offset, size []int) axis.Piece {
	return axis.Piece{Name: name, Path: path, Offset: offset, Size: size, Shape: size, DType: dtypes.Float32}
}

// of is the piece of p that holds the run's rows, of which rest says the other axes.
func (r run) of(name string, p axis.Param, offset, size []int) axis.Piece {
	rows := slices.Repeat([]int{1}, len(r.at))
	rows[len(rows)-1] = r.n
	return box(name, p.Path, slices.Concat(r.at, offset), slices.Concat(rows, size))
}

// floats reads a float32 piece.
func floats(from Reader, q axis.Piece) ([]float32, error) {
	v := make([]float32, q.Elements())
	b := unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), 4*len(v))
	if err := from.Read(q, b); err != nil {
		return nil, err
	}
	if !littleEndian {
		for i := range v {
			v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		}
	}
	return v, nil
}

var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// cut is the box of a row-major array of dims.
func cut(v []float32, dims, offset, size []int) []float32 {
	if slices.Equal(dims, size) {
		return v
	}
	c, _ := axis.Intersect(make([]int, len(dims)), dims, axis.Piece{Offset: offset, Size: size})
	out := make([]float32, axis.Count(size))
	for i := range c.Count {
		src, dst := c.Run(i)
		copy(out[dst:dst+c.Length], v[src:])
	}
	return out
}

// strange says where the first NaN or Inf is, -1 if there is none.
func strange(v []float32) int {
	return slices.IndexFunc(v, func(x float32) bool { return x-x != 0 })
}

// check refuses pieces that are not boxes of p in a floating-point type, and buffers of another size.
func check(q axis.Piece, p axis.Param, dst []byte) error {
	if err := q.Check(p); err != nil {
		return err
	}
	if q.DType != dtypes.Float32 && q.DType != dtypes.BFloat16 && q.DType != dtypes.Float16 {
		return fmt.Errorf("piece %s: dtype %s, want Float32, BFloat16 or Float16", q.Name, q.DType)
	}
	return checkBuffer(q, dst)
}

func checkBuffer(q axis.Piece, dst []byte) error {
	if len(dst) != q.Bytes() {
		return fmt.Errorf("piece %s: buffer of %d bytes, want %d", q.Name, len(dst), q.Bytes())
	}
	return nil
}
