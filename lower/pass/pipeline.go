package pass

import (
	"fmt"
	"slices"

	"mix/lower/ir"
	"mix/sharding"
	"mix/sharding/axis"
)

// pipeline lays scans over layers, and their gradients, on the stages of the mesh: composites mix.scan and
// mix.scan_gradient with lead = "3", whose stacked values are [R, S, C, …], R rounds of S stages of C layers. Each
// becomes a region of one device's work over the axis pipe, in which a loop goes through the ticks of a circular
// schedule (sharding.Schedule): at each, a stage runs its C layers of one round on one microbatch, by the composite
// mix.layer or mix.layer_gradient of the scan's body, and hands on what it carries to the next stage. The gradient goes
// the other way. Ticks at which a stage has nothing to do compute on what lies there, and nothing of that is kept.
//
// What is stacked stays on its stage. What is carried enters whole on every stage, and leaves with the microbatches
// split over the stages where they divide.
//
// After: on a mesh with stages no such composite is left; all values keep their types.
func pipeline(m *ir.Module, ctx Context) (changed bool, err error) {
	if ctx.Mesh.Size(axis.Pipe) == 1 {
		return false, nil
	}
	channel := m.NextChannel()
	for _, name := range []string{scanName, scanGradientName} {
		did, err := rewrite(m, name, func(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
			if entry(op, "lead") != 3 {
				return nil, nil
			}
			p, err := readStages(m, op, ctx.Mesh)
			if err != nil {
				return nil, err
			}
			p.channel = channel
			results := p.lower(b)
			channel = p.channel
			return results, nil
		})
		if err != nil {
			return changed, err
		}
		changed = changed || did
	}
	return changed, nil
}

// stages is a scan, or its gradient, to be laid on the stages.
type stages struct {
	scanOf
	op       *ir.Op
	layer    *ir.Op // the composite of one layer and microbatch, to be called
	mesh     sharding.Mesh
	schedule sharding.Schedule
	depth    int // C
	channel  int

	keep  int  // number of carries that are stacked results, of the scan
	plain bool // there are no microbatches: one is made of everything
}

func readStages(m *ir.Module, op *ir.Op, mesh sharding.Mesh) (p *stages, err error) {
	x, err := readScan(op)
	if err != nil {
		return nil, err
	}
	p = &stages{scanOf: x, op: op, mesh: mesh}
	if !p.gradient {
		p.keep = len(op.Results) - len(p.carry) - p.outs
	}
	if len(p.weights) > 0 {
		return nil, fmt.Errorf("weights that all layers share, wanted none in a pipeline")
	}
	_, lead, ok := p.stacked[0].Type.Split()
	if !ok || len(lead) < 3 {
		return nil, fmt.Errorf("stacked value %s, wanted rounds, stages and layers first", p.stacked[0].Type)
	}
	if s := mesh.Size(axis.Pipe); lead[1] != s {
		return nil, fmt.Errorf("stacked value %s of %d stages, the mesh has %d", p.stacked[0].Type, lead[1], s)
	}
	p.schedule = sharding.Schedule{Rounds: lead[0], Stages: lead[1], Microbatches: entry(op, "micro")}
	p.depth = lead[2]
	if p.schedule.Microbatches == 0 {
		p.plain, p.schedule.Microbatches = true, 1
	}
	if err := p.schedule.Validate(); err != nil {
		return nil, err
	}
	want := layerName
	if p.gradient {
		want = layerGradientName
	}
	p.layer = inBody(m, op, want)
	if p.layer == nil {
		return nil, fmt.Errorf("no %s in its body", want)
	}
	return p, nil
}

// lower emits the region and returns what stands for the results.
func (p *stages) lower(b ir.Builder) []*ir.Value {
	split := func(vs []*ir.Value, at int) (out []*ir.Value) { // with an axis of microbatches
		for _, v := range vs {
			if p.plain {
				v = b.Reshape(v, slices.Insert(v.Dims(), at, 1)...)
			}
			out = append(out, v)
		}
		return out
	}
	groups := [][]*ir.Value{split(p.carry, 0), p.each, p.shared, p.stacked, p.frozen, split(p.douts, 3), split(p.kept, 3)}
	onStage := []bool{false, false, false, true, true, true, true}
	ids := b.Iota(0, "i32", p.schedule.Stages) // which stage a device is: its element
	operands, in := []*ir.Value{ids}, []string{shardingOf(sharding.Spec{{axis.Pipe}}, nil)}
	args := []ir.Type{ir.Tensor("i32", 1)}
	for i, g := range groups {
		for _, v := range g {
			operands = append(operands, v)
			in = append(in, valueSharding(v.Type, onStage[i]))
			part := v.Type
			if onStage[i] {
				part = ofStages(part, 1)
			}
			args = append(args, part)
		}
	}
	region := ir.NewRegion(args...)
	inner := ir.At(region)
	rest := region.Args[1:]
	var parts [7][]*ir.Value
	for i, g := range groups {
		parts[i], rest = rest[:len(g)], rest[len(g):]
	}
	run := &ticks{stages: p, stage: inner.Reshape(region.Args[0]), carry: parts[0], each: parts[1], shared: parts[2],
		stacked: parts[3], frozen: parts[4], douts: parts[5], kept: parts[6]}
	carried, stacked := run.emit(inner)

	var results []*ir.Value
	var types []ir.Type
	var out []string
	for _, v := range carried { // zero on all stages but one
		spec := make(sharding.Spec, len(v.Dims()))
		types = append(types, v.Type)
		if p.schedule.Microbatches%p.schedule.Stages == 0 {
			v = p.scatter(inner, v)
			spec[0] = []axis.Mesh{axis.Pipe}
		} else {
			v = inner.AllReduce(v, p.mesh.Groups(axis.Pipe), p.next())
		}
		results = append(results, v)
		out = append(out, shardingOf(spec, after(1, len(spec))))
	}
	for _, v := range stacked {
		results = append(results, v)
		t := ofStages(v.Type, p.schedule.Stages)
		types = append(types, t)
		out = append(out, valueSharding(t, true))
	}
	inner.Region.Emit("sdy.return", results, nil)
	all := slices.Clone(b.Manual([]string{string(axis.Pipe)}, operands, in, out, region, types...))
	for i, want := range ir.Types(p.op.Results) {
		if all[i].Type != want {
			all[i] = b.Reshape(all[i], p.op.Results[i].Dims()...)
		}
	}
	return all
}

// scatter gives each stage its part of the microbatches of v, which is zero on all stages but the one where carries leave.
// That one sends each of the others its part. A reduce-scatter would do, but the partitioner makes its operand whole along
// the other axes of the mesh, and leaves a permutation's as it lies.
func (p *stages) scatter(b ir.Builder, v *ir.Value) (part *ir.Value) {
	stages, d := p.schedule.Stages, v.Dims()
	leaves := b0(!p.gradient, stages-1)
	n := d[0] / stages
	for to := range stages {
		start, limit := make([]int, len(d)), slices.Clone(d)
		start[0], limit[0] = to*n, (to+1)*n
		x := b.Slice(v, start, limit)
		if to != leaves {
			var pairs [][2]int
			for _, ring := range p.mesh.Groups(axis.Pipe) {
				pairs = append(pairs, [2]int{ring[leaves], ring[to]})
			}
			x = b.Permute(x, pairs, p.next())
		}
		if part == nil {
			part = x
		} else {
			part = b.Add(part, x)
		}
	}
	return part
}

// next is a channel of its own.
func (p *stages) next() int {
	p.channel++
	return p.channel - 1
}

// after is true from i on, of n: axes that the partitioner may split.
func after(i, n int) []bool {
	open := make([]bool, n)
	for ; i < n; i++ {
		open[i] = true
	}
	return open
}

// valueSharding is that of an operand or result: its stages over pipe if it has them, the axes behind open.
func valueSharding(t ir.Type, onStage bool) string {
	_, d, _ := t.Split()
	spec := make(sharding.Spec, len(d))
	if !onStage {
		return shardingOf(spec, after(0, len(d)))
	}
	spec[1] = []axis.Mesh{axis.Pipe}
	return shardingOf(spec, after(3, len(d)))
}

// ofStages is the type [R, S, …] with so many stages: all, or the one of a device's part.
func ofStages(t ir.Type, stages int) ir.Type {
	elem, d, _ := t.Split()
	d[1] = stages
	return ir.Tensor(elem, d...)
}
