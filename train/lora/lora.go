// Package lora is low-rank adaptation on the host: which weights get adapters, how these begin, the files
// in which PEFT keeps them, merging them into a model, and the int8 form of a frozen base.
//
//	Options → Params → Init ┐
//	PEFT folder → Open ─────┴→ adapters → Write, or Merge with a base → a reader like a checkpoint
//	checkpoint → Quantize → int8 weights and their scales
//
// An adapted weight W [out, in] acts as W + scale·B·A with A [r, in] and B [out, r]. All weights of one
// kind are stacked over layers and experts, as those of the model are.
//
// Axes in comments, as in package graph, and r the rank of the adapters.
//
// Source: Hu et al. 2021, "LoRA", arXiv:2106.09685.
package lora

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"mix/sharding/ckpt"
)

// Reader gives pieces of weights, as a checkpoint does: Read fills dst, of q.Bytes() bytes, with a piece in
// row-major order and q.DType.
type Reader = ckpt.Reader

// AllLinear as the only target stands for all of them, as in PEFT.
const AllLinear = "all-linear"

// Options says what is adapted and how.
type Options struct {
	Rank    int      // r
	Alpha   float64  // numerator of the scale
	Targets []string // module names of PEFT: q_proj k_proj v_proj o_proj gate (the router) w1 w2 w3 (of all experts), or AllLinear
	Seed    uint64   // of the initial values; not part of a PEFT folder
	RsLoRA  bool     // the scale is Alpha/√Rank rather than Alpha/Rank. Source: Kalajdzievski 2023, arXiv:2312.03732
}

// Default adapts attention and experts, not the router.
func Default() Options {
	return Options{Rank: 16, Alpha: 32, Targets: []string{"q_proj", "k_proj", "v_proj", "o_proj", "w1", "w2", "w3"}}
}

// maxRank is far above what helps: an adapter as large as the weight trains as much as the weight.
const maxRank = 1 << 12

// Validate names the first option that is out of bounds.
func (o Options) Validate() error {
	switch {
	case o.Rank < 1 || o.Rank > maxRank:
		return fmt.Errorf("lora: rank is %d, want 1 to %d", o.Rank, maxRank)
	case !(o.Alpha > 0) || math.IsInf(o.Alpha, 0):
		return fmt.Errorf("lora: alpha is %g, want a positive number", o.Alpha)
	case len(o.Targets) == 0:
		return fmt.Errorf("lora: no targets, want some of %s, or %s", strings.Join(names(), " "), AllLinear)
	}
	for i, name := range o.Targets {
		switch {
		case name == AllLinear && len(o.Targets) > 1:
			return fmt.Errorf("lora: targets %v, want %s alone", o.Targets, AllLinear)
		case name != AllLinear && !slices.Contains(names(), name):
			return fmt.Errorf("lora: unknown target %q, want some of %s, or %s", name, strings.Join(names(), " "), AllLinear)
		case slices.Contains(o.Targets[:i], name):
			return fmt.Errorf("lora: target %q is there twice", name)
		}
	}
	return nil
}

// Scale is what B·A is multiplied by.
func (o Options) Scale() float64 {
	if o.RsLoRA {
		return o.Alpha / math.Sqrt(float64(o.Rank))
	}
	return o.Alpha / float64(o.Rank)
}

// Adapts says whether the model's weight of a path has adapters.
func (o Options) Adapts(path string) bool {
	return slices.ContainsFunc(o.chosen(), func(t target) bool { return t.path == path })
}

// Portable says why PEFT over transformers 5 would not compute from a folder what it holds; nil if it does.
// transformers 5 holds the experts of Mixtral fused, w1 and w3 in one weight, and PEFT fuses their adapters
// when it reads them: it refuses one without the other, leaves both at zero with no more than a warning
// where w2 has none, and doubles rank and alpha of the pair, which keeps alpha/r but not alpha/√r. Over
// transformers 4, PEFT computes all folders as they are.
//
// Source: PEFT, utils/transformers_weight_conversion.py; measured with peft 0.21.2 and transformers 5.24.0.
func (o Options) Portable() error {
	gate, up, down := o.Adapts("layers/moe/gate"), o.Adapts("layers/moe/up"), o.Adapts("layers/moe/down")
	switch {
	case gate != up:
		return fmt.Errorf("lora: targets %v: PEFT over transformers 5 refuses w1 without w3 and w3 without w1", o.Targets)
	case gate && !down:
		return fmt.Errorf("lora: targets %v: PEFT over transformers 5 ignores w1 and w3 without w2", o.Targets)
	case gate && o.RsLoRA:
		return fmt.Errorf("lora: targets %v: PEFT over transformers 5 scales w1 and w3 by √2 too much with rank-stabilized scales", o.Targets)
	}
	return nil
}

// chosen lists the targets in the order of use.
func (o Options) chosen() []target {
	if slices.Equal(o.Targets, []string{AllLinear}) {
		return targets
	}
	var list []target
	for _, t := range targets {
		if slices.Contains(o.Targets, t.name) {
			list = append(list, t)
		}
	}
	return list
}
