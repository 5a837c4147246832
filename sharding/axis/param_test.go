package axis

import (
	"math"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"
)

var gate = Param{Path: "layers/moe/gate", Axes: []Logical{Layers, Experts, FFN, Embed}, Dims: []int{4, 8, 5, 3}}

func TestSliceTakesLeadingIndices(t *testing.T) {
	tests := []struct {
		leading []int
		want    Piece
	}{
		{nil, Piece{"layers/moe/gate", gate.Path, []int{0, 0, 0, 0}, []int{4, 8, 5, 3}, []int{4, 8, 5, 3}, dtypes.BFloat16}},
		{[]int{3}, Piece{"layers/moe/gate[3]", gate.Path, []int{3, 0, 0, 0}, []int{1, 8, 5, 3}, []int{8, 5, 3}, dtypes.BFloat16}},
		{[]int{3, 7}, Piece{"layers/moe/gate[3,7]", gate.Path, []int{3, 7, 0, 0}, []int{1, 1, 5, 3}, []int{5, 3}, dtypes.BFloat16}},
	}
	for _, tt := range tests {
		q := Slice(gate, dtypes.BFloat16, tt.leading...)
		require.Equal(t, tt.want, q)
		require.NoError(t, q.Check(gate))
		require.Equal(t, 2*q.Elements(), q.Bytes())
	}
	require.Equal(t, 480, gate.Elements())
	require.Equal(t, 15, Slice(gate, dtypes.Float32, 0, 0).Elements())
}

func TestPiecesShareNothingWithTheirParam(t *testing.T) {
	q := Whole(gate, dtypes.Float32)
	q.Size[0], q.Shape[0], q.Offset[0] = 1, 1, 1
	require.Equal(t, []int{4, 8, 5, 3}, gate.Dims)
	require.Equal(t, 4, Whole(gate, dtypes.Float32).Shape[0])
}

func TestCheckRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(q *Piece)
		want   string
	}{
		{"another weight", func(q *Piece) { q.Path = "head" }, `of "head", want rank 4 of "layers/moe/gate"`},
		{"too few offsets", func(q *Piece) { q.Offset = q.Offset[1:] }, "rank 3"},
		{"too few sizes", func(q *Piece) { q.Size = q.Size[1:] }, "want rank 4"},
		{"a negative offset", func(q *Piece) { q.Offset[1] = -1 }, `axis "experts" [-1, 7) outside of [0, 8)`},
		{"an empty box", func(q *Piece) { q.Size[2] = 0 }, `axis "ffn" [0, 0) outside of [0, 5)`},
		{"a box past the end", func(q *Piece) { q.Offset[3] = 1 }, `axis "embed" [1, 4) outside of [0, 3)`},
		{"an end past the largest number", func(q *Piece) { q.Offset[3] = math.MaxInt }, `axis "embed"`},
		{"a shape of other size", func(q *Piece) { q.Shape = []int{4, 8, 5} }, "shape [4 8 5] does not hold the 480 elements"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := Whole(gate, dtypes.Float32)
			tt.change(&q)
			require.ErrorContains(t, q.Check(gate), tt.want)
		})
	}
	merged := Whole(gate, dtypes.Float32)
	merged.Shape = []int{32, 15}
	require.NoError(t, merged.Check(gate))
}
