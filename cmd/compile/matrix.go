package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"mix/cmd/internal/planner"
	"mix/graph"
	"mix/lower/target"
	"mix/sharding"
	"mix/sharding/axis"
	"mix/train"
)

// mapping is one program of the matrix.
type mapping struct {
	preset, program string
	devices         int
	mesh            sharding.Mesh
	args            []string // of this command, beside the target
	planned         float64  // bytes a device, as the planner has it
	work            float64  // operations of a device's matrix products, each done once
	slack           float64  // how often it may be done
}

// How often work may be done. In training recomputation makes a third more of it, and microbatches that are added up
// another. Experts that are computed for every token make four times their part of it.
const (
	trainingSlack = 2
	servingSlack  = 1.5
)

// name says what it is in words without blanks inside.
func (m mapping) name() string {
	return strings.Join(append([]string{m.preset, m.program, fmt.Sprint(m.devices)}, m.args...), " ")
}

// has tells whether the name has all words.
func (m mapping) has(words []string) bool {
	all := strings.Fields(strings.ReplaceAll(m.name(), `"`, ""))
	for _, w := range words {
		if !slices.Contains(all, w) {
			return false
		}
	}
	return true
}

// matrixDevices are the numbers of devices of the matrix.
var matrixDevices = []int{1, 8, 64}

// Sizes of the matrix's jobs, cmd/plan's defaults.
const (
	matrixSeq        = 4096
	matrixSamples    = 256
	matrixConcurrent = 64
	matrixPrompt     = 1024
)

// mappings are all that the planner calls feasible on a chip, in a fixed order.
func mappings(chip target.Chip) (all []mapping, err error) {
	planned, err := sharding.ChipNamed(chip.Name)
	if err != nil {
		return nil, err
	}
	for _, preset := range slices.Sorted(maps.Keys(graph.Presets)) {
		for _, devices := range matrixDevices {
			plans, err := training(preset, devices, planned)
			if err != nil {
				return nil, err
			}
			all = append(all, plans...)
			if plans, err = serving(preset, devices, planned); err != nil {
				return nil, err
			}
			all = append(all, plans...)
		}
	}
	return all, nil
}

// recomputes turns the planner's ways of recomputation into the trainer's.
var recomputes = map[sharding.Recompute]train.Recompute{sharding.KeepAll: train.RecomputeNone, sharding.Selective: train.RecomputeSelective,
	sharding.MoE: train.RecomputeFull, sharding.Full: train.RecomputeFull}

func training(preset string, devices int, chip sharding.Chip) (all []mapping, err error) {
	c := graph.Presets[preset]
	ranking, err := sharding.Training{Model: planner.Model(c, false), Chip: chip, Seq: matrixSeq, Batch: matrixSamples, Devices: devices}.Rank(sharding.Only{})
	if err != nil {
		return nil, err
	}
	for _, e := range ranking.Fits {
		rules, err := e.Rules()
		if err != nil {
			return nil, err
		}
		args := []string{"--preset", preset, "--program", "train", "--mesh", e.Mesh.String(), "--seq-length", fmt.Sprint(matrixSeq), "--batch", fmt.Sprint(e.MicroBatch),
			"--global-batch-size", fmt.Sprint(matrixSamples), "--recompute-granularity", string(recomputes[e.Recompute]), "--rounds", fmt.Sprint(max(e.Rounds, 1))}
		if devices > 1 {
			args = append(args, "--rules", rules.String())
		}
		all = append(all, mapping{preset, "train", devices, e.Mesh, args, e.Memory.Total(),
			train.FLOPs(c, matrixSeq) * matrixSeq * matrixSamples / float64(devices), trainingSlack})
	}
	return all, nil
}

// serving leaves out the mappings that spread experts over the tensor axis too: the server's programs do not.
func serving(preset string, devices int, chip sharding.Chip) (all []mapping, err error) {
	c := graph.Presets[preset]
	ranking, err := sharding.Serving{Model: planner.Model(c, true), Chip: chip, Devices: devices, Concurrent: matrixConcurrent, Context: matrixSeq,
		Prompt: matrixPrompt, Weight: 2, KV: 2}.Rank(nil)
	if err != nil {
		return nil, err
	}
	for _, program := range []string{"prefill", "decode"} {
		for _, e := range ranking.Fits {
			if e.Folded {
				continue
			}
			args := []string{"--preset", preset, "--program", program, "--mesh", e.Mesh.String(), "--seq-length", fmt.Sprint(matrixSeq),
				"--batch", fmt.Sprint(matrixConcurrent), "--prefill-chunk", fmt.Sprint(matrixPrompt)}
			all = append(all, mapping{preset, program, devices, e.Mesh, args, e.Memory.Total(), servingWork(c, e.Mesh, program == "decode"), servingSlack})
		}
	}
	return all, nil
}

// servingWork is the operations of a device's matrix products in a run. Sequences are whole on every device, so that
// data and expert split nothing but experts; of one query a sequence XLA makes products of at least eight heads.
func servingWork(c graph.Config, m sharding.Mesh, decode bool) float64 {
	tokens, heads := matrixPrompt, max(c.Heads/m.Size(axis.Tensor), 1)
	if decode {
		tokens, heads = matrixConcurrent, max(heads, 8)
	}
	tensor := float64(m.Size(axis.Tensor))
	experts := 6 * float64(c.TopK*c.Width*c.Hidden) / tensor / float64(m.Size(axis.Expert))
	projections := 4 * float64((c.Heads+c.KVHeads)*c.HeadDim*c.Width) / tensor
	scores := 4 * float64(matrixSeq*heads*c.HeadDim)
	layers := float64(c.Layers) / float64(m.Size(axis.Pipe))
	return float64(tokens) * (layers*(experts+projections+scores) + 2*float64(c.Vocab*c.Width)/tensor)
}

// chosen are the mappings that the flags ask for.
func (c *command) chosen(all []mapping) ([]mapping, error) {
	all = slices.DeleteFunc(slices.Clone(all), func(m mapping) bool { return !m.has(c.Only) })
	if len(all) == 0 {
		return nil, errors.New("no mapping has all words of --only")
	}
	return sample(all, c.Sample), nil
}

// sample takes n of all, spread evenly; all for 0.
func sample[T any](all []T, n int) []T {
	if n == 0 || n >= len(all) {
		return all
	}
	var out []T
	for i := range n {
		out = append(out, all[(2*i+1)*len(all)/(2*n)])
	}
	return out
}
