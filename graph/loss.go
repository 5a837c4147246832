package graph

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Ignore is the label of a position that no loss is taken at.
const Ignore = -100

// CrossEntropy is the mean of -log softmax(logits[b,s])[labels[b,s+1]] over the positions whose next
// label is kept, in nats a token.
//
//	logits [B, S, V] float32
//	labels [B, S] int32, the tokens themselves or Ignore
//	loss   [] float32; 0 when nothing is kept
//	kept   [] float32, the number of positions
func CrossEntropy(logits, labels *Node) (loss, kept *Node) {
	each, mask := TokenLosses(logits, labels) // [B, S-1] both
	kept = ReduceAllSum(mask)                 // []
	one := Const(logits.Graph(), float32(1))  // []
	return Div(ReduceAllSum(each), Max(kept, one)), kept
}

// TokenLosses is -log softmax(logits[b,s])[labels[b,s+1]], 0 where the label is Ignore, and the mask of
// the others. Both are [B, S-1] float32.
func TokenLosses(logits, labels *Node) (losses, mask *Node) {
	g := logits.Graph()
	s := labels.Shape().Dim(1)
	logits = Slice(logits, AxisRange(), AxisRange(0, s-1), AxisRange()) // [B, S-1, V]
	next := Slice(labels, AxisRange(), AxisRange(1, s))                 // [B, S-1]
	wanted := NotEqual(next, Const(g, int32(Ignore)))                   // [B, S-1]
	mask = ConvertDType(wanted, dtypes.Float32)                         // [B, S-1]
	top := StopGradient(ReduceAndKeep(logits, ReduceMax, -1))           // [B, S-1, 1]
	shifted := Sub(logits, top)                                         // [B, S-1, V]
	total := Log(ReduceSum(Exp(shifted), -1))                           // [B, S-1]
	hit := ConvertDType(Equal(InsertAxes(next, -1), Iota(g, shape(dtypes.Int32, 1, 1, logits.Shape().Dim(2)), 2)), dtypes.Float32)
	picked := ReduceSum(Mul(hit, shifted), -1) // [B, S-1]
	return Mul(Sub(total, picked), mask), mask
}

// LoadBalance is the auxiliary loss E·Σ_e f_e·P_e over the rows of all layers together: f_e is the number
// of (row, choice) pairs routed to expert e per row and carries no gradient, P_e the mean of softmax(logits)
// over all experts. Balanced routing gives K.
//
//	logits [L, T, E] float32
//	chosen [L, T, K] int32
//	mask   [T] float32, 1 for the rows that count; nil for all
//	loss   [] float32
//
// Source: Fedus et al. 2022, arXiv:2101.03961, equation 4, with K choices a token.
func LoadBalance(logits, chosen, mask *Node) *Node {
	g := logits.Graph()
	l, t, e := logits.Shape().Dim(0), logits.Shape().Dim(1), logits.Shape().Dim(2)
	if mask == nil {
		mask = BroadcastToDims(Const(g, float32(1)), t) // [T]
	}
	rows := Mul(ReduceAllSum(mask), Const(g, float32(l)))             // []
	routed := ReduceSum(OneHot(chosen, e, dtypes.Float32), 2)         // [L, T, E]
	weight := Reshape(mask, 1, t, 1)                                  // [1, T, 1]
	f := Div(ReduceSum(Mul(routed, weight), 0, 1), rows)              // [E]
	p := Div(ReduceSum(Mul(Softmax(logits, -1), weight), 0, 1), rows) // [E]
	return Mul(ReduceAllSum(Mul(StopGradient(f), p)), Const(g, float32(e)))
}
