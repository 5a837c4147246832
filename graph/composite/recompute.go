package composite

import (
	"slices"

	. "github.com/gomlx/gomlx/core/graph"
)

// Recompute is body, computed again in the backward pass from its inputs, so that nothing inside of it is
// kept until then. body may use no other nodes than those it is given.
func Recompute(in []*Node, body func(in []*Node) []*Node) []*Node {
	return call(RecomputeName, nil, in, body, body)
}

// recomputeVJP lets the second computation wait for the gradient of its results: to the compiler it is
// another one than the first, whose values need not live so long.
func recomputeVJP(in, dys []*Node, body any) []*Node {
	held := OptimizationBarriers(slices.Concat(in, dys)...)
	return throughBody(held[:len(in)], held[len(in):], body.(func(in []*Node) []*Node))
}
