package graph

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"

	"mix/graph/composite"
	"mix/sharding/axis"
)

// Cache holds the keys and values of B sequences, C positions each. Position p of a sequence lies at
// index p: C is the longest sequence that fits.
//
// In the Stacked layout K and V have one tensor [L, B, G, C, A], in the others one tensor [B, G, C, A] a layer. With
// weights that are Staged, L is rounds, stages and depth.
type Cache struct{ K, V []*Node }

// CachePieces lists a cache's tensors, all of K, then all of V, as pieces of the weight that CacheParam is.
func CachePieces(c Config, l Layout, dtype dtypes.DType, batch, capacity int) (all []axis.Piece) {
	for _, name := range []string{"cache/key", "cache/value"} {
		all = append(all, perLayer(CacheParam(c, name, batch, capacity), l, dtype)...)
	}
	return all
}

// perLayer are the pieces of a weight that layers keep: one of all layers in the Stacked layout, else one a layer.
func perLayer(p axis.Param, l Layout, dtype dtypes.DType) (all []axis.Piece) {
	if l == Stacked {
		q := axis.Whole(p, dtype)
		q.Name = axis.SliceName(p.Path, 0)
		return []axis.Piece{q}
	}
	for layer := range p.Dims[0] {
		all = append(all, axis.Slice(p, dtype, layer))
	}
	return all
}

// CacheParam is the keys or values of a cache as a weight: its axes and sizes [L, B, G, C, A].
func CacheParam(c Config, name string, batch, capacity int) axis.Param {
	return axis.Param{Path: name, Axes: []axis.Logical{axis.Layers, axis.Batch, axis.KVHeads, axis.Pool, axis.HeadDim},
		Dims: []int{c.Layers, batch, c.KVHeads, capacity, c.HeadDim}}
}

// DeclareCache makes the parameters of a cache, of pieces like those of CachePieces.
func DeclareCache(g *Graph, all []axis.Piece) *Cache {
	k, v := declareHalves(g, all)
	return &Cache{k, v}
}

// declareHalves makes parameters of pieces, and cuts the list in two.
func declareHalves(g *Graph, all []axis.Piece) (first, second []*Node) {
	for i, q := range all {
		n := Parameter(g, q.Name, shape(q.DType, q.Shape...))
		if i < len(all)/2 {
			first = append(first, n)
		} else {
			second = append(second, n)
		}
	}
	return first, second
}

// Nodes lists the cache's tensors in the order in which they were declared.
func (c *Cache) Nodes() []*Node { return append(append([]*Node{}, c.K...), c.V...) }

// capacity is C.
func (c *Cache) capacity() int { return c.K[0].Shape().Dim(-2) }

// write puts the new keys or values [B, G, S, A] into the cache [B, G, C, A] from position start on. It
// moves a block that would not fit back to the end of the cache, as XLA does: callers keep start+S ≤ C.
//
// The barrier keeps the update one operation, done in place. Without it XLA computes the updated cache
// again for each reader, which needs the old one, which then must be copied.
func write(cache, block, start *Node) *Node {
	zero := Const(start.Graph(), int32(0))
	after := DynamicUpdateSlice(cache, block, []*Node{zero, zero, start, zero}) // [B, G, C, A]
	after = OptimizationBarrier(after)                                          // [B, G, C, A]
	return composite.Constrain(after, axis.Batch, axis.KVHeads, axis.Pool, axis.HeadDim)
}
