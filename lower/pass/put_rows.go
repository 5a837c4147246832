package pass

import (
	"fmt"
	"slices"

	"mix/lower/ir"
	"mix/lower/target"
)

const putRowsName = "mix.put_rows"

// putRows writes composites mix.put_rows, which is described in package composite, as the scatter that they are:
//
//	x [N, …], at [P] i32 all different, rows [P, …] → x with rows[p] at at[p]
//
// On CUDA a single row is an update of a slice, which fuses with what makes the row: of a scatter of one row XLA makes slices and
// selections of their own, for a row out of range, which there is none of.
//
// After: no mix.put_rows is left. XLA does it in place where x is not used again.
func putRows(m *ir.Module, ctx Context) (changed bool, err error) {
	return rewrite(m, putRowsName, func(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
		if len(op.Operands) != 3 || len(op.Results) != 1 {
			return nil, fmt.Errorf("%d operands and %d results, wanted 3 and 1", len(op.Operands), len(op.Results))
		}
		x, at, rows := op.Operands[0], op.Operands[1], op.Operands[2]
		elem, dims, ok := x.Type.Split()
		kind, n, ok2 := at.Type.Split()
		if !ok || !ok2 || len(dims) == 0 || len(n) != 1 || kind != "i32" || rows.Type != ir.Tensor(elem, slices.Concat(n, dims[1:])...) {
			return nil, fmt.Errorf("x %s, at %s and rows %s, wanted [N, …], [P] of i32 and [P, …]", x.Type, at.Type, rows.Type)
		}
		if ctx.Platform == target.CUDA && n[0] == 1 {
			starts := []*ir.Value{b.Reshape(at)}
			for range dims[1:] {
				starts = append(starts, b.Index(0))
			}
			return []*ir.Value{b.DynamicUpdate(x, rows, starts...)}, nil
		}
		return []*ir.Value{b.PutRows(x, at, rows)}, nil
	})
}
