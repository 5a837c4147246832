package graph

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"

	"mix/graph/composite"
	"mix/sharding/axis"
)

// Pages hold the keys and values of many sequences in one pool of N positions. Which of them a sequence has,
// and in which order, is the caller's matter: a page table, by positions.
//
// In the Stacked layout K and V have one tensor [L, N, G, A], in the others one tensor [N, G, A] a layer. With weights
// that are Staged, L is rounds, stages and depth.
//
// Source: Kwon et al. 2023, arXiv:2309.06180.
type Pages struct{ K, V []*Node }

// PagesPieces lists a pool's tensors, all of K, then all of V, as pieces of the weight that PagesParam is.
func PagesPieces(c Config, l Layout, dtype dtypes.DType, positions int) (all []axis.Piece) {
	for _, name := range []string{"pages/key", "pages/value"} {
		all = append(all, perLayer(PagesParam(c, name, positions), l, dtype)...)
	}
	return all
}

// PagesParam is the keys or values of a pool as a weight: its axes and sizes [L, N, G, A].
func PagesParam(c Config, name string, positions int) axis.Param {
	return axis.Param{Path: name, Axes: []axis.Logical{axis.Layers, axis.Pool, axis.KVHeads, axis.HeadDim}, Dims: []int{c.Layers, positions, c.KVHeads, c.HeadDim}}
}

// DeclarePages makes the parameters of a pool, of pieces like those of PagesPieces.
func DeclarePages(g *Graph, all []axis.Piece) *Pages {
	k, v := declareHalves(g, all)
	return &Pages{k, v}
}

// Nodes lists the pool's tensors in the order in which they were declared.
func (p *Pages) Nodes() []*Node { return append(append([]*Node{}, p.K...), p.V...) }

// Paged are the tokens of one call, and where in a pool they are kept.
type Paged struct {
	Tokens    *Node // [B, S] int32
	Positions *Node // [B, S] int32, of each token in its sequence

	// Write is where in the pool the key of each token goes, [B, S] int32, all different. What is padding goes
	// to positions that nobody reads.
	Write *Node
	// Read is where in the pool the key of each position of a sequence is, [B, C] int32, in order from position
	// 0. A token sees those up to its own position.
	Read *Node
}

// RunPaged applies the model to tokens of many sequences at once, after those that are in the pool.
func RunPaged(c Config, w Weights, in Paged, pages *Pages, keep Keep) (r Result, after *Pages) {
	at := view{pages: &in}
	at.rotary = RotaryAngles(in.Positions, c.HeadDim, c.RopeTheta)
	at.places.Query = in.Positions
	at.places.Window = c.Window
	r = runAt(c, w, in.Tokens, at, &Cache{K: pages.K, V: pages.V}, keep, composite.Scan)
	return r, &Pages{K: r.Cache.K, V: r.Cache.V}
}

// page puts new keys or values [B, G, S, A] into a pool [N, G, A], and returns the pool. The barrier is that of write.
func (p *Paged) page(pool, block *Node) (after *Node) {
	g, a := block.Shape().Dim(1), block.Shape().Dim(3)
	rows := Reshape(Transpose(block, 1, 2), -1, g, a)                                // [B·S, G, A]
	after = OptimizationBarrier(composite.PutRows(pool, Reshape(p.Write, -1), rows)) // [N, G, A]
	return composite.Constrain(after, axis.Pool, axis.KVHeads, axis.HeadDim)
}

// Copy is the pool with the positions to, [P] int32 and all different, as the positions from are.
func (p *Pages) Copy(from, to *Node) *Pages {
	each := func(pool *Node) *Node {
		if pool.Rank() == 3 {
			return composite.PutRows(pool, to, Gather(pool, InsertAxes(from, -1))) // [N, G, A]
		}
		// Of all layers at once: positions come first for it.
		at := pool.Rank() - 3
		order, back := []int{at}, []int{}
		for i := range at {
			order, back = append(order, i), append(back, i+1)
		}
		order, back = append(order, at+1, at+2), append(back, 0, at+1, at+2)
		moved := TransposeAllAxes(pool, order...)                                 // [N, L…, G, A]
		moved = composite.PutRows(moved, to, Gather(moved, InsertAxes(from, -1))) // [N, L…, G, A]
		return TransposeAllAxes(moved, back...)                                   // [L…, N, G, A]
	}
	out := &Pages{}
	for i := range p.K {
		out.K, out.V = append(out.K, each(p.K[i])), append(out.V, each(p.V[i]))
	}
	return out
}
