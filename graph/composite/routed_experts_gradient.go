package composite

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// routedExpertsVJP declares the experts once more, with what the gradient reads as further results, and a
// composite for the gradient, which expert parallelism rewrites like the experts themselves. The compiler
// makes one of the two declarations, unless their inputs were set apart for the gradient to compute them
// again.
func routedExpertsVJP(in, dys []*Node, state any) []*Node {
	st := state.(expertsState)
	as := st.as
	all := append(append([]*Node{}, in...), dys[0])
	results := call(RoutedExpertsName, append(as[:len(as):len(as)], [2]string{"keep", "true"}), in, nil, func(in []*Node) []*Node {
		results, kept := routedExperts(in, st.capacity)
		return append(results, kept...)
	})
	all = append(all, results[len(dys):]...)
	n := len(in)
	if st.frozen {
		as = append(as[:len(as):len(as)], [2]string{"frozen", "true"})
	}
	results = call(RoutedExpertsGradientName, as, all, nil, func(all []*Node) []*Node {
		return routedExpertsGradient(all[:n], all[n], all[n+1:], st.frozen)
	})
	out := make([]*Node, len(in))
	out[0] = results[0]
	copy(out[2:], results[1:])
	return out
}

// routedExpertsGradient is the gradient of routedExperts from its inputs, dy [T, D] and what
// routedExperts keeps: dx [T, D], then those of weights [T, K] and, unless frozen, of each of the experts'
// matrices.
//
// Types are those that differentiating the body would give: products in x's, what follows them in float32.
func routedExpertsGradient(in []*Node, dy *Node, kept []*Node, frozen bool) []*Node {
	x, weights, w := in[0], in[2], expertsOf(in[3:])
	rows, place, sizes, g, u, down := kept[0], kept[1], kept[2], kept[3], kept[4], kept[5]
	graph, dtype, t, k := x.Graph(), x.DType(), weights.Shape().Dim(0), weights.Shape().Dim(1)
	split := isSplit(w.Gate)
	apart := func(rows *Node) *Node { // of float32 [T, K, D], by token and choice
		each := Reshape(Gather(rows, InsertAxes(place, -1)), t, k, -1)
		return ConvertDType(each, dtypes.Float32)
	}
	dy = ConvertDType(dy, dtypes.Float32)             // [T, D]
	dweights := Einsum("td,tkd->tk", dy, apart(down)) // [T, K]
	order := inverse(place)                           // [R]
	token := InsertAxes(Div(order, Const(graph, int32(k))), -1)
	weight := Gather(Reshape(weights, -1, 1), InsertAxes(order, -1)) // [R, 1]
	ddown := ConvertDType(Mul(Gather(dy, token), weight), dtype)     // [R, D]

	s := Sigmoid(g)                                   // [R, F]
	a := Mul(g, s)                                    // [R, F]
	dh := groupedGEMMTransposed(ddown, w.Down, sizes) // [R, F]
	du := Mul(dh, a)                                  // [R, F]
	one := ConstAsDType(graph, dtype, 1)
	dg := Mul(Mul(dh, u), Mul(s, Add(one, Sub(g, a))))                                             // [R, F]
	drows := Add(groupedGEMMTransposed(dg, w.Gate, sizes), groupedGEMMTransposed(du, w.Up, sizes)) // [R, D]
	dx := ConvertDType(ReduceSum(apart(drows), 1), dtype)                                          // [T, D]
	if frozen {
		return []*Node{dx, dweights}
	}
	dwDown := groupedOuter(ddown, Mul(a, u), sizes, split) // [E, D, F]
	dwGate := groupedOuter(dg, rows, sizes, split)         // [E, F, D]
	dwUp := groupedOuter(du, rows, sizes, split)           // [E, F, D]
	return append(append(append([]*Node{dx, dweights}, dwGate...), dwUp...), dwDown...)
}

// inverse is the inverse of a permutation, [R] int32.
func inverse(place *Node) *Node {
	row := Iota(place.Graph(), shapes.Make(dtypes.Int32, place.Shape().Dim(0)), 0)
	return Scatter(InsertAxes(place, -1), row, row.Shape(), false, true)
}
