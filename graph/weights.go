package graph

import (
	"fmt"
	"slices"
	"strings"

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
	scale  float64      // of the adapters
	again  Recompute
	within composite.Capacity // of the experts
	lead   int                // leading axes that count layers, in the Stacked layout; 0 is one
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
	return NewWeights(l, dtype, Pieces(c, l, dtype), nodes)
}

// NewWeights is WeightsOf for pieces of the layout with shapes of their own, see Staged.
func NewWeights(l Layout, dtype dtypes.DType, pieces []axis.Piece, nodes []*Node) Weights {
	return Weights{layout: l, nodes: map[string]*Node{}, dtype: dtype}.With(pieces, nodes)
}

// In is the same weights, converted to dtype where they are used. The router stays as it is.
func (w Weights) In(dtype dtypes.DType) Weights {
	w.dtype = dtype
	return w
}

// Staged is the same weights, in the Stacked layout, with three leading axes for the layers: rounds, stages and depth
// of a pipeline. nodes have such shapes.
func (w Weights) Staged() Weights {
	w.lead = 3
	return w
}

// Within is the same weights, whose experts take rows up to a capacity and count those that they drop. Models are served
// and judged without one. Not with adapters.
func (w Weights) Within(c composite.Capacity) Weights {
	w.within = c
	return w
}

// With is w with further arguments: the scales of weights that are int8, see ScalePath.
func (w Weights) With(pieces []axis.Piece, nodes []*Node) Weights {
	if len(nodes) != len(pieces) {
		panic(fmt.Errorf("weights: %d arguments, want %d for the %s layout", len(nodes), len(pieces), w.layout))
	}
	all := map[string]*Node{}
	for name, n := range w.nodes {
		all[name] = n
	}
	for i, q := range pieces {
		nodes[i].AssertDims(q.Shape...)
		all[q.Name] = nodes[i]
	}
	w.nodes = all
	return w
}

// Adapted is w with adapters, at AdapterPaths. A weight that has them acts as W + scale·B·A, and no gradient
// flows to weights but the adapters. Not in the PerMatrix layout.
//
// Source: Hu et al. 2021, arXiv:2106.09685.
func (w Weights) Adapted(scale float64, pieces []axis.Piece, nodes []*Node) Weights {
	if w.layout == PerMatrix {
		panic(fmt.Errorf("weights: adapters in the %s layout, want %s or %s", w.layout, Stacked, PerLayer))
	}
	w = w.With(pieces, nodes)
	w.scale = scale
	return w
}

const (
	adapterPrefix = "lora/"
	scaleSuffix   = "/scale"
)

// AdapterPaths are the paths of the adapters A [r, in] and B [out, r] of the weight at path.
func AdapterPaths(path string) (a, b string) {
	return adapterPrefix + path + "/a", adapterPrefix + path + "/b"
}

// ScalePath is the path of the float32 scales of an int8 weight: W is the product of the two. They have the
// weight's axes but for the input's.
func ScalePath(path string) string { return path + scaleSuffix }

// at is an argument, nil if there is none.
func (w Weights) find(path string, leading ...int) *Node {
	return w.nodes[axis.SliceName(path, leading...)]
}

func (w Weights) at(path string, leading ...int) *Node {
	n := w.find(path, leading...)
	if n == nil {
		panic(fmt.Errorf("weights: no argument %s in the %s layout", axis.SliceName(path, leading...), w.layout))
	}
	return n
}

// stacked lists the paths of all that the layers have, in the Stacked layout, those that a gradient flows
// to first.
func (w Weights) stacked() (trained, frozen []string) {
	for name := range w.nodes {
		adapter := strings.HasPrefix(name, adapterPrefix)
		switch {
		case !adapter && !strings.HasPrefix(name, "layers/"):
		case adapter || w.scale == 0:
			trained = append(trained, name)
		default:
			frozen = append(frozen, name)
		}
	}
	slices.Sort(trained)
	slices.Sort(frozen)
	return trained, frozen
}

// nodesOf lists arguments by path.
func (w Weights) nodesOf(paths []string) (all []*Node) {
	for _, p := range paths {
		all = append(all, w.at(p))
	}
	return all
}
