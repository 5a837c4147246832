package pass

import (
	"slices"

	"mix/lower/ir"
	"mix/sharding"
)

// passed is what a device knows after its forward pass.
type passed struct {
	route
	rows, g, u *ir.Value // [N, D], [N, F], [N, F]
	each       *ir.Value // [R, D] results of the rows that it sent, before weights; where the hidden width is split a part of the sum
}

// forward is y [T, D] of routed experts, with a capacity the number of dropped rows, and if keep is set what the gradient
// reads.
func (s expertSplit) forward(b ir.Builder, keep bool) []*ir.Value {
	in := s.inputs(b)
	return s.region(b, in, func(b ir.Builder, in []*ir.Value) []placed {
		var y, kept []*ir.Value
		var dropped *ir.Value
		for _, c := range s.chunked(b, in) {
			p := c.pass(b, c.in, keep)
			y, kept = append(y, p.combine(b, c.in[2])), append(kept, p.kept()...)
			if s.x.capacity > 0 {
				dropped = p.dropped(b)
			}
		}
		out := []placed{{concat(b, y), s.byToken()}}
		if s.x.capacity > 0 {
			out = append(out, placed{dropped, sharding.Spec{}})
		}
		if !keep {
			return out
		}
		for _, v := range kept {
			dims := v.Dims()
			out = append(out, s.own(b.Reshape(v, append([]int{1}, dims...)...)))
		}
		return out
	})
}

// chunk is a part of a device's tokens and the inputs that go with it.
type chunk struct {
	expertSplit
	in []*ir.Value
}

// chunked cuts a device's tokens into parts that are exchanged and computed by themselves, so that one part's rows travel while
// another's are multiplied. The first three inputs, and those of byToken behind the matrices, are cut.
func (s expertSplit) chunked(b ir.Builder, in []*ir.Value, byToken ...int) (parts []chunk) {
	if s.chunks == 1 {
		return []chunk{{s, in}}
	}
	part := s
	part.chunks, part.t, part.rows, part.room = 1, s.t/s.chunks, s.rows/s.chunks, s.room/s.chunks
	for c := range s.chunks {
		own := slices.Clone(in)
		for _, i := range append([]int{0, 1, 2}, byToken...) {
			width := in[i].Dims()[1]
			own[i] = b.Slice(in[i], []int{c * part.t, 0}, []int{(c + 1) * part.t, width})
		}
		parts = append(parts, chunk{part, own})
	}
	return parts
}

// concat puts parts along their first axis behind each other.
func concat(b ir.Builder, parts []*ir.Value) *ir.Value {
	if len(parts) == 1 {
		return parts[0]
	}
	return b.Concat(0, parts...)
}

// inputs are x, chosen, weights, gate, up and down and, where experts are split, the devices' numbers.
func (s expertSplit) inputs(b ir.Builder) []placed {
	in := []placed{
		{s.x.x, s.byToken()}, {s.x.chosen, s.byToken()}, {s.x.weights, s.byToken()},
		{s.x.gate[0], s.matrixIn()}, {s.x.up[0], s.matrixIn()}, {s.x.down[0], s.matrixOut()},
	}
	if s.numbered() {
		in = append(in, s.number(b))
	}
	return in
}

// numbered tells whether the region needs the devices' numbers.
func (s expertSplit) numbered() bool { return s.owners > 1 && (!s.exchange || s.ragged) }

// numberOf is a device's number among the parts of inputs, nil without any.
func (s expertSplit) numberOf(in []*ir.Value) *ir.Value {
	if !s.numbered() {
		return nil
	}
	return in[6]
}

// matrices are the device's parts of gate, up and down, in x's elements.
func (s expertSplit) matrices(b ir.Builder, in []*ir.Value) (gate, up, down *ir.Value) {
	return b.Convert(in[3], s.x.elem), b.Convert(in[4], s.x.elem), b.Convert(in[5], s.x.elem)
}

// pass is the forward pass on one device, from the parts of inputs; keep is set where a gradient follows.
func (s expertSplit) pass(b ir.Builder, in []*ir.Value, keep bool) passed {
	gate, up, down := s.matrices(b, in)
	p := passed{route: s.newRoute(b, in, nil)}
	p.rows = p.there(b, in[0])
	h := s.products.up(b, p.rows, gate, up, p.sizes, keep)
	if keep {
		p.g, p.u = h[1], h[2]
	}
	p.each = p.back(b, s.products.gemm(b, h[0], down, p.sizes, false))
	return p
}

// kept is what the gradient reads.
func (p passed) kept() []*ir.Value {
	kept := []*ir.Value{p.rows, p.g, p.u, p.each, p.place, p.sizes}
	if p.received != nil {
		kept = append(kept, p.received)
	}
	return kept
}

// choices takes rows [R, D] apart: for each choice those of all tokens, [T, D] f32.
func (s expertSplit) choices(b ir.Builder, rows *ir.Value) (each []*ir.Value) {
	apart := b.Reshape(rows, s.t, s.x.k, s.x.d)
	for i := range s.x.k {
		each = append(each, b.Convert(choice(b, apart, i), "f32"))
	}
	return each
}

// combine is the sum of a token's results by weight, in f32 and in the order of the choices, [T, D] of x's elements.
func (p passed) combine(b ir.Builder, weights *ir.Value) *ir.Value {
	sum := weighted(b, p.choices(b, p.each), weights)
	return b.Convert(p.sum(b, sum, p.hidden), p.x.elem)
}
