package main

import (
	"fmt"
	"slices"
	"strings"

	"mix/sharding"
	"mix/sharding/axis"
)

// parallelFlags are Megatron's sizes of the ways to share out a model.
type parallelFlags struct {
	TensorModelParallelSize          int    `default:"1" placeholder:"N" help:"Devices that share the heads of a layer, the hidden width of its experts and the vocabulary. Default: ${default}."`
	PipelineModelParallelSize        int    `default:"1" placeholder:"N" help:"Stages that the layers are spread over. Default: ${default}."`
	ExpertModelParallelSize          int    `default:"1" placeholder:"N" help:"Devices that the experts are spread over; each has samples of its own. Default: ${default}."`
	ExpertTensorParallelSize         int    `default:"0" placeholder:"N" help:"With tensor parallelism 1 spreads whole experts over the tensor axis too. Default: tensor-model-parallel-size."`
	ContextParallelSize              int    `default:"1" placeholder:"N" help:"1: sequences are not split over devices but between attention and experts, see sequence-parallel."`
	NumLayersPerVirtualPipelineStage int    `default:"0" placeholder:"N" help:"Layers that a stage runs in one go: a microbatch goes around the stages until all are done. Default: all of the stage's."`
	NprocPerNode                     int    `name:"nproc_per_node" default:"0" placeholder:"N" help:"Devices in all; what the other sizes leave is data parallel. Default: their product."`
	UseDistributedOptimizer          bool   `help:"Spread moments and float32 weights over the replicas too (ZeRO-1)."`
	SequenceParallel                 bool   `help:"Split positions over the tensor axis between attention and experts."`
	Rules                            string `placeholder:"WORDS" help:"How the mesh is used, words joined by +, as cmd/plan lists them. Default: every axis of the mesh, and what the flags above say."`
}

// parallelSize is a flag that sizes an axis of the mesh.
type parallelSize struct {
	name string
	size int
	axis axis.Mesh
}

func (p parallelFlags) sizes() []parallelSize {
	return []parallelSize{{"--tensor-model-parallel-size", p.TensorModelParallelSize, axis.Tensor},
		{"--pipeline-model-parallel-size", p.PipelineModelParallelSize, axis.Pipe}, {"--expert-model-parallel-size", p.ExpertModelParallelSize, axis.Expert}}
}

// mesh is the one of --mesh, or that of Megatron's sizes.
func (p parallelFlags) mesh(flag string) (sharding.Mesh, error) {
	sizes, product := p.sizes(), 1
	for _, s := range sizes {
		if s.size < 1 || s.size > 1<<16 {
			return sharding.Mesh{}, fmt.Errorf("%s is %d, want at least 1", s.name, s.size)
		}
		product *= s.size
	}
	if p.ContextParallelSize != 1 {
		return sharding.Mesh{}, fmt.Errorf("--context-parallel-size is %d, want 1: sequences are not split over devices, see --sequence-parallel", p.ContextParallelSize)
	}
	m, err := sharding.ParseMesh(flag)
	if err != nil {
		return m, fmt.Errorf("--mesh: %w", err)
	}
	if flag == "" {
		devices := p.NprocPerNode
		if devices == 0 {
			devices = product
		}
		if m, err = sharding.MeshOf(devices, p.TensorModelParallelSize, p.PipelineModelParallelSize, p.ExpertModelParallelSize); err != nil {
			return m, fmt.Errorf("--nproc_per_node: %w", err)
		}
		return m, nil
	}
	for _, s := range sizes {
		if s.size > 1 && s.size != m.Size(s.axis) {
			return m, fmt.Errorf("%s is %d, --mesh %q has %d", s.name, s.size, flag, m.Size(s.axis))
		}
	}
	if n := p.NprocPerNode; n > 0 && n != m.Devices() {
		return m, fmt.Errorf("--nproc_per_node is %d, --mesh %q has %d devices", n, flag, m.Devices())
	}
	return m, nil
}

// rules are those of --rules, or the mesh's own with what the other flags add.
func (p parallelFlags) rules(m sharding.Mesh) (sharding.Rules, error) {
	tensor := m.Size(axis.Tensor)
	if n := p.ExpertTensorParallelSize; n != 0 && n != 1 && n != tensor {
		return sharding.Rules{}, fmt.Errorf("--expert-tensor-parallel-size is %d, want 1 or the tensor-parallel size, %d", n, tensor)
	}
	if p.Rules != "" {
		r, err := sharding.For(p.Rules, m)
		if err != nil {
			return r, fmt.Errorf("--rules: %w", err)
		}
		return r, nil
	}
	r := sharding.Derive(m)
	words := strings.FieldsFunc(r.String(), func(c rune) bool { return c == '+' })
	words = slices.DeleteFunc(words, func(w string) bool { return w == "none" })
	if p.UseDistributedOptimizer && m.Size(axis.Data, axis.Expert) > 1 {
		words = append(slices.DeleteFunc(words, func(w string) bool { return w == "dp" }), "fsdp1")
	}
	if p.SequenceParallel && tensor > 1 {
		words = append(words, "sp")
	}
	if p.ExpertTensorParallelSize == 1 && tensor > 1 {
		words = append(words, "etp1")
	}
	return sharding.Preset(strings.Join(words, "+"))
}

// place checks the flags and says how programs are spread over devices.
func (c *command) place(p *plan) error {
	m, err := c.parallelFlags.mesh(c.Mesh)
	if err != nil {
		return err
	}
	r, err := c.parallelFlags.rules(m)
	if err != nil {
		return err
	}
	p.mesh, p.rules = m, r
	stages, n := m.Size(axis.Pipe), c.NumLayersPerVirtualPipelineStage
	switch {
	case n < 0 || n > 0 && stages == 1:
		return fmt.Errorf("--num-layers-per-virtual-pipeline-stage is %d without a pipeline, want --pipeline-model-parallel-size of at least 2", n)
	case n > 0 && p.Model.Layers%(stages*n) != 0:
		return fmt.Errorf("--num-layers-per-virtual-pipeline-stage is %d: %d layers do not divide over %d stages of %d", n, p.Model.Layers, stages, n)
	case n > 0:
		p.Rounds = p.Model.Layers / (stages * n)
	}
	if err := p.Options.Validate(); err != nil {
		return err
	}
	if err := p.Options.Fits(m, r); err != nil {
		return fmt.Errorf("%s: %w", c.parallelFlags.made(c.Mesh), err)
	}
	return nil
}

// made names the flags that made the mesh.
func (p parallelFlags) made(flag string) string {
	if flag != "" {
		return fmt.Sprintf("--mesh %q", flag)
	}
	var list []string
	for _, s := range append(p.sizes(), parallelSize{"--nproc_per_node", p.NprocPerNode, ""}) {
		if s.size > 1 {
			list = append(list, fmt.Sprintf("%s %d", s.name, s.size))
		}
	}
	return strings.Join(list, " ")
}
