package gpu

import (
	"context"
	"fmt"

	"github.com/gomlx/compute/dtypes"

	"mix/cmd/internal/programs"
	"mix/graph"
	"mix/lower/pjrt"
	"mix/sharding"
	"mix/train"
)

// Trained is how fast a training step is.
type Trained struct {
	Layers  int     `json:"layers"`
	Samples int     `json:"samples"` // of a step, one microbatch
	Seq     int     `json:"seq"`     // tokens of a sample
	Seconds float64 `json:"seconds"`
	Tokens  float64 `json:"tokens_per_second"`
	FLOPs   float64 `json:"flops_per_second"` // of the model; what is computed again does not count
	MFU     float64 `json:"mfu"`              // over the chip's bfloat16 peak; 0 when unknown
	Memory  int64   `json:"memory"`           // bytes that the planner expects
	Compile float64 `json:"compile_seconds"`
	Roof
}

// Roof is what a step takes at least on a chip whose products do not overlap with the update of weights. Times are 0 when its
// rates are unknown.
type Roof struct {
	Products float64 `json:"products_seconds"` // the model's work at the bfloat16 peak
	Bytes    float64 `json:"state_bytes"`      // of weights, gradients and moments, beside products
	State    float64 `json:"state_seconds"`    // those at the memory's bandwidth
	Bound    float64 `json:"mfu_bound"`        // MFU of a step that takes both
}

func (t Trained) String() string {
	return fmt.Sprintf("train step\t%d\t%d\t%.1f\t%.1f\t%s\t%s\t%.4f\t%.4f\t%.4f\t%.1f", t.Layers, t.Samples*t.Seq, t.Tokens, t.FLOPs/1e12,
		percent(t.MFU), percent(t.Bound), t.Seconds, t.Products, t.State, t.Bytes/1e9)
}

// training measures a step of 16384 tokens, or fewer where two layers would not fit, of as many layers as do: with few tokens the
// update of weights takes longer than the products, whatever the kernels do. Where the device has less room than the planner
// expects it tries fewer layers.
func (s *Session) training(ctx context.Context) error {
	seq, layers, micro := 4096, s.o.Layers, 1
	plan := sharding.Chip{Name: s.d.Chip.Name, Memory: float64(s.d.Chip.Memory), Peak: max(s.d.Chip.BF16, 1), HBM: max(s.d.Chip.Bandwidth, 1), NVLink: 1, Network: 1, Node: 1}
	switch {
	case s.o.Small:
		seq, micro = 32, 2
		if layers == 0 {
			layers = 2
		}
	case s.d.Chip.Memory == 0 && layers == 0:
		return fmt.Errorf("the memory of %q is not known: say how many --layers", s.d.Kind)
	case layers == 0:
		var err error
		if layers, micro, err = trainingLayers(s.o.config, graph.Mixtral8x7B.Layers, plan, seq, int64(share*float64(s.d.Chip.Memory))); err != nil {
			return err
		}
	}
	for ; layers > 0; layers-- {
		if ctx.Err() != nil {
			s.skip("train", fmt.Sprintf("the time was up before %d layers", layers))
			return nil
		}
		row, err := s.trained(ctx, layers, micro, seq)
		if noMemory(err) && layers > 1 {
			s.line("training\t%d layers, %d samples of %d tokens: no room", layers, micro, seq)
			continue
		}
		if err != nil {
			return fmt.Errorf("%d layers: %w", layers, err)
		}
		if row.Memory, err = trainingBytes(s.o.config(layers), plan, seq, micro); err != nil {
			return err
		}
		s.report.Training = append(s.report.Training, row)
		s.line("training\t%s", row)
		return nil
	}
	return nil
}

// step is the program that is measured.
func (o Options) step(layers, micro, seq int) programs.Job {
	c := o.config(layers)
	c.AuxCoef = 1e-2
	return programs.Job{Program: "train", Model: c, DType: dtypes.BFloat16, Seq: seq, Batch: micro, Global: micro, Recompute: train.RecomputeNone, Balance: train.BalancePerLayer}
}

// trained measures one size.
func (s *Session) trained(ctx context.Context, layers, micro, seq int) (row Trained, err error) {
	j := s.o.step(layers, micro, seq)
	c := j.Model
	row = Trained{Layers: layers, Samples: micro, Seq: seq, Roof: trainingRoof(c, s.d.Chip, micro*seq, seq)}
	r, err := s.load(ctx, j)
	if err != nil {
		return row, err
	}
	row.Compile = r.compile
	defer func() { r.close(0) }()
	if err := s.d.state(r, c.Vocab); err != nil {
		return row, err
	}
	if row.Seconds, err = r.time(20 * about); err != nil {
		return row, err
	}
	row.Tokens = float64(micro*seq) / row.Seconds
	row.FLOPs = train.FLOPs(c, seq) * row.Tokens
	if s.d.Chip.BF16 > 0 {
		row.MFU = row.FLOPs / s.d.Chip.BF16
	}
	return row, nil
}

// state makes the arguments of a training step: weights, two moments of each that are zeros, the count of updates,
// tokens and labels, and the learning rate.
func (d *Device) state(r *runner, vocab int) error {
	tensors := 0
	for _, t := range r.p.Params {
		if _, dims, _ := t.Split(); !isInt(t) && len(dims) > 0 {
			tensors++
		}
	}
	if tensors%3 != 0 {
		return fmt.Errorf("%d tensors of floats, want weights and two moments of each", tensors)
	}
	weights, err := d.weights(r.p.Params[:tensors/3])
	r.args = weights
	if err != nil {
		return err
	}
	ints := 0
	for _, t := range r.p.Params[tensors/3:] {
		_, dims, _ := t.Split()
		var b *pjrt.Buffer
		switch {
		case isInt(t) && ints == 0:
			b, err = d.ints(t, func(int) int { return 0 })
			ints++
		case isInt(t):
			b, err = d.ints(t, func(i int) int { return token(i+ints, vocab) })
			ints++
		case len(dims) == 0:
			b, err = d.Float(1e-4)
		default:
			b, err = d.Random(t, 0, 0, 0)
		}
		if err != nil {
			return err
		}
		r.args = append(r.args, b)
	}
	return nil
}
