package pass

import (
	"slices"

	"mix/lower/ir"
	"mix/lower/target"
	"mix/lower/triton"
)

const routeName = "mix.route"

// chooseExperts puts one kernel in the place of a mix.route whose experts will be kernels too: it chooses, weighs, and orders the rows
// as those read them.
//
//	logits [T, E] f32 → weights [T, K] f32, chosen [T, K] i32
//
// Programs with a gradient keep the body, since the gradient is that of the body, computed again.
//
// After: on cuda no mix.route is left whose weights and choices go to a mix.routed_experts that becomes kernels, where the program
// is one device's work and has no gradient.
func chooseExperts(m *ir.Module, ctx Context) (changed bool, err error) {
	if ctx.Platform != target.CUDA {
		return false, nil
	}
	wanted, gradient := map[*ir.Op]triton.Call{}, false
	for _, f := range m.Funcs {
		ir.Walk(f.Body, func(op *ir.Op) {
			switch composite(op) {
			case routedGradientName:
				gradient = true
			case routedName:
				if call, ok := routeFor(op); ok {
					wanted[op.Operands[1].Def] = call
				}
			}
		})
	}
	if gradient || len(wanted) == 0 {
		return false, nil
	}
	may := takeable(m, ctx)
	return rewriteOps(m, routeName, func(op *ir.Op) bool { return wanted[op].Name != "" && may(op) }, func(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
		results, err := EmitCall(b, wanted[op], op.Operands[0])
		if err != nil {
			return nil, err
		}
		return results[:2], nil
	})
}

// routeFor is the kernel that routes for experts, if they are ones of the program that their mix.route belongs to.
func routeFor(op *ir.Op) (call triton.Call, ok bool) {
	x, err := readExperts(op)
	if err != nil || !x.kernelsFit() || x.capacity > 0 || len(op.Results) > 1 { // refused, or left, by their own rule
		return call, false
	}
	of := x.chosen.Def
	if of == nil || composite(of) != routeName || len(of.Operands) != 1 || !slices.Equal(of.Results, []*ir.Value{x.weights, x.chosen}) {
		return call, false
	}
	if of.Operands[0].Type != ir.Tensor("f32", x.t, x.e) {
		return call, false
	}
	call, err = x.plan(false).Route(tiles())
	return call, err == nil
}

// plan is what package triton knows the experts as.
func (x experts) plan(keep bool) triton.Experts {
	return triton.Experts{Tokens: x.t, Choices: x.k, Experts: x.e, Width: x.d, Hidden: x.f, Elem: kernelElems[x.elem], Keep: keep}
}

// ordered gives what the kernel of route made, by the names of a plan's inputs, if chosen and weights are from one whose blocks
// are those of the experts.
func (x experts) ordered() (values map[string]*ir.Value, ok bool) {
	call, err := x.plan(false).Route(tiles())
	of := x.chosen.Def
	if err != nil || of == nil || of.Name != "stablehlo.custom_call" || of.Attrs["backend_config"] != ir.Attr(call.Config()) ||
		of.Results[0] != x.weights || of.Results[1] != x.chosen {
		return nil, false
	}
	values = map[string]*ir.Value{}
	for i, a := range call.Results {
		values[a.Name] = of.Results[i]
	}
	return values, true
}
