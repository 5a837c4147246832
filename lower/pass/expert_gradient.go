package pass

import (
	"mix/lower/ir"
	"mix/sharding"
	"mix/sharding/axis"
)

// again is the pass that kept was kept of.
func (s expertSplit) again(b ir.Builder, in, kept []*ir.Value) passed {
	return passed{
		route: s.newRoute(b, in, kept[1:3]),
		rows:  kept[0], g: kept[3], u: kept[4], each: kept[5],
	}
}

// gradient is the gradient of routed experts by x, by weights and, unless frozen, by gate, up and down. kept are the
// forward pass's, nil to compute it again.
func (s expertSplit) gradient(b ir.Builder, g gradientOf, kept []*ir.Value) []*ir.Value {
	in := append(s.inputs(b), placed{g.dy, s.byToken()})
	inputs := len(in)
	for _, v := range kept {
		in = append(in, s.own(v))
	}
	return s.region(b, in, func(b ir.Builder, in []*ir.Value) []placed {
		var p passed
		if kept == nil {
			p = s.pass(b, in)
		} else {
			var own []*ir.Value
			for _, v := range in[inputs:] {
				dims := v.Dims()
				own = append(own, b.Reshape(v, dims[1:]...))
			}
			p = s.again(b, in, own)
		}
		results := p.gradient(b, in, in[inputs-1], g.frozen)
		for i := range results {
			elem, _, _ := g.types[i].Split()
			results[i].v = b.Convert(results[i].v, elem)
		}
		return results
	})
}

// gradient is the gradient on one device: dy and dx [T, D] are of its tokens, those of matrices of its experts, whose rows
// came from all devices along expert and which the sum over data completes.
func (p passed) gradient(b ir.Builder, in []*ir.Value, dy *ir.Value, frozen bool) []placed {
	gate, up, down := p.matrices(b, in)
	elem, t, k, d, pr := p.x.elem, p.t, p.x.k, p.x.d, p.products
	dy = b.Convert(dy, "f32")
	weights := b.Convert(in[2], "f32")
	byWeight := b.Mul(b.Broadcast(dy, []int{t, k, d}, 0, 2), b.Broadcast(weights, []int{t, k, d}, 0, 1)) // [T, K, D]
	ddown := p.there(b, b.Reshape(b.Convert(byWeight, elem), t*k, d))                                    // [N, D]

	s := b.Unary("logistic", p.g) // [N, F]
	a := b.Mul(p.g, s)            // [N, F]
	dh := pr.gemm(b, ddown, down, p.sizes, true)
	dg, du := swigluGradient(b, p.g, p.u, s, a, dh)
	drows := b.Add(pr.gemm(b, dg, gate, p.sizes, true), pr.gemm(b, du, up, p.sizes, true)) // [N, D]

	var dx *ir.Value
	for _, choice := range p.choices(b, p.back(b, drows)) {
		if dx == nil {
			dx = choice
		} else {
			dx = b.Add(dx, choice)
		}
	}
	var dweights []*ir.Value // K of [T, 1]
	for _, choice := range p.choices(b, p.each) {
		dweights = append(dweights, b.Reshape(b.Reduce("add", b.Mul(dy, choice), "0.0", 1), t, 1))
	}
	results := []placed{
		{b.Convert(p.sum(b, dx, p.hidden), elem), p.byToken()},
		{p.sum(b, b.Concat(1, dweights...), p.hidden), p.byToken()},
	}
	if frozen {
		return results
	}
	matrix := func(left, right *ir.Value, spec sharding.Spec) {
		results = append(results, placed{p.sum(b, pr.outer(b, left, right, p.sizes), p.unshared()), spec})
	}
	matrix(dg, p.rows, p.matrixIn())
	matrix(du, p.rows, p.matrixIn())
	matrix(ddown, b.Mul(a, p.u), p.matrixOut())
	return results
}

// swigluGradient is the gradient of swiglu by g and by u. s is the logistic of g and a is g·s.
func swigluGradient(b ir.Builder, g, u, s, a, dh *ir.Value) (dg, du *ir.Value) {
	du = b.Mul(dh, a)
	slope := b.Mul(s, b.Add(b.Const(s.Type, "1.0"), b.Binary("subtract", g, a)))
	return b.Mul(b.Mul(dh, u), slope), du
}

// unshared are the axes whose devices compute the same experts for different tokens: data, if it splits tokens.
func (s expertSplit) unshared() (axes []axis.Mesh) {
	for _, a := range s.tokens {
		if a == axis.Data {
			axes = append(axes, a)
		}
	}
	return axes
}
