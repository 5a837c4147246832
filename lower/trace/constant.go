package trace

import (
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"

	"mix/lower/ir"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/compute/shapes"
)

// Constant records a copy of flat, a slice of a supported Go type with the elements in row-major order.
func (f *Function) Constant(flat any, dims ...int) (compute.Value, error) {
	if f.returned {
		return nil, fmt.Errorf("trace: constant in %s, which has returned", f)
	}
	attr, shape, err := Dense(flat, dims...)
	if err != nil {
		return nil, err
	}
	return result(f.emit("stablehlo.constant", shape, ir.Attrs{"value": attr}))
}

// textElements is the size up to which a constant is written for people to read.
const textElements = 16

// Dense makes the attribute of a constant: one element when all are equal, readable elements when
// there are few, else the bytes in hexadecimal.
func Dense(flat any, dims ...int) (ir.Attr, shapes.Shape, error) {
	dtype, n, err := flatType(flat)
	if err != nil {
		return "", shapes.Invalid(), err
	}
	shape := shapes.Make(dtype, dims...)
	t, err := Type(shape)
	if err != nil {
		return "", shapes.Invalid(), err
	}
	if n != shape.Size() {
		return "", shapes.Invalid(), fmt.Errorf("trace: constant of %d elements for shape %s, want %d", n, shape, shape.Size())
	}
	if n == 0 {
		return ir.Attr("dense<> : " + string(t)), shape, nil
	}
	raw := dtypes.UnsafeByteSliceFromAny(flat)
	var b strings.Builder
	b.WriteString("dense<")
	switch size := len(raw) / n; {
	case splat(raw, size):
		b.WriteString(element(flat, 0))
	case n <= textElements || dtype == dtypes.Bool: // MLIR packs the bits of i1 in its hexadecimal form
		nested(&b, dims, 0, func(i int) string { return element(flat, i) })
	default:
		b.Grow(2*len(raw) + len(t) + 16)
		b.WriteString(`"0x`)
		writeHex(&b, raw)
		b.WriteByte('"')
	}
	b.WriteString("> : ")
	b.WriteString(string(t))
	return ir.Attr(b.String()), shape, nil
}

func flatType(flat any) (t dtypes.DType, n int, err error) {
	switch s := flat.(type) {
	case []bool:
		return dtypes.Bool, len(s), nil
	case []int8:
		return dtypes.Int8, len(s), nil
	case []int16:
		return dtypes.Int16, len(s), nil
	case []int32:
		return dtypes.Int32, len(s), nil
	case []int64:
		return dtypes.Int64, len(s), nil
	case []int:
		return dtypes.Int64, len(s), nil
	case []uint8:
		return dtypes.Uint8, len(s), nil
	case []uint16:
		return dtypes.Uint16, len(s), nil
	case []uint32:
		return dtypes.Uint32, len(s), nil
	case []uint64:
		return dtypes.Uint64, len(s), nil
	case []float32:
		return dtypes.Float32, len(s), nil
	case []float64:
		return dtypes.Float64, len(s), nil
	case []float16.Float16:
		return dtypes.Float16, len(s), nil
	case []bfloat16.BFloat16:
		return dtypes.BFloat16, len(s), nil
	case []complex64:
		return dtypes.Complex64, len(s), nil
	case []complex128:
		return dtypes.Complex128, len(s), nil
	}
	return dtypes.InvalidDType, 0, fmt.Errorf("trace: constant of type %T, want a slice of numbers or booleans", flat)
}

func splat(raw []byte, size int) bool {
	for i := size; i < len(raw); i++ {
		if raw[i] != raw[i-size] {
			return false
		}
	}
	return true
}

func writeHex(b *strings.Builder, raw []byte) {
	var buf [4096]byte
	for len(raw) > 0 {
		n := min(len(raw), len(buf)/2)
		hex.Encode(buf[:], raw[:n])
		b.Write(buf[:2*n])
		raw = raw[n:]
	}
}

func nested(b *strings.Builder, dims []int, from int, at func(int) string) int {
	if len(dims) == 0 {
		b.WriteString(at(from))
		return from + 1
	}
	b.WriteByte('[')
	for i := range dims[0] {
		if i > 0 {
			b.WriteString(", ")
		}
		from = nested(b, dims[1:], from, at)
	}
	b.WriteByte(']')
	return from
}

// element writes one element such that MLIR reads back the same bits.
func element(flat any, i int) string {
	switch s := flat.(type) {
	case []float32:
		return floatText(float64(s[i]), 32, uint64(math.Float32bits(s[i])))
	case []float64:
		return floatText(s[i], 64, math.Float64bits(s[i]))
	case []float16.Float16:
		return floatText(float64(s[i].Float32()), 16, uint64(s[i].Bits()))
	case []bfloat16.BFloat16:
		return floatText(float64(s[i].Float32()), 16, uint64(s[i].Bits()))
	case []complex64:
		re, im := real(s[i]), imag(s[i])
		return "(" + floatText(float64(re), 32, uint64(math.Float32bits(re))) + ", " +
			floatText(float64(im), 32, uint64(math.Float32bits(im))) + ")"
	case []complex128:
		re, im := real(s[i]), imag(s[i])
		return "(" + floatText(re, 64, math.Float64bits(re)) + ", " + floatText(im, 64, math.Float64bits(im)) + ")"
	case []bool:
		return strconv.FormatBool(s[i])
	case []int8:
		return strconv.FormatInt(int64(s[i]), 10)
	case []int16:
		return strconv.FormatInt(int64(s[i]), 10)
	case []int32:
		return strconv.FormatInt(int64(s[i]), 10)
	case []int64:
		return strconv.FormatInt(s[i], 10)
	case []int:
		return strconv.Itoa(s[i])
	case []uint8:
		return strconv.FormatUint(uint64(s[i]), 10)
	case []uint16:
		return strconv.FormatUint(uint64(s[i]), 10)
	case []uint32:
		return strconv.FormatUint(uint64(s[i]), 10)
	case []uint64:
		return strconv.FormatUint(s[i], 10)
	}
	panic(fmt.Sprintf("trace: element of %T", flat)) // flatType let it through
}

// floatText is the shortest decimal that gives v back, or the bits for what has no decimal. Decimals
// of 16-bit floats come from their exact float32 value.
func floatText(v float64, width int, bits uint64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return fmt.Sprintf("0x%0*X", width/4, bits)
	}
	s := strconv.FormatFloat(v, 'e', -1, max(width, 32))
	mantissa, exponent, _ := strings.Cut(s, "e")
	if !strings.Contains(mantissa, ".") {
		mantissa += ".0"
	}
	return mantissa + "e" + exponent
}

// splat makes a scalar constant of a small whole number in any number dtype.
func (f *Function) splat(t dtypes.DType, v int) (*value, error) {
	text := strconv.Itoa(v)
	switch {
	case t == dtypes.Bool:
		text = strconv.FormatBool(v != 0)
	case t.IsFloat():
		text = floatText(float64(v), 64, 0)
	case t.IsComplex():
		text = "(" + floatText(float64(v), 64, 0) + ", 0.0)"
	}
	return f.literal(t, text)
}

// literal makes a scalar constant of MLIR text.
func (f *Function) literal(t dtypes.DType, text string) (*value, error) {
	s := shapes.Make(t)
	mt, err := Type(s)
	if err != nil {
		return nil, err
	}
	return f.emit("stablehlo.constant", s, ir.Attrs{"value": ir.Attr("dense<" + text + "> : " + string(mt))})
}

// lowest and highest are the bounds of a dtype: the neutral elements of max and min.
func (f *Function) lowest(t dtypes.DType) (*value, error) { return f.bound(t, t.LowestValue(), true) }
func (f *Function) highest(t dtypes.DType) (*value, error) {
	return f.bound(t, t.HighestValue(), false)
}

func (f *Function) bound(t dtypes.DType, v any, negative bool) (*value, error) {
	switch {
	case t == dtypes.Bool:
		return f.splat(t, map[bool]int{true: 0, false: 1}[negative])
	case t.IsFloat():
		bits := map[dtypes.DType][2]string{
			dtypes.Float16: {"0x7C00", "0xFC00"}, dtypes.BFloat16: {"0x7F80", "0xFF80"},
			dtypes.Float32: {"0x7F800000", "0xFF800000"}, dtypes.Float64: {"0x7FF0000000000000", "0xFFF0000000000000"},
		}
		b, ok := bits[t]
		if !ok {
			return nil, fmt.Errorf("trace: %s has no infinity", t)
		}
		if negative {
			return f.literal(t, b[1])
		}
		return f.literal(t, b[0])
	case t.IsInt():
		return f.literal(t, fmt.Sprint(v))
	}
	return nil, fmt.Errorf("trace: %s has no order", t)
}
