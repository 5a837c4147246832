package axis

import (
	"fmt"
	"slices"

	"github.com/gomlx/compute/dtypes"
)

// Param is one weight of the model's catalogue: its path, its logical axes and their sizes.
//
// Matrices are stored [out, in] and row-major, as Hugging Face stores them, so that every tensor of a
// checkpoint is a box of a Param and no element is ever transposed on the way in.
type Param struct {
	Path string    // e.g. "layers/moe/gate"
	Axes []Logical // e.g. layers, experts, ffn, embed
	Dims []int     // one size an axis
}

// Find is the weight of a catalogue at a path.
func Find(catalogue []Param, path string) (Param, error) {
	i := slices.IndexFunc(catalogue, func(p Param) bool { return p.Path == path })
	if i < 0 {
		return Param{}, fmt.Errorf("no weight %q in the catalogue", path)
	}
	return catalogue[i], nil
}

// Elements is the number of elements of the weight.
func (p Param) Elements() int { return Count(p.Dims) }

// Piece is one physical tensor that a compiled program takes as an argument: a box of a Param, stored
// row-major in DType and seen by the program with Shape (the box's sizes, with axes of size 1 dropped
// or axes merged; the elements and their order are those of the box).
type Piece struct {
	Name   string // unique in the program, e.g. "layers/moe/gate[3,5]"
	Path   string // the Param's
	Offset []int  // first element of the box, one number an axis of the Param
	Size   []int  // sizes of the box
	Shape  []int  // shape of the program's argument
	DType  dtypes.DType
}

// Elements is the number of elements of the piece.
func (p Piece) Elements() int { return Count(p.Size) }

// Bytes is the size of the piece in memory.
func (p Piece) Bytes() int { return p.Elements() * int(p.DType.Size()) }

// Whole is the piece that holds all of p in one tensor of the Param's own shape.
func Whole(p Param, dtype dtypes.DType) Piece {
	return Piece{Name: p.Path, Path: p.Path, Offset: make([]int, len(p.Dims)), Size: slices.Clone(p.Dims),
		Shape: slices.Clone(p.Dims), DType: dtype}
}

// Slice is the piece of p at fixed leading indices, without those axes: Slice(gate, dt, 3, 5) is the
// matrix [F, D] of expert 5 in layer 3.
func Slice(p Param, dtype dtypes.DType, leading ...int) Piece {
	q := Whole(p, dtype)
	for i, at := range leading {
		q.Offset[i], q.Size[i] = at, 1
	}
	q.Shape = slices.Clone(p.Dims[len(leading):])
	q.Name = SliceName(p.Path, leading...)
	return q
}

// SliceName is the name that Slice gives.
func SliceName(path string, leading ...int) string {
	if len(leading) == 0 {
		return path
	}
	s := path + "["
	for i, at := range leading {
		if i > 0 {
			s += ","
		}
		s += fmt.Sprint(at)
	}
	return s + "]"
}

// Check says whether the box lies inside p and holds as many elements as Shape.
func (q Piece) Check(p Param) error {
	if q.Path != p.Path || len(q.Offset) != len(p.Dims) || len(q.Size) != len(p.Dims) {
		return fmt.Errorf("piece %s: rank %d of %q, want rank %d of %q", q.Name, len(q.Offset), q.Path, len(p.Dims), p.Path)
	}
	for i, d := range p.Dims {
		if q.Offset[i] < 0 || q.Size[i] < 1 || q.Size[i] > d || q.Offset[i] > d-q.Size[i] {
			return fmt.Errorf("piece %s: axis %q [%d, %d) outside of [0, %d)", q.Name, p.Axes[i], q.Offset[i], q.Offset[i]+q.Size[i], d)
		}
	}
	if Count(q.Shape) != Count(q.Size) {
		return fmt.Errorf("piece %s: shape %v does not hold the %d elements of box %v", q.Name, q.Shape, Count(q.Size), q.Size)
	}
	return nil
}

// Count is the number of elements of dims.
func Count(dims []int) int {
	n := 1
	for _, d := range dims {
		n *= d
	}
	return n
}

// Unravel is the index of element i in a row-major array of dims.
func Unravel(i int, dims []int) []int {
	at := make([]int, len(dims))
	for k := len(dims) - 1; k >= 0; k-- {
		at[k], i = i%dims[k], i/dims[k]
	}
	return at
}
