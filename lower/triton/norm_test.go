package triton_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/triton"
	"mix/lower/triton/interp"
)

// rounded is x as elements of e hold it.
func rounded(e triton.Elem, x float64) float64 {
	return float64(interp.Floats(e, []float32{float32(x)}, 1).Floats[0])
}

// normReference gives sum, y and logits. Types round where a layer of the model does.
func normReference(n triton.Norm, x, parts, weights, scale, router *interp.Array) (sum, y, logits []float64) {
	for t := range n.Tokens {
		row := make([]float64, n.Width)
		square := 0.0
		for d := range row {
			row[d] = float64(x.Floats[t*n.Width+d])
			beside := 0.0
			for i := range n.Choices {
				r, v := t*n.Choices+i, 0.0
				for s := range n.Splits {
					v += float64(parts.Floats[(s*n.Tokens*n.Choices+r)*n.Width+d])
				}
				if n.Weighted {
					v *= float64(weights.Floats[r])
				}
				beside += v
			}
			if n.Choices > 0 {
				row[d] = rounded(n.Elem, row[d]+rounded(n.Elem, beside))
			}
			square += row[d] * row[d]
		}
		sum = append(sum, row...)
		root := math.Sqrt(square/float64(n.Width) + n.Eps)
		for d := range row {
			row[d] = rounded(n.Elem, rounded(n.Elem, row[d]/root)*float64(scale.Floats[d]))
		}
		y = append(y, row...)
		for e := range n.Experts {
			logit := 0.0
			for d := range row {
				logit += row[d] * float64(router.Floats[e*n.Width+d])
			}
			logits = append(logits, logit)
		}
	}
	return sum, y, logits
}

func TestNormAddsNormsAndRoutes(t *testing.T) {
	r := rand.New(rand.NewPCG(12, 13))
	for _, n := range []triton.Norm{
		{Tokens: 1, Width: 64},
		{Tokens: 3, Width: 100, Experts: 5},
		{Tokens: 2, Width: 300, Choices: 1, Splits: 1, Parts: triton.BF16},
		{Tokens: 3, Width: 64, Choices: 1, Splits: 2, Parts: triton.F32, Experts: 8},
		{Tokens: 3, Width: 40, Choices: 2, Splits: 3, Weighted: true, Parts: triton.F32},
		{Tokens: 1, Width: 8192, Choices: 2, Splits: 1, Weighted: true, Parts: triton.F32, Experts: 6},
	} {
		for _, e := range []triton.Elem{triton.F32, triton.BF16, triton.F16} {
			n.Elem, n.Eps = e, 1e-5
			t.Run(fmt.Sprintf("%+v", n), func(t *testing.T) {
				x, scale := random(r, e, n.Tokens, n.Width), random(r, e, n.Width)
				operands := []*interp.Array{x}
				var parts, weights, router *interp.Array
				if n.Choices > 0 {
					dims := []int{n.Splits, n.Tokens * n.Choices, n.Width}
					if n.Splits == 1 {
						dims = dims[1:]
					}
					parts = random(r, n.Parts, dims...)
					operands = append(operands, parts)
				}
				if n.Weighted {
					weights = random(r, triton.F32, n.Tokens, n.Choices)
					operands = append(operands, weights)
				}
				operands = append(operands, scale)
				if n.Experts > 0 {
					router = random(r, triton.F32, n.Experts, n.Width)
					operands = append(operands, router)
				}
				c, err := n.Call()
				out := run(t, c, err, operands...)
				sum, y, logits := normReference(n, x, parts, weights, scale, router)
				// Where a sum lies between two values of a type, its last bit decides which of them it becomes.
				within := 2 * tolerance(e)
				if n.Choices > 0 {
					near(t, sum, out[0], within)
					out = out[1:]
				}
				near(t, y, out[0], within)
				if n.Experts > 0 {
					near(t, logits, out[1], within)
				}
			})
		}
	}
}

// TestNormRoutesASingleToken holds it to the norm and Route after each other.
func TestNormRoutesASingleToken(t *testing.T) {
	r := rand.New(rand.NewPCG(18, 19))
	for _, experts := range []int{2, 5, 8, 20} {
		route := triton.Route{Tokens: 1, Experts: experts, Choices: min(experts, 3), Block: 16}
		n := triton.Norm{Tokens: 1, Width: 8192, Eps: 1e-5, Elem: triton.BF16, Experts: experts}
		for _, same := range []bool{false, true} {
			in := []*interp.Array{random(r, triton.BF16, 1, n.Width), random(r, triton.BF16, n.Width), random(r, triton.F32, experts, n.Width)}
			if same { // all logits are equal
				clear(in[2].Floats)
			}
			c, err := n.Call()
			apart := run(t, c, err, in...)
			c, err = route.Call()
			want := append(apart, run(t, c, err, apart[1])...)
			one := n
			one.Route = &route
			c, err = one.Call()
			got := run(t, c, err, in...)
			require.Len(t, got, len(want))
			for i := range got {
				require.Equal(t, want[i].Floats, got[i].Floats, c.Results[i].Name)
				require.Equal(t, want[i].Ints, got[i].Ints, c.Results[i].Name)
			}
		}
	}
}
