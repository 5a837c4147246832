package ref

import (
	"cmp"
	"slices"
)

// Kept is what a sampler may draw from logits [V], best first: their softmax at a temperature, then the
// topK most likely (0 for all), then the smallest set of those whose renormalised probability reaches topP
// (1 for all), then those of at least minP times the best one's probability. Ties go to the lower id.
//
//	ids, p [N] token ids and their probabilities, summing to 1
func Kept(logits Vector, temperature float64, topK int, topP, minP float64) (ids []int, p Vector) {
	ids = make([]int, len(logits))
	for i := range ids {
		ids[i] = i
	}
	slices.SortStableFunc(ids, func(a, b int) int { return cmp.Compare(logits[b], logits[a]) })
	if temperature <= 0 {
		return ids[:1], Vector{1}
	}
	if topK > 0 {
		ids = ids[:min(topK, len(ids))]
	}
	p = probabilities(logits, ids, temperature)
	if topP < 1 {
		n, sum := 0, 0.0
		for n < len(p) && sum < topP {
			sum += p[n]
			n++
		}
		n = max(n, 1)
		ids, p = ids[:n], p[:n]
	}
	n := 1
	for n < len(p) && p[n] >= minP*p[0] {
		n++
	}
	return ids[:n], probabilities(logits, ids[:n], temperature)
}

// probabilities is the softmax of the logits of ids at a temperature.
func probabilities(logits Vector, ids []int, temperature float64) Vector {
	x := make(Vector, len(ids))
	for i, id := range ids {
		x[i] = logits[id] / temperature
	}
	return Softmax(x)
}

// Threefry is Threefry-2x32 with 20 rounds: counter enciphered by key. Source: Salmon et al. 2011,
// "Parallel random numbers: as easy as 1, 2, 3", section 5.
func Threefry(key, counter [2]uint32) [2]uint32 {
	keys := [3]uint32{key[0], key[1], key[0] ^ key[1] ^ 0x1BD11BDA}
	turns := [8]int{13, 15, 26, 6, 17, 29, 16, 24}
	x, y := counter[0]+keys[0], counter[1]+keys[1]
	for round := range 20 {
		x += y
		y = (y<<turns[round%8] | y>>(32-turns[round%8])) ^ x
		if n := round/4 + 1; round%4 == 3 {
			x, y = x+keys[n%3], y+keys[(n+1)%3]+uint32(n)
		}
	}
	return [2]uint32{x, y}
}
