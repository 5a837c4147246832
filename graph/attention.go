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
	start  *Node  // [] int32, where in the cache the queries' keys go; nil without a cache
	pages  *Paged // k and v are a pool; nil without one
	again  Recompute
}

// attend is grouped-query attention of one layer.
//
//	x    [B, S, D] normalised activations
//	k, v [B, G, C, A] the layer's cache, or [N, G, A] its part of a pool; nil without one
//	y    [B, S, D], and the cache or pool with the new keys and values in it
func attend(x *Node, w layer, at view, k, v *Node) (y, newK, newV *Node) {
	q := project(x, w.query)                                                             // [B, H, S, A]
	key := project(x, w.key)                                                             // [B, G, S, A]
	value := project(x, w.value)                                                         // [B, G, S, A]
	q = composite.Constrain(q, axis.Batch, axis.Heads, axis.Seq, axis.HeadDim)           // [B, H, S, A]
	key = composite.Constrain(key, axis.Batch, axis.KVHeads, axis.Seq, axis.HeadDim)     // [B, G, S, A]
	value = composite.Constrain(value, axis.Batch, axis.KVHeads, axis.Seq, axis.HeadDim) // [B, G, S, A]
	q, key = at.rotary.Apply(q), at.rotary.Apply(key)
	var heads *Node // [B, H, S, A]
	switch {
	case at.pages != nil:
		newK, newV = at.pages.page(k, key), at.pages.page(v, value) // [N, G, A]
		heads = composite.PagedAttention(q, newK, newV, at.places.Query, at.pages.Read, at.places.Window)
	case k != nil:
		newK, newV = write(k, key, at.start), write(v, value, at.start) // [B, G, C, A]
		heads = at.attention(q, newK, newV)
	default:
		newK, newV = key, value
		heads = at.attention(q, key, value)
	}
	y = merge(heads, w.out) // [B, S, D]
	return composite.Constrain(y, axis.Batch, axis.Seq, axis.Embed), newK, newV
}

// attention is composite.Attention, computed again in the backward pass where that is wanted.
func (at view) attention(q, k, v *Node) *Node {
	if at.again != RecomputeAttention {
		return composite.Attention(q, k, v, at.places) // [B, H, S, A]
	}
	in := []*Node{q, k, v, at.places.Query, at.places.Key}
	if at.places.QuerySegments != nil {
		in = append(in, at.places.QuerySegments, at.places.KeySegments)
	}
	return composite.Recompute(in, func(in []*Node) []*Node {
		places := at.places
		places.Query, places.Key = in[3], in[4]
		if len(in) > 5 {
			places.QuerySegments, places.KeySegments = in[5], in[6]
		}
		return []*Node{composite.Attention(in[0], in[1], in[2], places)}
	})[0]
}

// project maps activations to heads. The product is of matrices as they lie in memory: asked for heads
// first, XLA would transpose the weight at every call.
//
//	x [B, S, D], w [N, A, D], y [B, N, S, A]
func project(x *Node, w matrix) *Node {
	b, s, d := x.Shape().Dim(0), x.Shape().Dim(1), x.Shape().Dim(2)
	n, a := w.w.Shape().Dim(0), w.w.Shape().Dim(1)
	y := w.times(Reshape(x, b*s, d))               // [T, N·A]
	return Transpose(Reshape(y, b, s, n, a), 1, 2) // [B, N, S, A]
}

// merge maps heads back to activations, like project without a transposed weight.
//
//	x [B, N, S, A], w [D, N, A], y [B, S, D]
func merge(x *Node, w matrix) *Node {
	b, n, s, a := x.Shape().Dim(0), x.Shape().Dim(1), x.Shape().Dim(2), x.Shape().Dim(3)
	rows := Reshape(Transpose(x, 1, 2), b*s, n*a)           // [T, N·A]
	return Reshape(w.times(rows), b, s, w.w.Shape().Dim(0)) // [B, S, D]
}
