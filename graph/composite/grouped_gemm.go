package composite

import (
	"fmt"

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
func GroupedGEMM(x, w, sizes *Node) *Node { return groupedGEMM(x, []*Node{w}, sizes) }

// GroupedGEMMTransposed multiplies by the transposed matrices: x [R, N], w [E, N, M], y [R, M].
func GroupedGEMMTransposed(x, w, sizes *Node) *Node {
	return groupedGEMMTransposed(x, []*Node{w}, sizes)
}

// GroupedOuter sums the outer products of the rows of each group.
//
//	a     [R, N]
//	b     [R, M]
//	sizes [E] int32
//	y     [E, N, M]  y[e] = Σ a[r]·b[r]ᵀ over the rows r of group e
func GroupedOuter(a, b, sizes *Node) *Node { return groupedOuter(a, b, sizes, false)[0] }

// groupedGEMM takes w as one tensor [E, N, M] or as E tensors [N, M], which then are operands of their own: on a CPU a
// matrix out of a stack is a copy.
func groupedGEMM(x *Node, w []*Node, sizes *Node) *Node {
	checkGroups(w, sizes, -1, x.Shape().Dim(1))
	return call(GroupedGEMMName, formOf(w), groupedInputs(x, w, sizes), false, func(in []*Node) []*Node {
		each := Einsum("rm,enm->ren", in[0], stack(in[1:len(in)-1])) // [R, E, N]
		return []*Node{ReduceSum(ofGroup(each, in[len(in)-1]), 1)}   // [R, N]
	})[0]
}

// groupedGEMMTransposed takes w like groupedGEMM.
func groupedGEMMTransposed(x *Node, w []*Node, sizes *Node) *Node {
	checkGroups(w, sizes, x.Shape().Dim(1), -1)
	as := append(attrs{{"transposed", "true"}}, formOf(w)...)
	return call(GroupedGEMMName, as, groupedInputs(x, w, sizes), true, func(in []*Node) []*Node {
		each := Einsum("rn,enm->rem", in[0], stack(in[1:len(in)-1])) // [R, E, M]
		return []*Node{ReduceSum(ofGroup(each, in[len(in)-1]), 1)}   // [R, M]
	})[0]
}

// groupedOuter gives one tensor [E, N, M], or with split E tensors [N, M].
func groupedOuter(a, b, sizes *Node, split bool) []*Node {
	a.AssertDims(b.Shape().Dim(0), -1)
	var as attrs
	if split {
		as = attrs{{"form", "split"}}
	}
	return call(GroupedOuterName, as, []*Node{a, b, sizes}, nil, func(in []*Node) []*Node {
		r, n, e, m := in[0].Shape().Dim(0), in[0].Shape().Dim(1), in[2].Shape().Dim(0), in[1].Shape().Dim(1)
		all := BroadcastToDims(InsertAxes(in[0], 1), r, e, n)  // [R, E, N]
		y := Einsum("ren,rm->enm", ofGroup(all, in[2]), in[1]) // [E, N, M]
		if !split {
			return []*Node{y}
		}
		each := make([]*Node, e)
		for i := range each {
			each[i] = Reshape(Slice(y, AxisRange(i, i+1)), n, m) // [N, M]
		}
		return each
	})
}

func groupedGEMMVJP(in, dys []*Node, transposed any) []*Node {
	x, w, sizes, dy := in[0], in[1:len(in)-1], in[len(in)-1], dys[0]
	split := isSplit(w)
	var dx *Node
	var dw []*Node
	if transposed.(bool) {
		dx, dw = groupedGEMM(dy, w, sizes), groupedOuter(x, dy, sizes, split)
	} else {
		dx, dw = groupedGEMMTransposed(dy, w, sizes), groupedOuter(dy, x, sizes, split)
	}
	return append(append([]*Node{dx}, dw...), nil)
}

// isSplit tells whether w are the matrices of groups, not one tensor of all.
func isSplit(w []*Node) bool { return len(w) != 1 || w[0].Rank() != 3 }

// formOf is the attribute of matrices that are a tensor each.
func formOf(w []*Node) attrs {
	if isSplit(w) {
		return attrs{{"form", "split"}}
	}
	return nil
}

func groupedInputs(x *Node, w []*Node, sizes *Node) []*Node {
	return append(append([]*Node{x}, w...), sizes)
}

// checkGroups holds matrices to the number of groups and to outputs n and inputs m, -1 for any.
func checkGroups(w []*Node, sizes *Node, n, m int) {
	e := sizes.Shape().Dim(0)
	if !isSplit(w) {
		w[0].AssertDims(e, n, m)
		return
	}
	if len(w) != e {
		panic(fmt.Errorf("grouped product: %d matrices, want one for each of %d groups", len(w), e))
	}
	for _, x := range w {
		x.AssertDims(n, m)
	}
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
