package pass

import (
	"fmt"
	"strings"

	"mix/lower/ir"
)

// cut is a body of mix.layer_gradient in two parts.
type cut struct {
	body      *ir.Region
	gradients int // results that are gradients; those behind them are the layer's own

	late    map[*ir.Op]bool // depends on the gradients that come in
	carried map[*ir.Op]bool // depends on what is carried
	again   map[*ir.Op]bool // is computed a second time
	kept    []*ir.Value     // is handed from the first part to the second
}

// cutAt cuts a body whose arguments are carry of carry, inputs in all, and then gradients.
func cutAt(body *ir.Region, carry, inputs, gradients int) *cut {
	c := &cut{body: body, gradients: gradients, late: map[*ir.Op]bool{}, carried: map[*ir.Op]bool{}, again: map[*ir.Op]bool{}}
	late, carried := map[*ir.Value]bool{}, map[*ir.Value]bool{}
	for i, a := range body.Args {
		carried[a], late[a] = i < carry, i >= inputs
	}
	end := body.Terminator()
	for _, op := range body.Ops {
		for _, v := range reads(op) {
			c.late[op] = c.late[op] || late[v]
			c.carried[op] = c.carried[op] || carried[v]
		}
		for _, v := range op.Results {
			late[v], carried[v] = c.late[op], c.carried[op]
		}
	}
	keep := map[*ir.Value]bool{}
	var need func(v *ir.Value)
	need = func(v *ir.Value) {
		op := v.Def
		switch {
		case op == nil || c.late[op] || keep[v]:
		case c.carried[op] && costly(op):
			keep[v] = true
			c.kept = append(c.kept, v)
		case !c.again[op]:
			c.again[op] = true
			for _, in := range reads(op) {
				need(in)
			}
		}
	}
	for _, op := range body.Ops {
		if c.late[op] && op != end {
			for _, v := range reads(op) {
				need(v)
			}
		}
	}
	for _, v := range end.Operands[:gradients] {
		need(v)
	}
	c.narrow(end)
	return c
}

// narrow keeps the conversion of a value to fewer bits in its place, where the second part reads nothing else of it.
func (c *cut) narrow(end *ir.Op) {
	readers := map[*ir.Value][]*ir.Op{}
	for _, op := range c.body.Ops {
		if op != end && (c.late[op] || c.again[op]) {
			for _, v := range reads(op) {
				readers[v] = append(readers[v], op)
			}
		}
	}
	for _, v := range end.Operands[:c.gradients] {
		readers[v] = append(readers[v], end)
	}
	for i, v := range c.kept {
		if ops := readers[v]; len(ops) == 1 && ops[0].Name == "stablehlo.convert" && !c.late[ops[0]] {
			to := ops[0].Result()
			if from, _, ok := v.Type.Split(); ok && bitsOf(to.Type) > 0 && bitsOf(to.Type) < elemBits[from] {
				c.kept[i] = to
				delete(c.again, ops[0])
			}
		}
	}
}

var elemBits = map[string]int{"f64": 64, "f32": 32, "bf16": 16, "f16": 16}

func bitsOf(t ir.Type) int {
	elem, _, _ := t.Split()
	return elemBits[elem]
}

// reads are the values that op reads, those inside its regions from outside included.
func reads(op *ir.Op) []*ir.Value {
	vs := op.Operands
	for _, r := range op.Regions {
		ir.Walk(r, func(inner *ir.Op) { vs = append(vs[:len(vs):len(vs)], inner.Operands...) })
	}
	return vs
}

// costly tells whether a result is kept rather than computed again: products, what other functions and devices do, and loops.
func costly(op *ir.Op) bool {
	switch op.Name {
	case "stablehlo.dot_general", "stablehlo.composite", "func.call", "stablehlo.custom_call", "stablehlo.while", "stablehlo.case", "stablehlo.if",
		"stablehlo.sort", "stablehlo.scatter", "sdy.manual_computation":
		return true
	}
	name := strings.TrimPrefix(op.Name, "stablehlo.")
	return strings.HasPrefix(name, "all_") || strings.HasPrefix(name, "collective_") || name == "reduce_scatter"
}

// functions are both parts: the first from the layer's inputs to its next carry and outputs and what is kept, the second from
// inputs, gradients and what was kept to the gradients.
func (c *cut) functions(m *ir.Module, name string) (first, second *ir.Func) {
	args := ir.Types(c.body.Args)
	end := c.body.Terminator()
	var inputs []ir.Type
	for i, a := range c.body.Args {
		if i < len(args)-(len(end.Operands)-c.gradients) {
			inputs = append(inputs, a.Type)
		}
	}
	part := func(kind string, in []ir.Type, takes func(op *ir.Op) bool, given, results []*ir.Value) *ir.Func {
		f := &ir.Func{Private: true, Body: ir.NewRegion(in...)}
		for n := 0; ; n++ {
			if f.Name = fmt.Sprintf("%s.%s.%d", name, kind, n); m.Func(f.Name) == nil {
				break
			}
		}
		values := map[*ir.Value]*ir.Value{}
		for i, a := range c.body.Args[:min(len(in), len(args))] {
			values[a] = f.Body.Args[i]
		}
		for i, v := range given {
			values[v] = f.Body.Args[len(args)+i]
		}
		for _, op := range c.body.Ops {
			if op != end && takes(op) {
				f.Body.Add(op.Clone(values))
			}
		}
		out := []*ir.Value{}
		for _, v := range results {
			out = append(out, values[v])
		}
		f.Results = ir.Types(out)
		f.Body.Emit("func.return", out, nil)
		return f
	}
	first = part("first", inputs, func(op *ir.Op) bool { return !c.late[op] }, nil, append(end.Operands[c.gradients:len(end.Operands):len(end.Operands)], c.kept...))
	second = part("second", append(args[:len(args):len(args)], ir.Types(c.kept)...), func(op *ir.Op) bool { return c.late[op] || c.again[op] }, c.kept, end.Operands[:c.gradients])
	return first, second
}
