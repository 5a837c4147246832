package graph

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"

	"mix/graph/composite"
	"mix/sharding/axis"
)

// LayerTrace is what one decoder layer computed on the way.
type LayerTrace struct {
	AttnOut *Node // [B, S, D] attention's output before the residual
	MoEOut  *Node // [B, S, D] the experts' output before the residual
	Hidden  *Node // [B, S, D] the residual stream after the layer
	Dropped *Node // [] float32, rows that found no room at their experts; nil without a capacity
	Routing       // T = B·S
}

// block is one decoder layer.
//
//	x    [B, S, D] the residual stream
//	k, v [B, G, C, A] the layer's cache, nil without one
func block(c Config, x *Node, w layer, at view, k, v *Node) (y, newK, newV *Node, tr LayerTrace) {
	tr.AttnOut, newK, newV = attend(RMSNorm(x, w.attnNorm, c.NormEps), w, at, k, v) // [B, S, D]
	x = composite.Constrain(Add(x, tr.AttnOut), axis.Batch, axis.Seq, axis.Embed)   // [B, S, D]
	dims := x.Shape().Dimensions
	rows := Reshape(RMSNorm(x, w.moeNorm, c.NormEps), -1, c.Width)                   // [T, D]
	tr.Routing = RouteBy(w.router.times(ConvertDType(rows, dtypes.Float32)), c.TopK) // [T, E], [T, K], [T, K]
	moe, dropped := w.moe(rows, tr.Chosen, tr.Routing.Weights)                       // [T, D], []
	tr.Dropped = dropped
	tr.MoEOut = composite.Constrain(Reshape(moe, dims...), axis.Batch, axis.Seq, axis.Embed) // [B, S, D]
	tr.Hidden = composite.Constrain(Add(x, tr.MoEOut), axis.Batch, axis.Seq, axis.Embed)     // [B, S, D]
	return tr.Hidden, newK, newV, tr
}
