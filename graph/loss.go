package graph

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Ignore is the label of a position that no loss is taken at.
const Ignore = -100

// NextTokens are the labels of plain text: the token after each position of tokens, and Ignore after the
// last. Both are [B, S] int32.
func NextTokens(tokens *Node) *Node {
	b, s := tokens.Shape().Dim(0), tokens.Shape().Dim(1)
	last := BroadcastToDims(Const(tokens.Graph(), int32(Ignore)), b, 1)               // [B, 1]
	return Concatenate([]*Node{Slice(tokens, AxisRange(), AxisRange(1, s)), last}, 1) // [B, S]
}

// CrossEntropy is the mean of -log softmax(logits[b,s])[labels[b,s]] over the positions whose label is
// kept, in nats a token.
//
//	logits [B, S, V] float32, or any axes before V
//	labels [B, S] int32, what follows each position, or Ignore
//	loss   [] float32; 0 when nothing is kept
//	kept   [] float32, the number of positions
func CrossEntropy(logits, labels *Node) (loss, kept *Node) {
	each, mask := TokenLosses(logits, labels) // [B, S] both
	kept = ReduceAllSum(mask)                 // []
	return Mean(ReduceAllSum(each), kept), kept
}

// Mean is sum/count, 0 for a count of 0. All are [] float32.
func Mean(sum, count *Node) *Node { return Div(sum, Max(count, Const(sum.Graph(), float32(1)))) }

// TokenLosses is -log softmax(logits[b,s])[labels[b,s]], 0 where the label is Ignore, and the mask of the
// others. Both are [B, S] float32, or any axes but V.
func TokenLosses(logits, labels *Node) (losses, mask *Node) {
	g := logits.Graph()
	mask = ConvertDType(NotEqual(labels, Const(g, int32(Ignore))), dtypes.Float32)                  // [B, S]
	top := StopGradient(ReduceAndKeep(logits, ReduceMax, -1))                                       // [B, S, 1]
	shifted := Sub(logits, top)                                                                     // [B, S, V]
	total := Log(ReduceSum(Exp(shifted), -1))                                                       // [B, S]
	ids := ExpandLeftToRank(Iota(g, shape(dtypes.Int32, logits.Shape().Dim(-1)), 0), logits.Rank()) // [1, 1, V]
	hit := ConvertDType(Equal(InsertAxes(labels, -1), ids), dtypes.Float32)
	picked := ReduceSum(Mul(hit, shifted), -1) // [B, S]
	return Mul(Sub(total, picked), mask), mask
}

// RouterSums are what the router's losses are made of, summed over rows. The load-balancing loss is a
// product of two sums: those of several batches are added up before it is made.
type RouterSums struct {
	Rows   *Node // [] float32, rows a layer
	Routed *Node // [L, E] float32, (row, choice) pairs sent to each expert; carries no gradient
	Probs  *Node // [L, E] float32, softmax over all experts
	Z      *Node // [] float32, (log Σ exp logits)² over the rows of all layers

	// Dropped is how many (row, choice) pairs of all layers found no room, rows that do not count among them, [] float32.
	// It carries no gradient, and is nil without a capacity.
	Dropped *Node
}

// CountedRows is the mask of SumRouter that leaves padding out: 1 for the rows whose segment is not negative, [T] float32
// of segments [B, S], or any axes; nil for nil.
func CountedRows(segments *Node) *Node {
	if segments == nil {
		return nil
	}
	real := GreaterOrEqual(segments, Const(segments.Graph(), int32(0)))
	return Reshape(ConvertDType(real, dtypes.Float32), -1)
}

// SumRouter sums what the routers of all layers gave for T rows.
//
//	logits [L, T, E] float32
//	chosen [L, T, K] int32
//	mask   [T] float32, 1 for the rows that count; nil for all
func SumRouter(logits, chosen, mask *Node) RouterSums {
	g := logits.Graph()
	t, e := logits.Shape().Dim(1), logits.Shape().Dim(2)
	if mask == nil {
		mask = BroadcastToDims(Const(g, float32(1)), t) // [T]
	}
	weight := Reshape(mask, 1, t, 1)                          // [1, T, 1]
	routed := ReduceSum(OneHot(chosen, e, dtypes.Float32), 2) // [L, T, E]
	top := StopGradient(ReduceAndKeep(logits, ReduceMax, -1)) // [L, T, 1]
	raised := Exp(Sub(logits, top))                           // [L, T, E]
	total := ReduceAndKeep(raised, ReduceSum, -1)             // [L, T, 1]
	lse := Add(top, Log(total))                               // [L, T, 1]
	return RouterSums{
		Rows:   ReduceAllSum(mask),
		Routed: StopGradient(ReduceSum(Mul(routed, weight), 1)),
		Probs:  ReduceSum(Mul(Div(raised, total), weight), 1),
		Z:      ReduceAllSum(Mul(Mul(lse, lse), weight)),
	}
}

// Nodes lists the sums, RouterSumsOf takes such a list.
func (s RouterSums) Nodes() []*Node {
	all := []*Node{s.Rows, s.Routed, s.Probs, s.Z}
	if s.Dropped != nil {
		all = append(all, s.Dropped)
	}
	return all
}

// RouterSumsOf is the inverse of Nodes.
func RouterSumsOf(n []*Node) RouterSums {
	s := RouterSums{Rows: n[0], Routed: n[1], Probs: n[2], Z: n[3]}
	if len(n) > 4 {
		s.Dropped = n[4]
	}
	return s
}

// LoadBalance is E·Σ_e f_e·P_e over the rows of all layers together: f_e is the number of (row, choice)
// pairs routed to expert e per row, P_e the mean probability. Balanced routing gives K. [] float32.
//
// Source: Fedus et al. 2022, arXiv:2101.03961, equation 4, with K choices a token; transformers,
// modeling_mixtral.py.
func (s RouterSums) LoadBalance() *Node {
	l, e := s.Probs.Shape().Dim(0), s.Probs.Shape().Dim(1)
	rows := s.times(s.Rows, float64(l))     // []
	f := Mean(ReduceSum(s.Routed, 0), rows) // [E]
	p := Mean(ReduceSum(s.Probs, 0), rows)  // [E]
	return s.times(ReduceAllSum(Mul(f, p)), float64(e))
}

// LoadBalancePerLayer is Σ_l E/(K·T²)·Σ_e n_le·(Σ_t p_lte): balanced routing gives L. [] float32.
//
// Source: Megatron-LM, core/transformer/moe/moe_utils.py.
func (s RouterSums) LoadBalancePerLayer(topK int) *Node {
	f, p := Mean(s.Routed, s.Rows), Mean(s.Probs, s.Rows) // [L, E] both
	return s.times(ReduceAllSum(Mul(f, p)), float64(s.Probs.Shape().Dim(1))/float64(topK))
}

// ZLoss is the mean of (log Σ exp logits)² over the rows of a layer, summed over layers. [] float32.
//
// Source: Zoph et al. 2022, arXiv:2202.08906, equation 5.
func (s RouterSums) ZLoss() *Node { return Mean(s.Z, s.Rows) }

func (s RouterSums) times(x *Node, by float64) *Node { return Mul(x, Const(x.Graph(), float32(by))) }

// LoadBalance is RouterSums.LoadBalance of one batch.
func LoadBalance(logits, chosen, mask *Node) *Node {
	return SumRouter(logits, chosen, mask).LoadBalance()
}
