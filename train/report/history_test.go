package report

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCurveBinsAreThoseOfAllSteps(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, steps := range []int{1, 999, 1000, 1001, 1003, 4000, 8001, 50001} {
		var c curve
		values := make([]float64, steps)
		for i := range values {
			values[i] = float64(rng.IntN(1000)) // sums are exact in any order
			if rng.IntN(10) == 0 {
				values[i] = math.NaN()
			}
			c.add(i+1, values[i])
		}
		require.LessOrEqual(t, len(c.sum), maxPoints)
		require.Equal(t, (steps+c.width-1)/c.width, len(c.sum))
		if steps > maxPoints {
			require.Greater(t, len(c.sum), maxPoints/2)
		}
		for i := range c.sum {
			n, sum, lo, hi := int32(0), 0.0, math.Inf(1), math.Inf(-1)
			for _, v := range values[i*c.width : min((i+1)*c.width, steps)] {
				if !math.IsNaN(v) {
					n, sum, lo, hi = n+1, sum+v, min(lo, v), max(hi, v)
				}
			}
			require.Equal(t, []any{n, sum, lo, hi}, []any{c.count[i], c.sum[i], c.min[i], c.max[i]}, "%d steps, bin %d", steps, i)
		}
	}
}

func TestHeatColumnsAreMeansOfTheirSteps(t *testing.T) {
	var h heat
	for step := 1; step <= 1000; step++ {
		share := float64(step%8) / 8
		h.add(step, [][]float64{{share, 1 - share}})
	}
	h.add(1001, [][]float64{{1, 0, 0}}) // another size is left out
	require.Equal(t, 8, h.width)
	require.Len(t, h.count, 125)
	d := load(h)
	require.Equal(t, loadData{Experts: 2, Width: 8, Columns: 125, Layers: d.Layers}, d)
	// Eight steps in a row have the mean 7/16: 1792 of 4095, digits 28 and 0.
	require.Equal(t, "cAcAcA", d.Layers[0][:6])
	require.Len(t, d.Layers[0], 2*2*125)
}

func TestHeatShowsStepsThatNobodySaw(t *testing.T) {
	var h heat
	h.add(3, [][]float64{{1, 0}})
	require.Equal(t, []string{"....__....AA"}, load(h).Layers)
}

func TestEvaluationsStayBoundedWithBestAndLast(t *testing.T) {
	h := &history{}
	for step := 1; step <= 5000; step++ {
		loss := 2.0
		if step == 1234 {
			loss = 1
		}
		h.eval(Eval{Step: step, Loss: loss, Samples: []Sample{{"p", "t"}}})
		require.LessOrEqual(t, len(h.evals), maxEvals)
		require.Equal(t, step, h.evals[len(h.evals)-1].Step)
	}
	require.Equal(t, 1234, h.evals[h.lowest()].Step)
	shown, hidden := samples(h)
	require.LessOrEqual(t, len(shown), maxSampled)
	require.Equal(t, len(h.evals), len(shown)+hidden)
	require.Equal(t, 5000, shown[0].Step)
	require.True(t, shown[0].Open)
	var best []int
	for _, e := range shown {
		if e.Best {
			best = append(best, e.Step)
		}
	}
	require.Equal(t, []int{1234}, best)
}

func TestSkippedUpdatesAreCountedInTheirBins(t *testing.T) {
	h := &history{}
	for step := 1; step <= 20000; step++ {
		h.step(Step{Step: step, Good: step%2 == 0})
	}
	d := charts(h)
	require.Equal(t, 32, d.Width)
	require.Len(t, d.Skipped, 625)
	require.Equal(t, [2]int{0, 16}, d.Skipped[0])
	require.LessOrEqual(t, len(h.skips), 4*maxPoints)
}

func TestBalance(t *testing.T) {
	require.Equal(t, 1.0, balance([]float64{0.25, 0.25, 0.25, 0.25}))
	require.Equal(t, 2.0, balance([]float64{0.5, 0.25, 0.125, 0.125}))
	require.Equal(t, 1.5, meanBalance([][]float64{{0.5, 0.5}, {1, 0}}))
	require.True(t, math.IsNaN(meanBalance(nil)))
	require.True(t, math.IsNaN(balance(nil)))
}

func TestPace(t *testing.T) {
	var p pace
	require.Negative(t, p.left(10))
	p.step(1, 100) // compiles
	require.Equal(t, 1000.0, p.left(10).Seconds())
	for step := 2; step <= 51; step += 7 { // not every step is told of
		p.step(step, 2)
	}
	p.step(51, math.NaN())
	require.InDelta(t, 20, p.left(10).Seconds(), 1e-6)
	p.pause(51)
	require.InDelta(t, 30, p.left(10).Seconds(), 1e-6)
	for seconds, want := range map[float64]string{0.84: "0.8s", 9.96: "10s", 59.6: "1m00s", 750: "12m30s", 3599.7: "1h00m", 11100: "3h05m", 187200: "2d04h", -1: "–"} {
		require.Equal(t, want, span(seconds))
	}
}
