package ir

import (
	"fmt"
	"strconv"
)

// Builder appends StableHLO operations to a region and infers their types. Operands must be ranked
// tensors of static sizes that fit together: a Builder is for rewrites that have checked their
// input, and panics when they have not.
type Builder struct{ Region *Region }

// At makes a builder that appends to r.
func At(r *Region) Builder { return Builder{r} }

// shape takes a tensor type apart.
func shape(v *Value) (elem string, dims []int) {
	elem, dims, ok := v.Type.Split()
	if !ok {
		panic("ir: build on " + string(v.Type) + ", wanted a tensor of static sizes")
	}
	return elem, dims
}

// Emit appends any operation of the stablehlo dialect with one result.
func (b Builder) Emit(name string, attrs Attrs, result Type, operands ...*Value) *Value {
	return b.Region.Emit("stablehlo."+name, operands, attrs, result).Result()
}

// Const is a tensor that holds value everywhere, written as MLIR writes it: "1", "0.0", "true".
func (b Builder) Const(t Type, value string) *Value {
	return b.Emit("constant", Attrs{"value": Attr("dense<" + value + "> : " + string(t))}, t)
}

// Index is an i32 scalar.
func (b Builder) Index(i int) *Value { return b.Const("tensor<i32>", strconv.Itoa(i)) }

// Iota counts along axis.
func (b Builder) Iota(axis int, elem string, dims ...int) *Value {
	return b.Emit("iota", Attrs{"iota_dimension": Int(axis)}, Tensor(elem, dims...))
}

// Unary is an elementwise operation that keeps the type, e.g. "logistic".
func (b Builder) Unary(name string, x *Value) *Value { return b.Emit(name, nil, x.Type, x) }

// Binary is an elementwise operation of two equal types, e.g. "maximum".
func (b Builder) Binary(name string, x, y *Value) *Value { return b.Emit(name, nil, x.Type, x, y) }

// Add is x + y, element by element.
func (b Builder) Add(x, y *Value) *Value { return b.Binary("add", x, y) }

// Mul is x · y, element by element.
func (b Builder) Mul(x, y *Value) *Value { return b.Binary("multiply", x, y) }

// Div is x / y, for integers rounded towards zero.
func (b Builder) Div(x, y *Value) *Value { return b.Binary("divide", x, y) }

// Compare compares by direction EQ, NE, GE, GT, LE or LT.
func (b Builder) Compare(direction string, x, y *Value) *Value {
	_, dims := shape(x)
	attr := Attr("#stablehlo<comparison_direction " + direction + ">")
	return b.Emit("compare", Attrs{"comparison_direction": attr}, Tensor("i1", dims...), x, y)
}

// Select is x where which holds, else y; which is of their sizes or a scalar.
func (b Builder) Select(which, x, y *Value) *Value { return b.Emit("select", nil, x.Type, which, x, y) }

// Convert changes the element type; x itself if it has it already.
func (b Builder) Convert(x *Value, elem string) *Value {
	have, dims := shape(x)
	if have == elem {
		return x
	}
	return b.Emit("convert", nil, Tensor(elem, dims...), x)
}

// Reshape keeps the elements in row-major order.
func (b Builder) Reshape(x *Value, dims ...int) *Value {
	elem, _ := shape(x)
	return b.Emit("reshape", nil, Tensor(elem, dims...), x)
}

// Broadcast repeats x to dims; axis i of x becomes axis along[i].
func (b Builder) Broadcast(x *Value, dims []int, along ...int) *Value {
	elem, _ := shape(x)
	return b.Emit("broadcast_in_dim", Attrs{"broadcast_dimensions": Ints(along...)}, Tensor(elem, dims...), x)
}

// Slice is the box from start up to limit.
func (b Builder) Slice(x *Value, start, limit []int) *Value {
	elem, _ := shape(x)
	dims, strides := make([]int, len(start)), make([]int, len(start))
	for i := range start {
		dims[i], strides[i] = limit[i]-start[i], 1
	}
	attrs := Attrs{"start_indices": Ints(start...), "limit_indices": Ints(limit...), "strides": Ints(strides...)}
	return b.Emit("slice", attrs, Tensor(elem, dims...), x)
}

// Concat joins along axis.
func (b Builder) Concat(axis int, xs ...*Value) *Value {
	elem, dims := shape(xs[0])
	dims = append([]int(nil), dims...)
	dims[axis] = 0
	for _, x := range xs {
		_, d := shape(x)
		dims[axis] += d[axis]
	}
	return b.Emit("concatenate", Attrs{"dimension": Int(axis)}, Tensor(elem, dims...), xs...)
}

// DynamicSlice is the box of the given sizes at starts, one i32 scalar an axis; a box that sticks
// out is moved inside.
func (b Builder) DynamicSlice(x *Value, starts []*Value, sizes ...int) *Value {
	elem, _ := shape(x)
	operands := append([]*Value{x}, starts...)
	return b.Emit("dynamic_slice", Attrs{"slice_sizes": Ints(sizes...)}, Tensor(elem, sizes...), operands...)
}

// DynamicUpdate is x with part written over the box at starts.
func (b Builder) DynamicUpdate(x, part *Value, starts ...*Value) *Value {
	return b.Emit("dynamic_update_slice", nil, x.Type, append([]*Value{x, part}, starts...)...)
}

// Dot contracts axis i of x with axis j of y and gives elements of elem, the axes of x first.
func (b Builder) Dot(x *Value, i int, y *Value, j int, elem string) *Value {
	_, xd := shape(x)
	_, yd := shape(y)
	var dims []int
	dims = append(append(dims, xd[:i]...), xd[i+1:]...)
	dims = append(append(dims, yd[:j]...), yd[j+1:]...)
	numbers := Dot{LeftContracted: []int{i}, RightContracted: []int{j}}.Attr()
	return b.Emit("dot_general", Attrs{"dot_dimension_numbers": numbers}, Tensor(elem, dims...), x, y)
}

// Rows gathers x[rows[r], …], whole slices along the first axis, by an i32 vector. Rows beyond the
// ends are clamped.
func (b Builder) Rows(x, rows *Value) *Value {
	elem, dims := shape(x)
	_, n := shape(rows)
	sizes := append([]int{1}, dims[1:]...)
	numbers := fmt.Sprintf("#stablehlo.gather<offset_dims = [%s], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>",
		behindFirst(len(dims)))
	attrs := Attrs{"dimension_numbers": Attr(numbers), "slice_sizes": Ints(sizes...), "indices_are_sorted": Bool(false)}
	return b.Emit("gather", attrs, Tensor(elem, append([]int{n[0]}, dims[1:]...)...), x, rows)
}

// behindFirst lists the axes of a tensor but the first.
func behindFirst(rank int) string {
	axes := make([]int, rank-1)
	for i := range axes {
		axes[i] = i + 1
	}
	return join(axes)
}

// folding is a region that makes one of two scalars, by an elementwise operation.
func folding(op, elem string) *Region {
	r := NewRegion(Tensor(elem), Tensor(elem))
	in := At(r)
	in.Return(in.Binary(op, r.Args[0], r.Args[1]))
	return r
}

// Reduce folds axis with an elementwise operation that has init as its neutral value.
func (b Builder) Reduce(op string, x *Value, init string, axis int) *Value {
	elem, dims := shape(x)
	out := append(append([]int(nil), dims[:axis]...), dims[axis+1:]...)
	red := NewOp("stablehlo.reduce", []*Value{x, b.Const(Tensor(elem), init)}, Attrs{"dimensions": Ints(axis)}, Tensor(elem, out...))
	red.Regions = []*Region{folding(op, elem)}
	return b.Region.Add(red).Result()
}

// SortBy sorts key ascending along its only axis, equal keys in their old order, and moves values
// with it. All are vectors of one length.
func (b Builder) SortBy(key, values *Value) (sorted, moved *Value) {
	k, _ := shape(key)
	v, _ := shape(values)
	r := NewRegion(Tensor(k), Tensor(k), Tensor(v), Tensor(v))
	in := At(r)
	in.Return(in.Compare("LT", r.Args[0], r.Args[1]))
	op := NewOp("stablehlo.sort", []*Value{key, values}, Attrs{"dimension": Int(0), "is_stable": Bool(true)}, key.Type, values.Type)
	op.Regions = []*Region{r}
	b.Region.Add(op)
	return op.Results[0], op.Results[1]
}

// Return ends a region that is not a function's.
func (b Builder) Return(vs ...*Value) { b.Region.Emit("stablehlo.return", vs, nil) }

// While repeats body as long as cond holds of what the loop carries.
func (b Builder) While(init []*Value, cond func(b Builder, vs []*Value) *Value, body func(b Builder, vs []*Value) []*Value) []*Value {
	types := Types(init)
	test, step := NewRegion(types...), NewRegion(types...)
	t, s := At(test), At(step)
	t.Return(cond(t, test.Args))
	s.Return(body(s, step.Args)...)
	op := NewOp("stablehlo.while", init, nil, types...)
	op.Regions = []*Region{test, step}
	return b.Region.Add(op).Results
}

// Case runs branch number index, an i32 scalar, of n; all give one value of type t. An index out of
// range runs the last.
func (b Builder) Case(index *Value, n int, t Type, branch func(b Builder, i int) *Value) *Value {
	op := NewOp("stablehlo.case", []*Value{index}, nil, t)
	for i := range n {
		r := NewRegion()
		in := At(r)
		in.Return(branch(in, i))
		op.Regions = append(op.Regions, r)
	}
	return b.Region.Add(op).Result()
}
