package pass

import (
	"maps"
	"slices"
	"strings"

	"mix/lower/ir"
	"mix/lower/target"
	"mix/sharding/axis"
)

// oneRow turns products of a single row on the left around on the CPU, where elements are bf16 or f16: the right
// side comes to the left, and the row, doubled, to the right.
//
// For one such row XLA's CPU backend converts the whole right side to f32 in memory, and for two it
// repacks it: a matrix [4096, 4096] then takes 17 ms and 1.8 ms. On the left it is read as it lies, 0.85
// ms. In f32 a single row is read at memory speed, and from two rows on the sides make no difference.
//
// XLA's CUDA backend converts the whole right side too. There a large one meets the row eight times over, of which cuBLAS makes a
// product of bf16; fewer rows it would pad to as many in a kernel of its own. Where the program is one device's work, the pass
// few_rows has a kernel for it.
//
// After: on cpu no dot_general of bf16 or f16 has one row on the left and several columns on the right. A
// row against a single column is left alone, there is no matrix to read. Values keep their types.
func oneRow(m *ir.Module, ctx Context) (changed bool, err error) {
	if ctx.Platform != target.CUDA {
		return rewriteOps(m, "stablehlo.dot_general", narrowProduct, turnAround)
	}
	changed, err = rewriteOps(m, "stablehlo.dot_general", narrowProduct, repeatRow)
	if err != nil || ctx.Mesh.Devices() == 1 {
		return changed, err
	}
	gather := func(op *ir.Op) bool {
		return op.Name == "stablehlo.gather" && len(op.Operands) == 2 && len(op.Results) == 1
	}
	looked, err := rewriteOps(m, "stablehlo.gather", gather, repeatPlace)
	return changed || looked, err
}

// repeatPlace looks a single row of a table up twice: else XLA brings the whole table together where its rows are split over
// devices. It answers nil of other gathers.
func repeatPlace(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
	numbers := op.Attrs["dimension_numbers"]
	at, ok := op.Operands[1], strings.Contains(string(numbers), "index_vector_dim = ")
	gone, ok2 := numbers.Field("collapsed_slice_dims")
	offset, ok3 := numbers.Field("offset_dims")
	elem, y, ok4 := op.Results[0].Type.Split()
	places := slices.Clone(at.Dims())
	if !ok || !ok2 || !ok3 || !ok4 || !slices.Equal(gone, []int{0}) || slices.Contains(offset, 0) || len(y) == 0 || len(places) < 2 ||
		axis.Count(places) != 1 || strings.Contains(string(numbers), "index_vector_dim = 0") {
		return nil, nil
	}
	places[0], y = 2, slices.Clone(y)
	twice := slices.Clone(y)
	twice[0] = 2
	rows := b.Emit("gather", maps.Clone(op.Attrs), ir.Tensor(elem, twice...), op.Operands[0], b.Broadcast(at, places, numbered(len(places))...))
	return []*ir.Value{b.Slice(rows, make([]int, len(y)), y)}, nil
}

const (
	rowsTogether    = 8       // to so many XLA's CUDA backend pads products
	convertedWeight = 1 << 20 // elements; a smaller matrix it converts as it reads it
)

// repeatRow answers nil unless a single row meets a large matrix.
func repeatRow(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
	d, err := ir.ReadDot(op)
	if err != nil {
		return nil, err
	}
	left, right, out := op.Operands[0], op.Operands[1], op.Results[0]
	dims := slices.Clone(left.Dims())
	columns := product(right.Dims(), d.RightFree)
	if len(d.LeftBatch) > 0 || len(d.LeftFree) == 0 || product(dims, d.LeftFree) != 1 || columns < 2 || columns*product(dims, d.LeftContracted) < convertedWeight {
		return nil, nil
	}
	dims[d.LeftFree[0]] = rowsTogether
	elem, y, _ := out.Type.Split()
	all := slices.Clone(y)
	all[0] = rowsTogether
	rows := b.Broadcast(left, dims, numbered(len(dims))...)
	product := b.Region.Add(ir.NewOp(op.Name, []*ir.Value{rows, right}, maps.Clone(op.Attrs), ir.Tensor(elem, all...)))
	return []*ir.Value{b.Slice(product.Result(), make([]int, len(y)), y)}, nil
}

// narrowProduct tells whether op is a product of bf16 or f16 with static sizes.
func narrowProduct(op *ir.Op) bool {
	if op.Name != "stablehlo.dot_general" || len(op.Operands) != 2 {
		return false
	}
	elem, _, ok := op.Operands[0].Type.Split()
	_, _, ok2 := op.Operands[1].Type.Split()
	return ok && ok2 && (elem == "bf16" || elem == "f16")
}

// turnAround answers nil unless a single row meets several columns.
func turnAround(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
	d, err := ir.ReadDot(op)
	if err != nil {
		return nil, err
	}
	left, right, out := op.Operands[0], op.Operands[1], op.Results[0]
	leftDims := left.Dims()
	rightDims := right.Dims()
	if len(d.LeftFree) == 0 || product(leftDims, d.LeftFree) != 1 || product(rightDims, d.RightFree) < 2 {
		return nil, nil
	}
	var y []int // batch, free axes of the right side, free axes of the left side
	for _, a := range slices.Concat(d.RightBatch, d.RightFree) {
		y = append(y, rightDims[a])
	}
	at := len(y)
	for range d.LeftFree {
		y = append(y, 1)
	}
	single := slices.Clone(y)
	y[at] = 2
	attrs := maps.Clone(op.Attrs)
	attrs["dot_dimension_numbers"] = ir.Dot{LeftBatch: d.RightBatch, LeftContracted: d.RightContracted,
		RightBatch: d.LeftBatch, RightContracted: d.LeftContracted}.Attr()
	elem, dims, _ := out.Type.Split()
	rows := b.Concat(d.LeftFree[0], left, left)
	turned := b.Region.Add(ir.NewOp(op.Name, []*ir.Value{right, rows}, attrs, ir.Tensor(elem, y...)))
	first := b.Slice(turned.Result(), make([]int, len(y)), single)
	return []*ir.Value{b.Reshape(first, dims...)}, nil // the rows that moved are of size 1
}

// product is the number of elements along axes.
func product(dims, axes []int) int {
	n := 1
	for _, a := range axes {
		n *= dims[a]
	}
	return n
}
