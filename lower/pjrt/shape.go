package pjrt

import (
	"fmt"
	"math/bits"
)

// Shape is the element type and the dimensions of an array, outermost first.
type Shape struct {
	Type BufferType
	Dims []int64
}

// String prints the shape as XLA does: f32[2,3].
func (s Shape) String() string {
	b := []byte(s.Type.String() + "[")
	for i, d := range s.Dims {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Append(b, d)
	}
	return string(append(b, ']'))
}

// types has XLA's name of each element type and its bytes an element in host memory.
var types = map[BufferType]struct {
	name  string
	bytes int
}{
	BufferTypePRED: {"pred", 1},
	BufferTypeS1:   {"s1", 1}, BufferTypeS2: {"s2", 1}, BufferTypeS4: {"s4", 1},
	BufferTypeS8: {"s8", 1}, BufferTypeS16: {"s16", 2}, BufferTypeS32: {"s32", 4}, BufferTypeS64: {"s64", 8},
	BufferTypeU1: {"u1", 1}, BufferTypeU2: {"u2", 1}, BufferTypeU4: {"u4", 1},
	BufferTypeU8: {"u8", 1}, BufferTypeU16: {"u16", 2}, BufferTypeU32: {"u32", 4}, BufferTypeU64: {"u64", 8},
	BufferTypeF16: {"f16", 2}, BufferTypeBF16: {"bf16", 2}, BufferTypeF32: {"f32", 4}, BufferTypeF64: {"f64", 8},
	BufferTypeC64: {"c64", 8}, BufferTypeC128: {"c128", 16},
	BufferTypeF4E2M1FN: {"f4e2m1fn", 1},
	BufferTypeF8E3M4:   {"f8e3m4", 1}, BufferTypeF8E4M3: {"f8e4m3", 1}, BufferTypeF8E4M3FN: {"f8e4m3fn", 1},
	BufferTypeF8E4M3B11FNUZ: {"f8e4m3b11fnuz", 1}, BufferTypeF8E4M3FNUZ: {"f8e4m3fnuz", 1},
	BufferTypeF8E5M2: {"f8e5m2", 1}, BufferTypeF8E5M2FNUZ: {"f8e5m2fnuz", 1}, BufferTypeF8E8M0FNU: {"f8e8m0fnu", 1},
}

// String is XLA's name of the type, such as f32.
func (t BufferType) String() string {
	if x, ok := types[t]; ok {
		return x.name
	}
	return fmt.Sprintf("type %d", int32(t))
}

// Size is the number of bytes an element takes in host memory; types under 8 bits take one byte,
// types without elements (tokens) none.
func (t BufferType) Size() int { return types[t].bytes }

// hostSize is the size in bytes of a dense array in host memory.
func hostSize(t BufferType, dims []int64) (int, error) {
	n := uint64(t.Size())
	if n == 0 {
		return 0, fmt.Errorf("pjrt: element type %v has no host form", t)
	}
	for _, d := range dims {
		if d < 0 {
			return 0, fmt.Errorf("pjrt: dimensions %v, want none negative", dims)
		}
		hi, lo := bits.Mul64(n, uint64(d))
		if hi != 0 || int64(lo) < 0 {
			return 0, fmt.Errorf("pjrt: dimensions %v of %v are more than 2^63 bytes", dims, t)
		}
		n = lo
	}
	return int(n), nil
}
