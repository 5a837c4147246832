package composite

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Axes of this file: R rows in group order, E groups, N outputs and M inputs of a matrix.

// GroupedGEMM multiplies each run of rows by the matrix of its group.
//
//	x     [R, M]     rows in group order
//	w     [E, N, M]  one matrix [out, in] a group
//	sizes [E] int32  rows a group, summing to R; zero is allowed
//	y     [R, N]     y[r] = w[group of r] · x[r]
func GroupedGEMM(x, w, sizes *Node) *Node {
	w.AssertDims(sizes.Shape().Dim(0), -1, x.Shape().Dim(1))
	return call(GroupedGEMMName, nil, []*Node{x, w, sizes}, false, func(in []*Node) []*Node {
		each := Einsum("rm,enm->ren", in[0], in[1])        // [R, E, N]
		return []*Node{ReduceSum(ofGroup(each, in[2]), 1)} // [R, N]
	})[0]
}

// GroupedGEMMTransposed multiplies by the transposed matrices: x [R, N], w [E, N, M], y [R, M].
func GroupedGEMMTransposed(x, w, sizes *Node) *Node {
	w.AssertDims(sizes.Shape().Dim(0), x.Shape().Dim(1), -1)
	as := attrs{{"transposed", "true"}}
	return call(GroupedGEMMName, as, []*Node{x, w, sizes}, true, func(in []*Node) []*Node {
		each := Einsum("rn,enm->rem", in[0], in[1])        // [R, E, M]
		return []*Node{ReduceSum(ofGroup(each, in[2]), 1)} // [R, M]
	})[0]
}

// GroupedOuter sums the outer products of the rows of each group.
//
//	a     [R, N]
//	b     [R, M]
//	sizes [E] int32
//	y     [E, N, M]  y[e] = Σ a[r]·b[r]ᵀ over the rows r of group e
func GroupedOuter(a, b, sizes *Node) *Node {
	a.AssertDims(b.Shape().Dim(0), -1)
	return call(GroupedOuterName, nil, []*Node{a, b, sizes}, nil, func(in []*Node) []*Node {
		r, n := in[0].Shape().Dim(0), in[0].Shape().Dim(1)
		all := BroadcastToDims(InsertAxes(in[0], 1), r, in[2].Shape().Dim(0), n) // [R, E, N]
		return []*Node{Einsum("ren,rm->enm", ofGroup(all, in[2]), in[1])}        // [E, N, M]
	})[0]
}

func groupedGEMMVJP(in, dys []*Node, transposed any) []*Node {
	x, w, sizes, dy := in[0], in[1], in[2], dys[0]
	if transposed.(bool) {
		return []*Node{GroupedGEMM(dy, w, sizes), GroupedOuter(x, dy, sizes), nil}
	}
	return []*Node{GroupedGEMMTransposed(dy, w, sizes), GroupedOuter(dy, x, sizes), nil}
}

// ofGroup is x [R, E, N] with zeros where row r does not lie in group e. It selects instead of multiplying:
// what the matrix of another group makes of a row may be infinite or not a number.
func ofGroup(x, sizes *Node) *Node {
	end := CumSum(sizes, 0) // [E]
	rows := shapes.Make(dtypes.Int32, x.Shape().Dim(0), sizes.Shape().Dim(0))
	row := Iota(x.Graph(), rows, 0)                             // [R, E]
	from := GreaterOrEqual(row, InsertAxes(Sub(end, sizes), 0)) // [R, E]
	own := LogicalAnd(from, LessThan(row, InsertAxes(end, 0)))  // [R, E]
	own = BroadcastToShape(InsertAxes(own, -1), x.Shape())      // [R, E, N]
	return Where(own, x, zeros(x.Graph(), x.DType(), x.Shape().Dimensions))
}
