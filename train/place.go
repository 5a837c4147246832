package train

import (
	"fmt"
	"slices"

	. "github.com/gomlx/gomlx/core/graph"

	"mix/graph"
	"mix/graph/composite"
	"mix/lower"
	"mix/lower/target"
	"mix/sharding"
	"mix/sharding/axis"
)

// Fits says whether training divides over a mesh by the rules: the weights, what the optimizer keeps, and the samples
// of a step. It makes no device. The options are ones that Validate takes.
func (o Options) Fits(mesh sharding.Mesh, rules sharding.Rules) error {
	m, err := newModel(o)
	if err == nil {
		_, err = m.over(mesh, rules)
	}
	return err
}

// on lays the model out for the platform of a backend and on its mesh. It refuses what does not divide.
func (m model) on(be *lower.Backend) (model, error) {
	t, err := target.Lookup(be.Platform())
	if err != nil {
		return m, err
	}
	if t.LoopLayers > 0 && m.Model.Layers >= t.LoopLayers {
		m.layout = graph.Stacked
		if err := m.list(); err != nil {
			return m, err
		}
	}
	return m.over(be.Mesh(), be.ShardingRules())
}

// over lays the model out on a mesh.
func (m model) over(mesh sharding.Mesh, rules sharding.Rules) (model, error) {
	if mesh.Devices() == 1 {
		return m, nil
	}
	var err error
	if m.place, err = sharding.Place(mesh, rules, m.Model.Layers, m.Rounds); err != nil {
		return m, err
	}
	if m.place.Circle != nil {
		m.layout = graph.Stacked
		if err := m.list(); err != nil {
			return m, err
		}
	}
	one := m.Micro * m.replicas()
	if m.Global%one != 0 {
		return m, fmt.Errorf("global batch size is %d, want a multiple of %d: the micro-batch size, %d, on %d replicas of mesh %s", m.Global, one, m.Micro, m.replicas(), m.place.Mesh)
	}
	if c := m.place.Circle; c != nil && m.microbatches()%c.Stages != 0 {
		return m, fmt.Errorf("a step has %d microbatches, want a multiple of the %d stages of mesh %s", m.microbatches(), c.Stages, m.place.Mesh)
	}
	sequences := axis.Param{Path: "sequences", Axes: []axis.Logical{axis.Batch, axis.Seq, axis.Embed}, Dims: []int{one, m.Seq, m.Model.Width}}
	if _, err := rules.Resolve(sharding.Activations, sequences, mesh); err != nil {
		return m, err
	}
	_, err = m.shard()
	return m, err
}

// replicas are the groups of devices that have samples of their own.
func (m model) replicas() int {
	return m.place.Mesh.Size(m.place.Rules.Table(sharding.Activations).Split[axis.Batch]...)
}

// microbatches is how many of them a step has, each of Micro samples on every replica.
func (m model) microbatches() int { return m.Global / (m.Micro * m.replicas()) }

// batchDims are the axes of a step's batch before that of tokens: [M, B].
func (m model) batchDims() []int { return []int{m.microbatches(), m.Micro * m.replicas()} }

// evalDims are those of an evaluation's: [B], or [M, B] with one microbatch a stage.
func (m model) evalDims() []int {
	if c := m.place.Circle; c != nil {
		return []int{c.Stages, m.Micro * m.replicas()}
	}
	return []int{m.Micro * m.replicas()}
}

// weight is the catalogue's entry of a path.
func (m model) weight(path string) (axis.Param, error) {
	return axis.Find(slices.Concat(m.params, m.base), path)
}

// spec is where a piece lies as a tensor of that kind.
func (m model) spec(k sharding.Kind, q axis.Piece) (sharding.Spec, error) {
	p, err := m.weight(q.Path)
	if err != nil {
		return nil, err
	}
	return m.place.Spec(k, q, p)
}

// shard lists where a program's parameters lie: the weights that it computes with and, if it trains, their moments
// under the names of prefixes. Weights that are trained are the optimizer's, and lie as its moments do.
func (m model) shard(prefixes ...string) (map[string]sharding.Spec, error) {
	if m.place.OneDevice() {
		return nil, nil
	}
	all := map[string]sharding.Spec{}
	for _, q := range m.trained {
		spec, err := m.spec(sharding.Moments, q)
		if err != nil {
			return nil, err
		}
		for _, p := range append(prefixes, "") {
			all[p+q.Name] = spec
		}
	}
	for _, q := range m.frozen {
		spec, err := m.spec(sharding.Weights, q)
		if err != nil {
			return nil, err
		}
		all[q.Name] = spec
	}
	return all, nil
}

// asWeights notes that trained weights, which lie as their moments do, are computed with as weights lie, and that their
// gradients are added up as gradients lie.
func (m model) asWeights(trained []*Node) []*Node {
	if m.place.OneDevice() {
		return trained
	}
	out := slices.Clone(trained)
	for i, q := range m.trained {
		p, err := m.weight(q.Path)
		if err == nil {
			p, err = m.place.View(q, p)
		}
		if err != nil {
			panic(err) // it was listed by them
		}
		out[i] = composite.ConstrainWeight(out[i], p.Path, p.Axes...)
	}
	return out
}

// upload makes a piece where it lies. Its elements are read box by box, each once.
func (m model) upload(be *lower.Backend, r Reader, q axis.Piece, k sharding.Kind) (*lower.Buffer, error) {
	spec, err := m.spec(k, q)
	if err != nil {
		return nil, err
	}
	return be.MakePiece("weight "+q.Name, q, spec, m.place, r.Read)
}

// whole are the rules of programs that run one sequence on all devices: it is split nowhere.
func (m model) whole() (*sharding.Rules, error) {
	if m.place.OneDevice() {
		return nil, nil
	}
	r, err := m.place.Rules.Whole()
	return &r, err
}

// pipedForward is forward for all microbatches at once, [M, B, S] each.
func (m model) pipedForward(w graph.Weights, b batch) sums {
	hidden, router := graph.RunPiped(m.Model, w, b.inputs(), m.again())
	return labelSums(m.Model, w, hidden, b.labels, router)
}

// hidden is what the model gives after the last norm, without a gradient: [B, S, D] of inputs [B, S], or on stages
// [M, B, S, D] of [M, B, S].
func (m model) hidden(w graph.Weights, in graph.Inputs) *Node {
	if m.place.Circle == nil {
		return graph.Run(m.Model, w, in, nil, graph.KeepNothing).Hidden
	}
	hidden, _ := graph.RunPiped(m.Model, w, in, graph.RecomputeNothing)
	return hidden
}
