package triton

// SwiGLUGradient is the gradient of h = silu(g)·u, of the rows that are in groups; those behind are not written.
type SwiGLUGradient struct {
	Groups
	Hidden int // F
	Elem   Elem
}

// Call is the kernel.
//
//	dh, g, u [R, F]       the gradient by h, and what h is made of
//	offsets  [E+1] i32    the last is the number of rows in groups
//	dg, du   [R, F]       dh·u·σ(g)·(1 + g·(1 - σ(g))), dh·silu(g)
//	h        [R, F]       silu(g)·u, which the gradient of the matrix after it reads
//
// All in f32 and rounded once.
func (s SwiGLUGradient) Call() (Call, error) {
	const name = "swiglu_gradient"
	if err := check(name, s.Groups, s.Elem, Tile{M: 16, N: 16, K: 16, Group: 1, Split: 1, Warps: 4, Stages: 1}, "hidden", s.Hidden); err != nil {
		return Call{}, err
	}
	k := newKernel(name, elementwise)
	var in, out [3]*Value
	for i, name := range []string{"dh", "g", "u"} {
		in[i] = k.operand(name, s.Elem, s.Rows, s.Hidden)
	}
	offsets := k.operand("offsets", I32, s.Experts+1)
	for i, name := range []string{"dg", "du", "h"} {
		out[i] = k.result(name, s.Elem, s.Rows, s.Hidden)
	}
	const m, n = 4, 512
	rows := k.Add(k.Range(m), k.Mul(k.Program(1), k.Int(m)))
	end := k.Load(k.Ptr(offsets, k.Int(s.Experts)), nil)
	k.If(k.Less(k.Mul(k.Program(1), k.Int(m)), end), func() {
		cols, inside := k.span(k.Program(0), n, s.Hidden)
		mask := k.box(k.Less(rows, end), inside)
		at := k.cells(rows, cols, s.Hidden) // [m, n]
		var v [3]*Value
		for i := range in {
			v[i] = k.Convert(k.Load(k.Ptr(in[i], at), mask), F32)
		}
		dh, g, u := v[0], v[1], v[2]
		one := k.Float(1)
		sigma := k.Sigmoid(g)
		silu := k.Mul(g, sigma)
		slope := k.Mul(sigma, k.Add(one, k.Sub(g, silu)))
		for i, x := range []*Value{k.Mul(k.Mul(dh, u), slope), k.Mul(dh, silu), k.Mul(silu, u)} {
			k.Store(k.Ptr(out[i], at), x, mask)
		}
	})
	return k.finish(ceil(s.Hidden, n), ceil(s.Rows, m), 1)
}
