package triton_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/triton"
	"mix/lower/triton/interp"
)

// TestHeadsRotateAndFillThePool also has a place outside of the pool, and finds the rest of the pool as it was.
func TestHeadsRotateAndFillThePool(t *testing.T) {
	r := rand.New(rand.NewPCG(14, 15))
	for _, h := range []triton.Heads{
		{Tokens: 1, Width: 16, Heads: 4, KeyHeads: 2, Positions: 9, Splits: 2, Sums: triton.F32, Elem: triton.BF16},
		{Tokens: 3, Width: 24, Heads: 20, KeyHeads: 10, Positions: 7, Splits: 1, Sums: triton.F32, Elem: triton.F32},
		{Tokens: 4, Width: 8, Heads: 3, KeyHeads: 1, Positions: 6, Splits: 1, Sums: triton.F16, Elem: triton.F16},
		{Tokens: 2, Width: 128, Heads: 32, KeyHeads: 8, Positions: 5, Splits: 3, Sums: triton.F32, Elem: triton.BF16},
	} {
		t.Run(fmt.Sprintf("%+v", h), func(t *testing.T) {
			counts := []int{h.Heads, h.KeyHeads, h.KeyHeads}
			var in []*interp.Array
			for _, n := range counts {
				dims := []int{h.Splits, h.Tokens, n * h.Width}
				if h.Splits == 1 {
					dims = dims[1:]
				}
				in = append(in, random(r, h.Sums, dims...))
			}
			half := h.Width / 2
			cos, sin := random(r, triton.F32, h.Tokens, half), random(r, triton.F32, h.Tokens, half)
			at := []int64{4, 1, int64(h.Positions), 0}[:h.Tokens]
			pools := []*interp.Array{random(r, h.Elem, h.Positions, h.KeyHeads, h.Width), random(r, h.Elem, h.Positions, h.KeyHeads, h.Width)}
			want := [][]float32{make([]float32, h.Tokens*h.Heads*h.Width), slices.Clone(pools[0].Floats), slices.Clone(pools[1].Floats)}
			for i, n := range counts {
				for token := range h.Tokens {
					row := int64(token)
					if i > 0 {
						row = at[token]
					}
					if i > 0 && row >= int64(h.Positions) {
						continue
					}
					for head := range n {
						read := func(d int) float64 {
							sum := 0.0
							for s := range h.Splits {
								sum += float64(in[i].Floats[((s*h.Tokens+token)*n+head)*h.Width+d])
							}
							return rounded(h.Elem, sum)
						}
						for d := range half {
							a, b := read(d), read(d+half)
							if i < 2 {
								c, s := rounded(h.Elem, float64(cos.Floats[token*half+d])), rounded(h.Elem, float64(sin.Floats[token*half+d]))
								mul := func(x, y float64) float64 { return rounded(h.Elem, x*y) }
								a, b = rounded(h.Elem, mul(a, c)-mul(b, s)), rounded(h.Elem, mul(b, c)+mul(a, s))
							}
							to := (int(row)*n+head)*h.Width + d
							want[i][to], want[i][to+half] = float32(a), float32(b)
						}
					}
				}
			}
			c, err := h.Call()
			out := run(t, c, err, append(append(in, cos, sin, i32(at)), pools...)...)
			require.Equal(t, [][2]int{{1, 6}, {2, 7}}, c.InPlace)
			for i := range out {
				for j, w := range want[i] {
					// A sum of partial sums may round the other way than in float64.
					require.LessOrEqual(t, math.Abs(float64(out[i].Floats[j]-w)), 2*tolerance(h.Elem)*(1+math.Abs(float64(w))), "%s[%d]", c.Results[i].Name, j)
				}
			}
		})
	}
}
