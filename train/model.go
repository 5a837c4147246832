package train

import (
	"slices"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"

	"mix/graph"
	"mix/sharding/axis"
)

// model is what is trained, and in which form a program takes it.
type model struct {
	Options
	layout  graph.Layout
	trained []axis.Piece // float32, updated
	frozen  []axis.Piece // never updated
	decayed []bool       // of trained
}

func newModel(o Options) model {
	m := model{Options: o, layout: graph.PerLayer}
	if o.Recompute == RecomputeFull {
		m.layout = graph.Stacked
	}
	m.trained = graph.Pieces(o.Model, m.layout, dtypes.Float32)
	decays := map[string]bool{}
	for _, p := range graph.Params(o.Model) {
		decays[p.Path] = o.decays(p)
	}
	for _, q := range m.trained {
		m.decayed = append(m.decayed, decays[q.Path])
	}
	return m
}

// decays tells whether a weight decays: norms, which have one axis beside that of layers, do not.
func (o Options) decays(p axis.Param) bool {
	if len(p.Axes) == 1 || len(p.Axes) == 2 && p.Axes[0] == axis.Layers {
		return false
	}
	return o.DecayEmbeddings || !slices.Contains(p.Axes, axis.Vocab)
}

// bind makes the model's weights of a program's arguments.
func (m model) bind(trained, frozen []*Node) graph.Weights {
	return graph.WeightsOf(m.Model, m.layout, dtypes.Float32, trained).In(m.DType)
}
