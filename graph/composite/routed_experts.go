package composite

import (
	"fmt"
	"strconv"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Axes of this file: T tokens, K choices a token, R = T·K routed rows (row t·K+i is choice i of token t),
// E experts, D model width, F hidden width.

// Experts are the matrices of one layer's experts, [out, in]: either one tensor each of all experts
// (Gate and Up [E, F, D], Down [E, D, F]) or E tensors each (Gate and Up [F, D], Down [D, F]).
type Experts struct{ Gate, Up, Down []*Node }

// RoutedExperts sends every token through its experts and sums the results by weight. No token is
// dropped.
//
//	x       [T, D] any float
//	chosen  [T, K] int32 in [0, E), the K of a token distinct
//	weights [T, K] float32
//	y       [T, D] of x's dtype: y[t] = Σ_i weights[t,i] · down(silu(gate(x[t])) * up(x[t])) of expert chosen[t,i]
//
// It is the unit that expert parallelism rewrites. Source: Jiang et al. 2024, arXiv:2401.04088, section 2.1.
func RoutedExperts(x, chosen, weights *Node, w Experts) *Node {
	chosen.AssertDims(x.Shape().Dim(0), -1)
	weights.AssertDims(chosen.Shape().Dimensions...)
	n, form := len(w.Gate), "split"
	if n == 1 && w.Gate[0].Rank() == 3 {
		n, form = w.Gate[0].Shape().Dim(0), "stacked"
	}
	if len(w.Up) != len(w.Gate) || len(w.Down) != len(w.Gate) {
		panic(fmt.Errorf("routed experts: %d gate, %d up and %d down matrices, want as many of each", len(w.Gate), len(w.Up), len(w.Down)))
	}
	in := append([]*Node{x, chosen, weights}, w.Gate...)
	in = append(append(in, w.Up...), w.Down...)
	as := attrs{{"experts", strconv.Itoa(n)}, {"form", form}}
	return call(RoutedExpertsName, as, in, true, routedExperts)[0]
}

func routedExpertsVJP(in, dys []*Node, _ any) []*Node {
	return throughBody(in, dys, routedExperts)
}

// routedExperts is the meaning of the composite: put the rows of an expert together, three grouped
// products, put them back, add up.
func routedExperts(in []*Node) []*Node {
	x, chosen, weights := in[0], in[1], in[2]
	n := (len(in) - 3) / 3
	gate, up, down := stack(in[3:3+n]), stack(in[3+n:3+2*n]), stack(in[3+2*n:])
	rows, place, sizes := Dispatch(x, chosen, gate.Shape().Dim(0)) // [R, D], [R], [E]
	g := GroupedGEMM(rows, gate, sizes)                            // [R, F]
	u := GroupedGEMM(rows, up, sizes)                              // [R, F]
	rows = GroupedGEMM(Mul(Mul(g, Sigmoid(g)), u), down, sizes)    // [R, D]
	return []*Node{Combine(rows, place, weights)}                  // [T, D]
}

// stack is [E, …] of E tensors, or the one tensor that is stacked already.
func stack(ws []*Node) *Node {
	if len(ws) == 1 && ws[0].Rank() == 3 {
		return ws[0]
	}
	each := make([]*Node, len(ws))
	for i, w := range ws {
		each[i] = InsertAxes(w, 0)
	}
	return Concatenate(each, 0)
}

// Dispatch copies each token once per chosen expert and puts rows of one expert together.
//
//	rows  [R, D]     rows[place[r]] is the token of routed row r; equal experts keep token order
//	place [R] int32  a permutation
//	sizes [E] int32  rows per expert; zero is allowed
//
// It counts instead of sorting: a row's place is the number of rows of lower experts and of earlier rows
// of its own.
func Dispatch(x, chosen *Node, experts int) (rows, place, sizes *Node) {
	g, k, r := x.Graph(), chosen.Shape().Dim(1), chosen.Shape().Size()
	own := OneHot(Reshape(chosen, r), experts, dtypes.Int32)               // [R, E]
	upTo := CumSum(own, 0)                                                 // [R, E]
	sizes = Reshape(Slice(upTo, AxisRange(r-1, r)), experts)               // [E]
	before := Sub(CumSum(sizes, 0), sizes)                                 // [E]
	at := Sub(Add(upTo, InsertAxes(before, 0)), own)                       // [R, E]
	place = ReduceSum(Mul(own, at), 1)                                     // [R]
	row := Iota(g, shapes.Make(dtypes.Int32, r), 0)                        // [R]
	order := Scatter(InsertAxes(place, -1), row, row.Shape(), false, true) // [R] inverse of place
	rows = Gather(x, InsertAxes(Div(order, Const(g, int32(k))), -1))       // [R, D]
	return rows, place, sizes
}

// Combine undoes Dispatch and adds up the K results of each token by weight, in float32 and in the order
// of the choices, so that runs repeat bit for bit.
func Combine(rows, place, weights *Node) *Node {
	t, k := weights.Shape().Dim(0), weights.Shape().Dim(1)
	each := Reshape(Gather(rows, InsertAxes(place, -1)), t, k, -1)           // [T, K, D]
	sum := Einsum("tkd,tk->td", ConvertDType(each, dtypes.Float32), weights) // [T, D]
	return ConvertDType(sum, rows.DType())                                   // [T, D]
}
