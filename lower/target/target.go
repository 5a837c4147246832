// Package target says what a platform wants of a program, and what the chips are that programs are compiled for.
// It is data, and the one list of platforms; the passes hold the rules that go with it.
package target

import (
	"fmt"
	"slices"
	"strings"
)

// Names of the platforms, as PJRT and the passes have them.
const (
	CPU  = "cpu"
	CUDA = "cuda"
)

// Target is a platform to compile for.
type Target struct {
	Platform string

	// WeightLayout is the layout, by graph's name of it, in which programs take the weights.
	WeightLayout string

	// LoopLayers is from how many layers on a step of training is a loop over them, which compiles one; 0 for never. A
	// loop slices weights and writes what it keeps into stacks.
	LoopLayers int

	// Chunk is how many tokens of a prompt are best run at a time, beside requests that decode.
	Chunk int

	// Overrides are XLA's debug options of every program, by name. They are part of a compiled program's key in
	// the cache, so that they must not depend on the machine.
	Overrides map[string]any
}

var targets = []Target{
	// A slice of a stacked weight is a copy on the CPU, which doubles what decode reads; so each matrix of
	// each expert is an argument, and the layers are unrolled.
	{Platform: CPU, WeightLayout: "per-matrix", Chunk: 64},
	// Kernels read the experts of a layer in place, as one tensor; a slice of a tensor of all layers would be a
	// copy. Equal kernels are compiled once, whatever the number of layers.
	// A chunk reads nearly all experts, which takes as long as multiplying a thousand tokens.
	{Platform: CUDA, WeightLayout: "per-layer", Chunk: 1024, LoopLayers: 9, Overrides: map[string]any{
		// A program compiled where no GPU is cannot try tilings: XLA's own Triton products then have poor
		// ones and gigabytes of partial sums, cuBLAS chooses by itself. Two layers of 8x7B, decode of 16
		// rows: 1.1 instead of 4.0 GB of temporaries, compiled in 1.8 instead of 3.2 s.
		"xla_gpu_enable_triton_gemm": false,
		// Products of the same rows are not joined: their weights are arguments, which joining copies each time.
		"xla_gpu_dot_merger_threshold_mb": 0,
		// Collectives run beside the products that do not need their results.
		"xla_gpu_enable_latency_hiding_scheduler": true,
		// The one-shot kernel aborts the compiler where no GPU is.
		"xla_gpu_unsupported_use_all_reduce_one_shot_kernel": false,
	}},
}

// PromptChunk is a platform's Chunk where sequences have at most context tokens and lie in blocks of so many.
func PromptChunk(platform string, context, block int) (int, error) {
	t, err := Lookup(platform)
	return min(t.Chunk, (context+block-1)/block*block), err
}

// Platforms lists the platforms that have a target.
func Platforms() []string {
	names := make([]string, len(targets))
	for i, t := range targets {
		names[i] = t.Platform
	}
	return names
}

// Lookup finds a target by platform.
func Lookup(platform string) (Target, error) {
	i := slices.IndexFunc(targets, func(t Target) bool { return t.Platform == platform })
	if i < 0 {
		return Target{}, fmt.Errorf("platform %q is unknown, want one of %s", platform, strings.Join(Platforms(), ", "))
	}
	return targets[i], nil
}
