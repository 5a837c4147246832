package gpu

import (
	"fmt"

	"mix/lower/ir"
	"mix/lower/triton"
)

// fewCases are the kernels of few rows between the experts: products, norms, what ends the projections of attention.
func fewCases(small bool, e triton.Elem) (all []kernelCase) {
	linear := []triton.Linear{{Tokens: 1, Width: 4096, Outs: []int{4096, 1024, 1000}}, {Tokens: 7, Width: 1000, Outs: []int{3000}}, {Tokens: 64, Width: 1416, Outs: []int{520, 1000}}}
	norm := []triton.Norm{{Tokens: 1, Width: 4096, Choices: 1, Splits: 2, Parts: triton.F32, Experts: 8}, {Tokens: 33, Width: 6144, Choices: 2, Splits: 3, Weighted: true, Parts: triton.F32, Experts: 6},
		{Tokens: 64, Width: 1000, Choices: 1, Splits: 1, Parts: e}}
	heads := []triton.Heads{{Tokens: 1, Width: 128, Heads: 32, KeyHeads: 8, Positions: 500, Splits: 2}, {Tokens: 61, Width: 64, Heads: 12, KeyHeads: 3, Positions: 300, Splits: 1}}
	if small {
		linear = []triton.Linear{{Tokens: 3, Width: 72, Outs: []int{40, 24, 17}}}
		norm = []triton.Norm{{Tokens: 1, Width: 72, Choices: 1, Splits: 2, Parts: triton.F32, Experts: 5}, {Tokens: 3, Width: 72, Choices: 2, Splits: 2, Weighted: true, Parts: triton.F32, Experts: 5}}
		heads = []triton.Heads{{Tokens: 3, Width: 24, Heads: 4, KeyHeads: 2, Positions: 10, Splits: 2}}
	}
	for _, l := range linear {
		l.Elem, l.Y = e, e
		all = append(all, linearCase(l))
	}
	for _, n := range norm {
		n.Elem, n.Eps = e, 1e-5
		all = append(all, normCase(n))
	}
	for _, h := range heads {
		h.Elem, h.Sums = e, triton.F32
		all = append(all, headsCase(h))
	}
	return all
}

// sum adds up partial sums [S, …], S above 1.
func (k *kit) sum(parts *ir.Value, splits int) *ir.Value {
	parts = k.Convert(parts, "f32")
	if splits == 1 {
		return parts
	}
	return k.Reduce("add", parts, "0.0", 0)
}

func linearCase(l triton.Linear) kernelCase {
	return kernelCase{"product of few rows", fmt.Sprintf("T %d, D %d, N %v", l.Tokens, l.Width, l.Outs), l.Elem, func(k *kit) {
		tile, err := k.table.Choose("linear", l.Elem, l.Tokens)
		tile = l.Fit(tile)
		c, failed := l.Call(tile)
		if err == nil {
			err = failed
		}
		in := []*ir.Value{k.random(l.Elem, l.Tokens, l.Width)}
		for _, n := range l.Outs {
			in = append(in, k.random(l.Elem, n, l.Width))
		}
		for i, y := range k.call(c, err, in...)[:len(l.Outs)] {
			want := exact(k.Builder, ir.Dot{LeftContracted: []int{1}, RightContracted: []int{1}}, in[0], in[1+i], l.Tokens, l.Outs[i])
			k.check(fmt.Sprintf("y%d", i), k.sum(y, tile.Split), want, tolerance(l.Elem))
		}
	}}
}

// normCase also chooses the experts of a single token.
func normCase(n triton.Norm) kernelCase {
	name := "norm of few rows"
	if n.Experts > 0 {
		name += ", router"
	}
	if n.Weighted {
		name += ", experts"
	}
	shape := fmt.Sprintf("T %d, D %d, K %d, S %d, E %d", n.Tokens, n.Width, n.Choices, n.Splits, n.Experts)
	route := triton.Route{Tokens: n.Tokens, Experts: n.Experts, Choices: 2, Block: 16}
	if n.Tokens == 1 && n.Experts > 0 {
		n.Route = &route
		name += ", choice"
	}
	return kernelCase{name, shape, n.Elem, func(k *kit) {
		t, d := n.Tokens, n.Width
		dims := []int{n.Splits, t * n.Choices, d}
		if n.Splits == 1 {
			dims = dims[1:]
		}
		elem := stable(n.Elem)
		x, parts := k.scaled(n.Elem, 1, t, d), k.scaled(n.Parts, 1, dims...)
		in := []*ir.Value{x, parts}
		beside := k.Reshape(k.sum(parts, n.Splits), t, n.Choices, d)
		if n.Weighted {
			w := k.scaled(triton.F32, 1, t, n.Choices)
			in = append(in, w)
			beside = k.Mul(beside, k.Broadcast(w, beside.Dims(), 0, 1))
		}
		scale := k.scaled(n.Elem, 1, d)
		in = append(in, scale)
		sum := k.Add(k.Convert(x, "f32"), k.Convert(k.Convert(k.Reduce("add", beside, "0.0", 1), elem), "f32"))
		row := k.Convert(k.Convert(sum, elem), "f32")
		mean := k.Mul(k.Reduce("add", k.Mul(row, row), "0.0", 1), k.Const(ir.Tensor("f32", t), decimal(1/float64(d))))
		root := k.Unary("sqrt", k.Add(mean, k.Const(mean.Type, decimal(n.Eps))))
		normal := k.Convert(k.Convert(k.Div(row, k.Broadcast(root, row.Dims(), 0)), elem), "f32")
		y := k.Convert(k.Convert(k.Mul(normal, k.Broadcast(k.Convert(scale, "f32"), row.Dims(), 1)), elem), "f32")
		if n.Experts > 0 {
			in = append(in, k.random(triton.F32, n.Experts, d))
		}
		c, err := n.Call()
		out := k.call(c, err, in...)
		k.check("sum", k.Convert(out[0], "f32"), sum, 2*tolerance(n.Elem))
		k.check("y", k.Convert(out[1], "f32"), y, 4*tolerance(n.Elem))
		if n.Experts == 0 {
			return
		}
		k.check("logits", out[2], exact(k.Builder, ir.Dot{LeftContracted: []int{1}, RightContracted: []int{1}}, k.Convert(out[1], "f32"), in[len(in)-1], t, n.Experts), tolerance(triton.F32))
		if n.Route == nil {
			return
		}
		c, err = route.Call()
		for i, want := range k.call(c, err, out[2])[:7] {
			within := 0.0
			if i == 0 {
				within = tolerance(triton.F32)
			}
			k.check(c.Results[i].Name, out[3+i], want, within)
		}
	}}
}

// headsCase has a token whose keys go nowhere.
func headsCase(h triton.Heads) kernelCase {
	shape := fmt.Sprintf("T %d, A %d, H %d, G %d, N %d, S %d", h.Tokens, h.Width, h.Heads, h.KeyHeads, h.Positions, h.Splits)
	return kernelCase{"rotated heads and the pool", shape, h.Elem, func(k *kit) {
		elem, half := stable(h.Elem), h.Width/2
		counts := []int{h.Heads, h.KeyHeads, h.KeyHeads}
		var in []*ir.Value
		for _, n := range counts {
			dims := []int{h.Splits, h.Tokens, n * h.Width}
			if h.Splits == 1 {
				dims = dims[1:]
			}
			in = append(in, k.scaled(h.Sums, 1, dims...))
		}
		cos, sin := k.scaled(triton.F32, 0.7, h.Tokens, half), k.scaled(triton.F32, 0.7, h.Tokens, half)
		var places []int
		for t := range h.Tokens {
			places = append(places, (h.Positions-1+7*t)%h.Positions)
		}
		if h.Tokens > 1 {
			places[1] = h.Positions
		}
		at := k.ints(places)
		keys, values := k.scaled(h.Elem, 1, h.Positions, h.KeyHeads, h.Width), k.scaled(h.Elem, 1, h.Positions, h.KeyHeads, h.Width)
		c, err := h.Call()
		out := k.call(c, err, append(in, cos, sin, at, keys, values)...)
		for i, n := range counts {
			x := k.Reshape(k.sum(in[i], h.Splits), h.Tokens, n, h.Width)
			x = k.Convert(k.Convert(x, elem), "f32")
			if i < 2 {
				each := []int{h.Tokens, n, half}
				a, b := k.Slice(x, []int{0, 0, 0}, each), k.Slice(x, []int{0, 0, half}, []int{h.Tokens, n, h.Width})
				turn := func(angle *ir.Value) *ir.Value {
					return k.Broadcast(k.Convert(k.Convert(angle, elem), "f32"), each, 0, 2)
				}
				left := k.Binary("subtract", k.Mul(a, turn(cos)), k.Mul(b, turn(sin)))
				x = k.Concat(2, left, k.Add(k.Mul(b, turn(cos)), k.Mul(a, turn(sin))))
			}
			if i > 0 {
				x = k.PutRows(k.Convert([]*ir.Value{keys, values}[i-1], "f32"), at, x)
			}
			k.check([]string{"y", "keys", "values"}[i], k.Convert(out[i], "f32"), x, 2*tolerance(h.Elem))
		}
	}}
}
