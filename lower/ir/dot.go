package ir

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Dot holds the axes of a dot_general's sides: batch and contracted axes in pairs, free ones in order.
type Dot struct {
	LeftBatch, LeftContracted, LeftFree    []int
	RightBatch, RightContracted, RightFree []int
}

// ReadDot reads the axes of a dot_general of ranked tensors of static sizes. It fails unless the axes of
// each side are in range and distinct, paired ones are of equal size, and the result has the batch axes,
// then the free ones of the left side, then those of the right.
func ReadDot(op *Op) (d Dot, err error) {
	if err := arity(op, 2, 1); err != nil {
		return d, err
	}
	_, left, ok := op.Operands[0].Type.Split()
	_, right, ok2 := op.Operands[1].Type.Split()
	_, out, ok3 := op.Results[0].Type.Split()
	if !ok || !ok2 || !ok3 {
		return d, fmt.Errorf("of %v gives %s, wanted tensors of static sizes", Types(op.Operands), op.Results[0].Type)
	}
	numbers := op.Attrs["dot_dimension_numbers"]
	if !strings.HasPrefix(string(numbers), "#stablehlo.dot<") {
		return d, fmt.Errorf("dot_dimension_numbers is %q, wanted #stablehlo.dot<…>", numbers)
	}
	for _, f := range d.fields() {
		if *f.axes, ok = numbers.Field(f.name); !ok && strings.Contains(string(numbers), f.name) {
			return d, fmt.Errorf("dot_dimension_numbers is %s, wanted a list of axes as %s", numbers, f.name)
		}
	}
	d.LeftFree, err = freeAxes(left, d.LeftBatch, d.LeftContracted)
	if err == nil {
		d.RightFree, err = freeAxes(right, d.RightBatch, d.RightContracted)
	}
	if err == nil {
		err = d.check(left, right, out)
	}
	if err != nil {
		return d, fmt.Errorf("of %s and %s by %s gives %s: %w", op.Operands[0].Type, op.Operands[1].Type, numbers, op.Results[0].Type, err)
	}
	return d, nil
}

// check compares sizes; the axes are in range.
func (d Dot) check(left, right, out []int) error {
	want := slices.Concat(pick(left, d.LeftBatch), pick(left, d.LeftFree), pick(right, d.RightFree))
	switch {
	case !slices.Equal(pick(left, d.LeftBatch), pick(right, d.RightBatch)):
		return errors.New("the batch axes disagree")
	case !slices.Equal(pick(left, d.LeftContracted), pick(right, d.RightContracted)):
		return errors.New("the contracted axes disagree")
	case !slices.Equal(want, out):
		return fmt.Errorf("the sizes left over are %v", want)
	}
	return nil
}

// Attr writes the axes; free ones go without saying.
func (d Dot) Attr() Attr {
	var parts []string
	for _, f := range d.fields() {
		if len(*f.axes) > 0 {
			parts = append(parts, fmt.Sprintf("%s = [%s]", f.name, join(*f.axes)))
		}
	}
	return Attr("#stablehlo.dot<" + strings.Join(parts, ", ") + ">")
}

type dotField struct {
	name string
	axes *[]int
}

func (d *Dot) fields() []dotField {
	return []dotField{
		{"lhs_batching_dimensions", &d.LeftBatch}, {"rhs_batching_dimensions", &d.RightBatch},
		{"lhs_contracting_dimensions", &d.LeftContracted}, {"rhs_contracting_dimensions", &d.RightContracted},
	}
}

// freeAxes are the axes that are neither batch nor contracted.
func freeAxes(dims, batch, contracted []int) (axes []int, err error) {
	taken := make([]bool, len(dims))
	for _, a := range slices.Concat(batch, contracted) {
		if a < 0 || a >= len(dims) {
			return nil, fmt.Errorf("axis %d, wanted 0 to %d", a, len(dims)-1)
		}
		if taken[a] {
			return nil, fmt.Errorf("axis %d is named twice", a)
		}
		taken[a] = true
	}
	for a, t := range taken {
		if !t {
			axes = append(axes, a)
		}
	}
	return axes, nil
}

// pick takes the sizes of axes, which are in range.
func pick(dims, axes []int) []int {
	sizes := make([]int, len(axes))
	for i, a := range axes {
		sizes[i] = dims[a]
	}
	return sizes
}

// dotRule checks what ReadDot does, where the sizes are static.
func dotRule(op *Op) error {
	if err := arity(op, 2, 1); err != nil {
		return err
	}
	for _, t := range append(Types(op.Operands), op.Results[0].Type) {
		if _, _, ok := t.Split(); !ok {
			return nil
		}
	}
	_, err := ReadDot(op)
	return err
}
