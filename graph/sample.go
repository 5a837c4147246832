package graph

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Sampling says how the next token is drawn from the logits. Values are arguments of the program, so
// requests with other values need no other program.
type Sampling struct {
	Temperature *Node // [B] float32; 0 takes the best token
	TopK        *Node // [B] int32; 0 for all. nil with TopP in programs that never filter by rank
	TopP        *Node // [B] float32 in (0, 1]; 1 for all
	MinP        *Node // [B] float32 in [0, 1); 0 for all
	Seed        *Node // [B] uint32 twice, [B, 2]
	Step        *Node // [B] int32, the position that is drawn: the same seed and step give the same draw
}

// Greedy is the id of the largest logit, ties to the lower id: [B, V] to [B] int32.
func Greedy(logits *Node) *Node { return ArgMax(logits, -1, dtypes.Int32) }

// Sample draws one token a sequence.
//
//	logits [B, V] float32
//	ids    [B] int32
//
// Temperature comes first, then the K most likely, then the smallest set of those whose probability
// reaches TopP (renormalised after TopK), then those of at least MinP times the best one's probability.
// The draw is the largest of the kept logits plus Gumbel noise, which is a draw from their softmax. It
// depends on the sequence's own logits, seed and step alone.
//
// Ranking takes a sort of the vocabulary: without TopK and TopP there is none, and the same draws.
func Sample(logits *Node, s Sampling) *Node {
	g := logits.Graph()
	dims := logits.Shape().Dimensions
	greedy := LessOrEqual(s.Temperature, Const(g, float32(0)))                               // [B]
	t := Where(greedy, OnesLike(s.Temperature), s.Temperature)                               // [B]
	scaled := Div(logits, InsertAxes(t, -1))                                                 // [B, V]
	ids := Iota(g, shape(dtypes.Int32, dims...), 1)                                          // [B, V]
	noise := gumbel(s.Seed, s.Step, ids)                                                     // [B, V]
	noise = Where(BroadcastToDims(InsertAxes(greedy, -1), dims...), ZerosLike(noise), noise) // [B, V]
	if s.TopK == nil && s.TopP == nil {
		return ArgMax(Add(keepProbable(scaled, s.MinP), noise), -1, dtypes.Int32) // [B]
	}
	sorted, ids := TopK(scaled, dims[1], -1)                         // [B, V] both, best first
	kept := keepProbable(keepRanked(sorted, s.TopK, s.TopP), s.MinP) // [B, V]
	drawn := ArgMax(Add(kept, byRank(noise, ids)), -1, dtypes.Int32) // [B] rank
	return Reshape(byRank(ids, InsertAxes(drawn, -1)), dims[0])      // [B]
}

// keepProbable sets logits whose probability is below minP times the best one's to -Inf.
//
//	logits [B, V], minP [B], y [B, V]
func keepProbable(logits, minP *Node) *Node {
	ratio := Exp(Sub(logits, ReduceAndKeep(logits, ReduceMax, -1)))               // [B, V]
	return Where(GreaterOrEqual(ratio, InsertAxes(minP, -1)), logits, no(logits)) // [B, V]
}

// keepRanked sets all logits to -Inf but the k first and, of these, those before which less than topP of
// the probability lies.
//
//	sorted [B, V] best first, k [B] int32, topP [B], y [B, V]
func keepRanked(sorted, k, topP *Node) *Node {
	g := sorted.Graph()
	b, v := sorted.Shape().Dim(0), sorted.Shape().Dim(1)
	wide := func(x *Node) *Node { return BroadcastToDims(InsertAxes(x, -1), b, v) }          // [B] to [B, V]
	rank := Iota(g, shape(dtypes.Int32, b, v), 1)                                            // [B, V]
	k = Where(LessOrEqual(k, Const(g, int32(0))), BroadcastToDims(Const(g, int32(v)), b), k) // [B]
	kept := Where(LessThan(rank, wide(k)), sorted, no(sorted))                               // [B, V]
	p := Softmax(kept, -1)                                                                   // [B, V]
	before := Sub(CumSum(p, 1), p)                                                           // [B, V] probability of the better ones
	all := GreaterOrEqual(topP, Const(g, float32(1)))                                        // [B]
	inside := LogicalOr(wide(all), LessThan(before, wide(topP)))                             // [B, V]
	return Where(LogicalOr(inside, Equal(rank, Const(g, int32(0)))), kept, no(kept))         // [B, V]
}

// byRank picks x[b, at[b, i]]: x [B, V], at [B, N] int32, y [B, N].
func byRank(x, at *Node) *Node {
	row := Iota(x.Graph(), at.Shape(), 0)                                               // [B, N]
	return Gather(x, Concatenate([]*Node{InsertAxes(row, -1), InsertAxes(at, -1)}, -1)) // [B, N]
}

// no is -Inf in the shape of x.
func no(x *Node) *Node {
	return BroadcastToShape(Const(x.Graph(), float32(math.Inf(-1))), x.Shape())
}

// gumbel is standard Gumbel noise for each token id.
//
//	seed [B, 2] uint32, step [B] int32, ids [B, V] int32
//	y    [B, V] float32
func gumbel(seed, step, ids *Node) *Node {
	g := ids.Graph()
	dims := ids.Shape().Dimensions
	word := func(i int) *Node { // [B, V]
		return BroadcastToDims(Slice(seed, AxisRange(), AxisRange(i, i+1)), dims...)
	}
	at := BroadcastToDims(InsertAxes(ConvertDType(step, dtypes.Uint32), -1), dims...) // [B, V]
	bits, _ := threefry(word(0), word(1), ConvertDType(ids, dtypes.Uint32), at)       // [B, V]
	// 24 bits make a float32 in (0, 1): the half keeps it off both ends.
	high := ConvertDType(BitwiseShiftRightLogicalScalar(bits, 8), dtypes.Float32) // [B, V]
	u := Mul(Add(high, Const(g, float32(0.5))), Const(g, float32(1.0/(1<<24))))   // [B, V]
	return Neg(Log(Neg(Log(u))))                                                  // [B, V]
}

// threefry is Threefry-2x32 with 20 rounds: a counter (x, y) enciphered by a key (k0, k1). All are uint32
// of one shape. Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 5.
func threefry(k0, k1, x, y *Node) (a, b *Node) {
	g := x.Graph()
	u := func(v uint32) *Node { return Const(g, v) }
	keys := []*Node{k0, k1, BitwiseXor(BitwiseXor(k0, k1), u(0x1BD11BDA))}
	turns := [8]uint32{13, 15, 26, 6, 17, 29, 16, 24}
	x, y = Add(x, k0), Add(y, k1)
	for round := range 20 {
		x = Add(x, y)
		r := turns[round%8]
		y = BitwiseOr(BitwiseShiftLeftScalar(y, r), BitwiseShiftRightLogicalScalar(y, 32-r))
		y = BitwiseXor(y, x)
		if round%4 == 3 {
			n := round/4 + 1
			x = Add(x, keys[n%3])
			y = Add(Add(y, keys[(n+1)%3]), u(uint32(n)))
		}
	}
	return x, y
}

// Penalize divides the positive logits of tokens that were seen by the penalty, and multiplies the others by
// it.
//
//	logits [B, V] float32, seen [B, V] uint8, not 0 for those that were; penalty [B] float32, 1 for none
//
// Source: Keskar et al. 2019, arXiv:1909.05858, section 4.1, in the form of transformers.
func Penalize(logits, seen, penalty *Node) *Node {
	g := logits.Graph()
	by := BroadcastToShape(InsertAxes(penalty, -1), logits.Shape())                            // [B, V]
	less := Where(GreaterThan(logits, Const(g, float32(0))), Div(logits, by), Mul(logits, by)) // [B, V]
	return Where(NotEqual(seen, ConstAsDType(g, dtypes.Uint8, 0)), less, logits)               // [B, V]
}
