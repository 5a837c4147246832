package pass

import (
	"slices"

	"mix/lower/ir"
	"mix/sharding/axis"
)

// ticks is the loop of a stage, with a device's parts of the operands: stacked ones [R, 1, C, …].
type ticks struct {
	*stages
	stage                                             *ir.Value // [] i32
	carry, each, shared, stacked, frozen, douts, kept []*ir.Value
}

// emit runs all ticks. carried are the last carries [M, …], or of the gradient those of the first, on the stage that
// computes them and zeros elsewhere; stacked are the results [R, 1, C, …].
func (x *ticks) emit(b ir.Builder) (carried, stacked []*ir.Value) {
	n := len(x.carry)
	state := []*ir.Value{b.Index(0)} // and what was received, what waits for the next round [M, …], carried, stacked
	for _, v := range x.carry {
		elem, dims, _ := v.Type.Split()
		state = append(state, zeroOf(b, ir.Tensor(elem, dims[1:]...)))
	}
	for range 2 {
		for _, v := range x.carry {
			state = append(state, zeroOf(b, v.Type))
		}
	}
	for _, t := range x.results() {
		state = append(state, zeroOf(b, t))
	}
	end := x.schedule.Ticks()
	out := b.While(state,
		func(b ir.Builder, vs []*ir.Value) *ir.Value { return b.Compare("LT", vs[0], b.Index(end)) },
		func(b ir.Builder, vs []*ir.Value) []*ir.Value {
			t := vs[0]
			next := x.tick(b, t, vs[1:1+n], vs[1+n:1+2*n], vs[1+2*n:1+3*n], vs[1+3*n:])
			return append([]*ir.Value{b.Add(t, b.Index(1))}, next...)
		})
	return out[1+2*n : 1+3*n], out[1+3*n:]
}

// results are the types of a device's parts of the stacked results: outputs and kept carries, or gradients.
func (x *ticks) results() (types []ir.Type) {
	for _, v := range x.op.Results[len(x.op.Results)-x.numStacked():] {
		elem, d, _ := ofStages(v.Type, 1).Split()
		if x.plain && !x.gradient {
			d = slices.Concat(d[:3], []int{1}, d[3:])
		}
		types = append(types, ir.Tensor(elem, d...))
	}
	return types
}

func (x *ticks) numStacked() int {
	if !x.gradient {
		return x.outs + x.keep
	}
	return len(x.op.Results) - len(floatValues(x.carry))
}

// tick is one tick: what each stage receives next, what waits, carried and stacked results.
func (x *ticks) tick(b ir.Builder, t *ir.Value, received, waiting, carried, stacked []*ir.Value) []*ir.Value {
	s, last := x.schedule, b.Index(x.schedule.Stages-1)
	place := x.stage // in the order of work
	if x.gradient {
		place = b.Binary("subtract", last, x.stage)
	}
	round, micro, works := x.unit(b, b.Binary("subtract", t, place))
	// What the last stage has sent to the first waits there until the next round; other stages keep it unread.
	_, arrived, came := x.unit(b, b.Binary("subtract", t, b.Index(s.Stages)))
	first := b.Compare("EQ", place, b.Index(0))
	start := b.Compare("EQ", round, b.Index(b0(x.gradient, s.Rounds-1)))
	h := make([]*ir.Value, len(received))
	waiting = slices.Clone(waiting)
	for i, v := range received {
		waiting[i] = put(b, waiting[i], b.Select(came, v, take(b, waiting[i], arrived)), arrived)
		h[i] = b.Select(first, b.Select(start, take(b, x.carry[i], micro), take(b, waiting[i], micro)), v)
	}
	each := make([]*ir.Value, len(x.each))
	for i, v := range x.each {
		each[i] = take(b, v, micro)
	}
	h, stacked = x.layers(b, round, micro, works, h, each, stacked)
	ends := b.Compare("EQ", round, b.Index(b0(!x.gradient, s.Rounds-1)))
	leaves := b.Binary("and", works, b.Binary("and", ends, b.Compare("EQ", place, last)))
	carried = slices.Clone(carried)
	sent := make([]*ir.Value, len(h))
	for i, v := range h {
		carried[i] = put(b, carried[i], b.Select(leaves, v, take(b, carried[i], micro)), micro)
		sent[i] = b.Permute(v, x.pairs(), x.next())
	}
	return slices.Concat(sent, waiting, carried, stacked)
}

// b0 is n if it is asked for, else 0.
func b0(asked bool, n int) int {
	if asked {
		return n
	}
	return 0
}

// unit is the work at a stage u ticks after the first stage began: round and microbatch, and whether there is any. The
// gradient takes both from the last to the first.
func (x *ticks) unit(b ir.Builder, u *ir.Value) (round, micro, works *ir.Value) {
	s := x.schedule
	period := s.Waiting() + s.Stages
	inside := b.Binary("maximum", b.Binary("minimum", u, b.Index(s.Rounds*period-1)), b.Index(0))
	round = b.Div(inside, b.Index(period))
	micro = b.Binary("subtract", inside, b.Mul(round, b.Index(period)))
	works = b.Binary("and", b.Compare("EQ", u, inside), b.Compare("LT", micro, b.Index(s.Microbatches)))
	micro = b.Binary("minimum", micro, b.Index(s.Microbatches-1))
	if x.gradient {
		round = b.Binary("subtract", b.Index(s.Rounds-1), round)
		micro = b.Binary("subtract", b.Index(s.Microbatches-1), micro)
	}
	return round, micro, works
}

// layers runs the stage's layers of a round on h.
func (x *ticks) layers(b ir.Builder, round, micro, works *ir.Value, h, each, stacked []*ir.Value) (after, results []*ir.Value) {
	n := len(h)
	step := func(b ir.Builder, d *ir.Value, h, stacked []*ir.Value) ([]*ir.Value, []*ir.Value) {
		if x.gradient {
			return x.backward(b, []*ir.Value{round, b.Index(0), b.Binary("subtract", b.Index(x.depth-1), d)}, micro, works, h, each, stacked)
		}
		return x.forward(b, []*ir.Value{round, b.Index(0), d}, micro, works, h, each, stacked)
	}
	if x.depth == 1 {
		return step(b, b.Index(0), h, stacked)
	}
	out := b.While(slices.Concat([]*ir.Value{b.Index(0)}, h, stacked),
		func(b ir.Builder, vs []*ir.Value) *ir.Value { return b.Compare("LT", vs[0], b.Index(x.depth)) },
		func(b ir.Builder, vs []*ir.Value) []*ir.Value {
			h, stacked := step(b, vs[0], vs[1:1+n], vs[1+n:])
			return slices.Concat([]*ir.Value{b.Add(vs[0], b.Index(1))}, h, stacked)
		})
	return out[1 : 1+n], out[1+n:]
}

// forward runs one layer, at rounds, 0 and depth, and keeps what it gives if the stage works.
func (x *ticks) forward(b ir.Builder, at []*ir.Value, micro, works *ir.Value, h, each, stacked []*ir.Value) (after, results []*ir.Value) {
	got := x.call(b, slices.Concat(h, each, x.shared, takeAll(b, x.stacked, at), takeAll(b, x.frozen, at)))
	n := len(h)
	kept := got[n:]
	if x.keep > 0 {
		kept = slices.Concat(kept, h)
	}
	at = append(slices.Clone(at), micro)
	results = slices.Clone(stacked)
	for i, v := range kept {
		results[i] = put(b, stacked[i], b.Select(works, v, take(b, stacked[i], at...)), at...)
	}
	return got[:n], results
}

// backward runs the gradient of one layer and adds up those of its weights if the stage works.
func (x *ticks) backward(b ir.Builder, at []*ir.Value, micro, works *ir.Value, dh, each, stacked []*ir.Value) (after, results []*ir.Value) {
	here := append(slices.Clone(at), micro)
	got := x.call(b, slices.Concat(takeAll(b, x.kept, here), each, x.shared, takeAll(b, x.stacked, at), takeAll(b, x.frozen, at),
		dh, takeAll(b, x.douts, here)))
	after = slices.Clone(dh)
	for i, v := range dh {
		if elem, _, _ := v.Type.Split(); floats[elem] {
			after[i], got = got[0], got[1:]
		}
	}
	results = slices.Clone(stacked)
	for i, v := range got {
		sum := take(b, stacked[i], at...)
		results[i] = put(b, stacked[i], b.Add(sum, b.Select(works, v, zeroOf(b, v.Type))), at...)
	}
	return after, results
}

// call calls the composite of one layer.
func (x *ticks) call(b ir.Builder, operands []*ir.Value) []*ir.Value {
	op := ir.NewOp(x.layer.Name, operands, x.layer.Attrs, ir.Types(x.layer.Results)...)
	return b.Region.Add(op).Results
}

// pairs are the devices that hand on to each other: to the next stage, of the gradient to the one before.
func (x *ticks) pairs() (pairs [][2]int) {
	for _, ring := range x.mesh.Groups(axis.Pipe) {
		for i, from := range ring {
			to := ring[(i+1)%len(ring)]
			if x.gradient {
				to = ring[(i+len(ring)-1)%len(ring)]
			}
			pairs = append(pairs, [2]int{from, to})
		}
	}
	return pairs
}
