package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"mix/cmd/internal/flags"
	"mix/cmd/internal/planner"
	"mix/graph"
	"mix/internal/cli"
	"mix/sharding"
	"mix/sharding/axis"
)

// job is the command's flags, read.
type job struct {
	*command
	model   sharding.Model
	chip    sharding.Chip
	devices int
	mesh    *sharding.Mesh // nil for any
}

// job reads the flags. What is wrong with one of them is wrong usage.
func (c *command) job() (job, error) {
	j := job{command: c, devices: c.GPUs}
	if _, err := (flags.Device{Device: c.Device, Mesh: c.Mesh}).Platform(); err != nil {
		return j, err
	}
	config, err := c.config()
	if err != nil {
		return j, err
	}
	j.model = planner.Model(config, c.Serve)
	usage := func(err error) (job, error) { return j, fmt.Errorf("%w: %w", cli.ErrUsage, err) }
	if j.chip, err = sharding.ChipNamed(c.GPU); err != nil {
		return usage(err)
	}
	switch {
	case c.Serve && c.Train:
		return usage(errors.New("--serve and --train, want one"))
	case c.Rules != "" && !c.Describe:
		return usage(errors.New("--rules without --describe: mappings are ranked with all rules that they allow"))
	case c.GPUs < 0 || c.Top < 0 || c.Tensor < 0 || c.Pipeline < 0 || c.Expert < 0 || c.MicroBatchSize < 0:
		return usage(errors.New("a number below 0, want at least 0"))
	case c.Zero < -1 || c.Zero > 3:
		return usage(fmt.Errorf("--zero %d, want 0 to 3", c.Zero))
	case c.Recompute != "" && !slices.Contains(sharding.Recomputes, sharding.Recompute(c.Recompute)):
		return usage(fmt.Errorf("--recompute %q, want none, selective, moe or full", c.Recompute))
	}
	if c.Mesh != "" {
		m, err := sharding.ParseMesh(c.Mesh)
		if err != nil {
			return usage(err)
		}
		if c.GPUs > 0 && c.GPUs != m.Devices() {
			return usage(fmt.Errorf("--mesh %q has %d devices, --gpus is %d", c.Mesh, m.Devices(), c.GPUs))
		}
		j.mesh, j.devices = &m, m.Devices()
	}
	switch {
	case j.devices > 0:
	case c.Describe:
		j.devices = max(1, c.Tensor) * max(1, c.Pipeline) * max(1, c.Expert)
	case c.Serve:
		j.devices = 8
	default:
		j.devices = 64
	}
	return j, nil
}

// config is the model's.
func (c *command) config() (graph.Config, error) {
	if c.Checkpoint != "" {
		return flags.LoadConfig(c.Checkpoint)
	}
	config, ok := graph.Presets[c.Preset]
	if !ok {
		return config, fmt.Errorf("%w: preset %q, want %s", cli.ErrUsage, c.Preset, strings.Join(slices.Sorted(maps.Keys(graph.Presets)), " or "))
	}
	return config, nil
}

// takes says whether the flags take a mesh.
func (j job) takes(m sharding.Mesh) bool {
	fits := func(want int, a axis.Mesh) bool { return want == 0 || want == m.Size(a) }
	return (j.mesh == nil || *j.mesh == m) && fits(j.Tensor, axis.Tensor) && fits(j.Pipeline, axis.Pipe) && fits(j.Expert, axis.Expert)
}

// train ranks mappings for training.
func (j job) train() (sharding.Ranking, error) {
	t := sharding.Training{Model: j.model, Chip: j.chip, Seq: j.SeqLength, Batch: j.GlobalBatchSize, Devices: j.devices, Interleaved: j.Interleaved}
	only := sharding.Only{Mesh: j.takes, MicroBatch: j.MicroBatchSize, Recompute: sharding.Recompute(j.Recompute)}
	if j.Zero >= 0 {
		only.Zero = []int{j.Zero}
	}
	return t.Rank(only)
}

// serve ranks mappings for serving.
func (j job) serve() (sharding.Services, error) {
	bytes := map[string]int{"bf16": 2, "fp8": 1}[j.DType]
	s := sharding.Serving{Model: j.model, Chip: j.chip, Devices: j.devices, Concurrent: j.MaxConcurrent, Context: j.MaxModelLen,
		Prompt: min(j.PromptLength, j.MaxModelLen), Weight: bytes, KV: bytes}
	return s.Rank(j.takes)
}

// table is a report as a result of the command.
type table struct{ sharding.Report }

// Write prints all of it.
func (t table) Write(w io.Writer, _ int) error {
	_, err := io.WriteString(w, t.String())
	return err
}

// describe applies rules to one mesh.
func (j job) describe() (table, error) {
	var m sharding.Mesh
	var err error
	if j.mesh != nil {
		m = *j.mesh
	} else if m, err = sharding.MeshOf(j.devices, max(1, j.Tensor), max(1, j.Pipeline), max(1, j.Expert)); err != nil {
		return table{}, fmt.Errorf("%w: %w", cli.ErrUsage, err)
	}
	r, err := sharding.For(j.Rules, m)
	if err != nil {
		return table{}, fmt.Errorf("%w: %w", cli.ErrUsage, err)
	}
	report, err := sharding.Describe(j.model.Params, j.model.Bytes, r, m)
	return table{report}, err
}
