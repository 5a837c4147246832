package graph_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/internal/purego"
	"mix/internal/ref"
)

// request is how one sequence is sampled.
type request struct {
	logits      []float32
	temperature float32
	topK        int32
	topP, minP  float32
	seed        uint64
	step        int32
}

// sample draws once for each request, all in one batch.
func sample(t testing.TB, rs []request) []int32 {
	t.Helper()
	var logits, temperature, topP, minP []float32
	var topK, step []int32
	var seed []uint32
	for _, r := range rs {
		logits, temperature, topP, minP = append(logits, r.logits...), append(temperature, r.temperature), append(topP, r.topP), append(minP, r.minP)
		topK, step, seed = append(topK, r.topK), append(step, r.step), append(seed, uint32(r.seed), uint32(r.seed>>32))
	}
	n := len(rs)
	args := []any{purego.Tensor(logits, n, len(rs[0].logits)), purego.Tensor(temperature, n), purego.Tensor(topK, n), purego.Tensor(topP, n), purego.Tensor(minP, n), purego.Tensor(seed, n, 2), purego.Tensor(step, n)}
	out := purego.Eval(t, args, func(in []*gx.Node) []*gx.Node {
		return []*gx.Node{graph.Sample(in[0], graph.Sampling{Temperature: in[1], TopK: in[2], TopP: in[3], MinP: in[4], Seed: in[5], Step: in[6]})}
	})
	drawn := purego.Flat[int32](t, out[0])
	if slices.ContainsFunc(rs, func(r request) bool { return r.topK != 0 || r.topP != 1 }) {
		return drawn
	}
	out = purego.Eval(t, args, func(in []*gx.Node) []*gx.Node {
		return []*gx.Node{graph.Sample(in[0], graph.Sampling{Temperature: in[1], MinP: in[4], Seed: in[5], Step: in[6]})}
	})
	require.Equal(t, drawn, purego.Flat[int32](t, out[0]), "a program without ranks draws the same")
	return drawn
}

// draws samples a request n times, at steps from 0 on.
func draws(t testing.TB, r request, n int) []int32 {
	rs := make([]request, n)
	for i := range rs {
		rs[i] = r
		rs[i].step = int32(i)
	}
	return sample(t, rs)
}

func TestGreedyTiesGoToTheLowerID(t *testing.T) {
	x := []float32{0, 3, 1, 3, 2, 2, 2, 2, -1, -1, -5, -1}
	out := purego.Eval(t, []any{purego.Tensor(x, 3, 4)}, func(in []*gx.Node) []*gx.Node { return []*gx.Node{graph.Greedy(in[0])} })
	require.Equal(t, []int32{1, 0, 0}, purego.Flat[int32](t, out[0]))

	rs := make([]request, 3)
	for i := range rs {
		rs[i] = request{logits: x[4*i : 4*i+4], topK: 3, topP: 0.9, minP: 0.1, seed: 5, step: int32(i)}
	}
	require.Equal(t, []int32{1, 0, 0}, sample(t, rs), "temperature 0 takes the best")
}

// TestSampleKeepsTheRightTokens draws often: what comes out is in the set that the documented order of the
// filters keeps, and all of the set comes out.
func TestSampleKeepsTheRightTokens(t *testing.T) {
	const vocab, often = 9, 800
	r := rand.New(rand.NewPCG(1, 1))
	tests := []struct {
		name        string
		temperature float32
		topK        int32
		topP, minP  float32
	}{
		{"no filter", 2, 0, 1, 0},
		{"top-k", 2, 3, 1, 0},
		{"top-k of one", 2, 1, 1, 0},
		{"top-k above the vocabulary", 2, 100, 1, 0},
		{"top-p", 2, 0, 0.7, 0},
		{"a tiny top-p", 2, 0, 1e-6, 0},
		{"min-p", 2, 0, 1, 0.4},
		{"min-p near one", 2, 0, 1, 0.999},
		{"top-k, then top-p", 2, 5, 0.6, 0},
		{"top-p, then min-p", 2, 0, 0.8, 0.5},
		{"all three", 1.5, 6, 0.85, 0.3},
		{"a low temperature before top-p", 0.7, 0, 0.9, 0},
		{"a low temperature before min-p", 0.7, 0, 1, 0.1},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x := make([]float32, vocab)
			for j := range x {
				x[j] = float32(r.NormFloat64() * 1.2)
			}
			if i%2 == 0 {
				x[2], x[6] = x[4], x[4] // ties
			}
			want, p := ref.Kept(ref.Vec(x), float64(tt.temperature), int(tt.topK), float64(tt.topP), float64(tt.minP))
			require.Greater(t, often*slices.Min(p), 8.0, "the test draws too few to see every token")
			seen := map[int]bool{}
			for _, id := range draws(t, request{x, tt.temperature, tt.topK, tt.topP, tt.minP, uint64(i), 0}, often) {
				seen[int(id)] = true
			}
			var got []int
			for id := range seen {
				got = append(got, id)
			}
			slices.Sort(got)
			slices.Sort(want)
			require.Equal(t, want, got)
		})
	}
}

// TestSampleDistribution is Pearson's test of 4000 draws. Seeds are fixed, so it always says the same; the
// bound is the 99.9% quantile of chi-square.
func TestSampleDistribution(t *testing.T) {
	const n = 4000
	x := []float32{0.3, -1, 1.2, 0, 0.3, -0.5}
	tests := []struct {
		name        string
		temperature float32
		topK        int32
		topP, minP  float32
		bound       float64 // for one degree of freedom fewer than kept tokens
	}{
		{"plain", 1, 0, 1, 0, 20.52},
		{"hot", 5, 0, 1, 0, 20.52},
		{"cold", 0.6, 0, 1, 0, 20.52},
		{"of the best four", 1, 4, 1, 0, 16.27},
		{"of a nucleus", 1, 0, 0.6, 0, 13.82},
		{"of those near the best", 1, 0, 1, 0.35, 13.82},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, seed := range []uint64{0, 1, 1 << 40} {
				ids, p := ref.Kept(ref.Vec(x), float64(tt.temperature), int(tt.topK), float64(tt.topP), float64(tt.minP))
				require.Equal(t, tt.bound, map[int]float64{3: 13.82, 4: 16.27, 6: 20.52}[len(ids)], "%d kept", len(ids))
				counts := map[int]float64{}
				for _, id := range draws(t, request{x, tt.temperature, tt.topK, tt.topP, tt.minP, seed, 0}, n) {
					counts[int(id)]++
				}
				var chi float64
				for i, id := range ids {
					d := counts[id] - n*p[i]
					chi += d * d / (n * p[i])
				}
				require.Less(t, chi, tt.bound, "seed %d: %v", seed, counts)
			}
		})
	}
}

// TestSampleDependsOnItsOwnRequestAlone puts one request among others, in any row.
func TestSampleDependsOnItsOwnRequestAlone(t *testing.T) {
	of := func(i int) request {
		return request{normals(uint64(i), 20), 1.3, int32(i % 4 * 3), 0.95, 0.01, uint64(i) << 20, int32(i)}
	}
	const n = 12
	var together []request
	for i := range n {
		together = append(together, of(i))
	}
	want := sample(t, together)
	slices.Reverse(together)
	reversed := sample(t, together)
	slices.Reverse(reversed)
	require.Equal(t, want, reversed)
	for i := range n {
		require.Equal(t, want[i:i+1], sample(t, []request{of(i)}), "request %d alone", i)
	}
}

// TestSeedsAndStepsDiffer draws of equal logits: other seeds or steps give other draws, and neighbouring
// ones are not alike.
func TestSeedsAndStepsDiffer(t *testing.T) {
	const n, vocab = 400, 16
	same := func(a, b func(i int) request) (count int) {
		rs := make([]request, 2*n)
		for i := range n {
			rs[2*i], rs[2*i+1] = a(i), b(i)
		}
		ids := sample(t, rs)
		for i := range n {
			if ids[2*i] == ids[2*i+1] {
				count++
			}
		}
		return count
	}
	at := func(seed, step func(i int) int) func(i int) request {
		return func(i int) request {
			return request{logits: make([]float32, vocab), temperature: 1, topP: 1, seed: uint64(seed(i)), step: int32(step(i))}
		}
	}
	i, next, high, fixed := func(i int) int { return i }, func(i int) int { return i + 1 }, func(i int) int { return i + 1<<32 }, func(int) int { return 3 }
	wanted, spread := float64(n)/vocab, 5*math.Sqrt(float64(n)/vocab)
	for _, tt := range []struct {
		name string
		b    func(i int) request
	}{
		{"another step", at(fixed, next)},
		{"another seed", at(next, i)},
		{"another high word of the seed", at(high, i)},
		{"seed and step swapped", at(i, fixed)},
	} {
		require.InDelta(t, wanted, same(at(fixed, i), tt.b), spread, fmt.Sprintf("agreements with %s", tt.name))
	}
	require.Equal(t, n, same(at(i, next), at(i, next)))
}

// TestSampleOfExtremes holds logits that overflow a careless softmax, and tokens that are ruled out.
func TestSampleOfExtremes(t *testing.T) {
	inf := float32(math.Inf(-1))
	tests := []struct {
		name string
		r    request
		want []int32
	}{
		{"huge logits", request{logits: []float32{3e38, 1, -3e38}, temperature: 1, topP: 1}, []int32{0}},
		{"a tiny temperature", request{logits: []float32{1, 2, 1.5}, temperature: 1e-6, topP: 0.9}, []int32{1}},
		{"tokens ruled out", request{logits: []float32{inf, 1, inf}, temperature: 1, topP: 1}, []int32{1}},
		{"tokens ruled out at temperature zero", request{logits: []float32{inf, inf, 1}, topP: 1}, []int32{2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ids := draws(t, tt.r, 50)
			slices.Sort(ids)
			require.Equal(t, tt.want, slices.Compact(ids))
		})
	}
}
