// Package train computes training steps: forward, loss, gradient, clip and update as one program.
//
//	weights, moments, tokens → loss → gradient → clip → AdamW → weights, moments, metrics
//
// Axes as in package graph.
package train

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"

	"mix/graph"
)

// State is what a step updates: float32, in graph.Pieces' order.
type State struct{ Weights, First, Second []*Node }

// Metrics are what a step says of itself, [] float32 each.
type Metrics struct {
	Loss, CE, Aux *Node // CE + AuxCoef·Aux, and its parts
	Norm          *Node // of the gradient, before clipping
	Good          *Node // 1, or 0 when loss or gradient is not finite: then nothing was updated
}

// Step is one update.
//
//	tokens, labels [B, S] int32; see graph.CrossEntropy
//
// decayed tells which weights decay, in graph.Pieces' order. A loss or gradient that is not finite leaves
// the state as it is.
func Step(c graph.Config, l graph.Layout, a AdamW, st State, tokens, labels *Node, r Rates, decayed []bool) (State, Metrics) {
	w := graph.WeightsOf(c, l, dtypes.Float32, st.Weights)
	run := graph.RunForGradient(c, w, graph.Inputs{Tokens: tokens}, graph.KeepRouter)
	var m Metrics
	m.CE, _ = graph.CrossEntropy(graph.Logits(c, w, run.Hidden), labels)
	m.Aux = graph.LoadBalance(run.RouterLogits, run.RouterChosen, nil)
	m.Loss = Add(m.CE, Mul(m.Aux, Const(tokens.Graph(), float32(c.AuxCoef))))

	grads, norm := a.clip(Gradient(m.Loss, st.Weights...))
	m.Norm = norm
	good := And(IsFinite(m.Loss), IsFinite(norm)) // []
	m.Good = ConvertDType(good, dtypes.Float32)
	var next State
	for i, g := range grads {
		w, first, second := a.update(st.Weights[i], g, st.First[i], st.Second[i], r, decayed[i])
		next.Weights = append(next.Weights, Where(good, w, st.Weights[i]))
		next.First = append(next.First, Where(good, first, st.First[i]))
		next.Second = append(next.Second, Where(good, second, st.Second[i]))
	}
	return next, m
}
