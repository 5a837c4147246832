package pass

import (
	"fmt"

	"mix/lower/ir"
	"mix/lower/triton"
)

// groupedGEMMCUDA takes products by matrices of one tensor. Rows behind the last group are zeros.
func groupedGEMMCUDA(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
	if isSplit(op) {
		return nil, nil
	}
	if len(op.Operands) != 3 || len(op.Results) != 1 {
		return nil, fmt.Errorf("%d operands and %d results, wanted 3 and 1", len(op.Operands), len(op.Results))
	}
	elem, xd, err := matrix(op.Operands[0], 2)
	if err != nil {
		return nil, err
	}
	welem, wd, err := matrix(op.Operands[1], 3)
	if err != nil {
		return nil, err
	}
	g, err := readGroups(op.Operands[2], xd[0])
	if err != nil {
		return nil, err
	}
	k := triton.Grouped{Groups: g.kernel(), In: wd[2], Out: wd[1], Elem: kernelElems[elem]}
	if t, _ := op.Attrs["composite_attributes"].Entry("transposed"); t == ir.String("true") {
		k.In, k.Out, k.Transposed = k.Out, k.In, true
	}
	if wd[0] != g.e || k.In != xd[1] || op.Results[0].Type != ir.Tensor(elem, xd[0], k.Out) {
		return nil, fmt.Errorf("x %s, w %s and %d groups give %s, wanted sizes that fit", op.Operands[0].Type, op.Operands[1].Type, g.e, op.Results[0].Type)
	}
	if welem != elem {
		return nil, nil
	}
	p, unfit := k.Plan(tiles())
	return fitting(b, p, unfit, op.Operands)
}

// groupedOuterCUDA takes sums that are one tensor.
func groupedOuterCUDA(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
	if isSplit(op) {
		return nil, nil
	}
	if len(op.Operands) != 3 || len(op.Results) != 1 {
		return nil, fmt.Errorf("%d operands and %d results, wanted 3 and 1", len(op.Operands), len(op.Results))
	}
	elem, ad, err := matrix(op.Operands[0], 2)
	if err != nil {
		return nil, err
	}
	belem, bd, err := matrix(op.Operands[1], 2)
	if err != nil {
		return nil, err
	}
	g, err := readGroups(op.Operands[2], ad[0])
	if err != nil {
		return nil, err
	}
	if belem != elem || bd[0] != ad[0] || op.Results[0].Type != ir.Tensor(elem, g.e, ad[1], bd[1]) {
		return nil, fmt.Errorf("a %s, b %s and %d groups give %s, wanted sizes that fit", op.Operands[0].Type, op.Operands[1].Type, g.e, op.Results[0].Type)
	}
	p, unfit := triton.Outer{Groups: g.kernel(), N: ad[1], M: bd[1], Elem: kernelElems[elem]}.Plan(tiles())
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
