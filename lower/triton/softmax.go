package triton

import "math"

// online is a softmax over keys that come block by block: the state is the greatest score of each row so far, the
// sum of powers and the sum of values by powers, [m], [m] and [m, a], all f32. Scores are logarithms to base 2.
//
// Source: Milakov and Gimelshein 2018, arXiv:1805.02867; Dao 2023, arXiv:2307.08691, section 3.1.
func (k *kernel) online(m, a int) []*Value {
	return []*Value{k.Broadcast(k.Float(math.Inf(-1)), m), k.Zeros(F32, m), k.Zeros(F32, m, a)}
}

// attend takes a block of scores [m, n] of which only seen count, all if it is nil, and of values [n, a].
func (k *kernel) attend(state []*Value, scores, seen, values *Value) []*Value {
	if seen != nil {
		scores = k.Select(seen, scores, k.Float(math.Inf(-1)))
	}
	most := k.Max(state[0], k.Greatest(scores, 1))                                             // [m]
	base := k.Select(k.Equal(most, k.Float(math.Inf(-1))), k.Float(0), most)                   // [m], no key seen yet
	powers := k.Exp2(k.Sub(scores, k.Column(base)))                                            // [m, n]
	fade := k.Exp2(k.Sub(state[0], base))                                                      // [m]
	sum := k.Add(k.Mul(state[1], fade), k.Sum(powers, 1))                                      // [m]
	acc := k.Dot(k.Convert(powers, values.Type.Elem), values, k.Mul(state[2], k.Column(fade))) // [m, a]
	return []*Value{most, sum, acc}
}

// mean is the state's result, zeros for rows that saw no key.
func (k *kernel) mean(state []*Value) *Value {
	sum := k.Select(k.Equal(state[1], k.Float(0)), k.Float(1), state[1])
	return k.Div(state[2], k.Column(sum))
}

// sums is the logarithm to base 2 of the state's sums of powers, [m]; infinity for rows that saw no key.
func (k *kernel) sums(state []*Value) *Value {
	none := k.Equal(state[1], k.Float(0))
	sum := k.Add(state[0], k.Log2(k.Select(none, k.Float(1), state[1])))
	return k.Select(none, k.Sub(k.Float(0), sum), sum) // such a row's greatest score is minus infinity
}

// scale takes products of queries and keys of width a to scores in base 2.
func (k *kernel) scale(x *Value, a int) *Value {
	return k.Mul(x, k.Float(log2e/math.Sqrt(float64(a))))
}
