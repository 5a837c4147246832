package composite

import (
	. "github.com/gomlx/gomlx/core/graph"
)

// PutRows is x with rows in the place of some of its slices along the first axis.
//
//	x    [N, …]
//	at   [P] int32  which slices, all different, in [0, N)
//	rows [P, …]
//
// The body makes x anew several times over; the compiler writes in place. It has no gradient.
func PutRows(x, at, rows *Node) *Node {
	at.AssertDims(-1)
	rows.AssertDims(append([]int{at.Shape().Dim(0)}, x.Shape().Dimensions[1:]...)...)
	return call(PutRowsName, nil, []*Node{x, at, rows}, nil, func(in []*Node) []*Node {
		return []*Node{ScatterUpdate(in[0], InsertAxes(in[1], -1), in[2], false, true)}
	})[0]
}
