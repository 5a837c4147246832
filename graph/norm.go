package graph

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// RMSNorm divides x by the root mean square of its last axis and multiplies by scale.
//
//	x     [..., D] any float
//	scale [D]      x's dtype
//	y     [..., D] x's dtype
//
// Statistics are taken in float32; the normalised value is rounded to x's dtype before scale, as the
// checkpoints were trained. Source: Zhang and Sennrich 2019, arXiv:1910.07467, equation 4.
func RMSNorm(x, scale *Node, eps float64) *Node {
	scale.AssertDims(x.Shape().Dim(-1))
	wide := ConvertDType(x, dtypes.Float32)                                        // [..., D]
	square := ReduceAndKeep(Mul(wide, wide), ReduceMean, -1)                       // [..., 1]
	root := Sqrt(Add(square, Const(x.Graph(), float32(eps))))                      // [..., 1]
	normal := ConvertDType(Div(wide, root), x.DType())                             // [..., D]
	return Mul(normal, ExpandLeftToRank(ConvertDType(scale, x.DType()), x.Rank())) // [..., D]
}
