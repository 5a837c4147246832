package pass

import (
	"fmt"

	"mix/lower/ir"
)

// constrain removes the axis notes of the model, composites mix.constrain of one operand and one
// result. A mesh of several devices is refused: notes would have to become shardings there.
//
// After: no mix.constrain is left; every value keeps its type.
func constrain(m *ir.Module, ctx Context) (changed bool, err error) {
	return rewrite(m, "mix.constrain", func(_ ir.Builder, op *ir.Op) ([]*ir.Value, error) {
		if ctx.Devices > 1 {
			return nil, fmt.Errorf("note on %v: a mesh of %d devices is not supported, wanted one device", ir.Types(op.Operands), ctx.Devices)
		}
		if len(op.Operands) != 1 || len(op.Results) != 1 || op.Operands[0].Type != op.Results[0].Type {
			return nil, fmt.Errorf("of %v gives %v, wanted one value and the same", ir.Types(op.Operands), ir.Types(op.Results))
		}
		return op.Operands, nil
	})
}
