package triton_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/triton"
	"mix/lower/triton/interp"
)

// small is a tile that cuts small shapes into several programs and steps.
var small = triton.Tile{M: 16, N: 16, K: 16, Group: 2, Split: 1, Warps: 4, Stages: 2}

// random is normal values of variance 2/n, n being the last axis, so that sums over it are of unit size.
func random(r *rand.Rand, e triton.Elem, dims ...int) *interp.Array {
	n := 1
	for _, d := range dims {
		n *= d
	}
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64() * math.Sqrt(2/float64(dims[len(dims)-1])))
	}
	return interp.Floats(e, v, dims...)
}

// routing is a choice of experts with what Permute makes of it, by plain counting.
type routing struct {
	tokens, experts, choices int
	chosen                   []int64 // [T, K]
	order, place             []int64
	sizes, offsets           []int64
}

func newRouting(experts, choices int, chosen []int64) routing {
	x := routing{tokens: len(chosen) / choices, experts: experts, choices: choices, chosen: chosen, sizes: make([]int64, experts), offsets: []int64{0}}
	x.place = make([]int64, len(chosen))
	for e := range experts {
		for r, c := range chosen {
			if int(c) == e {
				x.place[r] = int64(len(x.order))
				x.order = append(x.order, int64(r))
				x.sizes[e]++
			}
		}
		x.offsets = append(x.offsets, int64(len(x.order)))
	}
	return x
}

// blocks is the block map for blocks of m rows.
func (x routing) blocks(m int) []int64 {
	most := triton.Groups{Rows: len(x.chosen), Experts: x.experts}.Blocks(m)
	experts, first := []int64{}, []int64{}
	for e, n := range x.sizes {
		for at := int64(0); at < n; at += int64(m) {
			experts, first = append(experts, int64(e)), append(first, x.offsets[e]+at)
		}
	}
	for len(experts) < most {
		experts, first = append(experts, int64(x.experts)), append(first, 0)
	}
	return append(experts, first...)
}

func (x routing) groups() triton.Groups {
	return triton.Groups{Rows: len(x.chosen), Experts: x.experts}
}

// group is the expert of place p.
func (x routing) group(p int) int { return int(x.chosen[x.order[p]]) }

func i32(v []int64) *interp.Array { return interp.Ints(triton.I32, v) }

// operands are blocks and offsets, as kernels over groups end with.
func (x routing) operands(m int) []*interp.Array {
	return []*interp.Array{i32(x.blocks(m)), i32(x.offsets)}
}

// routings are the shapes that experts' rows come in.
func routings(r *rand.Rand) map[string]routing {
	return map[string]routing{
		"mixed":                      newRouting(4, 2, distinct(r, 37, 4, 2)),
		"everything in one expert":   newRouting(5, 1, slices.Repeat([]int64{3}, 33)),
		"one token":                  newRouting(8, 2, []int64{7, 2}),
		"one row, empty, full block": newRouting(4, 1, append(slices.Repeat([]int64{2}, 16), 0)),
		"two full experts of eight":  newRouting(8, 2, slices.Repeat([]int64{1, 6}, 16)),
	}
}

// distinct chooses k distinct experts for each of n tokens.
func distinct(r *rand.Rand, n, experts, k int) []int64 {
	var all []int64
	for range n {
		for _, e := range r.Perm(experts)[:k] {
			all = append(all, int64(e))
		}
	}
	return all
}

// near holds values to tolerance·(1 + |want|).
func near(t *testing.T, want []float64, got *interp.Array, tolerance float64) {
	t.Helper()
	require.Equal(t, len(want), len(got.Floats), got.Name)
	for i, w := range want {
		if g := float64(got.Floats[i]); math.IsNaN(g) || math.Abs(g-w) > tolerance*(1+math.Abs(w)) {
			t.Fatalf("%s[%d] is %v, wanted %v", got.Name, i, g, w)
		}
	}
}

// tolerance is what sums of products of unit size may differ by: accumulation in f32 and one rounding of the result.
func tolerance(e triton.Elem) float64 {
	switch e {
	case triton.BF16:
		return 1.0 / 256 // half a unit of 8 bits, and the sum's error
	case triton.F16:
		return 1.0 / 2048
	}
	return 1e-5
}

// dot multiplies row i of a and row j of b, both n wide.
func dot(a *interp.Array, i int, b *interp.Array, j, n int) (sum float64) {
	for k := range n {
		sum += float64(a.Floats[i*n+k]) * float64(b.Floats[j*n+k])
	}
	return sum
}

func silu(x float64) float64 { return x / (1 + math.Exp(-x)) }

func run(t *testing.T, c triton.Call, err error, operands ...*interp.Array) []*interp.Array {
	t.Helper()
	require.NoError(t, err)
	require.NoError(t, triton.Verify(c.Func))
	out, err := interp.Run(c, operands...)
	require.NoError(t, err)
	return out
}
