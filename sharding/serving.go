package sharding

import (
	"cmp"
	"fmt"
	"slices"

	"mix/sharding/axis"
)

// Serving is a serving job: so many requests at once, each of so many tokens with its answer.
type Serving struct {
	Model      Model
	Chip       Chip
	Devices    int
	Concurrent int // requests
	Context    int // tokens of a request, prompt and answer
	Prompt     int // of them, tokens of the prompt
	Weight     int // bytes of an element of the weights: 2, or 1 in float8 (the router is float32)
	KV         int // bytes of an element of keys and values
}

// Validate refuses sizes out of bounds.
func (j Serving) Validate() error {
	if err := j.Model.Validate(); err != nil {
		return err
	}
	switch {
	case max(j.Concurrent, j.Context, j.Devices) > maxDevices || min(j.Concurrent, j.Context, j.Devices) < 1:
		return fmt.Errorf("%w: %d requests of %d tokens on %d devices, want 1 to %d of each", ErrPlan, j.Concurrent, j.Context, j.Devices, maxDevices)
	case j.Prompt < 1 || j.Prompt > j.Context:
		return fmt.Errorf("%w: prompts of %d tokens, want 1 to %d", ErrPlan, j.Prompt, j.Context)
	case j.Weight < 1 || j.Weight > 4 || j.KV < 1 || j.KV > 4:
		return fmt.Errorf("%w: elements of %d and %d bytes, want 1 to 4", ErrPlan, j.Weight, j.KV)
	}
	return nil
}

// Service is what serving on a mesh costs. Requests are split over data and expert.
type Service struct {
	Mesh     Mesh    `json:"mesh"`
	Folded   bool    `json:"folded"`
	Memory   Memory  `json:"memory"`               // with the keys and values of all requests
	Capacity float64 `json:"kv_tokens"`            // that keys and values of all devices have room for
	Step     float64 `json:"decode_step_seconds"`  // a token for every request
	Rate     float64 `json:"tokens_per_second"`    // of all requests
	First    float64 `json:"prefill_seconds"`      // of one prompt alone
	Roofline float64 `json:"memory_bandwidth_use"` // part of HBM's bandwidth that decoding uses
	Sent     float64 `json:"traffic"`              // bytes that a device sends in a decode step
}

// Estimate is the cost of serving on a mesh. It fails where model and requests do not divide; that it does
// not fit the memory is no error.
func (j Serving) Estimate(m Mesh, folded bool) (Service, error) {
	if err := j.Validate(); err != nil {
		return Service{}, err
	}
	c := j.Model
	if err := c.on(m, j.Devices); err != nil {
		return Service{}, err
	}
	r, err := Mapping{Mesh: m, Folded: folded}.rules()
	if err != nil {
		return Service{}, err
	}
	held, err := Describe(c.Params, func(p axis.Param) Width {
		if w := c.Bytes(p).Weight; w == 4 {
			return Width{Weight: w}
		}
		return Width{Weight: j.Weight}
	}, r, m)
	if err != nil {
		return Service{}, err
	}
	cache := axis.Param{Path: "KV cache", Axes: []axis.Logical{axis.Layers, axis.Batch, axis.KVHeads, axis.HeadDim},
		Dims: []int{c.Layers, j.Concurrent, c.KVHeads, c.HeadDim}}
	spec, err := r.Resolve(Activations, cache, m)
	if err != nil {
		return Service{}, err
	}
	local, err := spec.Local(m, cache.Dims)
	if err != nil {
		return Service{}, err
	}
	token := 2 * float64(j.KV*axis.Count(local)) / float64(local[1]) // bytes of a token's keys and values on a device
	s := Service{Mesh: m, Folded: folded}
	s.Memory = Memory{Weights: float64(held.Bytes[Weights]), Runtime: workspaceBytes + (1-serveShare)*j.Chip.Memory,
		KVCache: token * float64(local[1]*j.Context)}
	free := j.Chip.Memory - s.Memory.Weights - s.Memory.Runtime
	s.Capacity = max(0, free) / token * float64(m.Size(axis.Data, axis.Expert))
	j.decode(&s, held, float64(local[1]), token)
	s.First = j.prefill(m, folded)
	return s, nil
}

// decode fills in a decode step of own requests a device.
func (j Serving) decode(s *Service, held Report, own, token float64) {
	c, m := j.Model, s.Mesh
	pipe, tensor := m.Size(axis.Pipe), m.Size(axis.Tensor)
	batch := max(1, own/float64(pipe)) // the requests go through the stages in so many parts
	routed := batch * float64(m.Size(axis.Expert))
	missed := 1.0 // part of the experts that no request chooses
	for range int(routed) {
		missed *= 1 - float64(c.TopK)/float64(c.Experts)
	}
	bytes := batch * float64(j.Context) * token
	for _, row := range held.Rows {
		b := float64(row.Bytes[Weights])
		switch {
		case experts(row):
			b *= 1 - missed
		case len(row.Axes) > 0 && row.Axes[0] == axis.Vocab:
			b /= 2 * float64(pipe) // one table is looked up, the other is read by the last stage
		}
		bytes += b
	}
	f := c.flops(2 * j.Context) // a token's core goes over all of its context, not half
	layers := float64(c.Layers / pipe)
	compute := batch * (layers*(f.dense+f.core+f.expert) + f.head/float64(pipe)) / float64(tensor) / (j.Chip.Peak * gemmShare)
	stage := max(bytes/(j.Chip.HBM*decodeShare), compute)
	ep, _ := Mapping{Mesh: m, Folded: s.Folded}.experts()
	row := batch * float64(c.Width) * 2
	var send float64
	if tensor > 1 {
		send += layers * 2 * 2 * row * part(tensor)
		stage += layers * 2 * (launch + 2*row*part(tensor)/j.Chip.link(tensor))
	}
	if ep > 1 {
		b := row * float64(c.TopK) * part(ep)
		send += layers * 2 * b
		stage += layers * 2 * (launch + b/j.Chip.link(m.Size(axis.Expert, axis.Tensor)))
	}
	if pipe > 1 {
		send += row
		stage += launch + row/j.Chip.link(m.Devices())
	}
	s.Step = float64(pipe) * stage
	s.Rate = float64(j.Concurrent) / s.Step
	s.Roofline = bytes / stage / j.Chip.HBM
	s.Sent = send * float64(pipe)
}

// prefill is the seconds from a prompt to its first token, on devices that do nothing else: the dense part
// is split by tensor, the experts by expert and tensor, stages follow one another.
func (j Serving) prefill(m Mesh, folded bool) float64 {
	c := j.Model
	f := c.flops(j.Prompt)
	n, tensor := float64(j.Prompt), m.Size(axis.Tensor)
	ep, etp := Mapping{Mesh: m, Folded: folded}.experts()
	l := float64(c.Layers)
	seconds := n*(l*(f.dense/float64(tensor)+f.expert*imbalance/float64(ep*etp)))/(j.Chip.Peak*gemmShare) +
		n*l*f.core/float64(tensor)/(j.Chip.Peak*attentionShare)
	row := n * float64(c.Width) * 2
	if tensor > 1 {
		seconds += l * 2 * (launch + 2*row*part(tensor)/j.Chip.link(tensor))
	}
	if ep > 1 {
		seconds += l * 2 * (launch + row*float64(c.TopK)*part(ep)/j.Chip.link(m.Size(axis.Expert, axis.Tensor)))
	}
	return seconds
}

// Services is what the planner found for serving: the meshes that do, most tokens a second first, and those
// that do not.
type Services struct {
	Fits    []Service `json:"fits"`
	Refused []Refusal `json:"refused"`
}

// Rank estimates serving on every mesh that only takes; nil takes all.
func (j Serving) Rank(only func(Mesh) bool) (Services, error) {
	if err := j.Validate(); err != nil {
		return Services{}, err
	}
	if j.Devices > maxRanked {
		return Services{}, tooMany(j.Devices)
	}
	var r Services
	for _, m := range meshes(j.Devices) {
		if only != nil && !only(m) {
			continue
		}
		for _, folded := range foldings(m) {
			s, err := j.Estimate(m, folded)
			switch {
			case err != nil:
				r.Refused = append(r.Refused, Refusal{m, folded, err.Error()})
			case s.Memory.Total() > j.Chip.Memory:
				r.Refused = append(r.Refused, Refusal{m, folded, fmt.Sprintf("needs %.1f GB, %s has %.0f: weights %.1f, keys and values %.1f, room for %.0f tokens",
					s.Memory.Total()/1e9, j.Chip.Name, j.Chip.Memory/1e9, s.Memory.Weights/1e9, s.Memory.KVCache/1e9, s.Capacity)})
			default:
				r.Fits = append(r.Fits, s)
			}
		}
	}
	slices.SortStableFunc(r.Fits, func(a, b Service) int { return cmp.Compare(b.Rate, a.Rate) })
	return r, nil
}
