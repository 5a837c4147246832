package pass

import (
	"fmt"

	"mix/lower/ir"
)

// products emits grouped products as composites with their meaning as a function, for a later pass to put the
// platform's form in place. Groups may have fewer rows than there are: results of the others are zero, and sums leave them out.
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
	attrs, along, out := ir.Attrs{}, 2, 1
	if transposed {
		attrs["transposed"], along, out = ir.String("true"), 1, 2
	}
	rows, e, n := xd[0], wd[0], wd[out]
	return p.call(b, groupedGEMMName, attrs, ir.Tensor(elem, rows, n), []*ir.Value{x, w, sizes}, func(b ir.Builder, in []*ir.Value) *ir.Value {
		each := b.Dot(in[0], 1, in[1], along, elem) // [R, E, out]
		all := []int{rows, e, n}
		each = b.Select(b.Broadcast(ofGroup(b, in[2], rows), all, 0, 1), each, b.Const(each.Type, "0.0"))
		return b.Reduce("add", each, "0.0", 1)
	})
}

// outer is mix.grouped_outer of x [R, N] and y [R, M]: the sum [E, N, M] of each group's outer products.
func (p *products) outer(b ir.Builder, x, y, sizes *ir.Value) *ir.Value {
	elem, xd, _ := x.Type.Split()
	yd := y.Dims()
	ed := sizes.Dims()
	rows, e, n := xd[0], ed[0], xd[1]
	return p.call(b, groupedOuterName, ir.Attrs{}, ir.Tensor(elem, e, n, yd[1]), []*ir.Value{x, y, sizes}, func(b ir.Builder, in []*ir.Value) *ir.Value {
		all := []int{rows, e, n}
		each := b.Broadcast(in[0], all, 0, 2)
		each = b.Select(b.Broadcast(ofGroup(b, in[2], rows), all, 0, 1), each, b.Const(each.Type, "0.0"))
		return b.Dot(each, 0, in[1], 0, elem) // [E, N, M]
	})
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
func (p *products) call(b ir.Builder, name string, attrs ir.Attrs, result ir.Type, operands []*ir.Value, body func(b ir.Builder, in []*ir.Value) *ir.Value) *ir.Value {
	entries := ir.Dictionary(attrs)
	key := fmt.Sprint(name, entries, ir.Types(operands))
	if p.bodies[key] == "" {
		f := &ir.Func{Name: p.free(name), Private: true, Results: []ir.Type{result}, Body: ir.NewRegion(ir.Types(operands)...)}
		y := body(ir.At(f.Body), f.Body.Args)
		f.Body.Emit("func.return", []*ir.Value{y}, nil)
		p.m.Funcs = append(p.m.Funcs, f)
		p.bodies[key] = f.Name
	}
	as := ir.Attrs{"name": ir.String(name), "decomposition": ir.Symbol(p.bodies[key]), "version": ir.I32(0)}
	if len(attrs) > 0 {
		as["composite_attributes"] = entries
	}
	return b.Region.Emit("stablehlo.composite", operands, as, result).Result()
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
