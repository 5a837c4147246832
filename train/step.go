// Package train trains a Mixtral: one step, many times.
//
//	samples → batch → step → metrics → report
//	                   │ state in place        └ every so often: evaluation, checkpoint
//	                   forward → losses → gradient → clip → AdamW
//
// A step is one program. Its microbatches are a scan inside of it, whose gradient computes each microbatch
// again: sums over all of them, such as those of which the load-balancing loss is a product, are whole before
// any gradient is taken, so accumulated steps are the same as plain ones.
//
// Axes as in package graph; M microbatches of B samples.
package train

import (
	"math"
	"slices"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"

	"mix/graph"
	"mix/graph/composite"
)

// batch is what a step learns from.
type batch struct {
	tokens    *Node // [M, B, S] int32
	labels    *Node // [M, B, S] int32, what follows each token, or graph.Ignore
	segments  *Node // [M, B, S] int32, documents that do not see each other, negative for padding; nil for one each
	positions *Node // [M, B, S] int32, nil for 0, 1, 2 …
}

// nodes lists what is there, of reads such a list.
func (b batch) nodes() (all []*Node) {
	for _, n := range []*Node{b.tokens, b.labels, b.segments, b.positions} {
		if n != nil {
			all = append(all, n)
		}
	}
	return all
}

func (b batch) of(all []*Node) batch {
	for _, n := range []**Node{&b.tokens, &b.labels, &b.segments, &b.positions} {
		if *n != nil {
			*n, all = all[0], all[1:]
		}
	}
	return b
}

// sums are what the losses are made of, and add up over microbatches.
type sums struct {
	ce, kept *Node // [] float32: loss over the labels, and how many there are
	router   graph.RouterSums
}

func (s sums) nodes() []*Node { return append([]*Node{s.ce, s.kept}, s.router.Nodes()...) }

func sumsOf(n []*Node) sums { return sums{n[0], n[1], graph.RouterSumsOf(n[2:])} }

// inputs are the model's part of a batch.
func (b batch) inputs() graph.Inputs {
	return graph.Inputs{Tokens: b.tokens, Segments: b.segments, Positions: b.positions}
}

// again is what the backward pass of a layer computes again.
func (m model) again() graph.Recompute {
	switch m.Recompute {
	case RecomputeSelective:
		return graph.RecomputeAttention
	case RecomputeFull:
		return graph.RecomputeLayers
	}
	return graph.RecomputeNothing
}

// labelSums adds up the losses at labels, after hidden [B, S, D] or [M, B, S, D].
func labelSums(c graph.Config, w graph.Weights, hidden, labels *Node, router graph.RouterSums) sums {
	each, mask := graph.TokenLosses(graph.Logits(c, w, hidden), labels) // [B, S] or [M, B, S]
	return sums{ReduceAllSum(each), ReduceAllSum(mask), router}
}

// forward runs one microbatch, [B, S] each.
func (m model) forward(w graph.Weights, b batch) sums {
	r := graph.RunForGradient(m.Model, w, b.inputs(), graph.KeepRouter, m.again())
	router := graph.SumRouter(r.RouterLogits, r.RouterChosen, graph.CountedRows(b.segments))
	if r.RouterDropped != nil {
		router.Dropped = StopGradient(ReduceAllSum(r.RouterDropped))
	}
	return labelSums(m.Model, w, r.Hidden, b.labels, router)
}

// allForward runs all microbatches.
func (m model) allForward(trained, frozen []*Node, b batch) sums {
	trained = m.asWeights(trained) // once, not in each pass over the microbatches
	weights := func(trained, frozen []*Node) graph.Weights { return m.bind(trained, frozen).Within(m.Capacity) }
	if m.place.Circle != nil {
		return m.pipedForward(weights(trained, frozen), b)
	}
	n := b.tokens.Shape().Dim(0)
	if n == 1 {
		var one []*Node
		for _, x := range b.nodes() {
			one = append(one, Squeeze(x, 0)) // [B, S]
		}
		return m.forward(weights(trained, frozen), b.of(one))
	}
	g := b.tokens.Graph()
	zero := func(dims ...int) *Node { return BroadcastToDims(Const(g, float32(0)), dims...) }
	l, e := m.Model.Layers, m.Model.Experts
	start := sums{zero(), zero(), graph.RouterSums{Rows: zero(), Routed: zero(l, e), Probs: zero(l, e), Z: zero()}}
	if m.Capacity.Bounds() {
		start.router.Dropped = zero()
	}
	in := composite.Scanned{Carry: start.nodes(), Shared: frozen, Weights: trained, Stacked: b.nodes()}
	last, _ := composite.ScanForGradient(in, nil, func(in composite.Scanned) (next, _ []*Node) {
		for i, x := range m.forward(weights(in.Weights, in.Shared), b.of(in.Stacked)).nodes() {
			next = append(next, Add(in.Carry[i], x))
		}
		return next, nil
	})
	return sumsOf(last)
}

// losses are [] float32 each.
type losses struct{ total, ce, aux, z *Node }

func (m model) losses(s sums) (l losses) {
	weigh := func(x *Node, by float64) *Node { return Mul(x, Const(x.Graph(), float32(by))) }
	l.ce = graph.Mean(s.ce, s.kept)
	if l.aux = s.router.LoadBalance(); m.Balance == BalancePerLayer {
		l.aux = s.router.LoadBalancePerLayer(m.Model.TopK)
	}
	l.z = s.router.ZLoss()
	l.total = l.ce
	if m.Model.AuxCoef != 0 {
		l.total = Add(l.total, weigh(l.aux, m.Model.AuxCoef))
	}
	if m.ZCoef != 0 {
		l.total = Add(l.total, weigh(l.z, m.ZCoef))
	}
	return l
}

// state is what a step updates. Weights and moments are float32, in the order of model.trained.
type state struct {
	weights, first, second []*Node
	updates                *Node // [] int32, made up to now
}

func (s state) nodes() []*Node {
	return slices.Concat(s.weights, s.first, s.second, []*Node{s.updates})
}

// Places of a step's metrics, float32 in one vector; the share of each expert follows, [L, E].
const (
	metricLoss = iota
	metricCE
	metricAux
	metricZ
	metricNorm    // of the gradient, before clipping
	metricGood    // 1, or 0 when loss or gradient is not finite: then nothing was updated
	metricDropped // share of the rows that found no room at their experts
	metricLoad
)

// step is one update at learning rate lr, [] float32. A loss or gradient that is not finite leaves the state
// as it is.
func (m model) step(st state, frozen []*Node, b batch, lr *Node) (next state, metrics *Node) {
	s := m.allForward(st.weights, frozen, b)
	l := m.losses(s)
	grads, norm := m.Optimizer.clip(Gradient(l.total, st.weights...))
	good := And(IsFinite(l.total), IsFinite(norm)) // []
	next.updates = Add(st.updates, ConvertDType(good, dtypes.Int32))
	rates := m.Optimizer.rates(lr, Add(st.updates, Const(lr.Graph(), int32(1))))
	for i, g := range grads {
		w, first, second := m.Optimizer.update(st.weights[i], g, st.first[i], st.second[i], rates, good, m.decayed[i])
		next.weights = append(next.weights, w)
		next.first = append(next.first, first)
		next.second = append(next.second, second)
	}
	choices := Mul(s.router.Rows, Const(lr.Graph(), float32(m.Model.TopK))) // [] a layer
	load := Reshape(graph.Mean(s.router.Routed, choices), -1)               // [L·E]
	dropped := Const(lr.Graph(), float32(0))                                // []
	if s.router.Dropped != nil {
		rows := b.tokens.Shape().Size() * m.Model.TopK * m.Model.Layers
		dropped = Div(s.router.Dropped, Const(lr.Graph(), float32(rows)))
	}
	all := []*Node{load}
	for _, x := range []*Node{dropped, ConvertDType(good, dtypes.Float32), norm, l.z, l.aux, l.ce, l.total} {
		all = slices.Insert(all, 0, Reshape(x, 1))
	}
	return next, Concatenate(all, 0)
}

// rates are the scalars of one update, [] float32 each.
type rates struct {
	lr           *Node // learning rate
	bias1, bias2 *Node // 1 - βᵗ at update t, counted from 1
}

// rates of update t, [] int32. 1-βᵗ is computed as -expm1(t·ln β): as a difference it would have three
// digits at the first updates.
func (a AdamW) rates(lr, t *Node) rates {
	bias := func(beta float64) *Node {
		return Neg(Expm1(Mul(ConvertDType(t, dtypes.Float32), Const(t.Graph(), float32(math.Log(beta))))))
	}
	return rates{lr, bias(a.Beta1), bias(a.Beta2)}
}
