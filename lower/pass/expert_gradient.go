package pass

import (
	"mix/lower/ir"
	"mix/sharding"
	"mix/sharding/axis"
)

// again is the pass that kept was kept of.
func (s expertSplit) again(b ir.Builder, in, kept []*ir.Value) passed {
	return passed{
		route: s.newRoute(b, in, kept[4:]),
		rows:  kept[0], g: kept[1], u: kept[2], each: kept[3],
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
		var own []*ir.Value
		for _, v := range in[inputs:] {
			dims := v.Dims()
			own = append(own, b.Reshape(v, dims[1:]...))
		}
		parts := s.chunked(b, in[:inputs], inputs-1)
		each := len(own) / len(parts)
		var dx, dweights []*ir.Value
		sums := make([][]*ir.Value, 3) // of each part, for gate, up and down
		for i, c := range parts {
			var p passed
			if kept == nil {
				p = c.pass(b, c.in, true)
			} else {
				p = c.again(b, c.in, own[i*each:(i+1)*each])
			}
			r := p.gradient(b, c.in, c.in[inputs-1], g.frozen)
			dx, dweights = append(dx, r.x), append(dweights, r.weights)
			for j, v := range r.matrices {
				sums[j] = append(sums[j], v)
			}
		}
		results := []placed{{concat(b, dx), s.byToken()}, {concat(b, dweights), s.byToken()}}
		if !g.frozen {
			for j, spec := range []sharding.Spec{s.matrixIn(), s.matrixIn(), s.matrixOut()} {
				results = append(results, placed{s.sum(b, total(b, sums[j]), s.unshared()), spec})
			}
		}
		for i := range results {
			elem, _, _ := g.types[i].Split()
			results[i].v = b.Convert(results[i].v, elem)
		}
		return results
	})
}

// total adds up in f32 and rounds once.
func total(b ir.Builder, parts []*ir.Value) *ir.Value {
	if len(parts) == 1 {
		return parts[0]
	}
	elem, _, _ := parts[0].Type.Split()
	sum := b.Convert(parts[0], "f32")
	for _, p := range parts[1:] {
		sum = b.Add(sum, b.Convert(p, "f32"))
	}
	return b.Convert(sum, elem)
}

// partGradient is the gradient of a part of the tokens: x [T, D] and weights [T, K] of its own, matrices of the rows it computed, none if
// they are frozen.
type partGradient struct {
	x, weights *ir.Value
	matrices   []*ir.Value
}

// gradient is the gradient on one device: dy and dx [T, D] are of its tokens, those of matrices of its experts, whose rows
// came from all devices along expert and which the sum over data completes.
func (p passed) gradient(b ir.Builder, in []*ir.Value, dy *ir.Value, frozen bool) partGradient {
	gate, up, down := p.matrices(b, in)
	elem, t, k, d, pr := p.x.elem, p.t, p.x.k, p.x.d, p.products
	dy = b.Convert(dy, "f32")
	weights := b.Convert(in[2], "f32")
	byWeight := b.Mul(b.Broadcast(dy, []int{t, k, d}, 0, 2), b.Broadcast(weights, []int{t, k, d}, 0, 1)) // [T, K, D]
	ddown := p.there(b, b.Reshape(b.Convert(byWeight, elem), t*k, d))                                    // [N, D]

	dh := pr.gemm(b, ddown, down, p.sizes, true)         // [N, F]
	dg, du, h := pr.upGradient(b, dh, p.g, p.u, p.sizes) // [N, F]
	drows := pr.pair(b, dg, gate, du, up, p.sizes)       // [N, D]

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
	r := partGradient{x: b.Convert(p.sum(b, dx, p.hidden), elem), weights: p.sum(b, b.Concat(1, dweights...), p.hidden)}
	if !frozen {
		r.matrices = []*ir.Value{pr.outer(b, dg, p.rows, p.sizes), pr.outer(b, du, p.rows, p.sizes), pr.outer(b, ddown, h, p.sizes)}
	}
	return r
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
