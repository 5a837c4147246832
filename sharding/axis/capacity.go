package axis

import "math"

// Capacity is how many rows an expert takes at most of tokens that go to choices experts each: factor times the mean,
// rounded up. At tokens or more it bounds nothing, since the experts of a token are distinct.
//
// Source: Lepikhin et al. 2020, arXiv:2006.16668, section 2.2; Megatron-LM, core/transformer/moe/moe_utils.py.
func Capacity(factor float64, tokens, choices, experts int) int {
	rows := math.Ceil(float64(tokens*choices) / float64(experts) * factor)
	return int(min(max(rows, 1), float64(tokens)))
}
