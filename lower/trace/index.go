package trace

import (
	"fmt"

	"mix/lower/ir"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapeinference"
	"github.com/gomlx/compute/shapes"
)

// Gather reads slices of operand at startIndices. Indices outside are clamped.
func (f *Function) Gather(operand, startIndices compute.Value, indexVectorAxis int,
	offsetOutputAxes, collapsedSliceAxes, startIndexMap, sliceSizes []int, indicesAreSorted bool) (compute.Value, error) {
	a, at, err := f.input2("Gather", operand, startIndices)
	if err != nil {
		return nil, err
	}
	shape, err := shapeinference.Gather(a.shape, at.shape, indexVectorAxis, offsetOutputAxes, collapsedSliceAxes, startIndexMap, sliceSizes, indicesAreSorted)
	if err != nil {
		return nil, err
	}
	numbers := fmt.Sprintf("#stablehlo.gather<offset_dims = %s, collapsed_slice_dims = %s, start_index_map = %s, index_vector_dim = %d>",
		list(offsetOutputAxes), list(collapsedSliceAxes), list(startIndexMap), indexVectorAxis)
	return result(f.emit("stablehlo.gather", shape, ir.Attrs{
		"dimension_numbers": ir.Attr(numbers), "slice_sizes": ir.Ints(sliceSizes...), "indices_are_sorted": ir.Bool(indicesAreSorted)}, a, at))
}

// ScatterSum adds updates to operand at scatterIndices; ScatterMax and ScatterMin keep the extreme.
// Updates that do not fit inside operand are dropped.
func (f *Function) ScatterSum(operand, scatterIndices, updates compute.Value, indexVectorAxis int,
	updateWindowAxes, insertedWindowAxes, scatterAxesToOperandAxes []int, indicesAreSorted, uniqueIndices bool) (compute.Value, error) {
	return f.scatter(reduceSum, operand, scatterIndices, updates, indexVectorAxis,
		updateWindowAxes, insertedWindowAxes, scatterAxesToOperandAxes, indicesAreSorted, uniqueIndices)
}

func (f *Function) ScatterMax(operand, scatterIndices, updates compute.Value, indexVectorAxis int,
	updateWindowAxes, insertedWindowAxes, scatterAxesToOperandAxes []int, indicesAreSorted, uniqueIndices bool) (compute.Value, error) {
	return f.scatter(reduceMax, operand, scatterIndices, updates, indexVectorAxis,
		updateWindowAxes, insertedWindowAxes, scatterAxesToOperandAxes, indicesAreSorted, uniqueIndices)
}

func (f *Function) ScatterMin(operand, scatterIndices, updates compute.Value, indexVectorAxis int,
	updateWindowAxes, insertedWindowAxes, scatterAxesToOperandAxes []int, indicesAreSorted, uniqueIndices bool) (compute.Value, error) {
	return f.scatter(reduceMin, operand, scatterIndices, updates, indexVectorAxis,
		updateWindowAxes, insertedWindowAxes, scatterAxesToOperandAxes, indicesAreSorted, uniqueIndices)
}

func (f *Function) scatter(r reduction, operand, indices, updates compute.Value, indexVectorAxis int,
	updateWindowAxes, insertedWindowAxes, scatterAxesToOperandAxes []int, sorted, unique bool) (compute.Value, error) {
	vs, err := f.inputs("Scatter", operand, indices, updates)
	if err != nil {
		return nil, err
	}
	a, at, up := vs[0], vs[1], vs[2]
	if up.shape.DType != a.shape.DType {
		return nil, fmt.Errorf("trace: Scatter of %s into %s, want one dtype", up.shape, a.shape)
	}
	shape, err := shapeinference.Scatter(a.shape, at.shape, up.shape, indexVectorAxis, updateWindowAxes, insertedWindowAxes, scatterAxesToOperandAxes)
	if err != nil {
		return nil, err
	}
	numbers := fmt.Sprintf("#stablehlo.scatter<update_window_dims = %s, inserted_window_dims = %s, scatter_dims_to_operand_dims = %s, index_vector_dim = %d>",
		list(updateWindowAxes), list(insertedWindowAxes), list(scatterAxesToOperandAxes), indexVectorAxis)
	out, err := f.emitN("stablehlo.scatter", []shapes.Shape{shape}, ir.Attrs{
		"scatter_dimension_numbers": ir.Attr(numbers), "indices_are_sorted": ir.Bool(sorted), "unique_indices": ir.Bool(unique),
	}, []*ir.Region{r.body(a.shape.DType)}, a, at, up)
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// DynamicSlice takes sliceDims elements from startIndices on, one scalar an axis or one vector for
// all, clamped to fit.
func (f *Function) DynamicSlice(operand compute.Value, startIndices []compute.Value, sliceDims []int) (compute.Value, error) {
	vs, err := f.inputs("DynamicSlice", append([]compute.Value{operand}, startIndices...)...)
	if err != nil {
		return nil, err
	}
	starts, err := f.starts("DynamicSlice", vs[0], vs[1:])
	if err != nil {
		return nil, err
	}
	shape, err := shapeinference.DynamicSlice(vs[0].shape, sliceDims)
	if err != nil {
		return nil, err
	}
	return result(f.emit("stablehlo.dynamic_slice", shape, ir.Attrs{"slice_sizes": ir.Ints(sliceDims...)}, append(vs[:1:1], starts...)...))
}

// DynamicUpdateSlice is operand with update written at startIndices, clamped to fit.
func (f *Function) DynamicUpdateSlice(operand, update compute.Value, startIndices []compute.Value) (compute.Value, error) {
	vs, err := f.inputs("DynamicUpdateSlice", append([]compute.Value{operand, update}, startIndices...)...)
	if err != nil {
		return nil, err
	}
	starts, err := f.starts("DynamicUpdateSlice", vs[0], vs[2:])
	if err != nil {
		return nil, err
	}
	shape, err := shapeinference.DynamicUpdateSlice(vs[0].shape, vs[1].shape)
	if err != nil {
		return nil, err
	}
	if vs[0].shape.DType != vs[1].shape.DType || vs[0].shape.Rank() != vs[1].shape.Rank() {
		return nil, fmt.Errorf("trace: DynamicUpdateSlice of %s into %s, want one dtype and rank", vs[1].shape, vs[0].shape)
	}
	for i, d := range vs[1].shape.Dimensions {
		if d > vs[0].shape.Dimensions[i] {
			return nil, fmt.Errorf("trace: DynamicUpdateSlice of %s into %s: axis %d does not fit", vs[1].shape, vs[0].shape, i)
		}
	}
	return result(f.emit("stablehlo.dynamic_update_slice", shape, nil, append(vs[:2:2], starts...)...))
}

// starts checks the start indices of a and takes a vector of them apart.
func (f *Function) starts(op string, a *value, starts []*value) ([]*value, error) {
	rank := a.shape.Rank()
	if len(starts) == 1 && starts[0].shape.Rank() == 1 && starts[0].shape.Dimensions[0] == rank {
		all := starts[0]
		starts = make([]*value, rank)
		for i := range starts {
			one, err := f.Slice(all, []int{i}, []int{i + 1}, nil)
			if err != nil {
				return nil, err
			}
			if one, err = f.Reshape(one); err != nil {
				return nil, err
			}
			starts[i] = one.(*value)
		}
	}
	if len(starts) != rank {
		return nil, fmt.Errorf("trace: %s of %s at %d indices, want one an axis", op, a.shape, len(starts))
	}
	for i, s := range starts {
		if !s.shape.IsScalar() || !s.shape.DType.IsInt() || s.shape.DType != starts[0].shape.DType {
			return nil, fmt.Errorf("trace: %s of %s with start %d of %s, want integer scalars of one dtype", op, a.shape, i, s.shape)
		}
	}
	return starts, nil
}
