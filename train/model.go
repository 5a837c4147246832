package train

import (
	"slices"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"

	"mix/graph"
	"mix/sharding"
	"mix/sharding/axis"
	"mix/train/lora"
)

// model is what is trained, and in which form a program takes it.
type model struct {
	Options
	place   sharding.Placement
	layout  graph.Layout
	params  []axis.Param // catalogue of what is trained
	base    []axis.Param // of what is frozen
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
	}
	return m, m.list()
}

// list lists the pieces in the layout.
func (m *model) list() (err error) {
	m.trained, m.decayed = nil, nil
	if m.LoRA != nil {
		if err := m.freeze(); err != nil {
			return err
		}
	}
	for _, p := range m.params {
		for _, q := range m.layout.Pieces(p, dtypes.Float32) {
			m.trained = append(m.trained, q)
			m.decayed = append(m.decayed, m.decays(p))
		}
	}
	if m.trained, err = m.place.Staged(m.trained, m.weight); err != nil {
		return err
	}
	m.frozen, err = m.place.Staged(m.frozen, m.weight)
	return err
}

// freeze lists the base of adapters: in the dtype of the computation, or its matrices in int8 with scales.
func (m *model) freeze() error {
	m.frozen, m.base = graph.Pieces(m.Model, m.layout, m.DType), graph.Params(m.Model)
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
	m.base = append(m.base, scales...)
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
	staged := func(w graph.Weights) graph.Weights {
		if m.place.Circle != nil {
			w = w.Staged()
		}
		return w
	}
	if m.LoRA == nil {
		return staged(graph.NewWeights(m.layout, dtypes.Float32, m.trained, trained).In(m.DType))
	}
	w := staged(graph.NewWeights(m.layout, m.DType, m.frozen, frozen))
	return w.Adapted(m.LoRA.Scale(), m.trained, trained)
}
