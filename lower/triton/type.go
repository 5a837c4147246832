package triton

import (
	"fmt"
	"math/bits"
	"strconv"
)

// Elem is the type of an element.
type Elem uint8

const (
	I1 Elem = iota + 1
	I32
	I64
	F8 // e4m3fn: 4 exponent and 3 mantissa bits, no infinities, largest 448
	F16
	BF16
	F32
)

var elems = [...]struct {
	name string
	bits int
}{I1: {"i1", 1}, I32: {"i32", 32}, I64: {"i64", 64}, F8: {"f8E4M3FN", 8}, F16: {"f16", 16}, BF16: {"bf16", 16}, F32: {"f32", 32}}

// String is MLIR's name of the type.
func (e Elem) String() string {
	if e < I1 || e > F32 {
		return "elem(" + strconv.Itoa(int(e)) + ")"
	}
	return elems[e].name
}

// ParseElem finds an element type by MLIR's name.
func ParseElem(name string) (Elem, bool) {
	for e := I1; e <= F32; e++ {
		if elems[e].name == name {
			return e, true
		}
	}
	return 0, false
}

// MarshalText is String.
func (e Elem) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText is ParseElem.
func (e *Elem) UnmarshalText(text []byte) error {
	found, ok := ParseElem(string(text))
	if !ok {
		return fmt.Errorf("triton: element type %q, wanted one of i1, i32, i64, f8E4M3FN, f16, bf16 and f32", text)
	}
	*e = found
	return nil
}

// Float tells floats from integers.
func (e Elem) Float() bool { return e >= F8 && e <= F32 }

// Bits is the width; 0 of what is no type.
func (e Elem) Bits() int {
	if e > F32 {
		return 0
	}
	return elems[e].bits
}

// maxRank is the most axes a block may have.
const maxRank = 3

// Type is the type of a value: a scalar or a block of elements or of pointers to elements.
type Type struct {
	Elem    Elem
	Pointer bool
	rank    int
	dims    [maxRank]int
}

// Scalar is one element.
func Scalar(e Elem) Type { return Type{Elem: e} }

// Block is a tensor of dims, each a power of two.
func Block(e Elem, dims ...int) Type { return Type{Elem: e}.Of(dims...) }

// Of is a block of dims with t's elements; of no dims, a scalar.
func (t Type) Of(dims ...int) Type {
	t.rank, t.dims = len(dims), [maxRank]int{}
	copy(t.dims[:], dims)
	return t
}

// With is t with other elements, which are no pointers.
func (t Type) With(e Elem) Type {
	t.Elem, t.Pointer = e, false
	return t
}

// Dims are the sizes of the axes; none for a scalar.
func (t Type) Dims() []int { return t.dims[:min(t.rank, maxRank)] }

// Rank is the number of axes.
func (t Type) Rank() int { return t.rank }

// Size is the number of elements.
func (t Type) Size() int {
	n := 1
	for _, d := range t.Dims() {
		n *= d
	}
	return n
}

// String is the type as MLIR writes it, e.g. "tensor<64x32x!tt.ptr<bf16>>".
func (t Type) String() string {
	s := t.Elem.String()
	if t.Pointer {
		s = "!tt.ptr<" + s + ">"
	}
	if t.rank == 0 {
		return s
	}
	all := "tensor<"
	for _, d := range t.Dims() {
		all += strconv.Itoa(d) + "x"
	}
	return all + s + ">"
}

// powerOfTwo is the least power of two that is at least n.
func powerOfTwo(n int) int { return 1 << bits.Len(uint(max(n, 1)-1)) }

func isPowerOfTwo(n int) bool { return n > 0 && n&(n-1) == 0 }
