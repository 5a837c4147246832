package ir

import "slices"

// keep lists operations that stay though nobody reads their results: they talk to the world, or
// other devices wait for them.
var keep = map[string]bool{
	"stablehlo.infeed": true, "stablehlo.outfeed": true, "stablehlo.send": true, "stablehlo.recv": true,
	"stablehlo.all_reduce": true, "stablehlo.all_gather": true, "stablehlo.all_to_all": true,
	"stablehlo.reduce_scatter": true, "stablehlo.collective_permute": true,
	"stablehlo.collective_broadcast": true,
}

// RemoveDead removes from m every operation whose results nobody reads and that has no effect, and
// every function that main does not reach. It returns how many operations and functions went.
// Operations of unknown dialects are kept.
func RemoveDead(m *Module) (ops, funcs int) {
	d := dead{m: m, effect: map[string]bool{}}
	for _, f := range m.Funcs {
		ops += d.sweep(f.Body)
	}
	reached := map[string]bool{"main": true}
	for queue := []string{"main"}; len(queue) > 0; queue = queue[1:] {
		if f := m.Func(queue[0]); f != nil {
			for _, name := range callees(f.Body, maxDepth) {
				if !reached[name] {
					reached[name] = true
					queue = append(queue, name)
				}
			}
		}
	}
	before := len(m.Funcs)
	m.Funcs = slices.DeleteFunc(m.Funcs, func(f *Func) bool { return !reached[f.Name] })
	return ops, before - len(m.Funcs)
}

type dead struct {
	m      *Module
	effect map[string]bool // of functions, once known
}

// sweep goes through r backwards, so that one walk finds chains of dead operations too.
func (d *dead) sweep(body *Region) int {
	uses := Uses(body)
	removed := 0
	var region func(r *Region)
	region = func(r *Region) {
		kept := make([]*Op, 0, len(r.Ops))
		for _, op := range slices.Backward(r.Ops) {
			if d.needed(op, uses) {
				for _, inner := range op.Regions {
					region(inner)
				}
				kept = append(kept, op)
				continue
			}
			forget := func(o *Op) {
				removed++
				for _, v := range o.Operands {
					uses[v]--
				}
			}
			forget(op)
			for _, inner := range op.Regions {
				Walk(inner, forget)
			}
		}
		slices.Reverse(kept)
		r.Ops = kept
	}
	region(body)
	return removed
}

func (d *dead) needed(op *Op, uses map[*Value]int) bool {
	for _, v := range op.Results {
		if uses[v] > 0 {
			return true
		}
	}
	return d.hasEffect(op)
}

func (d *dead) hasEffect(op *Op) bool {
	if terminators[op.Name] || keep[op.Name] {
		return true
	}
	if op.Name == "stablehlo.custom_call" {
		return op.Attrs["has_side_effect"] == "true"
	}
	if name, ok := op.Callee(); ok {
		return d.funcEffect(name)
	}
	if !pureDialect(op.Name) {
		return true
	}
	for _, r := range op.Regions {
		if d.regionEffect(r) {
			return true
		}
	}
	return false
}

// regionEffect tells whether r does more than compute; its own terminator does not count.
func (d *dead) regionEffect(r *Region) bool {
	for _, op := range r.Ops {
		if !terminators[op.Name] && d.hasEffect(op) {
			return true
		}
	}
	return false
}

func (d *dead) funcEffect(name string) bool {
	if known, found := d.effect[name]; found {
		return known
	}
	d.effect[name] = true // while a function that calls itself is looked at
	if f := d.m.Func(name); f != nil {
		d.effect[name] = d.regionEffect(f.Body)
	}
	return d.effect[name]
}

// pureDialect tells whether the operations of a dialect compute and do nothing else, but for those
// listed in keep.
func pureDialect(op string) bool {
	for _, p := range []string{"stablehlo.", "chlo.", "mhlo.", "arith."} {
		if len(op) > len(p) && op[:len(p)] == p {
			return true
		}
	}
	return false
}
