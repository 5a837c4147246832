package triton_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/triton"
	"mix/lower/triton/interp"
)

// TestLinearMultipliesByEachMatrix adds up what splits leave, and knows where one matrix ends and the next begins.
func TestLinearMultipliesByEachMatrix(t *testing.T) {
	r := rand.New(rand.NewPCG(10, 11))
	for _, tokens := range []int{1, 2, 16, 21} {
		for _, w := range widths {
			for _, split := range []int{1, 2, 3} {
				t.Run(fmt.Sprintf("%d rows/%s/%d splits", tokens, w.name, split), func(t *testing.T) {
					l := triton.Linear{Tokens: tokens, Width: w.width, Outs: []int{w.hidden, 8, 17}, Elem: w.elem, Y: w.elem}
					tile := small
					tile.Split = split
					in := []*interp.Array{random(r, w.elem, tokens, w.width)}
					for _, n := range l.Outs {
						in = append(in, random(r, w.elem, n, w.width))
					}
					c, err := l.Call(tile)
					out := run(t, c, err, in...)
					for i, n := range l.Outs {
						var want []float64
						for row := range tokens {
							for j := range n {
								want = append(want, dot(in[0], row, in[1+i], j, w.width))
							}
						}
						if split == 1 {
							near(t, want, out[i], tolerance(w.elem))
							continue
						}
						require.Equal(t, []int{split, tokens, n}, c.Results[i].Dims)
						sum := interp.Floats(triton.F32, make([]float32, tokens*n), tokens, n)
						for j, v := range out[i].Floats {
							sum.Floats[j%(tokens*n)] += v
						}
						near(t, want, sum, tolerance(triton.F32))
					}
				})
			}
		}
	}
}

func TestFitSplitsUntilTheChipIsFull(t *testing.T) {
	few := triton.Tile{M: 16, N: 32, K: 128, Group: 1, Split: 8, Warps: 4, Stages: 4}
	many := triton.Tile{M: 64, N: 64, K: 128, Group: 1, Split: 4, Warps: 4, Stages: 3}
	for _, tt := range []struct {
		outs []int
		tile triton.Tile
		want int
	}{
		{[]int{4096, 1024, 1024}, few, 2},
		{[]int{4096}, few, 2},
		{[]int{1024}, few, 8},
		{[]int{256}, few, 8},
		{[]int{32000}, few, 1},
		{[]int{4096, 1024, 1024}, many, 2},
		{[]int{32000}, many, 1},
	} {
		fit := triton.Linear{Tokens: 1, Width: 4096, Outs: tt.outs}.Fit(tt.tile)
		require.Equal(t, tt.want, fit.Split, "%v", tt.outs)
		fit.Split = tt.tile.Split
		require.Equal(t, tt.tile, fit)
	}
}
