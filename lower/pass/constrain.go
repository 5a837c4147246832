package pass

import (
	"fmt"
	"strings"

	"mix/lower/ir"
	"mix/sharding"
	"mix/sharding/axis"
)

// constrain turns the axis notes of the model, composites mix.constrain of one operand and one result, into shardings
// of the mesh by the rules for activations, or for weights and gradients where it notes one. On one device they mean
// nothing and are removed. A mesh that the trace brought along has no rules and is refused.
//
// After: no mix.constrain is left; every value keeps its type.
func constrain(m *ir.Module, ctx Context) (changed bool, err error) {
	return rewrite(m, "mix.constrain", func(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
		if ctx.Devices > 1 {
			return nil, fmt.Errorf("note on %v: a mesh of %d devices without rules, wanted one device or the backend's mesh", ir.Types(op.Operands), ctx.Devices)
		}
		if len(op.Operands) != 1 || len(op.Results) != 1 || op.Operands[0].Type != op.Results[0].Type {
			return nil, fmt.Errorf("of %v gives %v, wanted one value and the same", ir.Types(op.Operands), ir.Types(op.Results))
		}
		if ctx.Mesh.Devices() == 1 {
			return op.Operands, nil
		}
		x := op.Operands[0]
		spec, err := noteSpec(op, ctx)
		if err != nil {
			return nil, err
		}
		return []*ir.Value{b.Region.Emit("sdy.sharding_constraint", op.Operands, ir.Attrs{"sharding": ShardingAttr(spec)}, x.Type).Result()}, nil
	})
}

// noteSpec is what the rules make of a note.
func noteSpec(op *ir.Op, ctx Context) (sharding.Spec, error) {
	x := op.Operands[0]
	_, dims, ok := x.Type.Split()
	entry, _ := op.Attrs["composite_attributes"].Entry("axes")
	names, _ := entry.Text()
	note, kind := axis.Param{Path: "activation [" + names + "]", Dims: dims}, sharding.Activations
	if path, _ := op.Attrs["composite_attributes"].Entry("path"); path != "" {
		note.Path, _ = path.Text()
		kind = sharding.Weights
		if k, _ := op.Attrs["composite_attributes"].Entry("kind"); k == ir.String("gradients") {
			kind = sharding.Gradients
		}
	}
	for name := range strings.SplitSeq(names, ",") {
		note.Axes = append(note.Axes, axis.Logical(name))
	}
	if !ok || len(note.Axes) != len(dims) {
		return nil, fmt.Errorf("note %q on %s, wanted an axis for each of its own", names, x.Type)
	}
	return ctx.Rules.Resolve(kind, note, ctx.Mesh)
}
