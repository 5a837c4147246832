package gpu

import (
	"fmt"
	"math"
	"strings"

	"mix/lower/ir"
	"mix/lower/triton"
)

// emitter puts a kernel's call into a program.
type emitter func(b ir.Builder, c triton.Call, operands ...*ir.Value) ([]*ir.Value, error)

// kit builds the program of a case: inputs, kernels, and what the kernels' results are held to. The first error stays.
type kit struct {
	ir.Builder
	emit  emitter
	table triton.Table
	seed  *ir.Value // i32 scalar
	salt  int
	pairs []pair
	err   error
}

// pair is a result and what it should be.
type pair struct {
	what      string
	got, want *ir.Value
	tolerance float64 // of distance
}

// check holds a result of a kernel to want.
func (k *kit) check(what string, got, want *ir.Value, tolerance float64) {
	k.pairs = append(k.pairs, pair{what, got, want, tolerance})
}

// random is floats of mean 0 and variance 2/n, n being the last axis, so that sums over it are of unit size.
func (k *kit) random(e triton.Elem, dims ...int) *ir.Value {
	return k.scaled(e, math.Sqrt(2/float64(dims[len(dims)-1])), dims...)
}

// scaled is floats of mean 0 and variance scale².
func (k *kit) scaled(e triton.Elem, scale float64, dims ...int) *ir.Value {
	k.salt++
	x := uniform(k.Builder, k.Add(k.seed, k.Index(k.salt)), dims...)
	return k.Convert(k.Mul(x, k.Const(x.Type, decimal(scale))), stable(e))
}

// stable is StableHLO's name of an element type.
func stable(e triton.Elem) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(triton.Array{Elem: e}.String(), "tensor<"), ">")
	return name
}

// ints is a vector of known i32.
func (k *kit) ints(all []int) *ir.Value { return k.Const(ir.Tensor("i32", len(all)), commas(all)) }

// call emits a kernel.
func (k *kit) call(c triton.Call, err error, operands ...*ir.Value) []*ir.Value {
	var out []*ir.Value
	if err == nil && k.err == nil {
		out, err = k.emit(k.Builder, c, operands...)
	}
	if k.err == nil {
		k.err = err
	}
	if out != nil {
		return out
	}
	for _, a := range c.Results { // so that what follows can be built
		out = append(out, k.Const(ir.Type(a.String()), "0"))
	}
	return append(out, slack(k)...)
}

// slack stands for the results of a kernel that cannot be made.
func slack(k *kit) []*ir.Value {
	var out []*ir.Value
	for range 8 {
		out = append(out, k.Const(ir.Tensor("f32"), "0.0"))
	}
	return out
}

// plan emits the kernels of a plan on named values, to which it adds all results. Without an error all are there.
func (k *kit) plan(p triton.Plan, err error, values map[string]*ir.Value) bool {
	for _, s := range p.Steps {
		var operands []*ir.Value
		for _, name := range s.In {
			operands = append(operands, values[name])
		}
		if err == nil && k.err == nil {
			var out []*ir.Value
			out, err = k.emit(k.Builder, s.Call, operands...)
			for i, v := range out {
				values[s.Out[i]] = v
			}
		}
	}
	if k.err == nil {
		k.err = err
	}
	return k.err == nil
}

// routing is a choice of experts and the order of the routed rows, without kernels.
type routing struct {
	logits       *ir.Value // [T, E]
	chosen       *ir.Value // [T, K] i32
	weights      *ir.Value // [T, K] f32
	order, place *ir.Value // [R] i32
	group        *ir.Value // [R] i32, expert of each place
	sizes        *ir.Value // [E] i32
	offsets      *ir.Value // [E+1] i32
}

// route chooses experts for tokens: many rows for the first, none for the last.
func (k *kit) route(tokens, experts, choices int) (r routing) {
	t := ir.Tensor("f32", tokens, experts)
	bias := make([]string, experts)
	for e := range bias {
		bias[e] = decimal(float64(e%3) / 4)
	}
	bias[0], bias[experts-1] = "1.5", "-100.0"
	r.logits = k.Add(k.scaled(triton.F32, 1, tokens, experts), k.Broadcast(k.Const(ir.Tensor("f32", experts), "["+strings.Join(bias, ", ")+"]"), []int{tokens, experts}, 1))
	left, at := r.logits, k.Iota(1, "i32", tokens, experts)
	none := k.Const(at.Type, fmt.Sprint(experts))
	var chosen, values []*ir.Value
	for range choices {
		best := k.Reduce("maximum", left, "0xFF800000", 1) // [T]
		is := k.Compare("EQ", left, k.Broadcast(best, []int{tokens, experts}, 0))
		e := k.Reduce("minimum", k.Select(is, at, none), fmt.Sprint(experts), 1) // [T]
		taken := k.Compare("EQ", at, k.Broadcast(e, []int{tokens, experts}, 0))
		left = k.Select(taken, k.Const(t, "0xFF800000"), left)
		chosen, values = append(chosen, k.Reshape(e, tokens, 1)), append(values, k.Reshape(best, tokens, 1))
	}
	r.chosen = k.Concat(1, chosen...)
	v := k.Concat(1, values...)
	p := k.Unary("exponential", k.Binary("subtract", v, k.Broadcast(k.Reduce("maximum", v, "0xFF800000", 1), v.Dims(), 0)))
	r.weights = k.Div(p, k.Broadcast(k.Reduce("add", p, "0.0", 1), p.Dims(), 0))
	rows := tokens * choices
	r.group, r.order = k.SortBy(k.Reshape(r.chosen, rows), k.Iota(0, "i32", rows))
	r.place = k.Inverse(r.order, rows, 0)
	of := k.Compare("EQ", k.Broadcast(r.group, []int{rows, experts}, 0), k.Iota(1, "i32", rows, experts))
	r.sizes = k.Reduce("add", k.Convert(of, "i32"), "0", 0)
	before := k.Compare("LT", k.Broadcast(r.group, []int{rows, experts + 1}, 0), k.Iota(1, "i32", rows, experts+1))
	r.offsets = k.Reduce("add", k.Convert(before, "i32"), "0", 0)
	return r
}

// grouped is y[r] = w[group r]·x[r], of x [R, N] and w [E, M, N] or, transposed, [E, N, M]: every matrix times all rows.
// Rows of no group are zeros.
func (k *kit) grouped(x, w, group *ir.Value, transposed bool) *ir.Value {
	xd, wd := x.Dims(), w.Dims()
	m, d := wd[1], ir.Dot{LeftContracted: []int{1}, RightContracted: []int{1}}
	if transposed {
		m, d.RightContracted = wd[2], []int{0}
	}
	y := k.Const(ir.Tensor("f32", xd[0], m), "0.0")
	for e := range wd[0] {
		one := k.Reshape(k.Slice(w, []int{e, 0, 0}, []int{e + 1, wd[1], wd[2]}), wd[1], wd[2])
		is := k.Compare("EQ", group, k.Const(group.Type, fmt.Sprint(e)))
		y = k.Select(k.Broadcast(is, []int{xd[0], m}, 0), exact(k.Builder, d, x, one, xd[0], m), y)
	}
	return y
}

// outer is y[e] = Σ a[r]·b[r]ᵀ over the rows of group e.
func (k *kit) outer(a, b, group *ir.Value, experts int) *ir.Value {
	n, m := a.Dims()[1], b.Dims()[1]
	var all []*ir.Value
	for e := range experts {
		is := k.Compare("EQ", group, k.Const(group.Type, fmt.Sprint(e)))
		kept := k.Select(k.Broadcast(is, a.Dims(), 0), a, k.Const(a.Type, "0.0"))
		sum := exact(k.Builder, ir.Dot{LeftContracted: []int{0}, RightContracted: []int{0}}, kept, b, n, m)
		all = append(all, k.Reshape(sum, 1, n, m))
	}
	return k.Concat(0, all...)
}

// swiglu is silu(g)·u.
func (k *kit) swiglu(g, u *ir.Value) *ir.Value {
	return k.Mul(k.Mul(g, k.Unary("logistic", g)), u)
}

// mixed sums the results of each token's experts by weight: rows [R, D] f32 in group order → [T, D].
func (k *kit) mixed(rows *ir.Value, r routing) *ir.Value {
	t, c, d := r.weights.Dims()[0], r.weights.Dims()[1], rows.Dims()[1]
	each := k.Reshape(k.Rows(rows, r.place), t, c, d)
	return k.Reduce("add", k.Mul(each, k.Broadcast(r.weights, []int{t, c, d}, 0, 1)), "0.0", 1)
}
