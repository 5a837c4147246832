package sharding

import (
	"fmt"
	"slices"
	"strings"

	"mix/sharding/axis"
)

// Mapping is one way to train a model on a mesh. Tensor parallelism comes with sequence parallelism.
type Mapping struct {
	Mesh       Mesh      `json:"mesh"`
	Folded     bool      `json:"folded"`      // experts over expert and tensor (ETP 1) and not their hidden width
	Zero       int       `json:"zero"`        // 0 to 3
	Rounds     int       `json:"rounds"`      // of the pipeline, VP
	MicroBatch int       `json:"micro_batch"` // sequences
	Group      int       `json:"group"`       // microbatches in the pipeline at once
	Recompute  Recompute `json:"recompute"`
}

// Rules are those of the mapping, in training.
func (a Mapping) Rules() (Rules, error) {
	var more []string
	if a.Mesh.Size(axis.Tensor) > 1 {
		more = append(more, "sp")
	}
	if a.Zero > 0 {
		more = append(more, fmt.Sprintf("fsdp%d", a.Zero))
	}
	return a.rules(more...)
}

// rules use the axes of the mesh, and more words.
func (a Mapping) rules(more ...string) (Rules, error) {
	on := Derive(a.Mesh)
	words := append(more, on.name)
	if a.Folded {
		words = append(words, "etp1")
		if !on.Has("ep") {
			words = append(words, "ep")
		}
	}
	return Preset(strings.Join(words, "+"))
}

// experts are the ways that experts and their hidden width are split: EP and ETP.
func (a Mapping) experts() (ep, etp int) {
	t, e := a.Mesh.Size(axis.Tensor), a.Mesh.Size(axis.Expert)
	if a.Folded {
		return e * t, 1
	}
	return e, t
}

// String is the mapping in Megatron's words.
func (a Mapping) String() string {
	ep, etp := a.experts()
	return fmt.Sprintf("TP%d EP%d ETP%d PP%d VP%d DP%d", a.Mesh.Size(axis.Tensor), ep, etp, a.Mesh.Size(axis.Pipe), a.Rounds,
		a.Mesh.Size(axis.Data, axis.Expert))
}

// Training is a training job.
type Training struct {
	Model   Model
	Chip    Chip
	Seq     int // tokens a sequence
	Batch   int // sequences a step, over all devices
	Devices int
	// Interleaved computes pipelines as Megatron's interleaved schedule does: no bubble between groups of
	// microbatches, embedding and head on one stage each. False is one program, with the circular schedule.
	Interleaved bool
}

// Validate refuses sizes out of bounds.
func (j Training) Validate() error {
	if err := j.Model.Validate(); err != nil {
		return err
	}
	if max(j.Seq, j.Batch, j.Devices) > maxDevices || min(j.Seq, j.Batch, j.Devices) < 1 {
		return fmt.Errorf("%w: %d sequences of %d tokens on %d devices, want 1 to %d of each", ErrPlan, j.Batch, j.Seq, j.Devices, maxDevices)
	}
	return nil
}

// Memory is bytes on the fullest device.
type Memory struct {
	Weights     float64 `json:"weights"`
	Gradients   float64 `json:"gradients"`
	Optimizer   float64 `json:"optimizer"`
	Gathered    float64 `json:"gathered"` // a layer's gradients (ZeRO-2) and weights (ZeRO-3) while it is in work, and what gathers of one program take beyond weights
	Activations float64 `json:"activations"`
	Logits      float64 `json:"logits"`
	KVCache     float64 `json:"kv_cache"`
	Runtime     float64 `json:"runtime"`
}

// Total is the sum.
func (m Memory) Total() float64 {
	return m.Weights + m.Gradients + m.Optimizer + m.Gathered + m.Activations + m.Logits + m.KVCache + m.Runtime
}

// Traffic is bytes that a device sends in a step.
type Traffic struct {
	Expert float64 `json:"expert"` // all-to-all of tokens
	Tensor float64 `json:"tensor"` // gathers and scatters of activations
	Data   float64 `json:"data"`   // gradients and weights
	Pipe   float64 `json:"pipe"`   // activations between stages
}

// Estimate is what a mapping costs.
type Estimate struct {
	Mapping
	Memory  Memory  `json:"memory"`
	Traffic Traffic `json:"traffic"`
	Step    float64 `json:"step_seconds"`
	Tokens  float64 `json:"tokens_per_second_per_gpu"`
	FLOPs   float64 `json:"flops_per_second_per_gpu"`      // attention over the causal half
	Full    float64 `json:"full_flops_per_second_per_gpu"` // attention over the whole window, as reports of 2024 count
	MFU     float64 `json:"mfu"`                           // FLOPs over the chip's peak
	Bubble  float64 `json:"bubble"`                        // part of the pipeline's time
}

// static is the bytes of weights, gradients and optimizer on a device, from the specs of every weight.
func (j Training) static(a Mapping) (Report, error) {
	r, err := a.Rules()
	if err != nil {
		return Report{}, err
	}
	params := j.Model.Params
	if j.Interleaved && a.Mesh.Size(axis.Pipe) > 1 {
		params = withoutHead(params)
	}
	return Describe(params, j.Model.Bytes, r, a.Mesh)
}

// withoutHead leaves out all weights over the vocabulary but the first: a pipeline stage has one of them.
func withoutHead(params []axis.Param) (kept []axis.Param) {
	tables := 0
	for _, p := range params {
		if len(p.Axes) > 0 && p.Axes[0] == axis.Vocab {
			if tables++; tables > 1 {
				continue
			}
		}
		kept = append(kept, p)
	}
	return kept
}

// microbatches is how many a device's part of the pipeline sees in a step, m.
func (j Training) microbatches(a Mapping) int {
	return j.Batch / a.Mesh.Size(axis.Data, axis.Expert) / a.MicroBatch
}

// cost estimates a mapping that fits the model and the job. held is what static gives.
func (j Training) cost(a Mapping, held Report) Estimate {
	c, m := j.Model, a.Mesh
	pipe, tensor := m.Size(axis.Pipe), m.Size(axis.Tensor)
	micro := j.microbatches(a)
	tokens := float64(a.MicroBatch * j.Seq)                 // of a microbatch
	stages, layers := float64(pipe), float64(c.Layers/pipe) // layers of a stage
	circle := Schedule{pipe, a.Rounds, a.Group}
	bubble := float64(pipe-1) / float64(a.Rounds)
	times := float64(micro/a.Group*circle.Ticks()) / float64(a.Rounds) // that a stage's layers take, with bubbles
	if j.Interleaved {
		times = float64(micro) + bubble
	}
	e := Estimate{Mapping: a, Bubble: 1 - float64(micro)/times}

	kept, live := c.kept(a.Recompute, j.spread(a))
	inFlight := float64(a.Group) + bubble
	heads := max(1, float64(a.Group)/stages) // microbatches whose logits are there at once: the stages share the work
	if j.Interleaved {
		heads = 1
		inFlight = float64(min(pipe, micro)) * (1 + bubble/stages)
	}
	e.Memory = Memory{
		Weights: float64(held.Bytes[Weights]), Gradients: float64(held.Bytes[Gradients]), Optimizer: float64(held.Bytes[Moments]),
		Gathered:    j.gathered(a, held),
		Activations: tokens / float64(tensor) * (kept*layers*inFlight + live),
		Logits:      heads * tokens * float64(c.Vocab) / float64(tensor) * logitBytes,
		Runtime:     runtimeBytes,
	}
	if !j.Interleaved && (a.Zero == 1 || a.Zero == 2) {
		e.Memory.Gathered += e.Memory.Weights // masters are gathered as they are, in float32, and weights are of bfloat16
	}
	layer, traffic := j.layer(a, tokens)
	head := 3 * c.flops(j.Seq).head * tokens * float64(micro) / float64(tensor) / (j.Chip.Peak * gemmShare)
	if !j.Interleaved {
		head /= stages // the batch is split over the stages there
	}
	e.Traffic.Expert = traffic.Expert * layers * float64(micro)
	e.Traffic.Tensor = traffic.Tensor * layers * float64(micro)
	compute := times*layers*layer + head
	if pipe > 1 {
		hop := tokens * float64(c.Width) * 2 / float64(tensor) // bytes, forward or backward
		e.Traffic.Pipe = 2 * hop * float64(micro*a.Rounds)
		compute += 2 * float64(pipe-1) * hop / j.Chip.link(m.Devices())
	}
	var data float64
	e.Traffic.Data, data = j.data(a, held, micro)
	e.Step = compute + max(exposed*data, data-compute) + 2*e.Memory.Optimizer/(j.Chip.HBM*hbmShare)
	perDevice := float64(j.Batch) * float64(j.Seq) / float64(m.Devices())
	causal, full := c.FLOPs(j.Seq)
	e.Tokens = perDevice / e.Step
	e.FLOPs, e.Full = causal*e.Tokens, full*e.Tokens
	e.MFU = e.FLOPs / j.Chip.Peak
	return e
}

// spread is how many rows an expert's buffers have for each row that there is, on average. One program has buffers of fixed
// sizes and drops no row: a device has room for all that others could send it.
func (j Training) spread(a Mapping) float64 {
	ep, _ := a.experts()
	if j.Interleaved || ep == 1 {
		return 1
	}
	k := j.Model.TopK
	return float64(ep*min(k, j.Model.Experts/ep)) / float64(k)
}

// layer is the seconds and the traffic of one layer, forward and backward, on a microbatch of tokens.
func (j Training) layer(a Mapping, tokens float64) (seconds float64, t Traffic) {
	c, m := j.Model, a.Mesh
	f := c.flops(j.Seq)
	tensor := float64(m.Size(axis.Tensor))
	ep, etp := a.experts()
	local := tokens / tensor // tokens of one device between attention and experts
	kept, _ := c.kept(KeepAll, 1)
	times := struct{ dense, experts, core, exchanges float64 }{3, 3, 3, 4} // forward is one
	elementwise := passes * kept * local
	switch a.Recompute {
	case Selective:
		_, again := c.kept(Selective, 1)
		elementwise += 2 * again * local
	case MoE:
		times.experts, times.exchanges = 4, 5
	case Full:
		times.dense, times.experts, times.core, times.exchanges = 4, 4, 4, 5
		elementwise += kept * local
	}
	gemm := (times.dense*f.dense + times.experts*f.expert) * local
	seconds = gemm*imbalance/(j.Chip.Peak*gemmShare) + times.core*f.core*local/(j.Chip.Peak*attentionShare) + elementwise/(j.Chip.HBM*hbmShare)
	rows := local * float64(c.TopK*c.Width) * 2 // bytes of the tokens' copies for experts
	t.Expert = times.exchanges * rows * part(ep)
	seconds += t.Expert / j.Chip.link(m.Size(axis.Expert, axis.Tensor))
	attention := 5 * tokens * float64(c.Width) * 2 * part(m.Size(axis.Tensor))
	experts := 4 * rows * float64(etp-1)
	t.Tensor = attention + experts
	return seconds + t.Tensor/j.Chip.link(m.Size(axis.Tensor)), t
}

// data is the traffic of data parallelism in a step, bytes and seconds: gradients are scattered and weights
// gathered, once a step, or for every microbatch where ZeRO keeps no whole copy.
func (j Training) data(a Mapping, held Report, micro int) (bytes, seconds float64) {
	m := a.Mesh
	for _, row := range held.Rows {
		shard, n := row.shard(m)
		scatters, gathers := 1, 2 // of float32 gradients, and bytes an element gathered: bfloat16 weights
		switch {
		case a.Zero == 0:
			gathers = 4 // gradients
		case a.Zero == 2:
			scatters = micro
		case a.Zero == 3:
			scatters, gathers = micro, 2*2*micro
		}
		b := shard * (4*float64(scatters) + float64(gathers)) * part(n)
		bytes += b
		span := n * m.Size(axis.Tensor)
		if experts(row) {
			span *= m.Size(axis.Expert)
		}
		seconds += b / j.Chip.link(span)
	}
	return bytes, seconds
}

// shard is the elements of a weight that a device computes with, where ZeRO does not split it further, and
// the number of devices that compute with the same.
func (row Row) shard(m Mesh) (elements float64, replicas int) {
	split := within(row.Specs[Weights], axis.Pipe, axis.Tensor)
	replicas = m.Size(axis.Data, axis.Expert)
	if experts(row) {
		split = append(split, axis.Expert)
		replicas = m.Size(axis.Data)
	}
	return float64(axis.Count(row.Dims)) / float64(m.Size(split...)), replicas
}

// gathered is the bytes of one layer's weights and gradients that ZeRO makes whole for a while.
func (j Training) gathered(a Mapping, held Report) (bytes float64) {
	for _, row := range held.Rows {
		shard, n := row.shard(a.Mesh)
		if n == 1 || len(row.Axes) == 0 || row.Axes[0] != axis.Layers {
			continue
		}
		shard *= float64(a.Mesh.Size(axis.Pipe)) / float64(j.Model.Layers)
		if a.Zero >= 2 {
			bytes += 4 * shard
		}
		if a.Zero >= 3 {
			bytes += 2 * shard
		}
	}
	return bytes
}

// experts says whether a weight belongs to single experts.
func experts(row Row) bool {
	return slices.Contains(row.Axes, axis.Experts) && !strings.HasSuffix(row.Path, router)
}

// within lists those of some mesh axes that split the tensor.
func within(s Spec, some ...axis.Mesh) (used []axis.Mesh) {
	for _, a := range s.Axes() {
		if slices.Contains(some, a) {
			used = append(used, a)
		}
	}
	return used
}

// part is the share of its data that each of n devices sends to others.
func part(n int) float64 { return float64(n-1) / float64(n) }
