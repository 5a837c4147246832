package pass

import (
	"strconv"

	"mix/lower/ir"
	"mix/sharding"
	"mix/sharding/axis"
)

// Axes of the files expert_*.go, sizes of one device: T tokens, K choices a token, R = T·K rows it sends, row t·K+i being
// choice i of token t, E its own experts, O the devices that share the experts, N rows it computes, D model width, F its part of
// the hidden width.

// expertSplit is how routed experts lie on the mesh, and their sizes on one device.
type expertSplit struct {
	*spreader
	x       experts     // of the whole mesh
	axes    []axis.Mesh // of the region, those that follow are among them
	tokens  []axis.Mesh // split T
	experts []axis.Mesh // split E
	hidden  []axis.Mesh // split F

	exchange   bool // rows travel; else all devices that share the experts have the same tokens
	ragged     bool // of what is sent, the rows alone travel
	chunks     int  // parts of the tokens that are exchanged and computed one after the other
	t, e, f    int
	owners     int // O
	rows       int // N
	bins, room int // of what a device sends: N = bins·room, owner by owner
	most       int // rows of its tokens that an expert has room for, 0 for all
}

// The places of values on the mesh.
func (s expertSplit) byToken() sharding.Spec   { return sharding.Spec{s.tokens, nil} }            // x [T, D]
func (s expertSplit) matrixIn() sharding.Spec  { return sharding.Spec{s.experts, s.hidden, nil} } // gate, up [E, F, D]
func (s expertSplit) matrixOut() sharding.Spec { return sharding.Spec{s.experts, nil, s.hidden} } // down [E, D, F]

// own is a value that each device has its own of, along its first axis, of one element on a device.
func (s expertSplit) own(v *ir.Value) placed {
	dims := v.Dims()
	spec := make(sharding.Spec, len(dims))
	spec[0] = s.axes
	return placed{v, spec}
}

// placed is a value and its place.
type placed struct {
	v    *ir.Value
	spec sharding.Spec
}

// region emits a region of one device's work. body gets the parts of in and gives parts and places of the results.
func (s expertSplit) region(b ir.Builder, in []placed, body func(b ir.Builder, in []*ir.Value) []placed) []*ir.Value {
	return ownWork(b, s.ctx.Mesh, s.axes, in, body)
}

// ownWork emits a region of one device's work along axes, as expertSplit.region does.
func ownWork(b ir.Builder, m sharding.Mesh, along []axis.Mesh, in []placed, body func(b ir.Builder, in []*ir.Value) []placed) []*ir.Value {
	var operands []*ir.Value
	var parts, types []ir.Type
	var ins, outs, axes []string
	for _, p := range in {
		operands = append(operands, p.v)
		parts = append(parts, p.scaled(m, func(size, shards int) int { return size / shards }))
		ins = append(ins, shardingOf(p.spec, nil))
	}
	r := ir.NewRegion(parts...)
	var results []*ir.Value
	for _, p := range body(ir.At(r), r.Args) {
		results = append(results, p.v)
		types = append(types, p.scaled(m, func(size, shards int) int { return size * shards }))
		outs = append(outs, shardingOf(p.spec, nil))
	}
	r.Emit("sdy.return", results, nil)
	for _, a := range along {
		axes = append(axes, string(a))
	}
	return b.Manual(axes, operands, ins, outs, r, types...)
}

// scaled is the type with each size as by makes it of size and number of parts.
func (p placed) scaled(m sharding.Mesh, by func(size, shards int) int) ir.Type {
	elem, dims, _ := p.v.Type.Split()
	out := make([]int, len(dims))
	for i, d := range dims {
		out[i] = by(d, m.Size(p.spec[i]...))
	}
	return ir.Tensor(elem, out...)
}

// sum adds up over the devices along axes; x itself if there are none.
func (s expertSplit) sum(b ir.Builder, x *ir.Value, axes []axis.Mesh) *ir.Value {
	if len(axes) == 0 {
		return x
	}
	s.channel++
	return b.AllReduce(x, s.ctx.Mesh.Groups(axes...), s.channel-1)
}

// trade sends rows [N, W], one part for each device that shares the experts, and gives those it was sent. sent and received, [O] i32
// and not nil where exchanges are ragged, are how many rows of each part, from its first, somebody reads; the others are zeros then.
func (s expertSplit) trade(b ir.Builder, rows, sent, received, number *ir.Value) *ir.Value {
	if !s.ragged {
		return s.swap(b, rows)
	}
	each := b.Const(sent.Type, strconv.Itoa(s.rows/s.owners))
	from := b.Mul(b.Iota(0, "i32", s.owners), each)                    // [O]
	to := b.Mul(b.Broadcast(b.Reshape(number), []int{s.owners}), each) // [O] this device's part, there
	s.channel++
	return b.RaggedAllToAll(rows, b.Const(rows.Type, "0.0"), ir.Ragged{From: from, Send: sent, To: to, Receive: received},
		s.ctx.Mesh.Groups(s.experts...), s.channel-1)
}

// swap sends the parts of rows [N, …], one for each device that shares the experts, and gives those it was sent.
func (s expertSplit) swap(b ir.Builder, rows *ir.Value) *ir.Value {
	dims := rows.Dims()
	parts := b.Reshape(rows, append([]int{s.owners, s.rows / s.owners}, dims[1:]...)...)
	s.channel++
	parts = b.AllToAll(parts, s.ctx.Mesh.Groups(s.experts...), s.channel-1)
	return b.Reshape(parts, dims...)
}

// number is each device's place among those that share the experts, as an operand of a region: [O] i32, one a device.
func (s expertSplit) number(b ir.Builder) placed {
	return placed{b.Iota(0, "i32", s.owners), sharding.Spec{s.experts}}
}
