package graph

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"

	"mix/graph/composite"
	"mix/sharding/axis"
)

// Weights are the arguments of one program that hold the model's weights, by the name of their piece.
type Weights struct {
	layout Layout
	nodes  map[string]*Node
	dtype  dtypes.DType // that matrices and norms are computed with
	again  Recompute
}

// In is the same weights, converted to dtype where they are used. The router stays as it is.
func (w Weights) In(dtype dtypes.DType) Weights {
	w.dtype = dtype
	return w
}

// Declare makes one parameter of g for each piece of the layout, named for the piece, in Pieces' order.
func Declare(g *Graph, c Config, l Layout, dtype dtypes.DType) Weights {
	var nodes []*Node
	for _, q := range Pieces(c, l, dtype) {
		nodes = append(nodes, Parameter(g, q.Name, shape(q.DType, q.Shape...)))
	}
	return WeightsOf(c, l, dtype, nodes)
}

// WeightsOf takes weights that exist already: nodes in Pieces' order.
func WeightsOf(c Config, l Layout, dtype dtypes.DType, nodes []*Node) Weights {
	w := Weights{layout: l, nodes: map[string]*Node{}, dtype: dtype}
	qs := Pieces(c, l, dtype)
	if len(nodes) != len(qs) {
		panic(fmt.Errorf("weights: %d arguments, want %d for the %s layout", len(nodes), len(qs), l))
	}
	for i, q := range qs {
		nodes[i].AssertDims(q.Shape...)
		w.nodes[q.Name] = nodes[i]
	}
	return w
}

func (w Weights) at(path string, leading ...int) *Node {
	n := w.nodes[axis.SliceName(path, leading...)]
	if n == nil {
		panic(fmt.Errorf("weights: no argument %s in the %s layout", axis.SliceName(path, leading...), w.layout))
	}
	return n
}

// layer is the weights of one decoder layer.
type layer struct {
	attnNorm   *Node // [D]
	query      *Node // [H, A, D]
	key, value *Node // [G, A, D]
	out        *Node // [D, H, A]
	moeNorm    *Node // [D]
	router     *Node // [E, D] float32
	experts    composite.Experts
}

// stacked lists the weights of all layers, one tensor [L, …] a path, as layerOf takes its slices.
func (w Weights) stacked() []*Node {
	return []*Node{w.at(pathAttnNorm), w.at(pathQuery), w.at(pathKey), w.at(pathValue), w.at(pathOut), w.at(pathMoENorm),
		w.at(pathRouter), w.at(pathGate), w.at(pathUp), w.at(pathDown)}
}

// layerOf is a layer from one slice of each of stacked's tensors.
func layerOf(s []*Node) layer {
	return layer{attnNorm: s[0], query: s[1], key: s[2], value: s[3], out: s[4], moeNorm: s[5], router: s[6],
		experts: composite.Experts{Gate: s[7:8], Up: s[8:9], Down: s[9:10]}}
}

// layer is layer l of a layout that splits them.
func (w Weights) layer(l, experts int) layer {
	y := layer{attnNorm: w.at(pathAttnNorm, l), query: w.at(pathQuery, l), key: w.at(pathKey, l), value: w.at(pathValue, l),
		out: w.at(pathOut, l), moeNorm: w.at(pathMoENorm, l), router: w.at(pathRouter, l)}
	if w.layout == PerLayer {
		y.experts = composite.Experts{Gate: []*Node{w.at(pathGate, l)}, Up: []*Node{w.at(pathUp, l)}, Down: []*Node{w.at(pathDown, l)}}
		return y
	}
	for e := range experts {
		y.experts.Gate = append(y.experts.Gate, w.at(pathGate, l, e))
		y.experts.Up = append(y.experts.Up, w.at(pathUp, l, e))
		y.experts.Down = append(y.experts.Down, w.at(pathDown, l, e))
	}
	return y
}

// in is a layer in the dtype it is computed with, all but the router.
func (y layer) in(dtype dtypes.DType) layer {
	for _, n := range []**Node{&y.attnNorm, &y.query, &y.key, &y.value, &y.out, &y.moeNorm} {
		*n = ConvertDType(*n, dtype)
	}
	for _, ns := range []*[]*Node{&y.experts.Gate, &y.experts.Up, &y.experts.Down} {
		all := make([]*Node, len(*ns))
		for i, n := range *ns {
			all[i] = ConvertDType(n, dtype)
		}
		*ns = all
	}
	return y
}
