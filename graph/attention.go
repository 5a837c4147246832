package graph

import (
	. "github.com/gomlx/gomlx/core/graph"

	"mix/graph/composite"
	"mix/sharding/axis"
)

// view is what attention needs to know beside activations: where queries stand, and the cache if any.
type view struct {
	rotary Rotary
	places composite.Places
	start  *Node // [] int32, where in the cache the queries' keys go; nil without a cache
}

// attend is grouped-query attention of one layer.
//
//	x    [B, S, D] normalised activations
//	k, v [B, G, C, A] the layer's cache, nil without one
//	y    [B, S, D], and the cache with the new keys and values in it
func attend(x *Node, w layer, at view, k, v *Node) (y, newK, newV *Node) {
	q := Einsum("bsd,had->bhsa", x, w.query)                                             // [B, H, S, A]
	key := Einsum("bsd,gad->bgsa", x, w.key)                                             // [B, G, S, A]
	value := Einsum("bsd,gad->bgsa", x, w.value)                                         // [B, G, S, A]
	q = composite.Constrain(q, axis.Batch, axis.Heads, axis.Seq, axis.HeadDim)           // [B, H, S, A]
	key = composite.Constrain(key, axis.Batch, axis.KVHeads, axis.Seq, axis.HeadDim)     // [B, G, S, A]
	value = composite.Constrain(value, axis.Batch, axis.KVHeads, axis.Seq, axis.HeadDim) // [B, G, S, A]
	q, key = at.rotary.Apply(q), at.rotary.Apply(key)
	if k != nil {
		key, value = write(k, key, at.start), write(v, value, at.start) // [B, G, C, A]
	}
	heads := composite.Attention(q, key, value, at.places) // [B, H, S, A]
	y = Einsum("bhsa,dha->bsd", heads, w.out)              // [B, S, D]
	return composite.Constrain(y, axis.Batch, axis.Seq, axis.Embed), key, value
}
