package graph

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"

	"mix/graph/composite"
)

// layer is the weights of one decoder layer, in the dtype they are computed with.
type layer struct {
	attnNorm   *Node  // [D]
	query      matrix // [H, A, D]
	key, value matrix // [G, A, D]
	out        matrix // [D, H, A]
	moeNorm    *Node  // [D]
	router     matrix // [E, D] float32
	experts    composite.Experts
	adapted    *adaptedExperts // in place of experts, nil without adapters
	within     composite.Capacity
}

// matrix is a weight W, or W + B·A.
type matrix struct {
	w    *Node
	a, b *Node // [r, in…] and [out…, r], b times the adapters' scale; nil for none
}

// adaptedExperts are the matrices of all experts: gate and up [E, F, D], down [E, D, F].
type adaptedExperts struct{ gate, up, down matrix }

// found gives the arguments of a layer by path, nil for none.
type found func(path string) *Node

// layerOf puts a layer together from stacked arguments of all experts.
func (w Weights) layerOf(at found) layer {
	y := layer{within: w.within, attnNorm: ConvertDType(at(pathAttnNorm), w.dtype), moeNorm: ConvertDType(at(pathMoENorm), w.dtype),
		query: w.matrix(at, pathQuery, w.dtype), key: w.matrix(at, pathKey, w.dtype), value: w.matrix(at, pathValue, w.dtype),
		out: w.matrix(at, pathOut, w.dtype), router: w.matrix(at, pathRouter, dtypes.Float32)}
	if at(pathGate) == nil {
		return y
	}
	gate, up, down := w.matrix(at, pathGate, w.dtype), w.matrix(at, pathUp, w.dtype), w.matrix(at, pathDown, w.dtype)
	y.experts = composite.Experts{Gate: []*Node{gate.w}, Up: []*Node{up.w}, Down: []*Node{down.w}, Frozen: w.scale != 0}
	if gate.a != nil || up.a != nil || down.a != nil {
		y.adapted = &adaptedExperts{gate, up, down}
	}
	return y
}

// layer is layer l of a layout that splits them.
func (w Weights) layer(l, experts int) layer {
	y := w.layerOf(func(path string) *Node { return w.find(path, l) })
	if w.layout != PerMatrix {
		return y
	}
	for e := range experts {
		y.experts.Gate = append(y.experts.Gate, ConvertDType(w.at(pathGate, l, e), w.dtype))
		y.experts.Up = append(y.experts.Up, ConvertDType(w.at(pathUp, l, e), w.dtype))
		y.experts.Down = append(y.experts.Down, ConvertDType(w.at(pathDown, l, e), w.dtype))
	}
	return y
}

// matrix is the weight at path in dtype, with its scales and adapters if it has any.
func (w Weights) matrix(at found, path string, dtype dtypes.DType) matrix {
	y := matrix{w: ConvertDType(at(path), dtype)}
	if scale := at(ScalePath(path)); scale != nil {
		scale = ConvertDType(scale, dtype)
		for scale.Rank() < y.w.Rank() { // the input's axes
			scale = InsertAxes(scale, -1)
		}
		y.w = Mul(y.w, scale)
	}
	pathA, pathB := AdapterPaths(path)
	if a := at(pathA); a != nil {
		b := at(pathB)
		y.a = ConvertDType(a, dtype)
		y.b = ConvertDType(Mul(b, ConstAsDType(b.Graph(), b.DType(), w.scale)), dtype)
	}
	return y
}

// times is x·(W + B·A)ᵀ for x [T, in], W of any shape [out…, in…] in row-major order: [T, out].
func (m matrix) times(x *Node) *Node {
	in := x.Shape().Dim(1)
	y := Einsum("ti,oi->to", x, Reshape(m.w, -1, in)) // [T, out]
	if m.a == nil {
		return y
	}
	low := Einsum("ti,ri->tr", x, Reshape(m.a, -1, in)) // [T, r]
	return Add(y, Einsum("tr,or->to", low, Reshape(m.b, -1, low.Shape().Dim(1))))
}

// grouped is times for the matrices of the experts: rows [R, in] in expert order, sizes [E], to [R, out].
func (m matrix) grouped(rows, sizes *Node) *Node {
	y := composite.GroupedGEMM(rows, m.w, sizes) // [R, out]
	if m.a == nil {
		return y
	}
	low := composite.GroupedGEMM(rows, m.a, sizes)        // [R, r]
	return Add(y, composite.GroupedGEMM(low, m.b, sizes)) // [R, out]
}

// moe is the experts' answer for T tokens.
//
//	rows [T, D], chosen [T, K] int32, weights [T, K] float32, answer [T, D]
//	dropped [] float32, how many of the T·K rows found no room; nil without a capacity
func (y layer) moe(rows, chosen, weights *Node) (answer, dropped *Node) {
	switch {
	case y.adapted == nil && y.within.Bounds():
		return composite.RoutedExpertsWithin(rows, chosen, weights, y.experts, y.within)
	case y.adapted == nil:
		return composite.RoutedExperts(rows, chosen, weights, y.experts), nil
	case y.within.Bounds():
		panic(fmt.Errorf("experts with adapters and a capacity of %g times the mean, want no capacity", y.within.Factor))
	}
	x := y.adapted
	rows, place, sizes := composite.Dispatch(rows, chosen, x.gate.w.Shape().Dim(0)) // [R, D], [R], [E]
	g, u := x.gate.grouped(rows, sizes), x.up.grouped(rows, sizes)                  // [R, F] both
	rows = x.down.grouped(Mul(Mul(g, Sigmoid(g)), u), sizes)                        // [R, D]
	return composite.Combine(rows, place, weights), nil                             // [T, D]
}
