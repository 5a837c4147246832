package composite

import (
	"fmt"
	"strconv"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Axes of this file: T tokens, K choices a token, R = T·K routed rows (row t·K+i is choice i of token t),
// E experts, D model width, F hidden width.

// Experts are the matrices of one layer's experts, [out, in]: either one tensor each of all experts
// (Gate and Up [E, F, D], Down [E, D, F]) or E tensors each (Gate and Up [F, D], Down [D, F]).
type Experts struct {
	Gate, Up, Down []*Node
	Frozen         bool // no gradient of the matrices is computed
}

// expertsState is what the gradient of routed experts knows beside their inputs.
type expertsState struct {
	as       attrs
	frozen   bool
	capacity Capacity
}

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
	return routed(x, chosen, weights, w, Capacity{})[0]
}

// RoutedExpertsWithin is RoutedExperts with a capacity: a row for which its expert has no room adds nothing, and no
// gradient flows through it. dropped is how many there are, [] float32, without a gradient.
func RoutedExpertsWithin(x, chosen, weights *Node, w Experts, c Capacity) (y, dropped *Node) {
	if err := c.Validate(); err != nil || !c.Bounds() {
		panic(fmt.Errorf("routed experts: capacity %+v, want a factor and a policy", c))
	}
	results := routed(x, chosen, weights, w, c)
	return results[0], StopGradient(results[1])
}

// routed gives y, and with a capacity dropped.
func routed(x, chosen, weights *Node, w Experts, c Capacity) []*Node {
	chosen.AssertDims(x.Shape().Dim(0), -1)
	weights.AssertDims(chosen.Shape().Dimensions...)
	form := "split"
	if !isSplit(w.Gate) {
		form = "stacked"
	}
	if len(w.Up) != len(w.Gate) || len(w.Down) != len(w.Gate) {
		panic(fmt.Errorf("routed experts: %d gate, %d up and %d down matrices, want as many of each", len(w.Gate), len(w.Up), len(w.Down)))
	}
	in := append([]*Node{x, chosen, weights}, w.Gate...)
	in = append(append(in, w.Up...), w.Down...)
	as := append(attrs{{"experts", strconv.Itoa(w.count())}, {"form", form}}, c.attrs()...)
	return call(RoutedExpertsName, as, in, expertsState{as, w.Frozen, c}, func(in []*Node) []*Node {
		y, _ := routedExperts(in, c)
		return y
	})
}

// routedExperts is the meaning of the composite: put the rows of an expert together, three grouped
// products, put them back, add up. Rows without room come last and belong to no group.
//
// results are y, and with a capacity dropped; kept is what the gradient reads: rows [R, D], place [R], sizes [E], the
// products by gate and up [R, F] and by down [R, D].
func routedExperts(in []*Node, c Capacity) (results, kept []*Node) {
	x, chosen, weights := in[0], in[1], in[2]
	w := expertsOf(in[3:])
	rows, place, sizes := dispatch(x, chosen, c.kept(chosen, weights, w.count()), w.count()) // [R, D], [R], [E]
	g := groupedGEMM(rows, w.Gate, sizes)                                                    // [R, F]
	u := groupedGEMM(rows, w.Up, sizes)                                                      // [R, F]
	down := groupedGEMM(Mul(Mul(g, Sigmoid(g)), u), w.Down, sizes)                           // [R, D]
	results = []*Node{Combine(down, place, weights)}
	if c.Bounds() {
		all := Const(x.Graph(), int32(chosen.Shape().Size()))
		results = append(results, ConvertDType(Sub(all, ReduceAllSum(sizes)), dtypes.Float32))
	}
	return results, []*Node{rows, place, sizes, g, u, down}
}

// expertsOf takes matrices as RoutedExperts lists them.
func expertsOf(all []*Node) Experts {
	n := len(all) / 3
	return Experts{Gate: all[:n], Up: all[n : 2*n], Down: all[2*n:]}
}

// count is the number of experts.
func (w Experts) count() int {
	if isSplit(w.Gate) {
		return len(w.Gate)
	}
	return w.Gate[0].Shape().Dim(0)
}

// stack is [E, …] of E tensors, or the one tensor that is stacked already.
func stack(ws []*Node) *Node {
	if !isSplit(ws) {
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
	return dispatch(x, chosen, nil, experts)
}

// dispatch is Dispatch of the rows that are kept, [R] bool, nil for all. The others come last and count for no expert.
func dispatch(x, chosen, kept *Node, experts int) (rows, place, sizes *Node) {
	g, k, r := x.Graph(), chosen.Shape().Dim(1), chosen.Shape().Size()
	ids, classes := Reshape(chosen, r), experts // [R]
	if kept != nil {
		none := BroadcastToDims(Const(g, int32(experts)), r)
		ids, classes = Where(kept, ids, none), experts+1
	}
	own := OneHot(ids, classes, dtypes.Int32)                // [R, E], E + 1 if some are not kept
	upTo := CumSum(own, 0)                                   // [R, E]
	sizes = Reshape(Slice(upTo, AxisRange(r-1, r)), classes) // [E]
	before := Sub(CumSum(sizes, 0), sizes)                   // [E]
	if kept != nil {
		sizes = Slice(sizes, AxisRange(0, experts)) // [E]
	}
	at := Sub(Add(upTo, InsertAxes(before, 0)), own)                 // [R, E]
	place = ReduceSum(Mul(own, at), 1)                               // [R]
	order := inverse(place)                                          // [R]
	rows = Gather(x, InsertAxes(Div(order, Const(g, int32(k))), -1)) // [R, D]
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
