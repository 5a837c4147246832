package main

import (
	"fmt"
	"maps"
	"slices"

	"github.com/gomlx/compute/dtypes"

	"mix/cmd/internal/programs"
	"mix/graph"
	"mix/internal/cli"
	"mix/internal/demo"
	"mix/lower/target"
	"mix/sharding"
	"mix/sharding/axis"
	"mix/train"
)

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
func (c *command) complete(m graph.Config, mesh sharding.Mesh, chip target.Chip) error {
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
	if c.Chunk == 0 {
		var err error
		if c.Chunk, err = target.PromptChunk(chip.Platform, c.Seq, programs.Block); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name  string
		value int
	}{{"seq-length", c.Seq}, {"batch", c.Batch}, {"global-batch-size", c.Global}, {"prefill-chunk", c.Chunk}, {"rounds", c.Rounds}} {
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
		if c.Rounds > 1 {
			s += fmt.Sprintf(" --rounds %d", c.Rounds)
		}
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

// sharding is the mesh and how it is used: in training as the flag says, or as the mesh itself does; in serving sequences are
// whole on every device, as a server that may run a single one has them.
func (c *command) sharding() (m sharding.Mesh, r sharding.Rules, err error) {
	serve := c.Program != "train"
	if serve && c.Rules != "" {
		return m, r, fmt.Errorf("%w: --rules %s is for training alone", cli.ErrUsage, c.Rules)
	}
	if m, r, err = c.Sharding(c.Rules); serve && err == nil {
		r, err = r.Whole()
	}
	return m, r, err
}

// job is the program that the flags ask for.
func (c *command) job(m graph.Config, dtype dtypes.DType) programs.Job {
	j := programs.Job{Program: c.Program, Model: m, DType: dtype, Seq: c.Seq, Batch: c.Batch, Global: c.Global, Rounds: c.Rounds, Recompute: train.Recompute(c.Recompute),
		Balance: train.BalancePooled, Chunk: c.Chunk, Blocks: c.Blocks}
	if c.Preset != "demo" {
		j.Balance, j.Model.AuxCoef = train.BalancePerLayer, 1e-2
	}
	return j
}
