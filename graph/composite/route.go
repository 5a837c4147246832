package composite

import (
	"fmt"
	"math"
	"strconv"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Route chooses k of E experts for each of T tokens.
//
//	logits  [T, E] float32
//	weights [T, K] float32  softmax over the K chosen logits: rows sum to 1
//	chosen  [T, K] int32    in [0, E), best first, ties to the lower id
//
// The choice carries no gradient: experts are chosen on a stopped copy and their logits read back through a one-hot. K
// rounds of taking the best are cheaper than a sort and need no closure.
func Route(logits *Node, k int) (weights, chosen *Node) {
	logits.AssertDims(-1, -1)
	if experts := logits.Shape().Dim(1); k < 1 || k > experts {
		panic(fmt.Errorf("route: %d experts a token, want 1 to %d", k, experts))
	}
	as := attrs{{"choices", strconv.Itoa(k)}}
	out := call(RouteName, as, []*Node{logits}, k, func(in []*Node) []*Node { return route(in[0], k) })
	return out[0], out[1]
}

func routeVJP(in, dys []*Node, k any) []*Node {
	return throughBody(in, dys, func(in []*Node) []*Node { return route(in[0], k.(int)) })
}

// route is the meaning of the composite.
func route(logits *Node, k int) []*Node {
	experts, g := logits.Shape().Dim(1), logits.Graph()
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
	return []*Node{Softmax(kept, -1), chosen}
}
