package pass

import (
	"mix/lower/ir"
	"mix/lower/triton"
)

// groupedGEMMCUDA takes products by matrices of one tensor. Rows behind the last group are zeros.
func groupedGEMMCUDA(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
	if isSplit(op) {
		return nil, nil
	}
	g, err := readProduct(op)
	if err != nil {
		return nil, err
	}
	if elem, _, _ := g.ws[0].Type.Split(); elem != g.elem {
		return nil, nil
	}
	p, unfit := triton.Grouped{Groups: g.kernel(), In: g.in, Out: g.out, Elem: kernelElems[g.elem], Transposed: g.transposed}.Plan(tiles())
	return fitting(b, p, unfit, op.Operands)
}

// groupedOuterCUDA takes sums that are one tensor.
func groupedOuterCUDA(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
	if isSplit(op) {
		return nil, nil
	}
	g, err := readSum(op)
	if err != nil {
		return nil, err
	}
	p, unfit := triton.Outer{Groups: g.kernel(), N: g.n, M: g.m, Elem: kernelElems[g.elem]}.Plan(tiles())
	return fitting(b, p, unfit, op.Operands)
}

// kernel is what kernels know of groups whose sizes may sum to less than all rows.
func (g groups) kernel() triton.Groups {
	return triton.Groups{Rows: g.rows, Experts: g.e, Rest: true}
}

// fitting answers a rule by a plan of one result, nil for what kernels do not fit.
func fitting(b ir.Builder, p triton.Plan, unfit error, in []*ir.Value) ([]*ir.Value, error) {
	if unfit != nil {
		return nil, nil
	}
	y, err := one(b, p, in)
	return []*ir.Value{y}, err
}

// one emits a plan of one result on its inputs in order.
func one(b ir.Builder, p triton.Plan, in []*ir.Value) (*ir.Value, error) {
	values := map[string]*ir.Value{}
	for i, name := range p.Inputs {
		values[name] = in[i]
	}
	err := emitPlan(b, p, values)
	return values[p.Outputs[0]], err
}
