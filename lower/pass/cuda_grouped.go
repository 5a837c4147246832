package pass

import (
	"fmt"
	"slices"

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
	rest, _ := op.Attrs["composite_attributes"].Entry("rest")
	p, unfit := triton.Grouped{Groups: g.kernel(rest != ir.String("unread")), In: g.in, Out: g.out, Elem: kernelElems[g.elem], Transposed: g.transposed}.Plan(tiles())
	return fitting(b, p, unfit, op.Operands)
}

// readGroupedOf reads operands [R, …] and [E, …], all of x's elements, and sizes, the last. widths are the axes behind the first of each.
func readGroupedOf(op *ir.Op, ranks ...int) (g groups, elem string, widths [][]int, err error) {
	if len(op.Operands) != len(ranks)+1 {
		return g, "", nil, fmt.Errorf("%d operands, wanted %d", len(op.Operands), len(ranks)+1)
	}
	var rows, experts int
	for i, rank := range ranks {
		e, dims, err := matrix(op.Operands[i], rank)
		if err != nil {
			return g, "", nil, err
		}
		first := &rows
		if rank == 3 {
			first = &experts
		}
		if *first == 0 {
			*first = dims[0]
		}
		if elem == "" {
			elem = e
		}
		if e != elem || dims[0] != *first {
			return g, "", nil, fmt.Errorf("operand %d is %s, wanted %d of %s", i, op.Operands[i].Type, *first, elem)
		}
		widths = append(widths, dims[1:])
	}
	if g, err = readGroups(op.Operands[len(ranks)], rows); err == nil && experts > 0 && experts != g.e {
		err = fmt.Errorf("%d sizes, wanted those of %d matrices", g.e, experts)
	}
	return g, elem, widths, err
}

// groupedPairCUDA is one kernel.
func groupedPairCUDA(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
	g, elem, w, err := readGroupedOf(op, 2, 3, 2, 3)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(w[0], w[2]) || !slices.Equal(w[1], w[3]) || w[1][0] != w[0][0] {
		return nil, fmt.Errorf("operands %v, wanted two products of a size", ir.Types(op.Operands))
	}
	p, unfit := triton.Grouped{Groups: g.kernel(false), In: w[1][0], Out: w[1][1], Elem: kernelElems[elem], Transposed: true, Pair: true}.Plan(tiles())
	return fitting(b, p, unfit, op.Operands)
}

// groupedSwiGLUCUDA is one kernel.
func groupedSwiGLUCUDA(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
	g, elem, w, err := readGroupedOf(op, 2, 3, 3)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(w[1], w[2]) || w[1][1] != w[0][0] {
		return nil, fmt.Errorf("operands %v, wanted two products of a size", ir.Types(op.Operands))
	}
	p, unfit := triton.Up{Groups: g.kernel(false), Tokens: g.rows, Choices: 1, Width: w[1][1], Hidden: w[1][0], Elem: kernelElems[elem],
		Keep: len(op.Results) > 1, Ordered: true}.Plan(tiles())
	return fitting(b, p, unfit, op.Operands)
}

// groupedSwiGLUGradientCUDA is one kernel.
func groupedSwiGLUGradientCUDA(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
	g, elem, w, err := readGroupedOf(op, 2, 2, 2)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(w[0], w[1]) || !slices.Equal(w[0], w[2]) {
		return nil, fmt.Errorf("operands %v, wanted three of a type", ir.Types(op.Operands))
	}
	p, unfit := triton.SwiGLUGradient{Groups: g.kernel(false), Hidden: w[0][0], Elem: kernelElems[elem]}.Plan()
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
	p, unfit := triton.Outer{Groups: g.kernel(false), N: g.n, M: g.m, Elem: kernelElems[g.elem]}.Plan(tiles())
	return fitting(b, p, unfit, op.Operands)
}

// kernel is what kernels know of groups. Sizes may sum to less than all rows; rest is set where results of the others are zeros.
func (g groups) kernel(rest bool) triton.Groups {
	return triton.Groups{Rows: g.rows, Experts: g.e, Rest: rest}
}

// fitting answers a rule by a plan, nil for what kernels do not fit.
func fitting(b ir.Builder, p triton.Plan, unfit error, in []*ir.Value) ([]*ir.Value, error) {
	if unfit != nil {
		return nil, nil
	}
	return each(b, p, in)
}

// each emits a plan on its inputs in order and gives its outputs.
func each(b ir.Builder, p triton.Plan, in []*ir.Value) (out []*ir.Value, err error) {
	values := map[string]*ir.Value{}
	for i, name := range p.Inputs {
		values[name] = in[i]
	}
	if err := emitPlan(b, p, values); err != nil {
		return nil, err
	}
	for _, name := range p.Outputs {
		out = append(out, values[name])
	}
	return out, nil
}

// one emits a plan of one result on its inputs in order.
func one(b ir.Builder, p triton.Plan, in []*ir.Value) (*ir.Value, error) {
	y, err := each(b, p, in)
	if err != nil {
		return nil, err
	}
	return y[0], nil
}
