package graph

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Cache holds the keys and values of B sequences, C positions each. Position p of a sequence lies at
// index p: C is the longest sequence that fits.
//
// In the Stacked layout K and V have one tensor [L, B, G, C, A], in the PerMatrix layout one tensor
// [B, G, C, A] a layer.
type Cache struct{ K, V []*Node }

// CacheShapes lists the shapes of a cache's tensors, all of K, then all of V.
func CacheShapes(c Config, l Layout, dtype dtypes.DType, batch, capacity int) []shapes.Shape {
	var out []shapes.Shape
	for range 2 {
		if l == Stacked {
			out = append(out, shape(dtype, c.Layers, batch, c.KVHeads, capacity, c.HeadDim))
			continue
		}
		for range c.Layers {
			out = append(out, shape(dtype, batch, c.KVHeads, capacity, c.HeadDim))
		}
	}
	return out
}

// DeclareCache makes the parameters of a cache, in CacheShapes' order.
func DeclareCache(g *Graph, c Config, l Layout, dtype dtypes.DType, batch, capacity int) *Cache {
	cache := &Cache{}
	all := CacheShapes(c, l, dtype, batch, capacity)
	for i, s := range all {
		if i < len(all)/2 {
			cache.K = append(cache.K, Parameter(g, fmt.Sprintf("cache/key[%d]", i), s))
		} else {
			cache.V = append(cache.V, Parameter(g, fmt.Sprintf("cache/value[%d]", i-len(all)/2), s))
		}
	}
	return cache
}

// Nodes lists the cache's tensors in CacheShapes' order.
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
	return OptimizationBarrier(after)                                           // [B, G, C, A]
}
