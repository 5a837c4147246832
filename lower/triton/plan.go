package triton

import "fmt"

// Step is a call whose operands and results have names.
type Step struct {
	Call    Call
	In, Out []string
}

// Plan is calls after each other. A name is given once, by Inputs or a step, before it is taken.
type Plan struct {
	Inputs, Outputs []string
	Steps           []Step
	types           map[string]string // of all names
}

// add appends a call. A name has one type.
func (p *Plan) add(in, out []string) func(c Call, err error) error {
	return func(c Call, err error) error {
		if err != nil {
			return err
		}
		if len(in) != len(c.Operands) || len(out) != len(c.Results) {
			return fmt.Errorf("triton: %s: %d operands and %d results, wanted names for %d and %d", c.Name, len(in), len(out), len(c.Operands), len(c.Results))
		}
		for i, name := range append(in[:len(in):len(in)], out...) {
			a := append(c.Operands[:len(in):len(in)], c.Results...)[i]
			if t, ok := p.types[name]; ok && t != a.String() {
				return fmt.Errorf("triton: %s: %s is %s, wanted %s", c.Name, name, t, a)
			}
			p.types[name] = a.String()
		}
		p.Steps = append(p.Steps, Step{c, in, out})
		return nil
	}
}

// Experts are the routed experts of one layer.
type Experts struct {
	Tokens, Choices, Experts, Width, Hidden int // T, K, E, D, F
	Elem                                    Elem
	Keep                                    bool // also give what the gradient reads
	Partial                                 bool // chosen may name experts outside [0, E), whose share is left out of y
	Routed                                  bool // the rows were ordered by Route, with Block
}

// fewTokens is up to how many tokens reading matrices takes longer than multiplying them.
const fewTokens = 64

// Forward is permute, up, down and combine.
//
//	x [T, D], chosen [T, K] i32, weights [T, K] f32, gate and up [E, F, D], down [E, D, F] → y [T, D]
//
// With Keep it also gives order and place [R] i32, sizes [E] i32, g and u [R, F] and rows [R, D], the products by
// gate, up and down in group order. With Routed it begins with up: of what Permute gives it takes place, order, offsets and blocks.
func (x Experts) Forward(t Table) (Plan, error) {
	p := Plan{types: map[string]string{}, Inputs: []string{"x", "chosen", "weights", "gate", "up", "down"}, Outputs: []string{"y"}}
	g := Groups{Rows: x.Tokens * x.Choices, Experts: x.Experts}
	if err := g.check("experts"); err != nil {
		return p, err
	}
	up, down, err := x.tiles(t)
	if err != nil {
		return p, err
	}
	if x.Routed {
		p.Inputs = append(p.Inputs, "place", "order", "offsets", "blocks")
	} else {
		permute := Permute{Tokens: x.Tokens, Experts: x.Experts, Choices: x.Choices, Block: up.M}
		if err := p.add([]string{"chosen"}, []string{"place", "order", "sizes", "offsets", "blocks"})(permute.Call()); err != nil {
			return p, err
		}
	}
	if x.few() {
		err = x.fewRows(&p, g, up, down)
	} else {
		err = x.manyRows(&p, g, up, down)
	}
	return p, err
}

// Route is the kernel that orders the rows as Forward wants them with Routed, and chooses the experts.
func (x Experts) Route(t Table) (Call, error) {
	up, _, err := x.tiles(t)
	if err != nil {
		return Call{}, err
	}
	return Route{Tokens: x.Tokens, Experts: x.Experts, Choices: x.Choices, Block: up.M}.Call()
}

// few tells whether reading matrices takes longer than multiplying.
func (x Experts) few() bool { return x.Tokens <= fewTokens && !x.Keep }

// tiles are those of the products, which share blocks.
func (x Experts) tiles(t Table) (up, down Tile, err error) {
	names, rows := [2]string{"up", "grouped"}, Groups{Rows: x.Tokens * x.Choices, Experts: max(x.Experts, 1)}.Average()
	if x.few() {
		names, rows = [2]string{"decode_up", "decode_down"}, x.Tokens
	}
	if up, err = t.Choose(names[0], x.Elem, rows); err != nil {
		return up, down, err
	}
	down, err = t.Choose(names[1], x.Elem, rows)
	down.M = up.M
	return up, down, err
}

// fewRows: splits of sums are added up by SwiGLU and Combine.
func (x Experts) fewRows(p *Plan, g Groups, up, down Tile) error {
	d := Decode{Groups: g, Tokens: x.Tokens, Choices: x.Choices, Width: x.Width, Hidden: x.Hidden, Elem: x.Elem}
	out := []string{"h"}
	if up.Split > 1 {
		out = []string{"g", "u"}
	}
	if err := p.add([]string{"x", "order", "gate", "up", "blocks", "offsets"}, out)(d.Up(up)); err != nil {
		return err
	}
	if up.Split > 1 {
		swiglu := SwiGLU{Rows: g.Rows, Hidden: x.Hidden, Splits: up.Split, Elem: x.Elem}
		if err := p.add([]string{"g", "u"}, []string{"h"})(swiglu.Call()); err != nil {
			return err
		}
	}
	if err := p.add([]string{"h", "down", "order", "blocks", "offsets"}, []string{"rows"})(d.Down(down)); err != nil {
		return err
	}
	c := Combine{Tokens: x.Tokens, Choices: x.Choices, Width: x.Width, Splits: down.Split, Weighted: true, Partial: x.Partial, Rows: F32, Elem: x.Elem}
	in := []string{"rows", "weights"}
	if x.Partial {
		in = append(in, "place")
	}
	return p.add(in, []string{"y"})(c.Call())
}

// manyRows: rows leave the product down by weight, or in group order where they are kept.
func (x Experts) manyRows(p *Plan, g Groups, up, down Tile) error {
	u := Up{Groups: g, Tokens: x.Tokens, Choices: x.Choices, Width: x.Width, Hidden: x.Hidden, Elem: x.Elem, Keep: x.Keep}
	d := Grouped{Groups: g, In: x.Hidden, Out: x.Width, Elem: x.Elem, Routed: !x.Keep, Choices: x.Choices}
	c := Combine{Tokens: x.Tokens, Choices: x.Choices, Width: x.Width, Splits: 1, Weighted: x.Keep, Grouped: x.Keep, Partial: x.Partial,
		Rows: x.Elem, Elem: x.Elem}
	out, between, last := []string{"h"}, []string{"h", "down"}, []string{"rows"}
	if x.Keep {
		p.Outputs = append(p.Outputs, "order", "place", "sizes", "g", "u", "rows")
		out, last = append(out, "g", "u"), append(last, "weights")
	} else {
		between = append(between, "order", "weights")
	}
	if x.Keep || x.Partial {
		last = append(last, "place")
	}
	if err := p.add([]string{"x", "order", "gate", "up", "blocks", "offsets"}, out)(u.Call(up)); err != nil {
		return err
	}
	if err := p.add(append(between, "blocks", "offsets"), []string{"rows"})(d.Call(down)); err != nil {
		return err
	}
	return p.add(last, []string{"y"})(c.Call())
}

// Plan is the product of rows in group order whose sizes are known: x, w, sizes [E] i32 → y, and with Pair x2 and w2
// after w. Routed it is not for.
func (g Grouped) Plan(t Table) (Plan, error) {
	p := Plan{types: map[string]string{}, Inputs: []string{"x", "w", "sizes"}, Outputs: []string{"y"}}
	if err := g.check("grouped_gemm"); err != nil {
		return p, err
	}
	if g.Routed {
		return p, fmt.Errorf("triton: grouped_gemm: rows in the order of routed rows, wanted group order")
	}
	name, in := "grouped", []string{"x", "w"}
	if g.Transposed {
		name = "transposed"
	}
	if g.Pair {
		p.Inputs, in = []string{"x", "w", "x2", "w2", "sizes"}, append(in, "x2", "w2")
	}
	tile, err := t.Choose(name, g.Elem, g.Average())
	if err != nil {
		return p, err
	}
	if g.Pair && g.In < shortSum*tile.K && tile.N > 64 {
		tile.N /= 2
	}
	if err := p.add([]string{"sizes"}, []string{"offsets", "blocks"})(BlockMap{g.Groups, tile.M}.Call()); err != nil {
		return p, err
	}
	err = p.add(append(in, "blocks", "offsets"), []string{"y"})(g.Call(tile))
	return p, err
}

// shortSum is below how many turns two loops, one after the other, are written out and need registers for both.
const shortSum = 8

// Plan is the first half of experts on rows in group order whose sizes are known: x [R, D], gate, up, sizes [E] i32 → h
// [R, F], with Keep g and u too.
func (u Up) Plan(t Table) (Plan, error) {
	p := Plan{types: map[string]string{}, Inputs: []string{"x", "gate", "up", "sizes"}, Outputs: []string{"h"}}
	if !u.Ordered {
		return p, fmt.Errorf("triton: experts_up: rows in the order of tokens, wanted group order")
	}
	if u.Keep {
		p.Outputs = append(p.Outputs, "g", "u")
	}
	if err := u.Groups.check("experts_up"); err != nil {
		return p, err
	}
	tile, err := t.Choose("up", u.Elem, u.Average())
	if err != nil {
		return p, err
	}
	if err := p.add([]string{"sizes"}, []string{"offsets", "blocks"})(BlockMap{u.Groups, tile.M}.Call()); err != nil {
		return p, err
	}
	err = p.add([]string{"x", "gate", "up", "blocks", "offsets"}, p.Outputs)(u.Call(tile))
	return p, err
}

// Plan is the gradient of SwiGLU of rows in groups whose sizes are known: dh, g, u [R, F], sizes [E] i32 → dg, du, h.
func (s SwiGLUGradient) Plan() (Plan, error) {
	p := Plan{types: map[string]string{}, Inputs: []string{"dh", "g", "u", "sizes"}, Outputs: []string{"dg", "du", "h"}}
	if err := p.add([]string{"sizes"}, []string{"offsets", "blocks"})(BlockMap{s.Groups, boundsBlock}.Call()); err != nil {
		return p, err
	}
	err := p.add([]string{"dh", "g", "u", "offsets"}, p.Outputs)(s.Call())
	return p, err
}

// boundsBlock are the rows of a block where a BlockMap is asked for bounds alone.
const boundsBlock = 16

// Plan is the sum of outer products of groups whose sizes are known: a, b, sizes [E] i32 → y.
func (o Outer) Plan(t Table) (Plan, error) {
	p := Plan{types: map[string]string{}, Inputs: []string{"a", "b", "sizes"}, Outputs: []string{"y"}}
	if err := o.check("grouped_outer"); err != nil {
		return p, err
	}
	tile, err := t.Choose("outer", o.Elem, o.Average())
	if err != nil {
		return p, err
	}
	if err := p.add([]string{"sizes"}, []string{"offsets", "blocks"})(BlockMap{o.Groups, boundsBlock}.Call()); err != nil {
		return p, err
	}
	err = p.add([]string{"a", "b", "offsets"}, []string{"y"})(o.Call(tile))
	return p, err
}
