package pass

import (
	"errors"
	"maps"
	"slices"

	"mix/lower/ir"
	"mix/lower/triton"
)

// routedExpertsCUDA runs permute, gather with both products and SwiGLU in one, down and combine; few tokens read each chosen
// matrix once. Rows that were ordered when they were routed need no permute. A capacity leaves the body, whose grouped products
// are kernels.
func routedExpertsCUDA(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
	x, err := readExperts(op)
	if err != nil {
		return nil, err
	}
	keep := len(op.Results) > 1
	if !x.kernelsFit() || x.capacity > 0 || keep && !slices.Equal(ir.Types(op.Results[1:]), x.keptTypes()) {
		return nil, nil
	}
	plan := x.plan(keep)
	v, routed := x.ordered()
	if plan.Routed = routed && !keep; !plan.Routed {
		v = map[string]*ir.Value{}
	}
	p, unfit := plan.Forward(tiles())
	if unfit != nil {
		return nil, nil
	}
	maps.Copy(v, map[string]*ir.Value{"x": x.x, "chosen": x.chosen, "weights": x.weights, "gate": x.gate[0], "up": x.up[0], "down": x.down[0]})
	if err := emitPlan(b, p, v); err != nil {
		return nil, err
	}
	if !keep {
		return []*ir.Value{v["y"]}, nil
	}
	rows := b.Rows(x.x, x.token(b, v["order"])) // [R, D]
	return []*ir.Value{v["y"], rows, v["place"], v["sizes"], v["g"], v["u"], v["rows"]}, nil
}

// kernelsFit tells whether matrices are stacked and all has the types that kernels take.
func (x experts) kernelsFit() bool {
	weights, _, _ := x.weights.Type.Split()
	fit := x.stacked && kernelElems[x.elem] != 0 && weights == "f32"
	for _, w := range []*ir.Value{x.gate[0], x.up[0], x.down[0]} {
		elem, _, _ := w.Type.Split()
		fit = fit && elem == x.elem
	}
	return fit
}

// keptTypes are those of what a forward pass keeps: rows, place, sizes and the products by gate, up and down.
func (x experts) keptTypes() []ir.Type {
	r := x.t * x.k
	hidden, wide := ir.Tensor(x.elem, r, x.f), ir.Tensor(x.elem, r, x.d)
	return []ir.Type{wide, ir.Tensor("i32", r), ir.Tensor("i32", x.e), hidden, hidden, wide}
}

// routedExpertsGradientCUDA is the gradient from what the forward pass kept: two products by transposed matrices, the second
// of gate and up at once, a sum over choices, and a sum of outer products for each of the matrices. XLA gathers the rows of
// dy, and fuses what lies between. Rows without room for them are zeros.
func routedExpertsGradientCUDA(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
	x, err := readGradient(op)
	if err != nil {
		return nil, err
	}
	kept := op.Operands[len(op.Operands)-keptValues:]
	k, unfit := newGradientKernels(x.experts)
	if unfit != nil || !x.kernelsFit() || !slices.Equal(ir.Types(kept), x.keptTypes()) {
		return nil, nil
	}
	results, err := k.emit(b, x, kept)
	if err != nil {
		return nil, err
	}
	for i, v := range results {
		elem, _, _ := x.types[i].Split()
		results[i] = b.Convert(v, elem)
	}
	return results, nil
}

// gradientKernels are the plans of a gradient.
type gradientKernels struct {
	hidden, wide triton.Plan // products by down and by gate and up, transposed
	in, out      triton.Plan // sums for gate and up, and for down
	combine      triton.Call
}

func newGradientKernels(x experts) (k gradientKernels, err error) {
	elem := kernelElems[x.elem]
	g := triton.Groups{Rows: x.t * x.k, Experts: x.e, Rest: true}
	var errs [5]error
	k.hidden, errs[0] = triton.Grouped{Groups: g, In: x.d, Out: x.f, Elem: elem, Transposed: true}.Plan(tiles())
	k.wide, errs[1] = triton.Grouped{Groups: g, In: x.f, Out: x.d, Elem: elem, Transposed: true, Pair: true}.Plan(tiles())
	k.in, errs[2] = triton.Outer{Groups: g, N: x.f, M: x.d, Elem: elem}.Plan(tiles())
	k.out, errs[3] = triton.Outer{Groups: g, N: x.d, M: x.f, Elem: elem}.Plan(tiles())
	k.combine, errs[4] = triton.Combine{Tokens: x.t, Choices: x.k, Width: x.d, Splits: 1, Grouped: true, Rows: elem, Elem: elem}.Call()
	return k, errors.Join(errs[:]...)
}

// emit gives dx [T, D], the gradient of weights [T, K] and, unless frozen, those of gate, up and down.
func (k gradientKernels) emit(b ir.Builder, x gradientOf, kept []*ir.Value) (results []*ir.Value, err error) {
	rows, place, sizes, g, u, down := kept[0], kept[1], kept[2], kept[3], kept[4], kept[5]
	plan := func(p triton.Plan, in ...*ir.Value) *ir.Value {
		y, failed := one(b, p, in)
		err = errors.Join(err, failed)
		return y
	}
	r := x.t * x.k
	order := b.Inverse(place, r, 0)
	weight := b.Rows(b.Reshape(x.weights, r, 1), order)                // [R, 1]
	weight = b.Broadcast(b.Reshape(weight, r), []int{r, x.d}, 0)       // [R, D]
	dy := b.Convert(b.Rows(x.dy, x.token(b, order)), "f32")            // [R, D]
	ddown := b.Convert(b.Mul(dy, weight), x.elem)                      // [R, D]
	each := []int{x.t, x.k, x.d}                                       // [T, K, D]
	apart := b.Convert(b.Reshape(b.Rows(down, place), each...), "f32") // [T, K, D]
	wide := b.Broadcast(b.Convert(x.dy, "f32"), each, 0, 2)            // [T, K, D]
	dweights := b.Reduce("add", b.Mul(wide, apart), "0.0", 2)          // [T, K]
	dh := plan(k.hidden, ddown, x.down[0], sizes)                      // [R, F]
	if err != nil {
		return nil, err
	}
	s := b.Unary("logistic", g)                              // [R, F]
	a := b.Mul(g, s)                                         // [R, F]
	dg, du := swigluGradient(b, g, u, s, a, dh)              // [R, F]
	drows := plan(k.wide, dg, x.gate[0], du, x.up[0], sizes) // [R, D]
	if err != nil {
		return nil, err
	}
	dx, err := EmitCall(b, k.combine, drows, place)
	if err != nil {
		return nil, err
	}
	results = []*ir.Value{dx[0], dweights}
	if !x.frozen {
		results = append(results, plan(k.in, dg, rows, sizes), plan(k.in, du, rows, sizes), plan(k.out, ddown, b.Mul(a, u), sizes))
	}
	return results, err
}
