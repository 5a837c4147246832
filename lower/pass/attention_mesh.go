package pass

import (
	"slices"

	"mix/lower/ir"
	"mix/sharding"
	"mix/sharding/axis"
)

// regional is rule r in a region of one device's sequences and heads. It answers nil where they do not divide, or where the
// rules split the queries of a sequence.
func (w *owners) regional(r rule, ctx Context) rule {
	return func(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
		shared, met := w.shared(op)
		if !met {
			return nil, nil
		}
		if len(shared) == 0 {
			return r(b, op)
		}
		in, ok, err := attendedParts(op, shared, ctx)
		if err != nil || !ok {
			return nil, err
		}
		q := in[0].spec
		refused := true
		results := ownWork(b, ctx.Mesh, shared, in, func(b ir.Builder, parts []*ir.Value) []placed {
			var types []ir.Type // of the gradients of q, k and v, else of y
			for i := range op.Results {
				types = append(types, parts[i].Type)
			}
			own := ir.NewOp(op.Name, slices.Clone(parts), op.Attrs, types...)
			if composite(op) != pagedAttentionName && counts(op.Operands[keyPositions]) {
				own.Operands[keyPositions] = b.Iota(1, "i32", parts[keyPositions].Dims()...)
			}
			if byCuDNN(op) {
				own.Operands[queryPositions] = b.Iota(1, "i32", parts[queryPositions].Dims()...)
			}
			var out []placed
			var made []*ir.Value
			if made, err = r(b, own); err == nil && made != nil {
				refused = false
				for i, v := range made {
					spec := in[i].spec
					if len(op.Results) == 1 {
						spec = q[:len(v.Dims())] // y, and what its gradient reads
					}
					out = append(out, placed{v, spec})
				}
				return out
			}
			return []placed{{parts[0], q}}
		})
		if refused || err != nil {
			b.Region.Erase(results[0].Def)
			return nil, err
		}
		return results, nil
	}
}

// attendedParts says where the operands of attention lie, and whether that is a device's own work along the axes shared. Of a
// gradient whose kernel gave what it reads that is one operand more.
func attendedParts(op *ir.Op, shared []axis.Mesh, ctx Context) (in []placed, ok bool, err error) {
	operands, read := op.Operands, op
	if composite(op) == attentionGradientName {
		if read, err = attentionOf(op); err != nil {
			return nil, false, err
		}
		if sums := sumsOf(read.Results[0], byCuDNN(op)); sums != nil {
			operands = append(slices.Clone(operands), sums)
		}
	}
	x, err := readAttended(read)
	if err != nil {
		return nil, false, err
	}
	q, err := ctx.Rules.Resolve(sharding.Activations, axis.Param{Path: composite(op), Axes: []axis.Logical{axis.Batch, axis.Heads, axis.Seq, axis.HeadDim},
		Dims: []int{x.b, x.h, x.s, x.a}}, ctx.Mesh)
	if err != nil || len(q[2])+len(q[3]) > 0 {
		return nil, false, nil
	}
	if slices.ContainsFunc(slices.Concat(q[0], q[1]), func(a axis.Mesh) bool { return ctx.Mesh.Size(a) > 1 && !slices.Contains(shared, a) }) {
		return nil, false, nil
	}
	for i, v := range operands {
		_, dims, known := v.Type.Split()
		if !known || len(dims) < 2 || len(dims) > 4 {
			return nil, false, nil
		}
		spec := q[:len(dims)] // all but places have heads, and lie like q
		switch {
		case composite(op) == pagedAttentionName && (i == 1 || i == 2):
			spec = sharding.Spec{nil, q[1], nil} // every device has the pool
		case len(dims) == 2:
			spec = sharding.Spec{q[0], nil}
		}
		for j, d := range dims {
			if n := ctx.Mesh.Size(spec[j]...); d%n != 0 {
				return nil, false, nil
			}
		}
		in = append(in, placed{v, spec})
	}
	return in, true, nil
}
