package triton

// binary is an elementwise operation: name of integers, name of floats.
func (b *Builder) binary(ints, floats string, x, y *Value) *Value {
	v := b.meet(x, y)
	name := ints
	if v[0].Type.Elem.Float() {
		name = floats
	}
	if v[0].Type.Elem != v[1].Type.Elem || v[0].Type.Pointer || v[1].Type.Pointer || name == "" {
		b.fail("%s%s of %s and %s, wanted equal elements", ints, floats, x.Type, y.Type)
	}
	return b.one(name, v[0].Type, v[0], v[1])
}

// Add is x + y.
func (b *Builder) Add(x, y *Value) *Value { return b.binary("arith.addi", "arith.addf", x, y) }

// Sub is x - y.
func (b *Builder) Sub(x, y *Value) *Value { return b.binary("arith.subi", "arith.subf", x, y) }

// Mul is x · y.
func (b *Builder) Mul(x, y *Value) *Value { return b.binary("arith.muli", "arith.mulf", x, y) }

// Div is x / y, of integers rounded towards zero.
func (b *Builder) Div(x, y *Value) *Value { return b.binary("arith.divsi", "arith.divf", x, y) }

// Rem is the remainder of Div of integers.
func (b *Builder) Rem(x, y *Value) *Value { return b.binary("arith.remsi", "", x, y) }

// Min is the lesser.
func (b *Builder) Min(x, y *Value) *Value { return b.binary("arith.minsi", "arith.minnumf", x, y) }

// Max is the greater; of a float and NaN, the float.
func (b *Builder) Max(x, y *Value) *Value { return b.binary("arith.maxsi", "arith.maxnumf", x, y) }

// And is x & y, bit by bit.
func (b *Builder) And(x, y *Value) *Value { return b.binary("arith.andi", "", x, y) }

// Or is x | y, bit by bit.
func (b *Builder) Or(x, y *Value) *Value { return b.binary("arith.ori", "", x, y) }

// compare gives i1. Predicates of floats are ordered: false where one is NaN.
func (b *Builder) compare(ints, floats string, x, y *Value) *Value {
	v := b.meet(x, y)
	name, text := "arith.cmpi", ints
	if v[0].Type.Elem.Float() {
		name, text = "arith.cmpf", floats
	}
	if v[0].Type.Elem != v[1].Type.Elem {
		b.fail("compared %s and %s, wanted equal elements", x.Type, y.Type)
	}
	op := b.emit(name, v, v[0].Type.With(I1))
	op.Text = text
	return op.Result()
}

// Less is x < y.
func (b *Builder) Less(x, y *Value) *Value { return b.compare("slt", "olt", x, y) }

// LessEqual is x ≤ y.
func (b *Builder) LessEqual(x, y *Value) *Value { return b.compare("sle", "ole", x, y) }

// Equal is x = y.
func (b *Builder) Equal(x, y *Value) *Value { return b.compare("eq", "oeq", x, y) }

// Select is x where cond, else y.
func (b *Builder) Select(cond, x, y *Value) *Value {
	v := b.meet(cond, x, y)
	if v[0].Type.Elem != I1 || v[1].Type != v[2].Type {
		b.fail("select by %s of %s and %s, wanted i1 and equal elements", cond.Type, x.Type, y.Type)
	}
	return b.one("arith.select", v[1].Type, v...)
}

func (b *Builder) unary(name string, x *Value) *Value {
	if x.Type.Elem != F32 {
		b.fail("%s of %s, wanted f32", name, x.Type)
	}
	return b.one(name, x.Type, x)
}

// Exp2 is 2 to the x, of f32.
func (b *Builder) Exp2(x *Value) *Value { return b.unary("math.exp2", x) }

// Log2 is the logarithm to base 2, of f32.
func (b *Builder) Log2(x *Value) *Value { return b.unary("math.log2", x) }

// Sqrt is the square root, of f32.
func (b *Builder) Sqrt(x *Value) *Value { return b.unary("math.sqrt", x) }

const log2e = 1.4426950408889634

// Sigmoid is 1/(1 + e^-x), of f32.
func (b *Builder) Sigmoid(x *Value) *Value {
	down := b.Exp2(b.Mul(x, b.Float(-log2e)))
	return b.Div(b.Float(1), b.Add(down, b.Float(1)))
}

// SwiGLU is silu(gate)·up, of f32.
func (b *Builder) SwiGLU(gate, up *Value) *Value {
	return b.Mul(b.Mul(gate, b.Sigmoid(gate)), up)
}

// Convert changes the element type. Floats round to nearest even; to f8 they saturate.
func (b *Builder) Convert(x *Value, to Elem) *Value {
	from := x.Type.Elem
	t := x.Type.With(to)
	name := ""
	switch {
	case x.Type.Pointer:
	case from == to:
		return x
	case from == F8 || to == F8:
		if from.Float() && to.Float() {
			name = "tt.fp_to_fp"
		}
	case from.Float() && to.Float() && from.Bits() < to.Bits():
		name = "arith.extf"
	case from.Float() && to.Float() && from.Bits() > to.Bits():
		name = "arith.truncf"
	case from == I1 && !to.Float():
		name = "arith.extui"
	case from == I1:
		name = "arith.uitofp"
	case !from.Float() && to.Float():
		name = "arith.sitofp"
	case !from.Float() && !to.Float() && from.Bits() < to.Bits():
		name = "arith.extsi"
	case !from.Float() && !to.Float():
		name = "arith.trunci"
	}
	if name == "" {
		b.fail("no conversion of %s to %s", x.Type, to)
		return x
	}
	return b.one(name, t, x)
}

// Dot is acc + x·y: x [m, k], y [k, n] of equal elements, acc [m, n] f32. Of f8, at most 128 products are added up
// with fewer bits than f32 has.
func (b *Builder) Dot(x, y, acc *Value) *Value {
	return b.one("tt.dot", acc.Type, x, y, acc)
}

// reduce folds an axis away.
func (b *Builder) reduce(ints, floats string, x *Value, axis int) *Value {
	d := x.Type.Dims()
	if axis < 0 || axis >= len(d) {
		b.fail("reduced axis %d of %s", axis, x.Type)
		return x
	}
	rest := append(append([]int{}, d[:axis]...), d[axis+1:]...)
	return b.fold("tt.reduce", ints, floats, x, axis, x.Type.Of(rest...))
}

func (b *Builder) fold(name, ints, floats string, x *Value, axis int, t Type) *Value {
	by := ints
	if x.Type.Elem.Float() {
		by = floats
	}
	op := b.emit(name, []*Value{x}, t)
	op.Ints, op.Text = []int64{int64(axis)}, by
	return op.Result()
}

// Sum adds up an axis.
func (b *Builder) Sum(x *Value, axis int) *Value {
	return b.reduce("arith.addi", "arith.addf", x, axis)
}

// Greatest is the maximum along an axis.
func (b *Builder) Greatest(x *Value, axis int) *Value {
	return b.reduce("arith.maxsi", "arith.maxnumf", x, axis)
}

// Least is the minimum along an axis.
func (b *Builder) Least(x *Value, axis int) *Value {
	return b.reduce("arith.minsi", "arith.minnumf", x, axis)
}

// CumSum adds up along an axis, each element with those before it.
func (b *Builder) CumSum(x *Value, axis int) *Value {
	return b.fold("tt.scan", "arith.addi", "arith.addf", x, axis, x.Type)
}
