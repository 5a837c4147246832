package data

import (
	"fmt"
	"math"
	"slices"
)

// Blend mixes datasets: sample i goes to the one furthest behind its weight.
//
// Source: Megatron-LM, core/datasets/blended_dataset.py, helpers.cpp.
type Blend struct {
	parts   []Samples
	which   []uint16
	inside  []uint32 // sample of the part
	seqLen  int
	weights []float64
}

// BlendSizes says how many samples to ask of each of the datasets that a blend of size samples takes by
// weight: its share, rounded up, and 0.5% more, so that greedy choice never asks one for too many. The
// blend has total samples, the sum of the shares without what is more.
func BlendSizes(weights []float64, size int) (sizes []int, total int, err error) {
	w, err := normalize(weights)
	if err != nil {
		return nil, 0, err
	}
	if size < 1 || size > most {
		return nil, 0, fmt.Errorf("blend of %d samples, want 1 to %d", size, most)
	}
	for _, v := range w {
		share := math.Ceil(float64(size) * v)
		sizes = append(sizes, int(math.Ceil(share*(1+0.005))))
		total += int(share)
	}
	return sizes, total, nil
}

// NewBlend takes parts by weight until it has size samples; see BlendSizes. It fails if a part runs out.
func NewBlend(parts []Samples, weights []float64, size int) (*Blend, error) {
	w, err := normalize(weights)
	if err != nil {
		return nil, err
	}
	// Megatron divides given weights twice, which may move the last bit.
	return byWeight(parts, w, size)
}

// NewBlendOfAll takes every sample of every part, mixed by their sizes, and only the first size of them
// if size is not 0.
func NewBlendOfAll(parts []Samples, size int) (*Blend, error) {
	b, err := newBlend(parts)
	if err != nil {
		return nil, err
	}
	lengths, all := make([]float64, len(parts)), 0
	for i, p := range parts {
		lengths[i] = float64(p.Len())
		all += p.Len()
	}
	if size != 0 {
		return byWeight(parts, lengths, min(size, all))
	}
	if all > most {
		return nil, fmt.Errorf("blend of %d samples, want 1 to %d", all, most)
	}
	for _, l := range lengths {
		b.weights = append(b.weights, l/float64(all))
	}
	taken, spent := make([]int, len(parts)), make([]bool, len(parts))
	for i := range all {
		p := b.behind(i, taken, spent)
		b.take(p, taken)
		spent[p] = taken[p] == parts[p].Len()
	}
	return b, nil
}

func byWeight(parts []Samples, weights []float64, size int) (*Blend, error) {
	b, err := newBlend(parts)
	if err != nil {
		return nil, err
	}
	if len(weights) != len(parts) {
		return nil, fmt.Errorf("%d weights for %d datasets", len(weights), len(parts))
	}
	if b.weights, err = normalize(weights); err != nil {
		return nil, err
	}
	if size < 1 || size > most {
		return nil, fmt.Errorf("blend of %d samples, want 1 to %d", size, most)
	}
	taken := make([]int, len(parts))
	for i := range size {
		p := b.behind(i, taken, nil)
		if taken[p] == parts[p].Len() {
			return nil, fmt.Errorf("dataset %d of the blend has %d samples, want more for its weight %g in a blend of %d",
				p, parts[p].Len(), b.weights[p], size)
		}
		b.take(p, taken)
	}
	return b, nil
}

func newBlend(parts []Samples) (*Blend, error) {
	if len(parts) < 1 || len(parts) > math.MaxUint16 {
		return nil, fmt.Errorf("blend of %d datasets, want 1 to %d", len(parts), math.MaxUint16)
	}
	for i, p := range parts {
		if p.SeqLen() != parts[0].SeqLen() || p.Len() < 1 {
			return nil, fmt.Errorf("dataset %d of the blend has %d samples of %d tokens, want some of %d", i, p.Len(), p.SeqLen(), parts[0].SeqLen())
		}
	}
	return &Blend{parts: slices.Clone(parts), seqLen: parts[0].SeqLen()}, nil
}

// behind is the part with the largest deficit before sample i, the first of equals.
func (b *Blend) behind(i int, taken []int, spent []bool) (part int) {
	at, largest := math.Max(float64(i), 1), math.Inf(-1)
	for p, w := range b.weights {
		if spent != nil && spent[p] {
			continue
		}
		// float64 keeps the product from being fused with the difference.
		if deficit := float64(w*at) - float64(taken[p]); deficit > largest {
			part, largest = p, deficit
		}
	}
	return part
}

func (b *Blend) take(p int, taken []int) {
	b.which = append(b.which, uint16(p))
	b.inside = append(b.inside, uint32(taken[p]))
	taken[p]++
}

// Len implements Samples.
func (b *Blend) Len() int { return len(b.which) }

// SeqLen implements Samples.
func (b *Blend) SeqLen() int { return b.seqLen }

// Part tells which dataset, and which of its samples, sample i is.
func (b *Blend) Part(i int) (part, sample int) { return int(b.which[i]), int(b.inside[i]) }

// Sample implements Samples.
func (b *Blend) Sample(i int, row Row) error {
	if i < 0 || i >= len(b.which) {
		return fmt.Errorf("sample %d, want 0 to %d", i, len(b.which)-1)
	}
	part, sample := b.Part(i)
	if err := b.parts[part].Sample(sample, row); err != nil {
		return fmt.Errorf("dataset %d of the blend: %w", part, err)
	}
	return nil
}

// normalize divides by the sum.
func normalize(weights []float64) ([]float64, error) {
	sum := pairwise(weights)
	if !(sum > 0) || math.IsInf(sum, 0) {
		return nil, fmt.Errorf("weights %v sum to %g, want more than 0", weights, sum)
	}
	out := make([]float64, len(weights))
	for i, w := range weights {
		if !(w >= 0) {
			return nil, fmt.Errorf("weight %d is %g, want at least 0", i, w)
		}
		out[i] = w / sum
	}
	return out, nil
}

// pairwise adds up in numpy's order, on which the last bit of a weight depends.
//
// Source: numpy, core/src/umath/loops_utils.h.src, pairwise sum.
func pairwise(a []float64) (sum float64) {
	n := len(a)
	switch {
	case n < 8:
		for _, v := range a {
			sum += v
		}
		return sum
	case n <= 128:
		r := [8]float64(a)
		i := 8
		for ; i+8 <= n; i += 8 {
			for j := range r {
				r[j] += a[i+j]
			}
		}
		sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]))
		for _, v := range a[i:] {
			sum += v
		}
		return sum
	}
	half := n / 2
	half -= half % 8
	return pairwise(a[:half]) + pairwise(a[half:])
}
