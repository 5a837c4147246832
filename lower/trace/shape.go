package trace

import (
	"fmt"
	"slices"

	"mix/lower/ir"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapeinference"
	"github.com/gomlx/compute/shapes"
)

// Identity is another name for x.
func (f *Function) Identity(x compute.Value) (compute.Value, error) {
	return result(f.input("Identity", x))
}

// ConvertDType rounds or widens each element to dtype.
func (f *Function) ConvertDType(x compute.Value, dtype dtypes.DType) (compute.Value, error) {
	a, err := f.input("ConvertDType", x)
	if err != nil {
		return nil, err
	}
	if a.shape.DType == dtype {
		return a, nil
	}
	if a.shape.DType.IsComplex() && !dtype.IsComplex() && dtype != dtypes.Bool {
		re, err := f.Real(a) // StableHLO does not say what a converted imaginary part is
		if err != nil {
			return nil, err
		}
		return f.ConvertDType(re, dtype)
	}
	return result(f.emit("stablehlo.convert", withDType(a.shape, dtype), nil, a))
}

// Bitcast reads the bits of x as dtype; a change of width adds or removes a last axis.
func (f *Function) Bitcast(x compute.Value, dtype dtypes.DType) (compute.Value, error) {
	a, err := f.input("Bitcast", x)
	if err != nil {
		return nil, err
	}
	if a.shape.DType == dtype {
		return a, nil
	}
	if a.shape.IsScalar() && a.shape.DType.Bits() < dtype.Bits() {
		return nil, fmt.Errorf("trace: Bitcast of scalar %s to %s, want a last axis to join", a.shape, dtype)
	}
	shape, err := shapeinference.Bitcast(a.shape, dtype)
	if err != nil {
		return nil, err
	}
	return result(f.emit("stablehlo.bitcast_convert", shape, nil, a))
}

// BroadcastInDim repeats x into outputShape, axis i of x becoming axis broadcastAxes[i].
func (f *Function) BroadcastInDim(x compute.Value, outputShape shapes.Shape, broadcastAxes []int) (compute.Value, error) {
	a, err := f.input("BroadcastInDim", x)
	if err != nil {
		return nil, err
	}
	if err := shapeinference.BroadcastInDim(a.shape, outputShape, broadcastAxes, nil); err != nil {
		return nil, err
	}
	out := withDType(outputShape, a.shape.DType)
	return result(f.emit("stablehlo.broadcast_in_dim", out, ir.Attrs{"broadcast_dimensions": ir.Ints(broadcastAxes...)}, a))
}

// Reshape keeps the elements in row-major order under other dimensions.
func (f *Function) Reshape(x compute.Value, dimensions ...int) (compute.Value, error) {
	a, err := f.input("Reshape", x)
	if err != nil {
		return nil, err
	}
	shape, err := shapeinference.Reshape(a.shape, dimensions)
	if err != nil {
		return nil, err
	}
	if slices.Equal(shape.Dimensions, a.shape.Dimensions) {
		return a, nil
	}
	return result(f.emit("stablehlo.reshape", shape, nil, a))
}

// Transpose orders the axes: axis i of the result is axis permutation[i] of x.
func (f *Function) Transpose(x compute.Value, permutation ...int) (compute.Value, error) {
	a, err := f.input("Transpose", x)
	if err != nil {
		return nil, err
	}
	shape, err := shapeinference.Transpose(a.shape, permutation)
	if err != nil {
		return nil, err
	}
	return result(f.emit("stablehlo.transpose", shape, ir.Attrs{"permutation": ir.Ints(permutation...)}, a))
}

// Reverse turns the given axes around.
func (f *Function) Reverse(x compute.Value, axes ...int) (compute.Value, error) {
	a, err := f.input("Reverse", x)
	if err != nil {
		return nil, err
	}
	if err := checkAxes("Reverse", a.shape, axes); err != nil {
		return nil, err
	}
	return result(f.emit("stablehlo.reverse", a.shape, ir.Attrs{"dimensions": ir.Ints(axes...)}, a))
}

// checkAxes refuses axes out of range or given twice.
func checkAxes(op string, s shapes.Shape, axes []int) error {
	for i, a := range axes {
		if a < 0 || a >= s.Rank() {
			return fmt.Errorf("trace: %s of axis %d of %s, want 0 ≤ axis < %d", op, a, s, s.Rank())
		}
		if slices.Contains(axes[:i], a) {
			return fmt.Errorf("trace: %s names axis %d of %s twice", op, a, s)
		}
	}
	return nil
}

// Concatenate joins the operands along axis.
func (f *Function) Concatenate(axis int, operands ...compute.Value) (compute.Value, error) {
	vs, err := f.inputs("Concatenate", operands...)
	if err != nil {
		return nil, err
	}
	in := make([]shapes.Shape, len(vs))
	for i, v := range vs {
		in[i] = v.shape
	}
	shape, err := shapeinference.Concatenate(in, axis)
	if err != nil {
		return nil, err
	}
	if len(vs) == 1 {
		return vs[0], nil
	}
	return result(f.emit("stablehlo.concatenate", shape, ir.Attrs{"dimension": ir.Int(axis)}, vs...))
}

// Slice takes elements starts ≤ i < limits of each axis, every strides-th.
func (f *Function) Slice(x compute.Value, starts, limits, strides []int) (compute.Value, error) {
	a, err := f.input("Slice", x)
	if err != nil {
		return nil, err
	}
	limits = slices.Clone(limits)
	for i, l := range limits {
		if l == shapes.DynamicDim && i < a.shape.Rank() {
			limits[i] = a.shape.Dimensions[i]
		}
	}
	if len(strides) == 0 {
		strides = filled(a.shape.Rank(), 1)
	}
	shape, err := shapeinference.Slice(a.shape, starts, limits, strides)
	if err != nil {
		return nil, err
	}
	return result(f.emit("stablehlo.slice", shape, ir.Attrs{
		"start_indices": ir.Ints(starts...), "limit_indices": ir.Ints(limits...), "strides": ir.Ints(strides...)}, a))
}

// Pad puts fillValue before, after and between the elements of each axis.
func (f *Function) Pad(x, fillValue compute.Value, axesConfig ...compute.PadAxis) (compute.Value, error) {
	a, fill, err := f.input2("Pad", x, fillValue)
	if err != nil {
		return nil, err
	}
	if !fill.shape.IsScalar() || fill.shape.DType != a.shape.DType {
		return nil, fmt.Errorf("trace: Pad of %s with %s, want a scalar of its dtype", a.shape, fill.shape)
	}
	shape, err := shapeinference.Pad(a.shape, axesConfig...)
	if err != nil {
		return nil, err
	}
	rank := a.shape.Rank()
	low, high, inner := make([]int, rank), make([]int, rank), make([]int, rank)
	for i, c := range axesConfig {
		low[i], high[i], inner[i] = c.Start, c.End, c.Interior
	}
	return result(f.emit("stablehlo.pad", shape, ir.Attrs{
		"edge_padding_low": ir.Ints(low...), "edge_padding_high": ir.Ints(high...), "interior_padding": ir.Ints(inner...)}, a, fill))
}

// Iota counts from 0 along iotaAxis.
func (f *Function) Iota(shape shapes.Shape, iotaAxis int) (compute.Value, error) {
	if f.returned {
		return nil, fmt.Errorf("trace: Iota in %s, which has returned", f)
	}
	if iotaAxis < 0 || iotaAxis >= shape.Rank() {
		return nil, fmt.Errorf("trace: Iota along axis %d of %s, want 0 ≤ axis < %d", iotaAxis, shape, shape.Rank())
	}
	return result(f.iota(shape, iotaAxis))
}

func (f *Function) iota(shape shapes.Shape, axis int) (*value, error) {
	return f.emit("stablehlo.iota", shape, ir.Attrs{"iota_dimension": ir.Int(axis)})
}

func filled(n, v int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = v
	}
	return s
}

// OptimizationBarrier returns its operands and keeps XLA from moving work across.
func (f *Function) OptimizationBarrier(operands ...compute.Value) ([]compute.Value, error) {
	vs, err := f.inputs("OptimizationBarrier", operands...)
	if err != nil || len(vs) == 0 {
		return nil, err
	}
	in := make([]shapes.Shape, len(vs))
	for i, v := range vs {
		in[i] = v.shape
	}
	out, err := f.emitN("stablehlo.optimization_barrier", in, nil, nil, vs...)
	if err != nil {
		return nil, err
	}
	return values(out), nil
}

// SchedulingBarrier returns operand, made to wait for the dependencies.
func (f *Function) SchedulingBarrier(operand compute.Value, dependencies ...compute.Value) (compute.Value, error) {
	out, err := f.OptimizationBarrier(append([]compute.Value{operand}, dependencies...)...)
	if err != nil {
		return nil, err
	}
	return out[0], nil
}
