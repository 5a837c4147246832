package trace

import (
	"fmt"

	"mix/lower/ir"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapeinference"
	"github.com/gomlx/compute/shapes"
)

// reduction is a commutative operation and how to make its neutral element.
type reduction struct {
	op   string
	zero func(f *Function, t dtypes.DType) (*value, error)
}

var (
	reduceSum = reduction{"stablehlo.add", func(f *Function, t dtypes.DType) (*value, error) { return f.splat(t, 0) }}
	reduceMul = reduction{"stablehlo.multiply", func(f *Function, t dtypes.DType) (*value, error) { return f.splat(t, 1) }}
	reduceMax = reduction{"stablehlo.maximum", (*Function).lowest}
	reduceMin = reduction{"stablehlo.minimum", (*Function).highest}
	reduceAnd = reduction{"stablehlo.and", allOnes}
	reduceOr  = reduction{"stablehlo.or", func(f *Function, t dtypes.DType) (*value, error) { return f.splat(t, 0) }}
	reduceXor = reduction{"stablehlo.xor", func(f *Function, t dtypes.DType) (*value, error) { return f.splat(t, 0) }}
)

func allOnes(f *Function, t dtypes.DType) (*value, error) {
	switch {
	case t == dtypes.Bool:
		return f.splat(t, 1)
	case t.IsUnsigned():
		return f.highest(t)
	}
	return f.splat(t, -1)
}

func reductionOf(t compute.ReduceOpType) (reduction, error) {
	switch t {
	case compute.ReduceOpSum:
		return reduceSum, nil
	case compute.ReduceOpProduct:
		return reduceMul, nil
	case compute.ReduceOpMax:
		return reduceMax, nil
	case compute.ReduceOpMin:
		return reduceMin, nil
	}
	return reduction{}, fmt.Errorf("trace: reduction %s, want Sum, Product, Max or Min", t)
}

// body is the region of a reduction: two scalars in, one out.
func (r reduction) body(t dtypes.DType) *ir.Region {
	s := ir.Tensor(elements[t])
	g := ir.NewRegion(s, s)
	v := g.Emit(r.op, []*ir.Value{g.Args[0], g.Args[1]}, nil, s).Result()
	g.Emit("stablehlo.return", []*ir.Value{v}, nil)
	return g
}

func (f *Function) reduce(r reduction, x compute.Value, axes []int) (compute.Value, error) {
	a, err := f.input("Reduce", x)
	if err != nil {
		return nil, err
	}
	if len(axes) == 0 {
		for i := range a.shape.Rank() {
			axes = append(axes, i)
		}
	}
	if err := checkAxes("Reduce", a.shape, axes); err != nil {
		return nil, err
	}
	shape, err := shapeinference.Reduce(a.shape, axes)
	if err != nil {
		return nil, err
	}
	if len(axes) == 0 {
		return a, nil
	}
	zero, err := r.zero(f, a.shape.DType)
	if err != nil {
		return nil, err
	}
	vs, err := f.emitN("stablehlo.reduce", []shapes.Shape{shape}, ir.Attrs{"dimensions": ir.Ints(axes...)},
		[]*ir.Region{r.body(a.shape.DType)}, a, zero)
	if err != nil {
		return nil, err
	}
	return vs[0], nil
}

// logical refuses a reduction of anything but booleans, bitwise one of anything but integers.
func (f *Function) logical(r reduction, x compute.Value, axes []int) (compute.Value, error) {
	if s, err := f.Shape(x); err != nil {
		return nil, err
	} else if s.DType != dtypes.Bool {
		return nil, fmt.Errorf("trace: logical reduction of %s, want Bool", s)
	}
	return f.reduce(r, x, axes)
}

func (f *Function) bitwise(r reduction, x compute.Value, axes []int) (compute.Value, error) {
	if s, err := f.Shape(x); err != nil {
		return nil, err
	} else if !s.DType.IsInt() {
		return nil, fmt.Errorf("trace: bitwise reduction of %s, want integers", s)
	}
	return f.reduce(r, x, axes)
}

func (f *Function) ReduceSum(x compute.Value, axes ...int) (compute.Value, error) {
	return f.reduce(reduceSum, x, axes)
}
func (f *Function) ReduceProduct(x compute.Value, axes ...int) (compute.Value, error) {
	return f.reduce(reduceMul, x, axes)
}
func (f *Function) ReduceMax(x compute.Value, axes ...int) (compute.Value, error) {
	return f.reduce(reduceMax, x, axes)
}
func (f *Function) ReduceMin(x compute.Value, axes ...int) (compute.Value, error) {
	return f.reduce(reduceMin, x, axes)
}
func (f *Function) ReduceBitwiseAnd(x compute.Value, axes ...int) (compute.Value, error) {
	return f.bitwise(reduceAnd, x, axes)
}
func (f *Function) ReduceBitwiseOr(x compute.Value, axes ...int) (compute.Value, error) {
	return f.bitwise(reduceOr, x, axes)
}
func (f *Function) ReduceBitwiseXor(x compute.Value, axes ...int) (compute.Value, error) {
	return f.bitwise(reduceXor, x, axes)
}
func (f *Function) ReduceLogicalAnd(x compute.Value, axes ...int) (compute.Value, error) {
	return f.logical(reduceAnd, x, axes)
}
func (f *Function) ReduceLogicalOr(x compute.Value, axes ...int) (compute.Value, error) {
	return f.logical(reduceOr, x, axes)
}
func (f *Function) ReduceLogicalXor(x compute.Value, axes ...int) (compute.Value, error) {
	return f.logical(reduceXor, x, axes)
}

// ArgMinMax is the index of the extreme along axis: the first of equals, the first NaN before all.
// False is less than true.
func (f *Function) ArgMinMax(x compute.Value, axis int, outputDType dtypes.DType, isMin bool) (compute.Value, error) {
	a, err := f.input("ArgMinMax", x)
	if err != nil {
		return nil, err
	}
	if a.shape.DType == dtypes.Bool {
		if a, err = f.emit("stablehlo.convert", withDType(a.shape, dtypes.Uint8), nil, a); err != nil {
			return nil, err
		}
	}
	shape, err := shapeinference.ArgMinMax(a.shape, axis, outputDType)
	if err != nil {
		return nil, err
	}
	if !outputDType.IsInt() {
		return nil, fmt.Errorf("trace: ArgMinMax into %s, want an integer dtype", outputDType)
	}
	index, err := f.iota(withDType(a.shape, outputDType), axis)
	if err != nil {
		return nil, err
	}
	worst := reduceMax
	if isMin {
		worst = reduceMin
	}
	x0, err := worst.zero(f, a.shape.DType)
	if err != nil {
		return nil, err
	}
	i0, err := f.splat(outputDType, 0)
	if err != nil {
		return nil, err
	}
	vs, err := f.emitN("stablehlo.reduce", []shapes.Shape{withDType(shape, a.shape.DType), shape},
		ir.Attrs{"dimensions": ir.Ints(axis)}, []*ir.Region{argBody(a.shape.DType, outputDType, isMin)}, a, index, x0, i0)
	if err != nil {
		return nil, err
	}
	return vs[1], nil
}

// argBody keeps the better of two (element, index) pairs: a is better than b when it compares
// better or is NaN while b is not, or when neither is better and its index is lower.
func argBody(t, index dtypes.DType, isMin bool) *ir.Region {
	ts, is, bs := ir.Tensor(elements[t]), ir.Tensor(elements[index]), ir.Tensor("i1")
	g := ir.NewRegion(ts, is, ts, is)
	x, i, y, j := g.Args[0], g.Args[1], g.Args[2], g.Args[3]
	emit := func(op string, t ir.Type, attrs ir.Attrs, vs ...*ir.Value) *ir.Value {
		return g.Emit(op, vs, attrs, t).Result()
	}
	compare := func(dir string, t dtypes.DType, a, b *ir.Value) *ir.Value {
		return emit("stablehlo.compare", bs, compareAttrs(dir, t, false), a, b)
	}
	dir := "GT"
	if isMin {
		dir = "LT"
	}
	better, equal := compare(dir, t, x, y), compare("EQ", t, x, y)
	if t.IsFloat() {
		xNaN, yNaN := compare("NE", t, x, x), compare("NE", t, y, y)
		notY := emit("stablehlo.not", bs, nil, yNaN)
		better = emit("stablehlo.or", bs, nil, better, emit("stablehlo.and", bs, nil, xNaN, notY))
		equal = emit("stablehlo.or", bs, nil, equal, emit("stablehlo.and", bs, nil, xNaN, yNaN))
	}
	first := emit("stablehlo.and", bs, nil, equal, compare("LT", index, i, j))
	take := emit("stablehlo.or", bs, nil, better, first)
	g.Emit("stablehlo.return", []*ir.Value{
		emit("stablehlo.select", ts, nil, take, x, y), emit("stablehlo.select", is, nil, take, i, j)}, nil)
	return g
}
