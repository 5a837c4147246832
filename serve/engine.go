// Package serve runs a Mixtral: it loads weights onto a device, compiles the programs, and turns prompts
// into tokens.
//
//	checkpoint → weights on the device → programs (prefill chunk, decode step, score) → tokens
//
// An Engine owns the weights and the compiled programs; a Session is one sequence with its cache.
package serve

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"

	"mix/graph"
	"mix/lower"
	"mix/lower/target"
	"mix/sharding"
	"mix/sharding/ckpt"
)

// Reader gives the elements of a weight's piece: a checkpoint, or anything that can make them up.
type Reader = ckpt.Reader

// Options of an engine.
type Options struct {
	DType  dtypes.DType // of weights, activations and cache: Float32 or BFloat16
	Layout string       // of the weights, by graph's name; "" is what the target wants. A mesh may take another

	// Loading is told of the bytes of weights that are on the device. nil for nobody.
	Loading func(done, total int64)
	// Compiling is told of each program before it is compiled, and what it returns is called after: one at
	// a time, but programs may be compiled together. nil for nobody.
	Compiling func(program string) (compiled func())
}

// Engine is a model on a device.
type Engine struct {
	be      *lower.Backend
	cfg     graph.Config
	layout  graph.Layout
	o       Options
	place   sharding.Placement
	kept    resident // the weights, as programs have them
	weights []*lower.Buffer

	mu       sync.Mutex
	programs map[string]*program

	telling sync.Mutex // held while Options.Compiling runs
}

// program is compiled by the first who asks for it, while the others wait.
type program struct {
	mu sync.Mutex
	p  atomic.Pointer[lower.Program] // nil until it is compiled
}

// New loads the weights of a model onto be's first device, or its mesh. Memory beside the weights stays within one
// piece: each is filled in place and handed to the device before the next is read.
func New(ctx context.Context, be *lower.Backend, cfg graph.Config, r Reader, o Options) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if o.DType != dtypes.Float32 && o.DType != dtypes.BFloat16 {
		return nil, fmt.Errorf("engine: dtype %s, want Float32 or BFloat16", o.DType)
	}
	name := o.Layout
	if name == "" {
		t, err := target.Lookup(be.Platform())
		if err != nil {
			return nil, fmt.Errorf("engine: %w", err)
		}
		name = t.WeightLayout
	}
	layout, ok := graph.Layouts[name]
	if !ok {
		return nil, fmt.Errorf("engine: weight layout %q is unknown", name)
	}
	e := &Engine{be: be, cfg: cfg, layout: layout, o: o, programs: map[string]*program{}}
	if err := e.lay(); err != nil {
		return nil, err
	}
	if err := e.load(ctx, r); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// Config is the model's.
func (e *Engine) Config() graph.Config { return e.cfg }

// Close frees the programs and the weights. The engine's sessions must be closed, and no call be under way.
func (e *Engine) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.programs {
		if p := x.p.Load(); p != nil {
			p.Finalize()
		}
	}
	e.programs = map[string]*program{}
	for _, b := range e.weights {
		b.Finalize()
	}
	e.weights = nil
}

// load moves every piece to the device.
func (e *Engine) load(ctx context.Context, r Reader) error {
	var done, total int64
	for _, q := range e.kept.pieces {
		total += int64(q.Bytes())
	}
	for i, q := range e.kept.pieces {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := e.be.MakePiece("engine: weight "+q.Name, q, e.kept.specs[i], e.place, r.Read)
		if err != nil {
			return err
		}
		e.weights = append(e.weights, b)
		done += int64(q.Bytes())
		if e.o.Loading != nil {
			e.o.Loading(done, total)
		}
	}
	return nil
}

// emptyCache makes the cache of one sequence.
func (e *Engine) emptyCache(capacity int) ([]*lower.Buffer, error) {
	c, err := e.cache(capacity)
	if err != nil {
		return nil, err
	}
	return c.empty(e.be, fmt.Sprintf("cache of %d positions", capacity))
}

// upload puts values on the device.
func upload[T int32 | uint32 | uint8 | float32](be *lower.Backend, values []T, dims ...int) (*lower.Buffer, error) {
	return be.Upload(shapes.Make(dtypes.FromGenericsType[T](), dims...), values)
}
