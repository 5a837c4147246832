package ref

import "math"

// Ignore is the label of a position that no loss is taken at.
const Ignore = -100

// CrossEntropy is the mean over a batch of -log softmax(logits[b][s])[labels[b][s+1]] where that label is
// kept, and how many are; 0 when none is.
//
//	logits [B][S][V], labels [B][S]
func CrossEntropy(logits []Matrix, labels [][]int32) (loss float64, kept int) {
	var sum float64
	for b := range logits {
		for s, next := range labels[b][1:] {
			if next != Ignore {
				sum -= math.Log(Softmax(logits[b][s])[next])
				kept++
			}
		}
	}
	return sum / float64(max(kept, 1)), kept
}

// LoadBalance is E·Σ_e f_e·P_e over the rows of all layers that the mask keeps: f_e is how often a row
// chose e, P_e the mean of softmax(logits)[e].
//
//	logits [L][T][E], chosen [L][T][K], mask [T] or nil
func LoadBalance(logits []Matrix, chosen [][][]int, mask []bool) float64 {
	experts := len(logits[0][0])
	f, p := make(Vector, experts), make(Vector, experts)
	var rows float64
	for l := range logits {
		for t := range logits[l] {
			if mask != nil && !mask[t] {
				continue
			}
			rows++
			for _, e := range chosen[l][t] {
				f[e]++
			}
			for e, v := range Softmax(logits[l][t]) {
				p[e] += v
			}
		}
	}
	return float64(experts) * dot(f, p) / rows / rows
}
