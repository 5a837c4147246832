package pass

import (
	"slices"

	"mix/lower/ir"
	"mix/lower/target"
)

// attention replaces composites mix.attention, its gradient and mix.paged_attention by the form that suits the platform. They
// are described in package composite: queries [B, H, S, A], keys and values [B, G, C, A] or in a pool [N, G, A], and positions
// of both.
//
// After: on cuda those whose elements fit are kernels that keep no scores, mix.attention of many queries a sequence, with what
// its gradient reads where there is one, and mix.paged_attention of one; on a mesh in regions of one device's work, where
// sequences and heads divide over it.
func attention(m *ir.Module, ctx Context) (changed bool, err error) {
	if ctx.Platform != target.CUDA {
		return false, nil
	}
	changed = sinkPositions(m)
	w, read := ownersOf(m, ctx.Mesh), readByGradients(m)
	for _, name := range []string{attentionName, attentionGradientName, pagedAttentionName} {
		did, err := rewrite(m, name, func(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
			r := rules[name][ctx.Platform]
			if read[op] {
				r = keptAttentionCUDA
			}
			if ctx.Mesh.Devices() > 1 {
				r = w.regional(r, ctx)
			}
			results, err := r(b, op)
			return results[:min(len(results), len(op.Results))], err
		})
		if err != nil {
			return changed, err
		}
		changed = changed || did
	}
	return changed, nil
}

const (
	attentionName         = "mix.attention"
	attentionGradientName = "mix.attention_gradient"
	pagedAttentionName    = "mix.paged_attention"
	queryPositions        = 3 // operands of mix.attention and of its gradient
	keyPositions          = 4
)

// readByGradients are the mix.attention whose results gradients read.
func readByGradients(m *ir.Module) map[*ir.Op]bool {
	read := map[*ir.Op]bool{}
	for _, f := range m.Funcs {
		ir.Walk(f.Body, func(op *ir.Op) {
			if n := len(op.Operands); composite(op) == attentionGradientName && n > 1 && op.Operands[n-2].Def != nil {
				read[op.Operands[n-2].Def] = true
			}
		})
	}
	return read
}

// sinkPositions counts the positions of keys anew before each attention, where the count comes from outside its function or
// loop, or through a barrier: a rule then sees that they are in order. So it does with those of queries where cuDNN is wanted.
func sinkPositions(m *ir.Module) (changed bool) {
	f := givenTo(m)
	for _, fn := range m.Funcs {
		_ = ir.WalkRegions(fn.Body, func(r *ir.Region) error {
			for i := 0; i < len(r.Ops); i++ {
				op := r.Ops[i]
				if name := composite(op); name != attentionName && name != attentionGradientName || len(op.Operands) <= keyPositions {
					continue
				}
				places := []int{keyPositions}
				if wantsCuDNN(op) {
					places = append(places, queryPositions)
				}
				for _, at := range places {
					from := f.origin(op.Operands[at])
					if from == nil || from == op.Operands[at].Def || from.Name != "stablehlo.iota" || from.Result().Type != op.Operands[at].Type {
						continue
					}
					count := from.Clone(map[*ir.Value]*ir.Value{})
					r.InsertBefore(op, count)
					op.Operands[at] = count.Result()
					changed, i = true, i+1
				}
			}
			return nil
		})
	}
	return changed
}

// given is what arguments of functions and loops are given, by argument.
type given map[*ir.Value][]*ir.Value

func givenTo(m *ir.Module) given {
	g := given{}
	for _, f := range m.Funcs {
		ir.Walk(f.Body, func(op *ir.Op) {
			if to := m.Func(callee(op)); to != nil {
				g.add(to.Params(), op.Operands)
			}
			if op.Name == "stablehlo.while" {
				for _, r := range op.Regions {
					g.add(r.Args, op.Operands)
				}
				if len(op.Regions) == 2 && op.Regions[1].Terminator() != nil {
					g.add(op.Regions[1].Args, op.Regions[1].Terminator().Operands)
				}
			}
		})
	}
	return g
}

func (g given) add(args, values []*ir.Value) {
	for i, a := range args {
		if i < len(values) && values[i] != a {
			g[a] = append(g[a], values[i])
		}
	}
}

// origin is the one operation whose result v is on every way, nil if there is none or several.
func (g given) origin(v *ir.Value) *ir.Op {
	seen := map[*ir.Value]bool{}
	var found *ir.Op
	one := true
	var visit func(v *ir.Value)
	visit = func(v *ir.Value) {
		switch {
		case seen[v]:
		case v.Def != nil && v.Def.Name == "stablehlo.optimization_barrier":
			seen[v] = true
			visit(v.Def.Operands[slices.Index(v.Def.Results, v)])
		case v.Def != nil:
			one = one && (found == nil || found == v.Def)
			found = v.Def
		default:
			seen[v] = true
			one = one && len(g[v]) > 0
			for _, from := range g[v] {
				visit(from)
			}
		}
	}
	visit(v)
	if !one || found == nil || len(found.Results) != 1 {
		return nil
	}
	return found
}
