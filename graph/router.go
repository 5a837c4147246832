package graph

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"

	"mix/graph/composite"
)

// Routing is the router's answer for T tokens.
type Routing struct {
	Logits  *Node // [T, E] float32, carries gradient
	Weights *Node // [T, K] float32, softmax over the K chosen logits: rows sum to 1
	Chosen  *Node // [T, K] int32 in [0, E), best first, ties to the lower id
}

// Route picks k experts for every token.
//
//	x      [T, D] any float; normalised activations
//	router [E, D] float32: logits stay in float32, near-ties decide the expert
//
// The choice itself carries no gradient, the weights do.
//
// Panics, as graph functions do, if widths disagree or k is not in 1..E.
//
// Source: Jiang et al. 2024, arXiv:2401.04088, section 2.1.
func Route(x, router *Node, k int) Routing {
	router.AssertDims(-1, x.Shape().Dim(-1))
	return RouteBy(matrix{w: router}.times(ConvertDType(x, dtypes.Float32)), k)
}

// RouteBy is Route from the router's logits, [T, E] float32.
func RouteBy(logits *Node, k int) Routing {
	weights, chosen := composite.Route(logits, k)
	return Routing{Logits: logits, Weights: weights, Chosen: chosen}
}
