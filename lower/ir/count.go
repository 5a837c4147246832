package ir

import "strconv"

// CumSum adds up along axis: element i of the result is the sum of the elements up to and including i. XLA rewrites a
// window as long as the axis to a parallel prefix sum.
func (b Builder) CumSum(x *Value, axis int) *Value {
	elem, dims := shape(x)
	n := len(dims)
	ones, window, padding := make([]int, n), make([]int, n), make([][]int, n)
	for i := range dims {
		ones[i], window[i], padding[i] = 1, 1, []int{0, 0}
	}
	window[axis], padding[axis][0] = dims[axis], dims[axis]-1
	op := NewOp("stablehlo.reduce_window", []*Value{x, b.Const(Tensor(elem), "0")}, Attrs{
		"window_dimensions": Ints(window...), "window_strides": Ints(ones...),
		"base_dilations": Ints(ones...), "window_dilations": Ints(ones...), "padding": table(padding, 2),
	}, x.Type)
	op.Regions = []*Region{folding("add", elem)}
	return b.Region.Add(op).Result()
}

// Inverse turns places around: element place[i] of the result, n of i32, is i. Places, i32, are distinct; those beyond
// the result are left out, and what none names is none.
func (b Builder) Inverse(place *Value, n, none int) *Value {
	_, dims := shape(place)
	return b.put(b.Const(Tensor("i32", n), strconv.Itoa(none)), b.Reshape(place, dims[0], 1), b.Iota(0, "i32", dims[0]))
}

// PutRows is x [N, …] with rows [P, …] in the place of its slices at [P] along the first axis, i32 and all different.
// Those beyond the ends are left out.
func (b Builder) PutRows(x, at, rows *Value) *Value {
	_, n := shape(at)
	return b.put(x, b.Reshape(at, n[0], 1), rows)
}

// put is PutRows with places [P, 1].
func (b Builder) put(x, at, rows *Value) *Value {
	elem, dims := shape(x)
	scalar := Tensor(elem)
	r := NewRegion(scalar, scalar)
	At(r).Return(r.Args[1])
	numbers := "inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1"
	if len(dims) > 1 {
		numbers = "update_window_dims = [" + behindFirst(len(dims)) + "], " + numbers
	}
	op := NewOp("stablehlo.scatter", []*Value{x, at, rows}, Attrs{
		"scatter_dimension_numbers": Attr("#stablehlo.scatter<" + numbers + ">"), "indices_are_sorted": Bool(false), "unique_indices": Bool(true),
	}, x.Type)
	op.Regions = []*Region{r}
	return b.Region.Add(op).Result()
}
