package gpu

import (
	"math"
	"strconv"

	"mix/lower/ir"
)

// module is a program with a main of those parameters.
func module(name string, params []ir.Type, build func(b ir.Builder, in []*ir.Value) []*ir.Value) *ir.Module {
	body := ir.NewRegion(params...)
	outs := build(ir.At(body), body.Args)
	body.Emit("func.return", outs, nil)
	return &ir.Module{Name: name, Funcs: []*ir.Func{{Name: "main", Body: body, Results: ir.Types(outs)}}}
}

// uniform is f32 numbers of mean 0 and variance 1 between -√3 and √3, element i a hash of i and seed, an i32 scalar.
//
// Source of the hash's constants: Appleby, MurmurHash3, the 32-bit finalizer.
func uniform(b ir.Builder, seed *ir.Value, dims ...int) *ir.Value {
	n := 1
	for _, d := range dims {
		n *= d
	}
	t := ir.Tensor("ui32", n)
	word := func(v uint32) *ir.Value { return b.Const(t, strconv.FormatUint(uint64(v), 10)) }
	shift := func(x *ir.Value, by uint32) *ir.Value {
		return b.Binary("xor", x, b.Binary("shift_right_logical", x, word(by)))
	}
	x := b.Add(b.Iota(0, "ui32", n), b.Broadcast(b.Mul(b.Convert(seed, "ui32"), b.Const(ir.Tensor("ui32"), "2654435769")), []int{n}))
	x = b.Mul(shift(x, 16), word(0x85ebca6b))
	x = b.Mul(shift(x, 13), word(0xc2b2ae35))
	x = b.Binary("shift_right_logical", shift(x, 16), word(8)) // 24 bits
	f := b.Convert(x, "f32")
	width := 2 * math.Sqrt(3)
	f = b.Mul(f, b.Const(f.Type, decimal(width/(1<<24))))
	return b.Reshape(b.Binary("subtract", f, b.Const(f.Type, decimal(width/2))), dims...)
}

// decimal is a float as MLIR writes it.
func decimal(v float64) string { return strconv.FormatFloat(v, 'e', 17, 64) }

// commas is a list as MLIR writes it.
func commas(all []int) string {
	b := []byte{'['}
	for i, n := range all {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = strconv.AppendInt(b, int64(n), 10)
	}
	return string(append(b, ']'))
}

// exact multiplies without rounding f32 operands first: contracted and batch axes as in ir.Dot.
func exact(b ir.Builder, d ir.Dot, x, y *ir.Value, dims ...int) *ir.Value {
	high := ir.Attr("#stablehlo<precision HIGHEST>")
	return b.Emit("dot_general", ir.Attrs{"dot_dimension_numbers": d.Attr(), "precision_config": ir.List(high, high)},
		ir.Tensor("f32", dims...), b.Convert(x, "f32"), b.Convert(y, "f32"))
}

// distance is the greatest |got-want| / (1+|want|) of all elements, [] f32; of what is no number, infinity.
func distance(b ir.Builder, got, want *ir.Value) *ir.Value {
	n := 1
	for _, d := range want.Dims() {
		n *= d
	}
	got, want = b.Reshape(b.Convert(got, "f32"), n), b.Reshape(b.Convert(want, "f32"), n)
	d := b.Unary("abs", b.Binary("subtract", got, want))
	d = b.Div(d, b.Add(b.Unary("abs", want), b.Const(want.Type, "1.0")))
	d = b.Select(b.Compare("EQ", d, d), d, b.Const(d.Type, "0x7F800000"))
	return b.Reduce("maximum", d, "0.0", 0)
}
