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
		powers := make([]*Value, p.Choices)
		for i, v := range values {
			apart := k.Select(k.Equal(v, values[0]), k.Float(0), k.Sub(v, values[0])) // of two -Inf, 0
			powers[i] = k.Exp2(k.Mul(apart, k.Float(log2e)))
		}
		sum := powers[0]
		for _, p := range powers[1:] {
			sum = k.Add(sum, p)
		}
		for i, e := range ids {
			to := k.Add(at, k.Int(i))
			k.Store(k.Ptr(weights, to), k.Div(powers[i], sum), inside)
			k.Store(k.Ptr(chosen, to), e, inside)
		}
	})
	return k.finish(1, 1, 1)
}
