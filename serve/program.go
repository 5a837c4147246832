package serve

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	gx "github.com/gomlx/gomlx/core/graph"

	"mix/graph"
	"mix/lower"
)

// compile builds a program once, binds the weights and keeps it.
func (e *Engine) compile(name string, o lower.ProgramOptions, build func(g *gx.Graph, w graph.Weights) []*gx.Node) (*lower.Program, error) {
	return e.compileWith(name, e.kept.placedIn(o), e.weights, func(g *gx.Graph) []*gx.Node {
		return build(g, e.declareWeights(g))
	})
}

// compileWith is compile for a program whose first parameters are bound to buffers.
func (e *Engine) compileWith(name string, o lower.ProgramOptions, bound []*lower.Buffer, build func(g *gx.Graph) []*gx.Node) (p *lower.Program, err error) {
	e.mu.Lock()
	entry := e.programs[name]
	if entry == nil {
		entry = &program{}
		e.programs[name] = entry
	}
	e.mu.Unlock()
	entry.mu.Lock()
	defer entry.mu.Unlock()
	if p := entry.p.Load(); p != nil {
		return p, nil
	}
	if e.o.Compiling != nil {
		defer e.compiling(name)()
	}
	defer func() { // graph functions panic
		if r := recover(); r != nil {
			err = fmt.Errorf("program %s: %v", name, r)
		}
	}()
	g := gx.NewGraph(e.be.With(o), name)
	if err := g.Compile(build(g)...); err != nil {
		return nil, fmt.Errorf("program %s: %w", name, err)
	}
	p, err = lower.ProgramOf(g.Executable())
	if err != nil {
		return nil, err
	}
	for i, b := range bound {
		if err := p.Bind(i, b); err != nil {
			return nil, err
		}
	}
	entry.p.Store(p)
	return p, nil
}

// compiling tells of a program, and returns what is to be called after. One is told at a time.
func (e *Engine) compiling(program string) (compiled func()) {
	e.telling.Lock()
	defer e.telling.Unlock()
	done := e.o.Compiling(program)
	return func() {
		e.telling.Lock()
		defer e.telling.Unlock()
		done()
	}
}

// Names of a step's parameters beside weights and cache, in order.
const (
	argTokens      = "tokens"      // [1, S] int32
	argStart       = "start"       // [] int32, position of the first token
	argLast        = "last"        // [] int32, index in tokens of the last one that is not padding
	argTemperature = "temperature" // [1] float32
	argMinP        = "min_p"       // [1] float32
	argSeed        = "seed"        // [1, 2] uint32
	argTopK        = "top_k"       // [1] int32
	argTopP        = "top_p"       // [1] float32
)

// mode is how a step draws: each costs more than the one before.
type mode string

const (
	greedy  mode = "greedy"  // the best token
	sampled mode = "sampled" // by temperature and min-p
	ranked  mode = "ranked"  // also by top-k and top-p, which sort the vocabulary
)

// modeOf is the cheapest that draws as s says.
func modeOf(s Sampling) mode {
	switch {
	case s.Temperature == 0 || s.TopK == 1:
		return greedy
	case s.TopK == 0 && s.TopP == 1:
		return sampled
	}
	return ranked
}

// step is the program that puts S tokens of one sequence into its cache and draws the token after the
// last of them. With S = 1 its results feed the next step without a look from the host:
//
//	tokens, start, last, cache, sampling → next [1, 1] int32, start + last + 1 [] int32, logits [1, V], cache
func (e *Engine) step(tokens, capacity int, m mode) (*lower.Program, error) {
	name := fmt.Sprintf("prefill_%d_of_%d", tokens, capacity)
	if tokens == 1 {
		name = fmt.Sprintf("decode_of_%d", capacity)
	}
	name += "_" + string(m)
	kept, err := e.cache(capacity)
	if err != nil {
		return nil, err
	}
	return e.compile(name, kept.updated(stepOutputs), func(g *gx.Graph, w graph.Weights) []*gx.Node {
		ids := gx.Parameter(g, argTokens, shapes.Make(dtypes.Int32, 1, tokens))
		start := gx.Parameter(g, argStart, shapes.Make(dtypes.Int32))
		last := gx.Parameter(g, argLast, shapes.Make(dtypes.Int32))
		cache := graph.DeclareCache(g, kept.pieces)
		var s graph.Sampling
		if m != greedy {
			s.Temperature = gx.Parameter(g, argTemperature, shapes.Make(dtypes.Float32, 1))
			s.MinP = gx.Parameter(g, argMinP, shapes.Make(dtypes.Float32, 1))
			s.Seed = gx.Parameter(g, argSeed, shapes.Make(dtypes.Uint32, 1, 2))
		}
		if m == ranked {
			s.TopK = gx.Parameter(g, argTopK, shapes.Make(dtypes.Int32, 1))
			s.TopP = gx.Parameter(g, argTopP, shapes.Make(dtypes.Float32, 1))
		}
		r := graph.Run(e.cfg, w, graph.Inputs{Tokens: ids, Start: start}, cache, graph.KeepNothing)
		zero := gx.Const(g, int32(0))
		hidden := gx.DynamicSlice(r.Hidden, []*gx.Node{zero, last, zero}, []int{1, 1, e.cfg.Width}) // [1, 1, D]
		logits := gx.Reshape(graph.Logits(e.cfg, w, hidden), 1, e.cfg.Vocab)                        // [1, V]
		after := gx.Add(gx.Add(start, last), gx.Const(g, int32(1)))                                 // []
		var next *gx.Node
		if m == greedy {
			next = graph.Greedy(logits) // [1]
		} else {
			s.Step = gx.Reshape(after, 1)
			next = graph.Sample(logits, s) // [1]
		}
		return append([]*gx.Node{gx.Reshape(next, 1, 1), after, logits}, r.Cache.Nodes()...)
	})
}

// stepOutputs counts a step's results before the cache.
const stepOutputs = 3

// score is the program that computes the logits of S tokens of one sequence. With a capacity they come after
// what is in the cache, which it updates:
//
//	tokens [1, S] int32, start [] int32, cache → logits [S, V] float32, then with trace the embedded tokens and
//	the final norm's output [S, D], residual streams, attention and expert outputs [L, S, D], router logits
//	[L, S, E], weights and choices [L, S, K], then the cache
//
// Without one, capacity 0, start and cache are absent.
func (e *Engine) score(tokens, capacity int, trace bool) (*lower.Program, error) {
	name, keep, results := fmt.Sprintf("score_%d", tokens), graph.KeepNothing, 1
	if capacity > 0 {
		name += fmt.Sprintf("_of_%d", capacity)
	}
	if trace {
		name, keep, results = name+"_trace", graph.KeepAll, 9
	}
	var kept resident
	var o lower.ProgramOptions
	if capacity > 0 {
		var err error
		if kept, err = e.cache(capacity); err != nil {
			return nil, err
		}
		o = kept.updated(results)
	}
	return e.compile(name, o, func(g *gx.Graph, w graph.Weights) []*gx.Node {
		in := graph.Inputs{Tokens: gx.Parameter(g, argTokens, shapes.Make(dtypes.Int32, 1, tokens))}
		var cache *graph.Cache
		if capacity > 0 {
			in.Start = gx.Parameter(g, argStart, shapes.Make(dtypes.Int32))
			cache = graph.DeclareCache(g, kept.pieces)
		}
		r := graph.Run(e.cfg, w, in, cache, keep)
		one := func(n *gx.Node) *gx.Node { return gx.Reshape(n, tokens, -1) }                  // [S, X]
		layers := func(n *gx.Node) *gx.Node { return gx.Reshape(n, e.cfg.Layers, tokens, -1) } // [L, S, X]
		outs := []*gx.Node{one(graph.Logits(e.cfg, w, r.Hidden))}
		if trace {
			outs = append(outs, one(r.Embedded), one(r.Hidden), layers(r.Layers), layers(r.AttnOut), layers(r.MoEOut),
				r.RouterLogits, r.RouterWeights, r.RouterChosen)
			for i, n := range outs {
				if n.DType().IsFloat() {
					outs[i] = gx.ConvertDType(n, dtypes.Float32)
				}
			}
		}
		if cache != nil {
			outs = append(outs, r.Cache.Nodes()...)
		}
		return outs
	})
}
