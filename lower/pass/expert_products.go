package pass

import (
	"fmt"

	"mix/lower/ir"
)

// products emits grouped products as composites with their meaning as a function, for a later pass to put the
// platform's form in place. Groups may have fewer rows than there are: results of the others are not read, so that they may be
// anything, and sums leave them out.
//
// Axes: R rows, E groups, a matrix [N, M].
type products struct {
	m      *ir.Module
	bodies map[string]string // names of functions by what they compute
}

func newProducts(m *ir.Module) *products { return &products{m, map[string]string{}} }

// gemm is mix.grouped_gemm of x [R, M] and w [E, N, M], or transposed of x [R, N]: each row by its group's matrix.
func (p *products) gemm(b ir.Builder, x, w, sizes *ir.Value, transposed bool) *ir.Value {
	elem, xd, _ := x.Type.Split()
	wd := w.Dims()
	attrs, along, out := ir.Attrs{"rest": ir.String("unread")}, 2, 1
	if transposed {
		attrs["transposed"], along, out = ir.String("true"), 1, 2
	}
	rows, e, n := xd[0], wd[0], wd[out]
	return p.call(b, groupedGEMMName, attrs, []*ir.Value{x, w, sizes}, []ir.Type{ir.Tensor(elem, rows, n)}, func(b ir.Builder, in []*ir.Value) []*ir.Value {
		each := b.Dot(in[0], 1, in[1], along, elem) // [R, E, out]
		all := []int{rows, e, n}
		each = b.Select(b.Broadcast(ofGroup(b, in[2], rows), all, 0, 1), each, b.Const(each.Type, "0.0"))
		return []*ir.Value{b.Reduce("add", each, "0.0", 1)}
	})[0]
}

// pair is mix.grouped_pair of x and x2 [R, N], w and w2 [E, N, M]: the sum of both products by transposed matrices, [R, M].
func (p *products) pair(b ir.Builder, x, w, x2, w2, sizes *ir.Value) *ir.Value {
	elem, xd, _ := x.Type.Split()
	wd := w.Dims()
	return p.call(b, groupedPairName, nil, []*ir.Value{x, w, x2, w2, sizes}, []ir.Type{ir.Tensor(elem, xd[0], wd[2])}, func(b ir.Builder, in []*ir.Value) []*ir.Value {
		return []*ir.Value{b.Add(p.gemm(b, in[0], in[1], in[4], true), p.gemm(b, in[2], in[3], in[4], true))}
	})[0]
}

// up is mix.grouped_swiglu of x [R, M], gate and up [E, N, M]: h = silu(g)·u [R, N], and with keep what it is made of, g and u.
func (p *products) up(b ir.Builder, x, gate, up, sizes *ir.Value, keep bool) []*ir.Value {
	elem, xd, _ := x.Type.Split()
	wd := gate.Dims()
	results := []ir.Type{ir.Tensor(elem, xd[0], wd[1])}
	if keep {
		results = append(results, results[0], results[0])
	}
	return p.call(b, groupedSwiGLUName, nil, []*ir.Value{x, gate, up, sizes}, results, func(b ir.Builder, in []*ir.Value) []*ir.Value {
		g, u := p.gemm(b, in[0], in[1], in[3], false), p.gemm(b, in[0], in[2], in[3], false)
		return []*ir.Value{swiglu(b, g, u), g, u}[:len(results)]
	})
}

// upGradient is mix.grouped_swiglu_gradient of dh, g and u [R, N]: the gradients by g and u, and h again.
func (p *products) upGradient(b ir.Builder, dh, g, u, sizes *ir.Value) (dg, du, h *ir.Value) {
	same := []ir.Type{dh.Type, dh.Type, dh.Type}
	y := p.call(b, groupedSwiGLUGradientName, nil, []*ir.Value{dh, g, u, sizes}, same, func(b ir.Builder, in []*ir.Value) []*ir.Value {
		dh, g, u := in[0], in[1], in[2]
		s := b.Unary("logistic", g) // [R, N]
		a := b.Mul(g, s)            // [R, N]
		dg, du := swigluGradient(b, g, u, s, a, dh)
		return []*ir.Value{dg, du, b.Mul(a, u)}
	})
	return y[0], y[1], y[2]
}

// outer is mix.grouped_outer of x [R, N] and y [R, M]: the sum [E, N, M] of each group's outer products.
func (p *products) outer(b ir.Builder, x, y, sizes *ir.Value) *ir.Value {
	elem, xd, _ := x.Type.Split()
	yd := y.Dims()
	ed := sizes.Dims()
	rows, e, n := xd[0], ed[0], xd[1]
	return p.call(b, groupedOuterName, nil, []*ir.Value{x, y, sizes}, []ir.Type{ir.Tensor(elem, e, n, yd[1])}, func(b ir.Builder, in []*ir.Value) []*ir.Value {
		all := []int{rows, e, n}
		each := b.Broadcast(in[0], all, 0, 2)
		each = b.Select(b.Broadcast(ofGroup(b, in[2], rows), all, 0, 1), each, b.Const(each.Type, "0.0"))
		return []*ir.Value{b.Dot(each, 0, in[1], 0, elem)} // [E, N, M]
	})[0]
}

// ofGroup tells whether a row is in a group, [R, E] of i1.
func ofGroup(b ir.Builder, sizes *ir.Value, rows int) *ir.Value {
	dims := sizes.Dims()
	all := []int{rows, dims[0]}
	end := b.CumSum(sizes, 0) // [E]
	row := b.Iota(0, "i32", all...)
	from := b.Compare("GE", row, b.Broadcast(b.Binary("subtract", end, sizes), all, 1))
	return b.Binary("and", from, b.Compare("LT", row, b.Broadcast(end, all, 1)))
}

// call emits a composite and, once for each of its kind, the function that says what it means.
func (p *products) call(b ir.Builder, name string, attrs ir.Attrs, operands []*ir.Value, results []ir.Type, body func(b ir.Builder, in []*ir.Value) []*ir.Value) []*ir.Value {
	entries := ir.Dictionary(attrs)
	key := fmt.Sprint(name, entries, ir.Types(operands), results)
	if p.bodies[key] == "" {
		f := &ir.Func{Private: true, Results: results, Body: ir.NewRegion(ir.Types(operands)...)}
		f.Body.Emit("func.return", body(ir.At(f.Body), f.Body.Args), nil)
		f.Name = p.free(name) // after what the body calls
		p.m.Funcs = append(p.m.Funcs, f)
		p.bodies[key] = f.Name
	}
	as := ir.Attrs{"name": ir.String(name), "decomposition": ir.Symbol(p.bodies[key]), "version": ir.I32(0)}
	if len(attrs) > 0 {
		as["composite_attributes"] = entries
	}
	return b.Region.Emit("stablehlo.composite", operands, as, results...).Results
}

// free is a name for a function that the module does not have.
func (p *products) free(name string) string {
	for n := len(p.bodies); ; n++ {
		full := fmt.Sprintf("%s.expert.%d", name, n)
		if p.m.Func(full) == nil {
			return full
		}
	}
}
