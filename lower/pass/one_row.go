package pass

import (
	"fmt"
	"slices"
	"strings"

	"mix/lower/ir"
)

// oneRow turns products of a single row on the left around, where elements are bf16 or f16: the right
// side comes to the left, and the row, doubled, to the right.
//
// For one such row XLA's CPU backend converts the whole right side to f32 in memory, and for two it
// repacks it: a matrix [4096, 4096] then takes 17 ms and 1.8 ms. On the left it is read as it lies, 0.85
// ms. In f32 a single row is read at memory speed, and from two rows on the sides make no difference.
//
// After: on cpu every dot_general of bf16 or f16 has at least two rows on either side that has an axis
// for rows. Values keep their types.
func oneRow(m *ir.Module, ctx Context) (changed bool, err error) {
	if ctx.Platform != "cpu" {
		return false, nil
	}
	return rewriteOps(m, "stablehlo.dot_general", hasOneRow, turnAround)
}

func turnAround(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
	left, right, out := op.Operands[0], op.Operands[1], op.Results[0]
	d := readDot(op)
	elem, dims, _ := out.Type.Split()
	_, rightDims, _ := right.Type.Split()
	var y []int // batch, free axes of the right side, free axes of the left side
	for _, a := range append(slices.Clone(d.rightBatch), free(rightDims, d.rightBatch, d.rightContracted)...) {
		y = append(y, rightDims[a])
	}
	rows := free(leftDims(op), d.leftBatch, d.leftContracted)
	for range rows {
		y = append(y, 1)
	}
	single, at := slices.Clone(y), len(y)-len(rows)
	y[at] = 2
	attrs := ir.Attrs{}
	for k, v := range op.Attrs {
		attrs[k] = v
	}
	attrs["dot_dimension_numbers"] = dot{d.rightBatch, d.leftBatch, d.rightContracted, d.leftContracted}.attr()
	turned := b.Region.Add(ir.NewOp(op.Name, []*ir.Value{right, b.Concat(rows[0], left, left)}, attrs, ir.Tensor(elem, y...)))
	first := b.Slice(turned.Result(), make([]int, len(y)), single)
	return []*ir.Value{b.Reshape(first, dims...)}, nil // the rows that moved are of size 1
}

// hasOneRow tells whether op is a product of a single row of bf16 or f16 with several of the other side.
func hasOneRow(op *ir.Op) bool {
	if op.Name != "stablehlo.dot_general" || len(op.Operands) != 2 {
		return false
	}
	elem, dims, ok := op.Operands[0].Type.Split()
	_, rightDims, ok2 := op.Operands[1].Type.Split()
	if !ok || !ok2 || elem != "bf16" && elem != "f16" {
		return false
	}
	d := readDot(op)
	rows := free(dims, d.leftBatch, d.leftContracted)
	columns := free(rightDims, d.rightBatch, d.rightContracted)
	return len(rows) > 0 && product(dims, rows) == 1 && product(rightDims, columns) > 1
}

func leftDims(op *ir.Op) []int {
	_, dims, _ := op.Operands[0].Type.Split()
	return dims
}

func product(dims, axes []int) int {
	n := 1
	for _, a := range axes {
		n *= dims[a]
	}
	return n
}

// free are the axes that are neither batch nor contracted.
func free(dims, batch, contracted []int) (axes []int) {
	for a := range dims {
		if !slices.Contains(batch, a) && !slices.Contains(contracted, a) {
			axes = append(axes, a)
		}
	}
	return axes
}

// dot is a dot_general's dimension numbers.
type dot struct{ leftBatch, rightBatch, leftContracted, rightContracted []int }

func readDot(op *ir.Op) (d dot) {
	for name, to := range d.fields() {
		*to, _ = op.Attrs["dot_dimension_numbers"].Field(name)
	}
	return d
}

func (d *dot) fields() map[string]*[]int {
	return map[string]*[]int{"lhs_batching_dimensions": &d.leftBatch, "rhs_batching_dimensions": &d.rightBatch,
		"lhs_contracting_dimensions": &d.leftContracted, "rhs_contracting_dimensions": &d.rightContracted}
}

func (d dot) attr() ir.Attr {
	var parts []string
	fields := d.fields()
	for _, name := range []string{"lhs_batching_dimensions", "rhs_batching_dimensions", "lhs_contracting_dimensions", "rhs_contracting_dimensions"} {
		if axes := *fields[name]; len(axes) > 0 {
			parts = append(parts, fmt.Sprintf("%s = [%s]", name, strings.Join(strings.Fields(strings.Trim(fmt.Sprint(axes), "[]")), ", ")))
		}
	}
	s := strings.Join(parts, ", ")
	return ir.Attr("#stablehlo.dot<" + s + ">")
}
