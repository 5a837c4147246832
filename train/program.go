package train

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"

	"mix/graph"
	"mix/lower"
	"mix/sharding"
	"mix/sharding/axis"
)

// programs are the compiled functions of a run. They take the state's buffers as they lie on the device.
type programs struct {
	be                  *lower.Backend
	m                   model
	segments, positions bool // whether batches have them
}

// declare makes parameters for pieces of weights, named prefix and the piece.
func declare(g *Graph, prefix string, pieces []axis.Piece) (all []*Node) {
	for _, q := range pieces {
		all = append(all, Parameter(g, prefix+q.Name, shapes.Make(q.DType, q.Shape...)))
	}
	return all
}

// declareBatch makes the parameters of a batch of dims [M, B] or [B]: tokens of S+1, the rest of S.
func (p programs) declareBatch(g *Graph, dims ...int) batch {
	declare := func(name string, s int) *Node {
		return Parameter(g, name, shapes.Make(dtypes.Int32, append(append([]int{}, dims...), s)...))
	}
	b := batch{tokens: declare("tokens", p.m.Seq+1), labels: declare("labels", p.m.Seq)}
	b.tokens = SliceAxis(b.tokens, -1, AxisRange(0, p.m.Seq)) // [M, B, S]
	if p.segments {
		b.segments = declare("segments", p.m.Seq)
	}
	if p.positions {
		b.positions = declare("positions", p.m.Seq)
	}
	return b
}

// compile makes a program of what build declares and returns. Panics of the trace become errors.
func (p programs) compile(name string, o lower.ProgramOptions, build func(g *Graph) []*Node) (program *lower.Program, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("program %s: %v", name, r)
		}
	}()
	g := NewGraph(p.be.With(o), name)
	if err := g.Compile(build(g)...); err != nil {
		return nil, fmt.Errorf("program %s: %w", name, err)
	}
	return lower.ProgramOf(g.Executable())
}

// step takes state, frozen weights, batch and learning rate. It returns the metrics and the state, updated
// in place.
func (p programs) step() (*lower.Program, error) {
	o := lower.ProgramOptions{Donate: map[string]int{}}
	for i, name := range p.m.stateNames() {
		o.Donate[name] = 1 + i
	}
	var err error
	if o.Shard, err = p.m.shard("first/", "second/"); err != nil {
		return nil, err
	}
	return p.compile("train_step", o, p.buildStep)
}

func (p programs) buildStep(g *Graph) []*Node {
	st := state{
		weights: declare(g, "", p.m.trained),
		first:   declare(g, "first/", p.m.trained),
		second:  declare(g, "second/", p.m.trained),
		updates: Parameter(g, "updates", shapes.Make(dtypes.Int32)),
	}
	frozen := declare(g, "", p.m.frozen)
	b := p.declareBatch(g, p.m.batchDims()...)
	next, metrics := p.m.step(st, frozen, b, Parameter(g, "lr", shapes.Make(dtypes.Float32)))
	return append([]*Node{metrics}, next.nodes()...)
}

// stateNames are the parameters of the state, in order.
func (m model) stateNames() (all []string) {
	for _, prefix := range []string{"", "first/", "second/"} {
		for _, q := range m.trained {
			all = append(all, prefix+q.Name)
		}
	}
	return append(all, "updates")
}

// evaluate takes weights and one microbatch. It returns [2] float32, the loss summed over the labels and how
// many they are.
func (p programs) evaluate() (*lower.Program, error) {
	o, err := p.reading(nil)
	if err != nil {
		return nil, err
	}
	return p.compile("evaluate", o, func(g *Graph) []*Node {
		w := p.declareWeights(g)
		b := p.declareBatch(g, p.m.evalDims()...)
		s := labelSums(p.m.Model, w, p.m.hidden(w, b.inputs()), b.labels, graph.RouterSums{})
		return []*Node{Concatenate([]*Node{Reshape(s.ce, 1), Reshape(s.kept, 1)}, 0)}
	})
}

// reading are the options of a program that only reads the weights.
func (p programs) reading(rules *sharding.Rules) (o lower.ProgramOptions, err error) {
	o.Rules = rules
	o.Shard, err = p.m.shard()
	return o, err
}

// declareWeights makes the parameters of such a program.
func (p programs) declareWeights(g *Graph) graph.Weights {
	return p.m.bind(p.m.asWeights(declare(g, "", p.m.trained)), declare(g, "", p.m.frozen))
}

// next takes weights, tokens [1, length] and the place of the last of them. It returns the id drawn after
// it, [1] int32. All tokens are run for each: samples are few and short, and need no second form of the
// model.
func (p programs) next(length int) (*lower.Program, error) {
	whole, err := p.m.whole()
	if err != nil {
		return nil, err
	}
	o, err := p.reading(whole)
	if err != nil {
		return nil, err
	}
	return p.compile("sample", o, func(g *Graph) []*Node {
		w := p.declareWeights(g)
		tokens := Parameter(g, "tokens", shapes.Make(dtypes.Int32, 1, length))
		at := Parameter(g, "at", shapes.Make(dtypes.Int32))
		seed := Parameter(g, "seed", shapes.Make(dtypes.Uint32, 1, 2))
		in := tokens
		if p.m.place.Circle != nil {
			in = InsertAxes(tokens, 0) // [1, 1, S]
		}
		hidden := Reshape(p.m.hidden(w, graph.Inputs{Tokens: in}), 1, length, -1) // [1, S, D]
		zero := Const(g, int32(0))
		last := DynamicSlice(hidden, []*Node{zero, at, zero}, []int{1, 1, p.m.Model.Width}) // [1, 1, D]
		logits := Reshape(graph.Logits(p.m.Model, w, last), 1, p.m.Model.Vocab)             // [1, V]
		return []*Node{graph.Sample(logits, graph.Sampling{
			Temperature: Const(g, []float32{sampleTemperature}), MinP: Const(g, []float32{sampleMinP}), Seed: seed, Step: Reshape(at, 1)})}
	})
}

// How sampled texts are drawn.
const (
	sampleTemperature = 0.7
	sampleMinP        = 0.05
)
