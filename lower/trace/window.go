package trace

import (
	"fmt"

	"mix/lower/ir"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapeinference"
	"github.com/gomlx/compute/shapes"
)

// ReduceWindow reduces windows that slide over the input.
func (f *Function) ReduceWindow(input compute.Value, reductionType compute.ReduceOpType,
	windowDimensions, strides, inputDilations, windowDilations []int, paddings [][2]int) (compute.Value, error) {
	a, err := f.input("ReduceWindow", input)
	if err != nil {
		return nil, err
	}
	r, err := reductionOf(reductionType)
	if err != nil {
		return nil, err
	}
	n := a.shape.Rank()
	if len(strides) == 0 {
		strides = windowDimensions
	}
	if len(paddings) == 0 {
		paddings = make([][2]int, n)
	}
	inputDilations, windowDilations = orOnes(inputDilations, n), orOnes(windowDilations, n)
	shape, err := shapeinference.ReduceWindow(a.shape, windowDimensions, strides, inputDilations, windowDilations, paddings)
	if err != nil {
		return nil, err
	}
	return result(f.reduceWindow(r, a, shape, windowDimensions, strides, inputDilations, windowDilations, paddings))
}

func (f *Function) reduceWindow(r reduction, a *value, shape shapes.Shape,
	window, strides, inputDilations, windowDilations []int, paddings [][2]int) (*value, error) {
	zero, err := r.zero(f, a.shape.DType)
	if err != nil {
		return nil, err
	}
	vs, err := f.emitN("stablehlo.reduce_window", []shapes.Shape{shape}, ir.Attrs{
		"window_dimensions": ir.Ints(window...), "window_strides": ir.Ints(strides...),
		"base_dilations": ir.Ints(inputDilations...), "window_dilations": ir.Ints(windowDilations...),
		"padding": pairs(paddings),
	}, []*ir.Region{r.body(a.shape.DType)}, a, zero)
	if err != nil {
		return nil, err
	}
	return vs[0], nil
}

// CumSum adds up along axis. XLA rewrites a window as long as the axis to a parallel prefix sum.
func (f *Function) CumSum(operand compute.Value, axis int, options compute.CumSumOptions) (compute.Value, error) {
	a, err := f.input("CumSum", operand)
	if err != nil {
		return nil, err
	}
	shape, err := shapeinference.CumSum(a.shape, axis)
	if err != nil {
		return nil, err
	}
	n := shape.Dimensions[axis]
	if shape.Size() == 0 {
		return a, nil
	}
	if options.Exclusive {
		if a, err = f.shift(a, axis, options.Reverse); err != nil {
			return nil, err
		}
	}
	rank := shape.Rank()
	window, paddings, ones := filled(rank, 1), make([][2]int, rank), filled(rank, 1)
	window[axis], paddings[axis] = n, [2]int{n - 1, 0}
	if options.Reverse {
		paddings[axis] = [2]int{0, n - 1}
	}
	return result(f.reduceWindow(reduceSum, a, shape, window, ones, ones, ones, paddings))
}

// shift moves x one step along axis, towards the front when back is set, and fills with zero.
func (f *Function) shift(a *value, axis int, back bool) (*value, error) {
	zero, err := f.splat(a.shape.DType, 0)
	if err != nil {
		return nil, err
	}
	low, high := make([]int, a.shape.Rank()), make([]int, a.shape.Rank())
	low[axis], high[axis] = 1, -1
	if back {
		low[axis], high[axis] = -1, 1
	}
	return f.emit("stablehlo.pad", a.shape, ir.Attrs{"edge_padding_low": ir.Ints(low...),
		"edge_padding_high": ir.Ints(high...), "interior_padding": ir.Ints(make([]int, a.shape.Rank())...)}, a, zero)
}

// SelectAndScatterMax adds each element of source to the operand position that is the largest of
// its window: the gradient of a max pool. SelectAndScatterMin takes the smallest.
func (f *Function) SelectAndScatterMax(operand, source compute.Value, windowDimensions, windowStrides []int, paddings [][2]int) (compute.Value, error) {
	return f.selectAndScatter("GE", operand, source, windowDimensions, windowStrides, paddings)
}

func (f *Function) SelectAndScatterMin(operand, source compute.Value, windowDimensions, windowStrides []int, paddings [][2]int) (compute.Value, error) {
	return f.selectAndScatter("LE", operand, source, windowDimensions, windowStrides, paddings)
}

func (f *Function) selectAndScatter(dir string, operand, source compute.Value, window, strides []int, paddings [][2]int) (compute.Value, error) {
	a, src, err := f.input2("SelectAndScatter", operand, source)
	if err != nil {
		return nil, err
	}
	if len(strides) == 0 {
		strides = window
	}
	if len(paddings) == 0 {
		paddings = make([][2]int, a.shape.Rank())
	}
	if src.shape.DType != a.shape.DType {
		return nil, fmt.Errorf("trace: SelectAndScatter of %s into %s, want one dtype", src.shape, a.shape)
	}
	shape, err := shapeinference.SelectAndScatter(a.shape, src.shape, window, strides, paddings)
	if err != nil {
		return nil, err
	}
	zero, err := f.splat(a.shape.DType, 0)
	if err != nil {
		return nil, err
	}
	s := ir.Tensor(elements[a.shape.DType])
	pick := ir.NewRegion(s, s)
	ge := pick.Emit("stablehlo.compare", []*ir.Value{pick.Args[0], pick.Args[1]}, compareAttrs(dir, a.shape.DType, false), ir.Tensor("i1")).Result()
	pick.Emit("stablehlo.return", []*ir.Value{ge}, nil)
	vs, err := f.emitN("stablehlo.select_and_scatter", []shapes.Shape{shape}, ir.Attrs{
		"window_dimensions": ir.Ints(window...), "window_strides": ir.Ints(strides...), "padding": pairs(paddings),
	}, []*ir.Region{pick, reduceSum.body(a.shape.DType)}, a, src, zero)
	if err != nil {
		return nil, err
	}
	return vs[0], nil
}
