package gpu

import (
	"fmt"
	"slices"

	"mix/lower/ir"
	"mix/lower/triton"
)

// kernelCase is a kernel, or several that follow each other, on one shape.
type kernelCase struct {
	name, shape string
	elem        triton.Elem
	build       func(k *kit)
}

// sizes of the shapes that kernels are tried on. None fills whole tiles.
type shape struct {
	tokens, experts, choices, width, hidden int
}

func (s shape) String() string {
	return fmt.Sprintf("T %d, E %d, K %d, D %d, F %d", s.tokens, s.experts, s.choices, s.width, s.hidden)
}

// tolerance is what sums of products of unit size may differ by: sums in f32 in another order, and one or two roundings.
func tolerance(e triton.Elem) float64 {
	switch e {
	case triton.BF16:
		return 2.0 / 256
	case triton.F16:
		return 2.0 / 2048
	case triton.F8:
		return 1e-2 // sums inside of a product have fewer bits
	}
	return 3e-5
}

// kernelCases are all kernels on ragged shapes.
func kernelCases(small bool) (all []kernelCase) {
	shapes := []shape{{1, 8, 2, 1000, 1416}, {48, 8, 2, 1000, 1416}, {777, 8, 2, 1000, 1416}, {300, 5, 3, 520, 264}}
	routes := []shape{{1, 8, 2, 0, 0}, {777, 8, 2, 0, 0}, {5000, 8, 2, 0, 0}, {600, 100, 4, 0, 0}}
	if small {
		shapes = []shape{{1, 4, 2, 24, 40}, {7, 4, 2, 24, 40}, {70, 4, 2, 24, 40}}
		routes = []shape{{1, 4, 2, 0, 0}, {37, 5, 3, 0, 0}}
	}
	for _, s := range routes {
		all = append(all, routeCase(s))
	}
	for _, e := range []triton.Elem{triton.BF16, triton.F16, triton.F32} {
		for _, s := range shapes {
			all = append(all, expertsCase(s, e, false), expertsCase(s, e, true))
		}
		s := shapes[len(shapes)-1]
		all = append(all, groupedCase(s, e), outerCase(s, e), swigluCase(s, e), combineCase(s, e), quantizeCase(s, e))
		all = append(all, attentionCases(small, e)...)
		all = append(all, fewCases(small, e)...)
	}
	products := shapes[1:]
	if small {
		products = []shape{{7, 4, 2, 200, 144}, {40, 4, 2, 200, 144}}
	}
	for _, blocks := range []bool{false, true} {
		for _, s := range products {
			all = append(all, fp8Case(s, blocks))
		}
	}
	return all
}

func routeCase(s shape) kernelCase {
	return kernelCase{"route and permute", fmt.Sprintf("T %d, E %d, K %d", s.tokens, s.experts, s.choices), triton.F32, func(k *kit) {
		r := k.route(s.tokens, s.experts, s.choices)
		p := triton.Permute{Tokens: s.tokens, Experts: s.experts, Choices: s.choices, Block: 16}
		c, err := triton.Route(p).Call()
		out := k.call(c, err, r.logits)
		k.check("weights", out[0], r.weights, tolerance(triton.F32))
		for i, want := range []*ir.Value{r.chosen, r.place, r.order, r.sizes, r.offsets} {
			k.check([]string{"chosen", "place", "order", "sizes", "offsets"}[i], out[1+i], want, 0)
		}
		c, err = p.Call()
		out = k.call(c, err, r.chosen)
		for i, want := range []*ir.Value{r.place, r.order, r.sizes, r.offsets} {
			k.check([]string{"place", "order", "sizes", "offsets"}[i], out[i], want, 0)
		}
	}}
}

// expertsCase is permute, up, down and combine; of few tokens decode's kernels, unless what the gradient reads is kept.
func expertsCase(s shape, e triton.Elem, keep bool) kernelCase {
	name := "experts"
	if keep {
		name = "experts, kept"
	}
	return kernelCase{name, s.String(), e, func(k *kit) {
		r := k.route(s.tokens, s.experts, s.choices)
		v := map[string]*ir.Value{"x": k.random(e, s.tokens, s.width), "chosen": r.chosen, "weights": r.weights,
			"gate": k.random(e, s.experts, s.hidden, s.width), "up": k.random(e, s.experts, s.hidden, s.width), "down": k.random(e, s.experts, s.width, s.hidden)}
		token := k.Div(r.order, k.Const(r.order.Type, fmt.Sprint(s.choices)))
		x := k.Rows(v["x"], token)
		g, u := k.grouped(x, v["gate"], r.group, false), k.grouped(x, v["up"], r.group, false)
		h := k.Convert(k.swiglu(g, u), stable(e))
		rows := k.grouped(h, v["down"], r.group, false)
		y := k.mixed(rows, r)
		p, err := triton.Experts{Tokens: s.tokens, Choices: s.choices, Experts: s.experts, Width: s.width, Hidden: s.hidden, Elem: e, Keep: keep}.Forward(k.table)
		if !k.plan(p, err, v) {
			return
		}
		k.check("y", v["y"], y, 2*tolerance(e))
		if !keep {
			return
		}
		k.check("g", v["g"], g, tolerance(e))
		k.check("u", v["u"], u, tolerance(e))
		k.check("rows", v["rows"], rows, 2*tolerance(e))
	}}
}

// ragged are sizes of groups that leave some rows out: one empty, one of a single row, one of most rows.
func ragged(rows, experts int) []int {
	all := make([]int, experts)
	left := rows - rows/10
	all[1], left = 1, left-1
	all[2] = left * 3 / 5
	left -= all[2]
	for i := 3; i < experts; i++ {
		all[i] = left / (experts - 3)
	}
	return all
}

// groups is the group of each row, experts for those behind the last.
func groups(sizes []int, rows int) (all []int) {
	for e, n := range sizes {
		all = append(all, slices.Repeat([]int{e}, n)...)
	}
	return append(all, slices.Repeat([]int{len(sizes)}, rows-len(all))...)
}

func groupedCase(s shape, e triton.Elem) kernelCase {
	return kernelCase{"grouped products", s.String(), e, func(k *kit) {
		rows := s.tokens * s.choices
		sizes := ragged(rows, s.experts)
		group := k.ints(groups(sizes, rows))
		x, w := k.random(e, rows, s.width), k.random(e, s.experts, s.hidden, s.width)
		g := triton.Groups{Rows: rows, Experts: s.experts, Rest: true}
		v := map[string]*ir.Value{"x": x, "w": w, "sizes": k.ints(sizes)}
		p, err := triton.Grouped{Groups: g, In: s.width, Out: s.hidden, Elem: e}.Plan(k.table)
		if k.plan(p, err, v) {
			k.check("y", v["y"], k.grouped(x, w, group, false), tolerance(e))
		}
		h, h2 := k.random(e, rows, s.hidden), k.random(e, rows, s.hidden)
		w2 := k.random(e, s.experts, s.hidden, s.width)
		v = map[string]*ir.Value{"x": h, "w": w, "sizes": k.ints(sizes)}
		back := triton.Grouped{Groups: g, In: s.hidden, Out: s.width, Elem: e, Transposed: true}
		if p, err = back.Plan(k.table); k.plan(p, err, v) {
			k.check("transposed", v["y"], k.grouped(h, w, group, true), tolerance(e))
		}
		v = map[string]*ir.Value{"x": h, "w": w, "x2": h2, "w2": w2, "sizes": k.ints(sizes)}
		back.Pair = true
		if p, err = back.Plan(k.table); k.plan(p, err, v) {
			k.check("pair", v["y"], k.Add(k.grouped(h, w, group, true), k.grouped(h2, w2, group, true)), tolerance(e))
		}
	}}
}

func outerCase(s shape, e triton.Elem) kernelCase {
	return kernelCase{"outer products", s.String(), e, func(k *kit) {
		rows := s.tokens * s.choices
		sizes := ragged(rows, s.experts)
		a, b := k.scaled(e, 0.3, rows, s.width), k.scaled(e, 0.3, rows, s.hidden)
		want := k.outer(a, b, k.ints(groups(sizes, rows)), s.experts)
		sum := triton.Outer{Groups: triton.Groups{Rows: rows, Experts: s.experts, Rest: true}, N: s.width, M: s.hidden, Elem: e}
		v := map[string]*ir.Value{"a": a, "b": b, "sizes": k.ints(sizes)}
		if p, err := sum.Plan(k.table); k.plan(p, err, v) {
			k.check("y", v["y"], want, tolerance(e))
		}
		sum.Wide = true
		v = map[string]*ir.Value{"a": a, "b": b, "sizes": k.ints(sizes)}
		if p, err := sum.Plan(k.table); k.plan(p, err, v) {
			k.check("y in f32", v["y"], want, tolerance(triton.F32))
		}
	}}
}

func swigluCase(s shape, e triton.Elem) kernelCase {
	return kernelCase{"swiglu of split sums", fmt.Sprintf("R %d, F %d, S 3", s.tokens, s.hidden), e, func(k *kit) {
		g, u := k.scaled(triton.F32, 0.5, 3, s.tokens, s.hidden), k.scaled(triton.F32, 0.5, 3, s.tokens, s.hidden)
		c, err := triton.SwiGLU{Rows: s.tokens, Hidden: s.hidden, Splits: 3, Elem: e}.Call()
		k.check("h", k.call(c, err, g, u)[0], k.swiglu(k.Reduce("add", g, "0.0", 0), k.Reduce("add", u, "0.0", 0)), tolerance(e))
	}}
}

func combineCase(s shape, e triton.Elem) kernelCase {
	return kernelCase{"combine in group order", fmt.Sprintf("T %d, K %d, D %d", s.tokens, s.choices, s.width), e, func(k *kit) {
		r := k.route(s.tokens, s.experts, s.choices)
		rows := k.scaled(e, 1, s.tokens*s.choices, s.width)
		c, err := triton.Combine{Tokens: s.tokens, Choices: s.choices, Width: s.width, Splits: 1, Grouped: true, Rows: e, Elem: e}.Call()
		one := r
		one.weights = k.Const(r.weights.Type, "1.0")
		k.check("y", k.call(c, err, rows, r.place)[0], k.mixed(k.Convert(rows, "f32"), one), tolerance(e))
	}}
}
