package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gomlx/compute/dtypes"

	"mix/graph"
	"mix/internal/cli"
	"mix/internal/demo"
	"mix/lower"
	"mix/serve"
	"mix/sharding"
	"mix/sharding/axis"
	"mix/train"
	"mix/train/data"
	"mix/train/report"
)

// programs are the names of what can be compiled.
var programs = []string{"train", "prefill", "decode"}

// begins is how the names of the compiler's programs begin.
var begins = map[string]string{"train": "train_step", "prefill": "paged_prefill", "decode": "paged_decode"}

func presets() []string {
	return append(slices.Sorted(maps.Keys(graph.Presets)), "demo")
}

// config is the model's.
func (c *command) config() (m graph.Config, err error) {
	m, ok := graph.Presets[c.Preset]
	if !ok {
		if m, err = graph.ParseConfig(demo.Config()); err != nil {
			return m, err
		}
	}
	if c.Layers != 0 {
		m.Layers = c.Layers
	}
	return m, m.Validate()
}

func (c *command) dtype(m graph.Config) (dtypes.DType, error) {
	switch {
	case c.DType == "f32", c.DType == "" && (m.DType == "float32" || c.Program == "train" && c.Preset == "demo"):
		c.DType = "f32"
		return dtypes.Float32, nil
	case c.DType == "bf16", c.DType == "":
		c.DType = "bf16"
		return dtypes.BFloat16, nil
	}
	return dtypes.InvalidDType, fmt.Errorf("%w: dtype %q, want f32 or bf16", cli.ErrUsage, c.DType)
}

// complete fills in the flags that follow from others.
func (c *command) complete(m graph.Config, mesh sharding.Mesh) error {
	c.Layers = m.Layers
	if c.Seq == 0 {
		c.Seq = min(m.Context, 4096)
	}
	if c.Batch == 0 {
		c.Batch = 16
		if c.Program == "train" {
			c.Batch = 1
		}
	}
	if c.Global == 0 {
		c.Global = c.Batch * mesh.Size(axis.Data, axis.Expert, axis.Pipe)
	}
	for _, f := range []struct {
		name  string
		value int
	}{{"seq-length", c.Seq}, {"batch", c.Batch}, {"global-batch-size", c.Global}, {"prefill-chunk", c.Chunk}} {
		if f.value < 1 {
			return fmt.Errorf("%w: --%s is %d, want at least 1", cli.ErrUsage, f.name, f.value)
		}
	}
	return nil
}

// settings are the flags that make the program what it is.
func (c *command) settings() string {
	s := fmt.Sprintf("--preset %s --layers %d --dtype %s --seq-length %d --batch %d", c.Preset, c.Layers, c.DType, c.Seq, c.Batch)
	switch c.Program {
	case "train":
		s += fmt.Sprintf(" --global-batch-size %d --recompute-granularity %s", c.Global, c.Recompute)
		if c.Rules != "" {
			s += " --rules " + c.Rules
		}
		return s
	case "prefill":
		s += fmt.Sprintf(" --prefill-chunk %d", c.Chunk)
	}
	if c.Blocks > 0 {
		s += fmt.Sprintf(" --kv-blocks %d", c.Blocks)
	}
	return s
}

// rules are how a mesh is used: in training as the flag says, or as the mesh itself does; in serving sequences are
// whole on every device, as a server that may run a single one has them.
func (c *command) rules(m sharding.Mesh) (sharding.Rules, error) {
	switch {
	case c.Program != "train" && c.Rules != "":
		return sharding.Rules{}, fmt.Errorf("%w: --rules %s is for training alone", cli.ErrUsage, c.Rules)
	case c.Program != "train":
		return sharding.Derive(m).Whole()
	case c.Rules != "":
		r, err := sharding.For(c.Rules, m)
		if err != nil {
			return r, fmt.Errorf("%w: --rules: %w", cli.ErrUsage, err)
		}
		return r, nil
	}
	return sharding.Derive(m), nil
}

// errTaken ends the making of programs once the one that is wanted is there.
var errTaken = errors.New("the program is there")

// emit makes the program as cmd/train or cmd/serve does, and takes its text.
func (c *command) emit(ctx context.Context, m graph.Config, o lower.Options) (e lower.Emitted, trace time.Duration, err error) {
	dtype, err := c.dtype(m)
	if err != nil {
		return e, 0, err
	}
	var mu sync.Mutex
	var others []string
	taken := false
	be, err := lower.NewEmitter(o, func(x lower.Emitted) error {
		mu.Lock()
		defer mu.Unlock()
		if !strings.HasPrefix(x.Name, begins[c.Program]) {
			others = append(others, x.Name)
			return nil
		}
		e, taken = x, true
		return errTaken
	})
	if err != nil {
		return e, 0, err
	}
	defer be.Finalize()
	start := time.Now()
	if c.Program == "train" {
		err = c.emitStep(ctx, be, m, dtype)
	} else {
		err = c.emitServing(ctx, be, m, dtype)
	}
	switch {
	case taken && errors.Is(err, errTaken):
		return e, time.Since(start) - e.Passes, nil
	case err == nil:
		err = fmt.Errorf("program %s was not made, only %s", c.Program, strings.Join(others, ", "))
	}
	return e, 0, err
}

// emitServing makes the programs of a server.
func (c *command) emitServing(ctx context.Context, be *lower.Backend, m graph.Config, dtype dtypes.DType) error {
	engine, err := serve.New(ctx, be, m, nothing{}, serve.Options{DType: dtype})
	if err != nil {
		return err
	}
	defer engine.Close()
	b, err := serve.NewBatcher(ctx, engine, serve.BatchOptions{Slots: c.Batch, Chunk: c.Chunk, Block: 16, Context: c.Seq, Blocks: c.Blocks}, nil)
	if err == nil {
		b.Close()
	}
	return err
}

// emitStep makes the programs of a training run. What is no flag here is as cmd/train's defaults and presets have
// it.
func (c *command) emitStep(ctx context.Context, be *lower.Backend, m graph.Config, dtype dtypes.DType) error {
	o := train.Options{Model: m, DType: dtype, Seq: c.Seq, Micro: c.Batch, Global: c.Global, Recompute: train.Recompute(c.Recompute),
		Optimizer: train.AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.1, Clip: 1}, DecayEmbeddings: true,
		Schedule: train.Schedule{Peak: 1, Decay: train.Constant}, Balance: train.BalancePooled}
	if c.Preset != "demo" {
		o.Balance, o.Model.AuxCoef = train.BalancePerLayer, 1e-2
	}
	_, err := train.Run(ctx, train.Job{Options: o, Backend: be, Data: new(data.Sets), Report: silent{}})
	return err
}

// nothing is a reader of weights that nobody asks: tensors of such a backend have no memory.
type nothing struct{}

func (nothing) Read(axis.Piece, []byte) error { return nil }

// silent is a report.Sink that hears nothing.
type silent struct{}

func (silent) Start(int, int) error       { return nil }
func (silent) Step(report.Step) error     { return nil }
func (silent) Eval(report.Eval) error     { return nil }
func (silent) Saved(int, float64, string) {}
func (silent) Close() error               { return nil }
