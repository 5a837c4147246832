package ir

import (
	"strconv"
	"strings"
)

// CumSum adds up along axis: element i of the result is the sum of the elements up to and including i. XLA rewrites a
// window as long as the axis to a parallel prefix sum.
func (b Builder) CumSum(x *Value, axis int) *Value {
	elem, dims := shape(x)
	n := len(dims)
	ones, window := make([]int, n), make([]int, n)
	for i := range dims {
		ones[i], window[i] = 1, 1
	}
	window[axis] = dims[axis]
	padding := "dense<["
	for i := range dims {
		if i > 0 {
			padding += ", "
		}
		padding += "[" + strconv.Itoa(window[i]-1) + ", 0]"
	}
	padding += "]> : " + string(Tensor("i64", n, 2))
	scalar := Tensor(elem)
	r := NewRegion(scalar, scalar)
	in := At(r)
	in.Return(in.Add(r.Args[0], r.Args[1]))
	op := NewOp("stablehlo.reduce_window", []*Value{x, b.Const(scalar, "0")}, Attrs{
		"window_dimensions": Ints(window...), "window_strides": Ints(ones...),
		"base_dilations": Ints(ones...), "window_dilations": Ints(ones...), "padding": Attr(padding),
	}, x.Type)
	op.Regions = []*Region{r}
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
		window := make([]string, len(dims)-1)
		for i := range window {
			window[i] = strconv.Itoa(i + 1)
		}
		numbers = "update_window_dims = [" + strings.Join(window, ", ") + "], " + numbers
	}
	op := NewOp("stablehlo.scatter", []*Value{x, at, rows}, Attrs{
		"scatter_dimension_numbers": Attr("#stablehlo.scatter<" + numbers + ">"), "indices_are_sorted": Bool(false), "unique_indices": Bool(true),
	}, x.Type)
	op.Regions = []*Region{r}
	return b.Region.Add(op).Result()
}
