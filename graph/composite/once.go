package composite

import (
	. "github.com/gomlx/gomlx/core/graph"
)

// Once is xs, which a compiler that runs operations one after the other should compute once and read from memory: nothing moves
// across. Where several results can leave one loop over memory the compiler drops it. It has no gradient.
func Once(xs ...*Node) []*Node {
	return call(OnceName, nil, xs, nil, func(in []*Node) []*Node { return OptimizationBarriers(in...) })
}
