package composite

import (
	"fmt"
	"math"
	"strconv"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Axes of this file: B sequences, N positions of a pool, H query heads, G key/value heads, M = H/G query heads a key head,
// S queries, C keys, A width of a head.

// Places says where queries and keys stand. A query at position p sees the keys at positions 0 to p, or
// p-Window+1 to p with a window, and only those of its own segment.
type Places struct {
	Query         *Node // [B, S] int32 positions
	Key           *Node // [B, C] int32 positions
	QuerySegments *Node // [B, S] int32, nil when every sequence is one segment
	KeySegments   *Node // [B, C] int32, nil with QuerySegments
	Window        int   // 0 for none
}

// Attention is grouped-query softmax attention with scores q·k/√A; softmax in float32.
//
//	q    [B, H, S, A]  query head h reads key head h/M
//	k, v [B, G, C, A]
//	y    [B, H, S, A]
//
// A query must see at least one key. Source: Ainslie et al. 2023, arXiv:2305.13245; the window of Jiang
// et al. 2023, arXiv:2310.06825, section 2.
func Attention(q, k, v *Node, at Places) *Node {
	b, h, s, a := q.Shape().Dim(0), q.Shape().Dim(1), q.Shape().Dim(2), q.Shape().Dim(3)
	g, c := k.Shape().Dim(1), k.Shape().Dim(2)
	k.AssertDims(b, g, c, a)
	v.AssertDims(b, g, c, a)
	at.Query.AssertDims(b, s)
	at.Key.AssertDims(b, c)
	if h%g != 0 {
		panic(fmt.Errorf("attention: %d query heads do not divide over %d key heads", h, g))
	}
	in := []*Node{q, k, v, at.Query, at.Key}
	if at.QuerySegments != nil {
		at.QuerySegments.AssertDims(b, s)
		at.KeySegments.AssertDims(b, c)
		in = append(in, at.QuerySegments, at.KeySegments)
	}
	as := attrs{{"window", strconv.Itoa(at.Window)}}
	st := &attentionState{as: as, window: at.Window}
	st.y = call(AttentionName, as, in, st, func(in []*Node) []*Node { return attention(in, at.Window) })[0]
	return st.y
}

// PagedAttention is Attention over keys and values that lie in a pool of N positions, which many sequences share.
//
//	q         [B, H, S, A]
//	k, v      [N, G, A]
//	positions [B, S] int32  of the queries
//	read      [B, C] int32  where in the pool the key of each position of a sequence is, in order from position 0
//	y         [B, H, S, A]
//
// It has no gradient.
func PagedAttention(q, k, v, positions, read *Node, window int) *Node {
	b, s, c := q.Shape().Dim(0), q.Shape().Dim(2), read.Shape().Dim(1)
	k.AssertDims(-1, -1, q.Shape().Dim(3))
	v.AssertDims(k.Shape().Dimensions...)
	positions.AssertDims(b, s)
	read.AssertDims(b, c)
	as := attrs{{"window", strconv.Itoa(window)}}
	return call(PagedAttentionName, as, []*Node{q, k, v, positions, read}, nil, func(in []*Node) []*Node {
		at := Places{Query: in[3], Key: Iota(in[3].Graph(), shapes.Make(dtypes.Int32, b, c), 1), Window: window}
		gathered := func(pool *Node) *Node { // [B, G, C, A]
			return Transpose(Gather(pool, InsertAxes(in[4], -1)), 1, 2)
		}
		return []*Node{Attention(in[0], gathered(in[1]), gathered(in[2]), at)}
	})[0]
}

// attention is the meaning of the composite: all scores at once.
func attention(in []*Node, window int) []*Node {
	q, v := in[0], in[2]
	_, p := shares(in, window)
	y := Einsum("bgrc,bgca->bgra", ConvertDType(p, v.DType()), v) // [B, G, M·S, A]
	return []*Node{Reshape(y, q.Shape().Dimensions...)}           // [B, H, S, A]
}

// shares are what each query takes of each key's value, p [B, G, M·S, C] float32, and rows [B, G, M·S, A], the queries of
// each key head.
func shares(in []*Node, window int) (rows, p *Node) {
	q, k := in[0], in[1]
	b, h, s, a := q.Shape().Dim(0), q.Shape().Dim(1), q.Shape().Dim(2), q.Shape().Dim(3)
	g, c := k.Shape().Dim(1), k.Shape().Dim(2)
	graph := q.Graph()

	rows = Reshape(q, b, g, h/g*s, a)                                               // [B, G, M·S, A]
	scores := ConvertDType(Einsum("bgra,bgca->bgrc", rows, k), dtypes.Float32)      // [B, G, M·S, C]
	scores = Mul(scores, Const(graph, root(a)))                                     // [B, G, M·S, C]
	scores = Reshape(scores, b, g, h/g, s, c)                                       // [B, G, M, S, C]
	seen := InsertAxes(visible(in[3:], window), 1, 1)                               // [B, 1, 1, S, C]
	seen = BroadcastToDims(seen, b, g, h/g, s, c)                                   // [B, G, M, S, C]
	hidden := BroadcastToShape(Const(graph, float32(math.Inf(-1))), scores.Shape()) // [B, G, M, S, C]
	p = Softmax(Where(seen, scores, hidden), -1)                                    // [B, G, M, S, C]
	return rows, Reshape(p, b, g, h/g*s, c)
}

// root is 1/√A.
func root(a int) float32 { return float32(1 / math.Sqrt(float64(a))) }

// visible is [B, S, C]: which key each query sees. places are the positions of queries and keys and,
// where there are any, their segments.
//
// It leaves broadcasting to the comparisons: GoMLX's pure-Go backend folds an explicit one away inside a
// named function and then misses its value.
func visible(places []*Node, window int) *Node {
	query, key := InsertAxes(places[0], 2), InsertAxes(places[1], 1) // [B, S, 1], [B, 1, C]
	seen := LessOrEqual(key, query)                                  // [B, S, C]
	if window > 0 {
		far := Const(query.Graph(), int32(window))
		seen = LogicalAnd(seen, LessThan(Sub(query, key), far)) // [B, S, C]
	}
	if len(places) > 2 {
		seen = LogicalAnd(seen, Equal(InsertAxes(places[2], 2), InsertAxes(places[3], 1))) // [B, S, C]
	}
	return seen
}
