package composite

import (
	"fmt"
	"math"
	"strconv"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"

	"mix/sharding/axis"
)

// Drop names which rows an expert leaves out that has too many.
type Drop string

// Policies, by Megatron-LM's words.
const (
	DropProbs    Drop = "probs"    // those of the lowest weights, of equal ones the later
	DropPosition Drop = "position" // the later ones, in the order of tokens
)

// Capacity bounds the rows that an expert takes of a group of tokens to axis.Capacity of them. The zero value bounds
// nothing. On one device all tokens are a group; expert parallelism makes each device's own tokens one.
type Capacity struct {
	Factor float64 // times the mean of the experts
	Drop   Drop
}

// Bounds tells whether there is a capacity.
func (c Capacity) Bounds() bool { return c != Capacity{} }

// Validate refuses a factor or policy that means nothing.
func (c Capacity) Validate() error {
	switch {
	case !c.Bounds():
		return nil
	case !(c.Factor > 0) || math.IsInf(c.Factor, 0):
		return fmt.Errorf("capacity factor of experts is %g, want a number above 0", c.Factor)
	case c.Drop != DropProbs && c.Drop != DropPosition:
		return fmt.Errorf("policy of dropped rows is %q, want %s or %s", c.Drop, DropProbs, DropPosition)
	}
	return nil
}

// attrs tell a pass.
func (c Capacity) attrs() attrs {
	if !c.Bounds() {
		return nil
	}
	return attrs{{"capacity", strconv.FormatFloat(c.Factor, 'g', -1, 64)}, {"drop", string(c.Drop)}}
}

// kept tells which rows find room, [R] bool; nil if all do.
func (c Capacity) kept(chosen, weights *Node, experts int) *Node {
	t, k, r := chosen.Shape().Dim(0), chosen.Shape().Dim(1), chosen.Shape().Size()
	if !c.Bounds() {
		return nil
	}
	most := axis.Capacity(c.Factor, t, k, experts)
	if most >= t {
		return nil
	}
	g := chosen.Graph()
	room := Const(g, int32(most))
	own := OneHot(Reshape(chosen, r), experts, dtypes.Int32) // [R, E]
	if c.Drop == DropPosition {
		return LessOrEqual(ofOwn(own, CumSum(own, 0)), room) // [R]
	}
	bits := order(Reshape(weights, r))                                                // [R]
	least := largest(own, bits, most)                                                 // [E]
	last := ofOwn(own, InsertAxes(least, 0))                                          // [R]
	above := ConvertDType(GreaterThan(bits, last), dtypes.Int32)                      // [R]
	tied := Mul(own, InsertAxes(ConvertDType(Equal(bits, last), dtypes.Int32), -1))   // [R, E]
	left := Sub(room, ReduceSum(Mul(own, InsertAxes(above, -1)), 0))                  // [E]
	fits := LessOrEqual(ofOwn(own, CumSum(tied, 0)), ofOwn(own, InsertAxes(left, 0))) // [R]
	return LogicalOr(GreaterThan(bits, last), LogicalAnd(Equal(bits, last), fits))    // [R]
}

// ofOwn picks each row's expert of x, [R, E] or [1, E]: [R].
func ofOwn(own, x *Node) *Node { return ReduceSum(Mul(own, x), 1) }

// order is an integer for each weight, greater for greater ones: the bits of a float that is not negative. Negative
// weights count as 0.
func order(weights *Node) *Node {
	bits := Bitcast(weights, dtypes.Int32)
	return Max(bits, Const(bits.Graph(), int32(0)))
}

// largest is for each expert the value of bits [R] which n of its rows reach or exceed and no greater value has, 0 if it
// has fewer rows: [E]. It is found bit by bit, which needs no sort.
func largest(own, bits *Node, n int) *Node {
	g, e := own.Graph(), own.Shape().Dim(1)
	value := BroadcastToDims(Const(g, int32(0)), e) // [E]
	for bit := 30; bit >= 0; bit-- {
		try := Add(value, Const(g, int32(1)<<bit))                          // [E]
		reach := GreaterOrEqual(InsertAxes(bits, -1), InsertAxes(try, 0))   // [R, E]
		rows := ReduceSum(Mul(own, ConvertDType(reach, dtypes.Int32)), 0)   // [E]
		value = Where(GreaterOrEqual(rows, Const(g, int32(n))), try, value) // [E]
	}
	return value
}
