package interp

import (
	"cmp"
	"math"

	"mix/lower/triton"
)

// evaluate computes an operation without effects.
func evaluate(op *triton.Op, in []*block) *block {
	t := op.Result().Type
	switch op.Name {
	case "arith.constant":
		return constant(op)
	case "tt.make_range":
		out := newBlock(t)
		for i := range out.ints {
			out.ints[i] = op.Ints[0] + int64(i)
		}
		return out
	case "tt.expand_dims":
		return &block{t, in[0].ints, in[0].floats, in[0].array}
	case "tt.splat", "tt.broadcast":
		return broadcast(in[0], t)
	case "tt.trans":
		return transpose(in[0], t)
	case "tt.addptr":
		out := &block{t: t, ints: make([]int64, t.Size()), array: in[0].array}
		for i := range out.ints {
			out.ints[i] = in[0].ints[i] + in[1].ints[i]
		}
		return out
	case "tt.dot":
		return dot(in[0], in[1], in[2], t)
	case "tt.reduce", "tt.scan":
		return fold(op, in[0], t)
	case "arith.select":
		return choose(in, t)
	case "arith.cmpi", "arith.cmpf":
		return compare(op.Text, in[0], in[1], t)
	case "math.exp2", "math.log2", "math.sqrt":
		f := map[string]func(float64) float64{"math.exp2": math.Exp2, "math.log2": math.Log2, "math.sqrt": math.Sqrt}[op.Name]
		out := newBlock(t)
		for i, x := range in[0].floats {
			out.floats[i] = float32(f(float64(x)))
		}
		return out
	}
	if len(in) == 1 {
		return convert(op.Name, in[0], t)
	}
	out := newBlock(t)
	for i := range out.floats {
		out.floats[i] = Round(t.Elem, float(op.Name, in[0].floats[i], in[1].floats[i]))
	}
	for i := range out.ints {
		out.ints[i] = wrap(t.Elem, integer(op.Name, in[0].ints[i], in[1].ints[i]))
	}
	return out
}

func constant(op *triton.Op) *block {
	out := newBlock(op.Result().Type)
	for i := range out.floats {
		out.floats[i] = Round(out.t.Elem, float32(op.Number))
	}
	for i := range out.ints {
		out.ints[i] = op.Ints[0]
	}
	return out
}

// strides are those of a row-major block.
func strides(dims []int) []int {
	s := make([]int, len(dims))
	for i, n := len(dims)-1, 1; i >= 0; i-- {
		s[i], n = n, n*dims[i]
	}
	return s
}

func broadcast(x *block, t triton.Type) *block {
	out := newBlock(t)
	out.array = x.array
	to, from := strides(t.Dims()), strides(x.t.Dims())
	for i := range t.Size() {
		j := 0
		for axis, n := range x.t.Dims() {
			if n > 1 {
				j += i / to[axis] % t.Dims()[axis] * from[axis]
			}
		}
		out.move(i, x, j)
	}
	return out
}

func transpose(x *block, t triton.Type) *block {
	out := newBlock(t)
	out.array = x.array
	rows, columns := x.t.Dims()[0], x.t.Dims()[1]
	for i := range rows {
		for j := range columns {
			out.move(j*rows+i, x, i*columns+j)
		}
	}
	return out
}

// dot adds products of exact factors to acc, in float32 and in order.
func dot(x, y, acc *block, t triton.Type) *block {
	out := newBlock(t)
	m, n, k := t.Dims()[0], t.Dims()[1], x.t.Dims()[1]
	copy(out.floats, acc.floats)
	for i := range m {
		row := out.floats[i*n : (i+1)*n]
		for l, a := range x.floats[i*k : (i+1)*k] {
			for j, b := range y.floats[l*n : (l+1)*n] {
				row[j] += a * b
			}
		}
	}
	return out
}

// fold reduces or scans along an axis, from its first element on.
func fold(op *triton.Op, x *block, t triton.Type) *block {
	out := newBlock(t)
	dims, axis := x.t.Dims(), int(op.Ints[0])
	inner := strides(dims)[axis]
	n := dims[axis]
	for outer := range x.t.Size() / (inner * n) {
		for j := range inner {
			var f float32
			var z int64
			for i := range n {
				at := (outer*n+i)*inner + j
				switch {
				case x.floats != nil && i == 0:
					f = x.floats[at]
				case x.floats != nil:
					f = Round(t.Elem, float(op.Text, f, x.floats[at]))
				case i == 0:
					z = x.ints[at]
				default:
					z = wrap(t.Elem, integer(op.Text, z, x.ints[at]))
				}
				to := at
				if op.Name == "tt.reduce" {
					to = outer*inner + j
				}
				if x.floats != nil {
					out.floats[to] = f
				} else {
					out.ints[to] = z
				}
			}
		}
	}
	return out
}

func choose(in []*block, t triton.Type) *block {
	out := newBlock(t)
	if t.Pointer && in[1].array != in[2].array {
		panic(fault{errBase})
	}
	out.array = in[1].array
	for i, c := range in[0].ints {
		if c != 0 {
			out.move(i, in[1], i)
		} else {
			out.move(i, in[2], i)
		}
	}
	return out
}

func compare(predicate string, x, y *block, t triton.Type) *block {
	out := newBlock(t)
	for i := range out.ints {
		var yes bool
		if x.floats != nil {
			yes = holds(predicate, x.floats[i], y.floats[i])
		} else {
			yes = holds(predicate, x.ints[i], y.ints[i])
		}
		if yes {
			out.ints[i] = 1
		}
	}
	return out
}

func holds[T cmp.Ordered](predicate string, x, y T) bool {
	switch predicate {
	case "slt", "olt":
		return x < y
	case "sle", "ole":
		return x <= y
	case "eq", "oeq":
		return x == y
	}
	fail("unknown predicate %q", predicate)
	return false
}

func float(name string, x, y float32) float32 {
	switch name {
	case "arith.addf":
		return x + y
	case "arith.subf":
		return x - y
	case "arith.mulf":
		return x * y
	case "arith.divf":
		return x / y
	case "arith.maxnumf", "arith.minnumf":
		if x != x {
			return y
		}
		if y != y {
			return x
		}
		if name == "arith.maxnumf" {
			return max(x, y)
		}
		return min(x, y)
	}
	fail("unknown operation %s of floats", name)
	return 0
}

func integer(name string, x, y int64) int64 {
	switch name {
	case "arith.addi":
		return x + y
	case "arith.subi":
		return x - y
	case "arith.muli":
		return x * y
	case "arith.divsi", "arith.remsi":
		if y == 0 {
			fail("%s by zero", name)
		}
		if name == "arith.divsi" {
			return x / y
		}
		return x % y
	case "arith.minsi":
		return min(x, y)
	case "arith.maxsi":
		return max(x, y)
	case "arith.andi":
		return x & y
	case "arith.ori":
		return x | y
	}
	fail("unknown operation %s of integers", name)
	return 0
}

// convert is an operation of one operand that changes the element type.
func convert(name string, x *block, t triton.Type) *block {
	out := newBlock(t)
	for i := range t.Size() {
		switch {
		case x.floats != nil && out.floats != nil:
			out.floats[i] = Round(t.Elem, x.floats[i])
		case out.floats != nil:
			out.floats[i] = Round(t.Elem, float32(x.ints[i]))
		case x.floats == nil:
			out.ints[i] = wrap(t.Elem, x.ints[i])
		default:
			fail("unknown conversion %s", name)
		}
	}
	return out
}
