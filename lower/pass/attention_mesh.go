package pass

import (
	"slices"

	"mix/lower/ir"
	"mix/sharding"
	"mix/sharding/axis"
)

// attention puts the kernel of one device's sequences and heads into a region. It answers nil where they do not divide, or
// where the rules split the queries of a sequence.
func (w *owners) attention(b ir.Builder, op *ir.Op, ctx Context) ([]*ir.Value, error) {
	r := rules[composite(op)][ctx.Platform]
	shared, met := w.shared(op)
	if !met {
		return nil, nil
	}
	if len(shared) == 0 {
		return r(b, op)
	}
	x, err := readAttended(op)
	if err != nil {
		return nil, err
	}
	q, err := ctx.Rules.Resolve(sharding.Activations, axis.Param{Path: composite(op), Axes: []axis.Logical{axis.Batch, axis.Heads, axis.Seq, axis.HeadDim},
		Dims: []int{x.b, x.h, x.s, x.a}}, ctx.Mesh)
	if err != nil || len(q[2])+len(q[3]) > 0 {
		return nil, nil
	}
	if slices.ContainsFunc(slices.Concat(q[0], q[1]), func(a axis.Mesh) bool { return ctx.Mesh.Size(a) > 1 && !slices.Contains(shared, a) }) {
		return nil, nil
	}
	keys := sharding.Spec{q[0], q[1], nil, nil}
	if composite(op) == pagedAttentionName {
		keys = sharding.Spec{nil, q[1], nil} // every device has the pool
	}
	var in []placed
	for i, v := range op.Operands {
		spec := sharding.Spec{q[0], nil}
		switch {
		case i == 0:
			spec = q
		case i < 3:
			spec = keys
		}
		_, dims, ok := v.Type.Split()
		if !ok || len(dims) != len(spec) {
			return nil, nil
		}
		for j, d := range dims {
			if n := ctx.Mesh.Size(spec[j]...); d%n != 0 {
				return nil, nil
			}
		}
		in = append(in, placed{v, spec})
	}
	refused := true
	results := ownWork(b, ctx.Mesh, shared, in, func(b ir.Builder, parts []*ir.Value) []placed {
		own := ir.NewOp(op.Name, slices.Clone(parts), op.Attrs, parts[0].Type)
		if composite(op) == attentionName && counts(op.Operands[keyPositions]) {
			dims := parts[keyPositions].Dims()
			own.Operands[keyPositions] = b.Iota(1, "i32", dims...)
		}
		var y []*ir.Value
		if y, err = r(b, own); err == nil && y != nil {
			refused = false
			return []placed{{y[0], q}}
		}
		return []placed{{parts[0], q}}
	})
	if refused || err != nil {
		b.Region.Erase(results[0].Def)
		return nil, err
	}
	return results, nil
}
