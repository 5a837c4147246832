package serve

import (
	"fmt"

	"github.com/gomlx/compute/shapes"
	gx "github.com/gomlx/gomlx/core/graph"

	"mix/graph"
	"mix/lower"
	"mix/sharding"
	"mix/sharding/axis"
)

// lay lays the model out on the backend's mesh: a pipeline takes stacked layers, other meshes the matrices of all
// experts of a layer together, so that they can be spread.
func (e *Engine) lay() (err error) {
	if e.place, err = sharding.Place(e.be.Mesh(), e.be.ShardingRules(), e.cfg.Layers, 1); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	switch {
	case e.place.Circle != nil:
		e.layout = graph.Stacked
	case !e.place.OneDevice() && e.layout == graph.PerMatrix:
		e.layout = graph.PerLayer
	}
	params := graph.Params(e.cfg)
	e.kept, err = e.placed(graph.Pieces(e.cfg, e.layout, e.o.DType), func(path string) (axis.Param, error) {
		return axis.Find(params, path)
	})
	return err
}

// resident is tensors that programs take again and again, as they have them, and where each lies.
type resident struct {
	pieces []axis.Piece
	specs  []sharding.Spec
}

// placed lays out pieces as programs have them. of gives the parameter that a piece is of, by its path.
func (e *Engine) placed(pieces []axis.Piece, of func(path string) (axis.Param, error)) (h resident, err error) {
	if h.pieces, err = e.place.Staged(pieces, of); err != nil {
		return h, fmt.Errorf("engine: %w", err)
	}
	for _, q := range h.pieces {
		p, err := of(q.Path)
		if err != nil {
			return h, fmt.Errorf("engine: %w", err)
		}
		spec, err := e.place.Spec(sharding.Weights, q, p)
		if err != nil {
			return h, fmt.Errorf("engine: %w", err)
		}
		h.specs = append(h.specs, spec)
	}
	return h, nil
}

// cache are the keys and values of one sequence.
func (e *Engine) cache(capacity int) (resident, error) {
	return e.placed(graph.CachePieces(e.cfg, e.layout, e.o.DType, 1, capacity), func(path string) (axis.Param, error) {
		return graph.CacheParam(e.cfg, path, 1, capacity), nil
	})
}

// pool are the keys and values of many sequences.
func (e *Engine) pool(positions int) (resident, error) {
	return e.placed(graph.PagesPieces(e.cfg, e.layout, e.o.DType, positions), func(path string) (axis.Param, error) {
		return graph.PagesParam(e.cfg, path, positions), nil
	})
}

// empty makes the tensors of zeros.
func (h resident) empty(be *lower.Backend, what string) (all []*lower.Buffer, err error) {
	for i, q := range h.pieces {
		b, err := be.MakeSharded(what, shapes.Make(q.DType, q.Shape...), h.specs[i], nil)
		if err != nil {
			free(all...)
			return nil, err
		}
		all = append(all, b)
	}
	return all, nil
}

// updated are the options of a program that takes the tensors and gives them back, updated in place, as its results
// from first on.
func (h resident) updated(first int) lower.ProgramOptions {
	o := lower.ProgramOptions{Donate: map[string]int{}}
	for i, q := range h.pieces {
		o.Donate[q.Name] = first + i
	}
	return h.placedIn(o)
}

// placedIn adds where the tensors lie to a program's options.
func (h resident) placedIn(o lower.ProgramOptions) lower.ProgramOptions {
	shard := map[string]sharding.Spec{}
	for name, spec := range o.Shard {
		shard[name] = spec
	}
	for i, q := range h.pieces {
		shard[q.Name] = h.specs[i]
	}
	o.Shard = shard
	return o
}

// declareWeights makes the parameters of the weights, the first of a program.
func (e *Engine) declareWeights(g *gx.Graph) graph.Weights {
	var nodes []*gx.Node
	for _, q := range e.kept.pieces {
		nodes = append(nodes, gx.Parameter(g, q.Name, shapes.Make(q.DType, q.Shape...)))
	}
	w := graph.NewWeights(e.layout, e.o.DType, e.kept.pieces, nodes)
	if e.place.Circle != nil {
		w = w.Staged()
	}
	return w
}
