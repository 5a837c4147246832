package triton

import "math"

// Route chooses the experts of each token and orders the routed rows, in one kernel.
type Route Permute

// Call is the kernel, one program.
//
//	logits  [T, E] f32
//	weights [T, K] f32  softmax over the K chosen logits
//	chosen  [T, K] i32  best first, ties to the lower id; NaN counts as -Inf
//	place, order, sizes, offsets, blocks  as those of Permute
func (r Route) Call() (Call, error) {
	const name = "experts_route"
	p := Permute(r)
	if err := p.check(name); err != nil {
		return Call{}, err
	}
	k := newKernel(name, onePass)
	logits := k.operand("logits", F32, p.Tokens, p.Experts)
	// The values chosen in the latest call of choose, for the weights.
	var values []*Value
	width := powerOfTwo(p.Experts)
	choose := func(tokens, inside *Value) []*Value {
		experts := k.Row(k.Range(width))
		known := k.And(k.Column(inside), k.Less(experts, k.Int(p.Experts))) // [n, E]
		x := k.Load(k.Ptr(logits, k.Add(k.Column(k.long(tokens, p.Experts)), k.Convert(experts, I64))), known)
		lowest := k.Float(math.Inf(-1))
		x = k.Select(k.Equal(x, x), x, lowest) // NaN
		free := k.LessEqual(experts, k.Int(p.Experts-1))
		values = nil
		all := make([]*Value, p.Choices)
		for i := range all {
			best := k.Greatest(k.Select(free, x, lowest), 1) // [n]
			tied := k.And(free, k.Equal(x, k.Column(best)))
			e := k.Least(k.Select(tied, experts, k.Int(width-1)), 1) // [n]
			free = k.And(free, k.Less(k.Convert(k.Equal(k.Column(e), experts), I32), k.Int(1)))
			values = append(values, best)
			all[i] = k.Select(inside, e, k.Int(-1))
		}
		return all
	}
	weights := k.result("weights", F32, p.Tokens, p.Choices)
	chosen := k.result("chosen", I32, p.Tokens, p.Choices)
	k.permute(p, choose, func(tokens, inside *Value, ids []*Value) {
		at := k.Mul(tokens, k.Int(p.Choices))
		for i, share := range k.shares(values) {
			to := k.Add(at, k.Int(i))
			k.Store(k.Ptr(weights, to), share, inside)
			k.Store(k.Ptr(chosen, to), ids[i], inside)
		}
	})
	return k.finish(1, 1, 1)
}

// shares is the softmax over values of which the first is the greatest.
func (k *kernel) shares(values []*Value) []*Value {
	powers := make([]*Value, len(values))
	for i, v := range values {
		apart := k.Select(k.Equal(v, values[0]), k.Float(0), k.Sub(v, values[0])) // of two -Inf, 0
		powers[i] = k.Exp2(k.Mul(apart, k.Float(log2e)))
	}
	sum := powers[0]
	for _, p := range powers[1:] {
		sum = k.Add(sum, p)
	}
	out := make([]*Value, len(values))
	for i, p := range powers {
		out[i] = k.Div(p, sum)
	}
	return out
}

// routeOne is Route of a single token, whose logits [E] are at hand. A token's experts are distinct: each chosen one has a block of
// one row.
func (k *kernel) routeOne(r Route, logits *Value, to routed) {
	g := Permute(r).groups()
	experts := k.Range(logits.Type.Size())
	lowest := k.Float(math.Inf(-1))
	free := k.Less(experts, k.Int(r.Experts))
	x := k.Select(k.Equal(logits, logits), logits, lowest) // NaN
	counts := k.Zeros(I32, logits.Type.Size())
	var values, ids []*Value // scalars
	for range r.Choices {
		best := k.Greatest(k.Select(free, x, lowest), 0)
		tied := k.And(free, k.Equal(x, best))
		e := k.Least(k.Select(tied, experts, k.Int(logits.Type.Size()-1)), 0)
		own := k.Convert(k.Equal(experts, e), I32)
		counts = k.Add(counts, own)
		free = k.And(free, k.Less(own, k.Int(1)))
		values, ids = append(values, best), append(ids, e)
	}
	k.groupBounds(counts, to.sizes, to.offsets, g)
	for i, share := range k.shares(values) {
		at := k.Int(0) // the place of choice i: how many of the chosen come before it
		for j, e := range ids {
			if j != i {
				at = k.Add(at, k.Convert(k.Less(e, ids[i]), I32))
			}
		}
		choice := k.Int(i)
		k.Store(k.Ptr(to.weights, choice), share, nil)
		k.Store(k.Ptr(to.chosen, choice), ids[i], nil)
		k.Store(k.Ptr(to.place, choice), at, nil)
		k.Store(k.Ptr(to.order, at), choice, nil)
		k.Store(k.Ptr(to.blocks, at), ids[i], nil)
		k.Store(k.Ptr(k.Ptr(to.blocks, k.Int(g.Blocks(r.Block))), at), at, nil)
	}
}

// routed are pointers to the results of Route.
type routed struct{ weights, chosen, place, order, sizes, offsets, blocks *Value }

// routedResults declares them.
func (k *kernel) routedResults(r Route) routed {
	g := Permute(r).groups()
	return routed{k.result("weights", F32, r.Tokens, r.Choices), k.result("chosen", I32, r.Tokens, r.Choices),
		k.result("place", I32, g.Rows), k.result("order", I32, g.Rows), k.result("sizes", I32, r.Experts),
		k.result("offsets", I32, r.Experts+1), k.result("blocks", I32, 2, g.Blocks(r.Block))}
}
