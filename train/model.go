package train

import (
	"slices"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"

	"mix/graph"
	"mix/sharding/axis"
	"mix/train/lora"
)

// model is what is trained, and in which form a program takes it.
type model struct {
	Options
	layout  graph.Layout
	params  []axis.Param // catalogue of what is trained
	trained []axis.Piece // float32, updated
	frozen  []axis.Piece // never updated
	decayed []bool       // of trained
}

func newModel(o Options) (m model, err error) {
	m = model{Options: o, layout: graph.PerLayer, params: graph.Params(o.Model)}
	if o.Recompute == RecomputeFull {
		m.layout = graph.Stacked
	}
	if o.LoRA != nil {
		if m.params, err = lora.Params(o.Model, *o.LoRA); err != nil {
			return m, err
		}
		if err := m.freeze(); err != nil {
			return m, err
		}
	}
	for _, p := range m.params {
		for _, q := range m.layout.Pieces(p, dtypes.Float32) {
			m.trained = append(m.trained, q)
			m.decayed = append(m.decayed, o.decays(p))
		}
	}
	return m, nil
}

// freeze lists the base of adapters: in the dtype of the computation, or its matrices in int8 with scales.
func (m *model) freeze() error {
	m.frozen = graph.Pieces(m.Model, m.layout, m.DType)
	if !m.Int8 {
		return nil
	}
	weights, scales, err := lora.Quantized(m.Model)
	if err != nil {
		return err
	}
	narrow := map[string]bool{}
	for _, p := range weights {
		narrow[p.Path] = true
	}
	for i, q := range m.frozen {
		if narrow[q.Path] {
			m.frozen[i].DType = dtypes.Int8
		}
	}
	for _, p := range scales {
		m.frozen = append(m.frozen, m.layout.Pieces(p, dtypes.Float32)...)
	}
	return nil
}

// start is the Reader of the trained weights before the first step, and of the frozen ones.
func (m model) start(base Reader) (trained, frozen Reader, err error) {
	if m.LoRA == nil {
		return base, nil, nil
	}
	if m.Int8 {
		if base, err = lora.Quantize(m.Model, base); err != nil {
			return nil, nil, err
		}
	}
	return freshAdapters{m.Model, *m.LoRA}, base, nil
}

// decays tells whether a weight decays: norms, which have one axis beside that of layers, do not. Adapters do.
func (o Options) decays(p axis.Param) bool {
	if o.LoRA != nil {
		return true
	}
	if len(p.Axes) == 1 || len(p.Axes) == 2 && p.Axes[0] == axis.Layers {
		return false
	}
	return o.DecayEmbeddings || !slices.Contains(p.Axes, axis.Vocab)
}

// bind makes the model's weights of a program's arguments.
func (m model) bind(trained, frozen []*Node) graph.Weights {
	if m.LoRA == nil {
		return graph.WeightsOf(m.Model, m.layout, dtypes.Float32, trained).In(m.DType)
	}
	n := len(graph.Pieces(m.Model, m.layout, m.DType)) // the scales follow
	w := graph.WeightsOf(m.Model, m.layout, m.DType, frozen[:n]).With(m.frozen[n:], frozen[n:])
	return w.Adapted(m.LoRA.Scale(), m.trained, trained)
}
