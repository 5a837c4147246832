package graph

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Embed looks tokens up in the table.
//
//	tokens [B, S] int32 in [0, V)
//	table  [V, D]
//	x      [B, S, D] of table's dtype
func Embed(tokens, table *Node) *Node {
	return Gather(table, InsertAxes(tokens, -1)) // [B, S, D]
}

// Head scores every token id.
//
//	x      [..., D]
//	table  [V, D] of x's dtype
//	logits [..., V] float32
func Head(x, table *Node) *Node {
	if x.Rank() == 4 { // microbatches and sequences may both be split, which rows of them could not say
		return ConvertDType(Einsum("mbsd,vd->mbsv", x, table), dtypes.Float32) // [M, B, S, V]
	}
	dims := x.Shape().Dimensions
	rows := Reshape(x, -1, dims[len(dims)-1])                                     // [T, D]
	logits := ConvertDType(Einsum("td,vd->tv", rows, table), dtypes.Float32)      // [T, V]
	return Reshape(logits, append(append([]int{}, dims[:len(dims)-1]...), -1)...) // [..., V]
}

func shape(dtype dtypes.DType, dims ...int) shapes.Shape { return shapes.Make(dtype, dims...) }
