package gpu

import (
	"slices"

	"mix/cmd/internal/planner"
	"mix/graph"
	"mix/lower/target"
	"mix/sharding"
	"mix/sharding/axis"
	"mix/train"
)

// weightBytes is the size of a model's weights in serving: bfloat16, the router float32.
func weightBytes(c graph.Config) (bytes int64) {
	m := planner.Model(c, true)
	for _, p := range m.Params {
		bytes += int64(m.Bytes(p).Weight * p.Elements())
	}
	return bytes
}

// poolBytes is the size of keys and values of so many positions, bfloat16.
func poolBytes(c graph.Config, positions int) int64 {
	return 2 * 2 * int64(positions) * int64(c.KVHeads) * int64(c.HeadDim) * int64(c.Layers)
}

// servingSpare is what programs take beside weights and pool: logits and activations of a chunk, and libraries.
const servingSpare = 4 << 30

// servingLayers is the most layers whose weights and pool fit the memory, up to all.
func servingLayers(config func(layers int) graph.Config, all, positions int, memory int64) int {
	for n := all; n > 1; n-- {
		c := config(n)
		if weightBytes(c)+poolBytes(c, positions)+servingSpare <= memory {
			return n
		}
	}
	return 1
}

// trainingBytes is what the planner expects a step to take: weights float32, their gradients and moments, and
// activations.
func trainingBytes(c graph.Config, chip sharding.Chip, seq, micro int) (int64, error) {
	m := planner.Model(c, false)
	m.Bytes = func(axis.Param) sharding.Width { return sharding.Width{Weight: 4, Gradient: 4, Moment: 8} }
	j := sharding.Training{Model: m, Chip: chip, Seq: seq, Batch: micro, Devices: 1}
	e, err := j.Estimate(sharding.Mapping{MicroBatch: micro, Rounds: 1, Group: 1, Recompute: sharding.KeepAll})
	return int64(e.Memory.Total()), err
}

// trainingLayers is the most layers that the planner fits into the memory, up to all, with the most samples a
// microbatch, of 4, 2 and 1, that leave room for two layers.
func trainingLayers(config func(layers int) graph.Config, all int, chip sharding.Chip, seq int, memory int64) (layers, micro int, err error) {
	for _, micro = range []int{4, 2, 1} {
		for layers = all; layers > 0; layers-- {
			bytes, err := trainingBytes(config(layers), chip, seq, micro)
			if err != nil {
				return 0, 0, err
			}
			if bytes <= memory {
				break
			}
		}
		if layers >= 2 {
			return layers, micro, nil
		}
	}
	return max(layers, 1), 1, nil
}

// stateBytes is what a step in bfloat16 moves for each number of a weight, beside what products read: weight and moments,
// float32, are read and written; the gradient, of experts bfloat16, is written, read for its norm and read by the update; all
// but the table of embeddings is converted for products.
func stateBytes(p axis.Param) (bytes int) {
	bytes = 3*(4+4) + 3*4
	if slices.Contains(p.Axes, axis.FFN) {
		bytes = 3*(4+4) + 3*2
	}
	if p.Path != "embed" {
		bytes += 4 + 2
	}
	return bytes
}

// trainingRoof is the least that a step of so many tokens, in sequences of seq, takes on the chip.
func trainingRoof(c graph.Config, chip target.Chip, tokens, seq int) (r Roof) {
	for _, p := range graph.Params(c) {
		r.Bytes += float64(p.Elements()) * float64(stateBytes(p))
	}
	if chip.BF16 == 0 || chip.Bandwidth == 0 {
		return r
	}
	r.Products = train.FLOPs(c, seq) * float64(tokens) / chip.BF16
	r.State = r.Bytes / chip.Bandwidth
	r.Bound = r.Products / (r.Products + r.State)
	return r
}
