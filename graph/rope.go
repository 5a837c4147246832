package graph

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Rotary is the rotation of queries and keys by their positions.
type Rotary struct{ cos, sin *Node } // [B, S, A/2] float32

// RotaryAngles computes the rotation for positions.
//
//	positions [B, S] int32
//	width     A, the width of a head
//
// Angles are position·theta^(-2i/A) for i < A/2 in float32: at long positions bfloat16 cannot hold them.
// Source: Su et al. 2021, arXiv:2104.09864, section 3.2.2.
func RotaryAngles(positions *Node, width int, theta float64) Rotary {
	inverse := make([]float32, width/2)
	for i := range inverse {
		inverse[i] = float32(1 / math.Pow(theta, float64(2*i)/float64(width)))
	}
	g := positions.Graph()
	at := InsertAxes(ConvertDType(positions, dtypes.Float32), -1) // [B, S, 1]
	angle := Mul(at, ExpandLeftToRank(Const(g, inverse), 3))      // [B, S, A/2]
	return Rotary{Cos(angle), Sin(angle)}
}

// Apply rotates the pairs (i, i+A/2) of each head of x.
//
//	x [B, N, S, A] queries (N = H) or keys (N = G)
func (r Rotary) Apply(x *Node) *Node {
	half := x.Shape().Dim(-1) / 2
	cos := InsertAxes(ConvertDType(r.cos, x.DType()), 1)                     // [B, 1, S, A/2]
	sin := InsertAxes(ConvertDType(r.sin, x.DType()), 1)                     // [B, 1, S, A/2]
	a := Slice(x, AxisRange(), AxisRange(), AxisRange(), AxisRange(0, half)) // [B, N, S, A/2]
	b := Slice(x, AxisRange(), AxisRange(), AxisRange(), AxisRange(half))    // [B, N, S, A/2]
	left := Sub(Mul(a, cos), Mul(b, sin))                                    // [B, N, S, A/2]
	right := Add(Mul(b, cos), Mul(a, sin))                                   // [B, N, S, A/2]
	return Concatenate([]*Node{left, right}, -1)                             // [B, N, S, A]
}
