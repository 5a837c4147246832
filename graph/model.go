// Package graph declares Mixtral as a GoMLX graph. It runs on any GoMLX backend and knows no device.
//
// Axes in shape comments, one legend for the whole package:
//
//	B sequences    S positions        T tokens = B·S    D model width   V token ids
//	H query heads  G key/value heads  A width of a head C positions of a cache
//	L layers       E experts          K experts a token F hidden width of an expert
package graph

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"

	"mix/graph/composite"
	"mix/sharding/axis"
)

// Inputs are the tokens of one call.
type Inputs struct {
	Tokens *Node // [B, S] int32 in [0, V)

	// Start is the position of the first token, [] int32, the same in every sequence; nil for 0. With a
	// cache it is also where the tokens' keys are written.
	Start *Node
	// Positions are those that keys and queries are rotated by, [B, S] int32; nil for 0, 1, 2 …, after Start.
	// Who sees whom is by order in the sequence in either case. Not with a cache.
	Positions *Node
	// Segments keeps tokens of different segments from seeing each other, [B, S] int32: packed documents,
	// or padding. nil when each sequence is one segment. Not with a cache.
	Segments *Node
}

// Result is what the stack of layers computes.
type Result struct {
	Embedded *Node  // [B, S, D] the residual stream before the first layer
	Hidden   *Node  // [B, S, D] after the last layer and the final norm
	Cache    *Cache // the cache with the tokens in it; nil without one

	// Stacked over layers where asked for with a Keep, else nil.
	RouterLogits  *Node // [L, T, E] float32
	RouterWeights *Node // [L, T, K] float32
	RouterChosen  *Node // [L, T, K] int32
	RouterDropped *Node // [L] float32, (row, choice) pairs that found no room; nil without a capacity
	Layers        *Node // [L, B, S, D] the residual stream after each layer
	AttnOut       *Node // [L, B, S, D]
	MoEOut        *Node // [L, B, S, D]
}

// Keep says which intermediate values a program returns.
type Keep int

const (
	KeepNothing Keep = iota
	KeepRouter       // the router's logits, weights and choices
	KeepAll          // and the activations of every layer
)

// Run applies the model to tokens. cache may be nil: then the tokens see each other only.
func Run(c Config, w Weights, in Inputs, cache *Cache, keep Keep) Result {
	return run(c, w, in, cache, keep, composite.Scan)
}

// Recompute says what the backward pass computes again instead of keeping it.
type Recompute int

const (
	RecomputeNothing   Recompute = iota
	RecomputeAttention           // scores and their softmax, [B, H, S, S] a layer
	RecomputeLayers              // all but what goes into a layer, in the Stacked layout; in the others nothing
)

// RunForGradient is Run with what autodiff needs kept: without a cache, whole sequences from position 0. In
// the Stacked layout the compiler keeps what is costly to compute again, where it can.
func RunForGradient(c Config, w Weights, in Inputs, keep Keep, again Recompute) Result {
	w.again = again
	if again == RecomputeLayers {
		return run(c, w, in, nil, keep, composite.ScanForGradient)
	}
	return run(c, w, in, nil, keep, composite.ScanStored)
}

type scanner func(in composite.Scanned, outs []shapes.Shape, layer composite.Layer) (last, all []*Node)

func run(c Config, w Weights, in Inputs, cache *Cache, keep Keep, scan scanner) Result {
	return runAt(c, w, in.Tokens, viewOf(c, w, in, cache), cache, keep, scan)
}

// runAt applies the model to tokens [B, S] seen from at.
func runAt(c Config, w Weights, tokens *Node, at view, cache *Cache, keep Keep, scan scanner) Result {
	x := ConvertDType(Embed(tokens, w.at(pathEmbed)), w.dtype)   // [B, S, D]
	x = composite.Constrain(x, axis.Batch, axis.Seq, axis.Embed) // [B, S, D]
	r := Result{Embedded: x}
	var kept []*Node
	if w.layout == Stacked {
		x, r.Cache, kept = stackedLayers(c, w, x, at, cache, keep, scan)
	} else {
		x, r.Cache, kept = splitLayers(c, w, x, at, cache, keep)
	}
	if keep >= KeepRouter {
		r.RouterLogits, r.RouterWeights, r.RouterChosen = kept[0], kept[1], kept[2]
	}
	if keep >= KeepRouter && w.within.Bounds() {
		r.RouterDropped = kept[len(kept)-1]
	}
	if keep >= KeepAll {
		r.Layers, r.AttnOut, r.MoEOut = kept[3], kept[4], kept[5]
	}
	r.Hidden = RMSNorm(x, ConvertDType(w.at(pathFinalNorm), w.dtype), c.NormEps) // [B, S, D]
	return r
}

// Logits scores every token id after each position of hidden: [..., D] to [..., V] float32.
func Logits(c Config, w Weights, hidden *Node) *Node {
	path := pathHead
	if c.TieEmbedding {
		path = pathEmbed
	}
	return Head(hidden, ConvertDType(w.at(path), w.dtype)) // [..., V]
}

// viewOf places the queries and keys of a call.
func viewOf(c Config, w Weights, in Inputs, cache *Cache) view {
	grid := in.Tokens.Shape().Clone()
	grid.DType = dtypes.Int32
	return viewAt(c, w, in.Tokens.Graph(), grid, in, cache)
}

// viewAt is viewOf for tokens of shape grid, [B, S].
func viewAt(c Config, w Weights, g *Graph, grid shapes.Shape, in Inputs, cache *Cache) view {
	positions := Iota(g, grid, 1) // [B, S]
	if in.Start != nil {
		in.Start.AssertScalar()
		positions = Add(positions, BroadcastToShape(in.Start, grid)) // [B, S]
	}
	rotated := positions // [B, S]
	if in.Positions != nil {
		in.Positions.AssertDims(grid.Dimensions...)
		rotated = in.Positions
	}
	at := view{rotary: RotaryAngles(rotated, c.HeadDim, c.RopeTheta), start: in.Start, again: w.again}
	at.places = composite.Places{Query: positions, Key: positions, QuerySegments: in.Segments, KeySegments: in.Segments, Window: c.Window}
	if cache != nil {
		at.places.Key = Iota(g, shape(dtypes.Int32, grid.Dim(0), cache.capacity()), 1) // [B, C]
	}
	return at
}

// trace lists what keep asks for of one layer, in the order of Result's fields.
func (tr LayerTrace) trace(keep Keep) []*Node {
	var out []*Node
	if keep >= KeepRouter {
		out = append(out, tr.Logits, tr.Routing.Weights, tr.Chosen)
	}
	if keep >= KeepAll {
		out = append(out, tr.Hidden, tr.AttnOut, tr.MoEOut)
	}
	if keep >= KeepRouter && tr.Dropped != nil {
		out = append(out, tr.Dropped)
	}
	return out
}

// splitLayers unrolls the layers.
func splitLayers(c Config, w Weights, x *Node, at view, cache *Cache, keep Keep) (y *Node, after *Cache, kept []*Node) {
	var traces [][]*Node // [layer][value]
	if cache != nil {
		after = &Cache{}
	}
	for l := range c.Layers {
		var k, v *Node
		if cache != nil {
			k, v = cache.K[l], cache.V[l]
		}
		var tr LayerTrace
		x, k, v, tr = block(c, x, w.layer(l, c.Experts), at, k, v) // [B, S, D], [B, G, C, A] twice
		if cache != nil {
			after.K, after.V = append(after.K, k), append(after.V, v)
		}
		traces = append(traces, tr.trace(keep))
	}
	for i := range traces[0] {
		each := make([]*Node, c.Layers)
		for l := range each {
			each[l] = InsertAxes(traces[l][i], 0) // [1, …]
		}
		kept = append(kept, Concatenate(each, 0)) // [L, …]
	}
	return x, after, kept
}

// stackedLayers scans the layers.
func stackedLayers(c Config, w Weights, x *Node, at view, cache *Cache, keep Keep, scan scanner) (y *Node, after *Cache, kept []*Node) {
	shared := []*Node{at.places.Query, at.rotary.cos, at.rotary.sin}
	if at.places.Key != nil {
		shared = append(shared, at.places.Key)
	}
	if at.start != nil {
		shared = append(shared, at.start)
	}
	if at.places.QuerySegments != nil {
		shared = append(shared, at.places.QuerySegments)
	}
	if at.pages != nil {
		shared = append(shared, at.pages.Write, at.pages.Read)
	}
	trained, frozen := w.stacked()
	stacked, n := w.nodesOf(trained), len(trained)
	var outs []shapes.Shape
	if cache != nil {
		stacked = append(stacked, cache.K[0], cache.V[0])
		one := cache.K[0].Shape().Dimensions[max(w.lead, 1):]
		outs = append(outs, shape(cache.K[0].DType(), one...), shape(cache.V[0].DType(), one...))
	}
	outs = append(outs, traceShapes(c, w, x, keep)...)
	in := composite.Scanned{Carry: []*Node{x}, Shared: shared, Stacked: stacked, Frozen: w.nodesOf(frozen), Lead: w.lead}
	last, all := scan(in, outs, func(in composite.Scanned) (next, outs []*Node) {
		here := at
		here.places.Query = in.Shared[0]
		here.rotary = Rotary{in.Shared[1], in.Shared[2]}
		rest := in.Shared[3:]
		if at.places.Key != nil {
			here.places.Key, rest = rest[0], rest[1:]
		}
		if at.start != nil {
			here.start, rest = rest[0], rest[1:]
		}
		if at.places.QuerySegments != nil {
			here.places.QuerySegments, here.places.KeySegments = rest[0], rest[0]
			rest = rest[1:]
		}
		if at.pages != nil {
			here.pages = &Paged{Write: rest[0], Read: rest[1]}
		}
		var k, v *Node
		if cache != nil {
			k, v = in.Stacked[n], in.Stacked[n+1] // [B, G, C, A]
		}
		y, k, v, tr := block(c, in.Carry[0], w.layerOf(slicesBy(trained, in.Stacked, frozen, in.Frozen)), here, k, v)
		if cache != nil {
			outs = append(outs, k, v)
		}
		return []*Node{y}, append(outs, tr.trace(keep)...)
	})
	if cache != nil {
		after, all = &Cache{K: all[:1], V: all[1:2]}, all[2:]
	}
	for i, x := range all { // [L, …]
		if w.lead > 1 {
			all[i] = Reshape(x, append([]int{c.Layers}, x.Shape().Dimensions[w.lead:]...)...)
		}
	}
	return last[0], after, all
}

// slicesBy finds a layer's slices by path.
func slicesBy(trained []string, slices []*Node, frozen []string, fixed []*Node) found {
	all := map[string]*Node{}
	for i, path := range trained {
		all[path] = slices[i]
	}
	for i, path := range frozen {
		all[path] = fixed[i]
	}
	return func(path string) *Node { return all[path] }
}

// traceShapes are the shapes of LayerTrace.trace's values.
func traceShapes(c Config, w Weights, x *Node, keep Keep) []shapes.Shape {
	tokens := x.Shape().Dim(0) * x.Shape().Dim(1)
	var out []shapes.Shape
	if keep >= KeepRouter {
		out = append(out, shape(dtypes.Float32, tokens, c.Experts), shape(dtypes.Float32, tokens, c.TopK), shape(dtypes.Int32, tokens, c.TopK))
	}
	if keep >= KeepAll {
		out = append(out, x.Shape(), x.Shape(), x.Shape())
	}
	if keep >= KeepRouter && w.within.Bounds() {
		out = append(out, shape(dtypes.Float32))
	}
	return out
}
