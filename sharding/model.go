package sharding

import (
	"errors"
	"fmt"

	"mix/sharding/axis"
)

// ErrPlan is wrapped by every refusal of the planner.
var ErrPlan = errors.New("plan")

// Model is the sizes that the planner's formulas take.
type Model struct {
	Layers, Width, Heads, KVHeads, HeadDim, Hidden, Experts, TopK, Vocab int

	Params []axis.Param             // the catalogue of weights
	Bytes  func(p axis.Param) Width // of an element in training
}

// Validate refuses sizes below 1.
func (c Model) Validate() error {
	for _, s := range []struct {
		name string
		size int
	}{{"layers", c.Layers}, {"width", c.Width}, {"heads", c.Heads}, {"kv heads", c.KVHeads}, {"head dim", c.HeadDim},
		{"hidden width", c.Hidden}, {"experts", c.Experts}, {"experts a token", c.TopK}, {"vocabulary", c.Vocab}} {
		if s.size < 1 {
			return fmt.Errorf("%w: model with %s %d, want at least 1", ErrPlan, s.name, s.size)
		}
	}
	if len(c.Params) == 0 || c.Bytes == nil {
		return fmt.Errorf("%w: model without a catalogue of weights", ErrPlan)
	}
	return nil
}

// on refuses a mesh of another number of devices than the job's, or with more devices along tensor than there are heads.
func (c Model) on(m Mesh, devices int) error {
	if m.Devices() != devices {
		return fmt.Errorf("%w: mesh %v has %d devices, want %d", ErrPlan, m, m.Devices(), devices)
	}
	if t := m.Size(axis.Tensor); t > c.Heads {
		return fmt.Errorf("%w: %d heads are fewer than tensor=%d", ErrPlan, c.Heads, t)
	}
	return nil
}

// attention is the weights of a layer's attention: A = 2hHd + 2hGd.
func (c Model) attention() float64 {
	return float64(2 * c.Width * c.HeadDim * (c.Heads + c.KVHeads))
}

// expert is the weights of one expert: X = 3hf.
func (c Model) expert() float64 { return float64(3 * c.Width * c.Hidden) }

// Parameters is the number of weights, and of those that compute for a token.
func (c Model) Parameters() (all, active float64) {
	for _, p := range c.Params {
		all += float64(p.Elements())
	}
	return all, all - float64(c.Layers*(c.Experts-c.TopK))*c.expert()
}

// flops are the operations of one token forward, a multiply-add being 2. Not counted: norms, softmax,
// rotary, routing.
type flops struct {
	dense  float64 // a layer's attention weights and router
	expert float64 // a layer's experts
	core   float64 // a layer's attention core over the causal half of the window
	head   float64
}

func (c Model) flops(seq int) flops {
	return flops{
		dense:  2 * (c.attention() + float64(c.Width*c.Experts)),
		expert: 2 * float64(c.TopK) * c.expert(),
		core:   2 * float64(seq) * float64(c.Heads*c.HeadDim),
		head:   2 * float64(c.Vocab) * float64(c.Width),
	}
}

// FLOPs of one token of a training step, forward and backward (three times forward), recomputation not
// counted: with attention over the causal half of the sequence, which is what is computed, and over all of
// it, which is what reports of 2024 and before count.
//
// For Mixtral 8x7B at 4096 they are 7.97e10 and 8.29e10.
func (c Model) FLOPs(seq int) (causal, full float64) {
	f := c.flops(seq)
	l := float64(c.Layers)
	causal = 3 * (l*(f.dense+f.expert+f.core) + f.head)
	return causal, causal + 3*l*f.core
}

// KVBytes is the size of one token's keys and values, of width bytes each.
func (c Model) KVBytes(width float64) float64 {
	return 2 * float64(c.Layers*c.KVHeads*c.HeadDim) * width
}

// Recompute says what the backward pass computes again instead of keeping it.
type Recompute string

// Ways to recompute, from the fastest to the smallest.
const (
	KeepAll   Recompute = "none"
	Selective Recompute = "selective" // norms, gathered rows and the SwiGLU product: no matrix product
	MoE       Recompute = "moe"       // the experts
	Full      Recompute = "full"      // the layer
)

// Recomputes lists the ways.
var Recomputes = []Recompute{KeepAll, Selective, MoE, Full}

// kept is the bytes that one layer keeps for one token until its backward pass, in bfloat16, and live what
// the layer in work holds beside it.
//
// All: 8h of the residual stream and the norms, 4Hd of queries and their result, 4Gd of keys and values, 4H
// of softmax sums, and for each of k experts 4h of rows in and out and 6f of gate, up and their product, spread times.
func (c Model) kept(r Recompute, spread float64) (kept, live float64) {
	h, k, f := float64(c.Width), spread*float64(c.TopK), float64(c.Hidden)
	experts := k * (4*h + 6*f)
	all := 8*h + 4*float64((c.Heads+c.KVHeads)*c.HeadDim) + 4*float64(c.Heads) + experts
	switch r {
	case Selective:
		again := 4*h + k*(2*h+2*f)
		return all - again, again
	case MoE:
		return all - experts + 2*h, experts
	case Full:
		return 2 * h, all
	}
	return all, 0
}
