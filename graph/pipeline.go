package graph

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"

	"mix/graph/composite"
	"mix/sharding/axis"
)

// Axes of this file: M microbatches of B sequences.

// RunPiped applies the model to M microbatches at once, for a program whose layers lie on the stages of a pipeline.
// Each layer takes the microbatches one by one, so what goes on in it never has more than one of them; on one device
// the result is that of M runs. in has [M, B, S] of what Run has [B, S] of, without Start. Weights are in the Stacked
// layout, with three leading axes for the layers where they are Staged.
//
//	hidden [M, B, S, D] after the last layer and the final norm
//	router sums over all microbatches, of the tokens whose segment is not negative
func RunPiped(c Config, w Weights, in Inputs, again Recompute) (hidden *Node, router RouterSums) {
	w.again = again
	x := ConvertDType(Embed(in.Tokens, w.at(pathEmbed)), w.dtype) // [M, B, S, D]
	x = composite.Constrain(x, axis.Micro, axis.Batch, axis.Seq, axis.Embed)
	m := x.Shape().Dim(0)
	trained, frozen := w.stacked()
	scanned := composite.Scanned{Carry: []*Node{x}, Stacked: w.nodesOf(trained), Frozen: w.nodesOf(frozen), Micro: m, Lead: w.lead}
	for _, each := range []*Node{in.Positions, in.Segments} {
		if each != nil {
			scanned.Each = append(scanned.Each, each) // [M, B, S]
		}
	}
	one := shape(dtypes.Int32, in.Tokens.Shape().Dimensions[1:]...) // [B, S]
	outs := []shapes.Shape{shape(dtypes.Float32, c.Experts), shape(dtypes.Float32, c.Experts), shape(dtypes.Float32)}
	if w.within.Bounds() {
		outs = append(outs, shape(dtypes.Float32))
	}
	last, all := composite.ScanForGradient(scanned, outs, func(s composite.Scanned) (next, outs []*Node) {
		here, each := Inputs{}, s.Each
		if in.Positions != nil {
			here.Positions, each = each[0], each[1:] // [B, S]
		}
		if in.Segments != nil {
			here.Segments = each[0] // [B, S]
		}
		g := s.Carry[0].Graph()
		at := viewAt(c, w, g, one, here, nil)
		y, _, _, tr := block(c, s.Carry[0], w.layerOf(slicesBy(trained, s.Stacked, frozen, s.Frozen)), at, nil, nil) // [B, S, D]
		sums := SumRouter(InsertAxes(tr.Logits, 0), InsertAxes(tr.Chosen, 0), CountedRows(here.Segments))
		outs = []*Node{Squeeze(sums.Routed, 0), Squeeze(sums.Probs, 0), sums.Z}
		if tr.Dropped != nil {
			outs = append(outs, tr.Dropped)
		}
		return []*Node{y}, outs
	})
	x = composite.Constrain(last[0], axis.Micro, axis.Batch, axis.Seq, axis.Embed) // [M, B, S, D]
	hidden = RMSNorm(x, ConvertDType(w.at(pathFinalNorm), w.dtype), c.NormEps)     // [M, B, S, D]
	of := func(x *Node) *Node { return Reshape(ReduceSum(x, -2), -1, c.Experts) }  // [L…, M, E] to [L, E]
	router = RouterSums{Routed: of(all[0]), Probs: of(all[1]), Z: ReduceAllSum(all[2])}
	if w.within.Bounds() {
		router.Dropped = StopGradient(ReduceAllSum(all[3]))
	}
	if in.Segments == nil {
		router.Rows = Const(x.Graph(), float32(in.Tokens.Shape().Size()))
	} else {
		router.Rows = ReduceAllSum(CountedRows(in.Segments))
	}
	return hidden, router
}
