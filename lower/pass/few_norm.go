package pass

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"mix/lower/ir"
	"mix/lower/triton"
	"mix/sharding/axis"
)

// fewNorm is a root mean square norm of few rows, with the sum before it and the router's product behind it, found in a region.
type fewNorm struct {
	mul, add, dot *ir.Op    // the norm's last operation; the other two nil without one
	route         *ir.Op    // the kernel that chooses a single token's experts by the router's product, nil without one
	x             *ir.Value // normed
	scale, router *ir.Value // arguments of the program
	t, d          int
	elem          triton.Elem
	eps           float64
	experts       int
	chooses       *triton.Route
}

// maxRouted bounds the experts of a router that the norm's kernel multiplies by, row after row in one program.
const maxRouted = 16

// normsOf finds the norms of a region, by the operation in whose place the kernel stands: the sum before it if there is one.
func normsOf(region *ir.Region, args []*ir.Value, may func(op *ir.Op) bool) map[*ir.Op]*fewNorm {
	all, of, byLogits := map[*ir.Op]*fewNorm{}, map[*ir.Value]*fewNorm{}, map[*ir.Value]*fewNorm{}
	for _, op := range region.Ops {
		if !may(op) {
			continue
		}
		if n := readNorm(op, args); n != nil {
			at := op
			if add := unshaped(n.x).Def; add != nil && add.Name == "stablehlo.add" && all[add] == nil && region.Index(add) >= 0 {
				n.add, at = add, add
			}
			all[at], of[op.Results[0]] = n, n
		}
		if n, router := readRouter(op, of, args); n != nil && n.dot == nil {
			n.dot, n.router, n.experts = op, router, router.Dims()[0]
			byLogits[op.Results[0]] = n
		}
		if op.Name == "stablehlo.custom_call" && len(op.Operands) == 1 {
			if n := byLogits[unshaped(op.Operands[0])]; n != nil && n.route == nil && n.t == 1 {
				n.route, n.chooses = readRoute(op, n.experts)
			}
		}
	}
	return all
}

// readNorm takes x/√(mean(x²)+eps)·scale apart, at its last multiplication; nil if it is something else. The statistics are
// f32, the quotient has the type of x.
func readNorm(op *ir.Op, args []*ir.Value) *fewNorm {
	if op.Name != "stablehlo.multiply" || len(op.Operands) != 2 {
		return nil
	}
	elem, dims, ok := op.Results[0].Type.Split()
	if !ok || len(dims) == 0 || kernelElems[elem] == 0 {
		return nil
	}
	n := &fewNorm{mul: op, d: dims[len(dims)-1], elem: kernelElems[elem], scale: spread(op.Operands[1], dims[len(dims)-1])}
	n.t = axis.Count(dims[:len(dims)-1])
	quotient := operands(converted(op.Operands[0]), "divide", 2)
	if n.t < 1 || n.t > fewRowsMost || quotient == nil || !slices.Contains(args, n.scale) || n.scale.Type != ir.Tensor(elem, n.d) {
		return nil
	}
	wide := quotient[0] // f32
	n.x = converted(wide)
	root := operands(spread(quotient[1], 1), "sqrt", 1)
	if root == nil {
		return nil
	}
	sum := operands(root[0], "add", 2)
	if sum == nil || n.x.Type != op.Results[0].Type || wide.Type != ir.Tensor("f32", dims...) {
		return nil
	}
	mean := operands(spread(sum[0], 1), "multiply", 2)
	if mean == nil {
		return nil
	}
	each, isNumber := number(mean[1])
	if n.eps, ok = number(sum[1]); !ok || !isNumber || math.Abs(each*float64(n.d)-1) > 1e-6 {
		return nil
	}
	squares := operands(summed(spread(mean[0], 1), len(dims)-1), "multiply", 2)
	if squares == nil || squares[0] != wide || squares[1] != wide {
		return nil
	}
	return n
}

// readRouter finds the norm whose rows, widened to f32, op multiplies by an argument [E, D] of few experts.
func readRouter(op *ir.Op, norms map[*ir.Value]*fewNorm, args []*ir.Value) (n *fewNorm, router *ir.Value) {
	if op.Name != "stablehlo.dot_general" {
		return nil, nil
	}
	d, err := ir.ReadDot(op)
	if err != nil || len(d.LeftBatch) > 0 {
		return nil, nil
	}
	router = op.Operands[1]
	n = norms[unshaped(converted(unshaped(op.Operands[0])))]
	left, right := op.Operands[0].Dims(), router.Dims()
	if n == nil || !slices.Contains(args, router) || len(left) != 2 || len(right) != 2 || right[0] > maxRouted ||
		router.Type != ir.Tensor("f32", right[0], n.d) || op.Operands[0].Type != ir.Tensor("f32", n.t, n.d) ||
		op.Results[0].Type != ir.Tensor("f32", n.t, right[0]) || !slices.Equal(d.LeftContracted, []int{1}) || !slices.Equal(d.RightContracted, []int{1}) {
		return nil, nil
	}
	return n, router
}

// readRoute tells a call of the kernel that chooses experts for a single token.
func readRoute(op *ir.Op, experts int) (*ir.Op, *triton.Route) {
	if len(op.Results) == 0 {
		return nil, nil
	}
	weights := op.Results[0].Dims()
	if len(weights) != 2 {
		return nil, nil
	}
	for block := 16; block <= 512; block *= 2 { // as tiles have rows
		r := triton.Route{Tokens: 1, Experts: experts, Choices: weights[1], Block: block}
		if call, err := r.Call(); err == nil && op.Attrs["backend_config"] == ir.Attr(call.Config()) {
			return op, &r
		}
	}
	return nil, nil
}

// emit emits the kernel, and notes what stands for the results. parts are the partial sums of products that were taken.
func (n *fewNorm) emit(b ir.Builder, by, parts map[*ir.Value]*ir.Value) error {
	elem := n.elem.String()
	k := triton.Norm{Tokens: n.t, Width: n.d, Eps: n.eps, Elem: n.elem, Experts: n.experts, Route: n.chooses}
	rows := ir.Tensor(elem, n.t, n.d)
	x, beside := n.x, []*ir.Value(nil)
	if n.add != nil {
		x, beside = n.beside(&k, parts)
	}
	operands := append([]*ir.Value{shaped(b, x, rows)}, beside...)
	if len(beside) > 0 && k.Choices == 1 && k.Splits == 1 {
		operands[1] = shaped(b, beside[0], ir.Tensor(k.Parts.String(), n.t, n.d))
	}
	operands = append(operands, n.scale)
	if n.dot != nil {
		operands = append(operands, n.router)
	}
	call, err := k.Call()
	if err != nil {
		return err
	}
	results, err := EmitCall(b, call, operands...)
	if err != nil {
		return err
	}
	for _, op := range []*ir.Op{n.add, n.mul, n.dot, n.route} {
		if op == nil {
			continue
		}
		for _, v := range op.Results {
			by[v] = shaped(b, results[0], v.Type)
			results = results[1:]
		}
	}
	return nil
}

// beside finds which operand of the sum is the residual stream and what the other is made of, and notes that in k.
func (n *fewNorm) beside(k *triton.Norm, parts map[*ir.Value]*ir.Value) (x *ir.Value, values []*ir.Value) {
	for i, v := range n.add.Operands {
		x = n.add.Operands[1-i]
		if part := parts[unshaped(converted(unshaped(v)))]; part != nil {
			elem, dims, _ := part.Type.Split()
			k.Choices, k.Splits, k.Parts = 1, axis.Count(dims[:len(dims)-2]), kernelElems[elem]
			return x, []*ir.Value{part}
		}
		if call := unshaped(v).Def; call != nil && call.Name == "stablehlo.custom_call" && len(call.Operands) == 2 {
			_, dims, _ := call.Operands[0].Type.Split()
			_, chosen, ok := call.Operands[1].Type.Split()
			if !ok || len(dims) < 2 || len(chosen) != 2 {
				continue
			}
			c := triton.Combine{Tokens: n.t, Choices: chosen[1], Width: n.d, Splits: axis.Count(dims[:len(dims)-2]), Weighted: true, Rows: triton.F32, Elem: n.elem}
			if same, err := c.Call(); err == nil && call.Attrs["backend_config"] == ir.Attr(same.Config()) {
				k.Choices, k.Splits, k.Weighted, k.Parts = c.Choices, c.Splits, true, triton.F32
				return x, call.Operands
			}
		}
	}
	k.Choices, k.Splits, k.Parts = 1, 1, n.elem
	return n.add.Operands[0], n.add.Operands[1:]
}

// operands are those n of what made v, if that has this name.
func operands(v *ir.Value, name string, n int) []*ir.Value {
	if v == nil || v.Def == nil || v.Def.Name != "stablehlo."+name || len(v.Def.Operands) != n {
		return nil
	}
	return v.Def.Operands
}

// before is the operand of what made v, if that has this name, else v.
func before(v *ir.Value, name string) *ir.Value {
	if from := operands(v, name, 1); from != nil {
		return from[0]
	}
	return v
}

// converted is what v was before it was converted.
func converted(v *ir.Value) *ir.Value { return before(v, "convert") }

// spread is what v was before it was reshaped and repeated: from a scalar, or along axes of size 1 with a last axis of size last.
func spread(v *ir.Value, last int) *ir.Value {
	for {
		from := before(v, "reshape")
		if repeated := before(v, "broadcast_in_dim"); repeated != v {
			along, ok := v.Def.Attrs["broadcast_dimensions"].Ints()
			dims := repeated.Dims()
			same := len(dims) > 0 && len(dims) == len(v.Dims()) && slices.Equal(along, numbered(len(dims))) && dims[len(dims)-1] == last
			if ok && (len(along) == 0 || same) {
				from = repeated
			}
		}
		if from == v {
			return v
		}
		v = from
	}
}

// summed is what v is the sum over axis of; nil if it is none.
func summed(v *ir.Value, axis int) *ir.Value {
	in := operands(v, "reduce", 2)
	if in == nil || len(v.Def.Regions) != 1 || !adds(v.Def.Regions[0]) {
		return nil
	}
	axes, ok := v.Def.Attrs["dimensions"].Ints()
	if zero, isNumber := number(in[1]); !ok || !isNumber || zero != 0 || !slices.Equal(axes, []int{axis}) {
		return nil
	}
	return in[0]
}

// number is what v holds everywhere, if that is one constant.
func number(v *ir.Value) (float64, bool) {
	v = spread(v, 1)
	if v.Def == nil || v.Def.Name != "stablehlo.constant" {
		return 0, false
	}
	text, _, ok := strings.Cut(strings.TrimPrefix(string(v.Def.Attrs["value"]), "dense<"), ">")
	x, err := strconv.ParseFloat(text, 64)
	return x, ok && err == nil
}

// numbered counts from 0 to n-1.
func numbered(n int) []int {
	all := make([]int, max(n, 0))
	for i := range all {
		all[i] = i
	}
	return all
}
