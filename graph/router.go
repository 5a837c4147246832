package graph

import (
	"fmt"
	"math"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
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
// The choice itself carries no gradient: experts are chosen on a stopped copy and their logits read back
// through a one-hot. K rounds of taking the best are cheaper than a sort and need no closure.
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
	experts, g := logits.Shape().Dim(1), logits.Graph()
	if k < 1 || k > experts {
		panic(fmt.Errorf("route: %d experts a token, want 1 to %d", k, experts))
	}
	left := StopGradient(logits) // [T, E]
	var picks []*Node            // [T, 1] each
	for range k {
		best := ArgMax(left, -1, dtypes.Int32) // [T]
		picks = append(picks, InsertAxes(best, -1))
		taken := OneHot(best, experts, dtypes.Bool) // [T, E]
		left = Where(taken, BroadcastToShape(Const(g, float32(math.Inf(-1))), left.Shape()), left)
	}
	chosen := Concatenate(picks, -1)                                                           // [T, K]
	kept := ReduceSum(Mul(OneHot(chosen, experts, dtypes.Float32), InsertAxes(logits, 1)), -1) // [T, K]
	return Routing{Logits: logits, Weights: Softmax(kept, -1), Chosen: chosen}
}
