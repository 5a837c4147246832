package pass

import (
	"fmt"

	"mix/lower/ir"
)

// inline puts the bodies of functions in the place of their calls, and those of composites that no rule took, when the
// program runs on a mesh: shardings spread through operations, not through calls, and a region of one device's work
// may stand in a body.
//
// After: on a mesh no stablehlo.composite and no func.call of a function with a body is left in main.
func inline(m *ir.Module, ctx Context) (changed bool, err error) {
	if ctx.Mesh.Devices() == 1 {
		return false, nil
	}
	in := inliner{m: m, state: map[string]int{}}
	main := m.Func("main")
	if main == nil {
		return false, fmt.Errorf("no function main")
	}
	err = in.function(main)
	return in.changed, err
}

// inliner works from the innermost calls outwards.
type inliner struct {
	m       *ir.Module
	state   map[string]int // of a function: 1 being worked on, 2 done
	changed bool
}

// callee is the function that op calls, "" for none.
func callee(op *ir.Op) string {
	key := ""
	switch op.Name {
	case "stablehlo.composite":
		key = "decomposition"
	case "func.call":
		key = "callee"
	}
	name, _ := op.Attrs[key].Symbol()
	return name
}

func (in *inliner) function(f *ir.Func) error {
	switch in.state[f.Name] {
	case 1:
		return fmt.Errorf("function @%s calls itself", f.Name)
	case 2:
		return nil
	}
	in.state[f.Name] = 1
	by := map[*ir.Value]*ir.Value{}
	err := ir.WalkRegions(f.Body, func(r *ir.Region) error {
		var ops []*ir.Op
		for _, op := range r.Ops {
			name := callee(op)
			g := in.m.Func(name)
			if name == "" || g == nil || g.Body == nil {
				ops = append(ops, op)
				continue
			}
			if err := in.function(g); err != nil {
				return err
			}
			results, body, err := bodyOf(g, op)
			if err != nil {
				return err
			}
			ops = append(ops, body...)
			for i, v := range op.Results {
				by[v] = results[i]
			}
		}
		r.Ops = ops
		return nil
	})
	if err != nil {
		return err
	}
	ir.ReplaceAll(f.Body, by)
	in.changed = in.changed || len(by) > 0
	in.state[f.Name] = 2
	return nil
}

// bodyOf copies the operations of g for one call, without the return, and gives what they return.
func bodyOf(g *ir.Func, call *ir.Op) (results []*ir.Value, ops []*ir.Op, err error) {
	if len(g.Body.Args) != len(call.Operands) {
		return nil, nil, fmt.Errorf("a call of @%s with %d operands, wanted %d", g.Name, len(call.Operands), len(g.Body.Args))
	}
	values := map[*ir.Value]*ir.Value{}
	for i, a := range g.Body.Args {
		if a.Type != call.Operands[i].Type {
			return nil, nil, fmt.Errorf("a call of @%s with operand %d of %s, wanted %s", g.Name, i, call.Operands[i].Type, a.Type)
		}
		values[a] = call.Operands[i]
	}
	for _, op := range g.Body.Ops {
		ops = append(ops, op.Clone(values))
	}
	end := ops[len(ops)-1]
	if len(end.Operands) != len(call.Results) {
		return nil, nil, fmt.Errorf("@%s returns %d values, its call wants %d", g.Name, len(end.Operands), len(call.Results))
	}
	return end.Operands, ops[:len(ops)-1], nil
}
