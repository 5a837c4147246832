package trace

import (
	"fmt"

	"mix/lower/ir"
)

// attach makes regions of closures for an operation in f. A closure may be used more than once: from
// the second time on the operation gets a copy. What a closure takes from outside must be in reach
// of f, which is known only when the function around f ends; until then f carries it on.
func (f *Function) attach(closures ...*Function) ([]*ir.Region, error) {
	out := make([]*ir.Region, len(closures))
	for i, c := range closures {
		out[i] = c.region
		if c.attached {
			out[i] = c.region.Clone(map[*ir.Value]*ir.Value{})
		}
		c.attached = true
		for _, v := range c.captured {
			if v.fn != f && v.fn != c {
				f.captured = append(f.captured, v)
			}
		}
	}
	return out, nil
}

// rematerialize ends a named function: values that it took from other functions are made again at
// its start when they are constants, or made of constants. GoMLX keeps one node a scalar for a whole
// graph, whichever function asked for it first. Anything else cannot be reached, and is refused.
func (f *Function) rematerialize() error {
	m := remat{made: map[*ir.Value]*ir.Value{}}
	for _, v := range f.captured {
		if v.fn == f {
			continue
		}
		if m.value(v.v, rematDepth) == nil {
			return fmt.Errorf("trace: %s uses a value %s of %s, want a parameter or a constant", f, v.shape, v.fn)
		}
	}
	if len(m.ops) == 0 {
		return nil
	}
	ir.ReplaceAll(f.region, m.made)
	f.region.Ops = append(m.ops, f.region.Ops...)
	return nil
}

// closed makes constants that a region takes from outside again inside it: XLA's comparators see
// their arguments only.
func (f *Function) closed(what string, c *Function, r *ir.Region) error {
	m := remat{made: map[*ir.Value]*ir.Value{}}
	for _, v := range c.captured {
		if v.fn == c {
			continue
		}
		if m.value(v.v, rematDepth) == nil {
			return fmt.Errorf("trace: %s uses a value %s of %s, want its parameters or constants", what, v.shape, v.fn)
		}
	}
	ir.ReplaceAll(r, m.made)
	r.Ops = append(m.ops, r.Ops...)
	return nil
}

// rematDepth bounds the chain of operations made again for one value.
const rematDepth = 8

// rematOps are cheap and depend on nothing but their operands.
var rematOps = map[string]bool{
	"stablehlo.constant": true, "stablehlo.iota": true, "stablehlo.convert": true,
	"stablehlo.broadcast_in_dim": true, "stablehlo.reshape": true, "stablehlo.negate": true,
}

type remat struct {
	made map[*ir.Value]*ir.Value
	ops  []*ir.Op
}

// value is v made again, nil when it depends on more than constants.
func (m *remat) value(v *ir.Value, depth int) *ir.Value {
	if x := m.made[v]; x != nil {
		return x
	}
	if depth == 0 || v.Def == nil || !rematOps[v.Def.Name] {
		return nil
	}
	for _, o := range v.Def.Operands {
		if m.value(o, depth-1) == nil {
			return nil
		}
	}
	op := v.Def.Clone(m.made)
	m.ops = append(m.ops, op)
	m.made[v] = op.Result()
	return m.made[v]
}
