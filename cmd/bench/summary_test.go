package main

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"mix/cmd/chat/openai"
)

func TestLatencyCountsFromWhenItWasDue(t *testing.T) {
	ms := time.Millisecond
	r := summarize([]record{
		{due: 0, sent: 30 * ms, chunks: []time.Duration{100 * ms, 110 * ms, 130 * ms}, end: 140 * ms, answer: 5, prompt: 7, byUsed: true},
		{due: 100 * ms, sent: 100 * ms, chunks: []time.Duration{200 * ms}, end: 300 * ms, answer: 1},
		{due: 150 * ms, sent: 150 * ms, end: 500 * ms, err: errors.New("x"), chunks: []time.Duration{160 * ms}, answer: 1},
	})
	near := func(want float64, got float64) { t.Helper(); require.InDelta(t, want, got, 1e-12) }
	near(0.1, r.First.Mean)
	require.Equal(t, 2, r.First.Count, "failed requests have no latency")
	near(0.015, r.Gap.Mean)
	near(0.03/4, r.Token.Mean)
	require.Equal(t, 1, r.Token.Count)
	near(0.17, r.Whole.Mean)
	near(0.03, r.Lag.Max)
	near(0.5, r.Seconds)
	near(4, r.RequestRate)
	near(14, r.InputRate)
	near(12, r.OutputRate)
	require.Equal(t, "both", r.CountedBy)
	require.Equal(t, 2, r.InFlight)
	require.Equal(t, []failure{{"connection lost", 1, "x"}}, r.Errors)
}

func TestPercentile(t *testing.T) {
	x := []float64{1, 2, 3, 4, 5}
	for p, want := range map[float64]float64{0: 1, 0.5: 3, 0.9: 4.6, 0.99: 4.96, 1: 5} {
		require.InDelta(t, want, percentile(x, p), 1e-12)
	}
	require.Equal(t, 7., percentile([]float64{7}, 0.99))
}

func TestArrivalsArePoisson(t *testing.T) {
	s := serve(t)
	s.Close() // when requests are due does not depend on their answers
	d := &driver{client: &openai.Client{Base: s.URL}, source: &words{each: 1}, timeout: time.Minute, progress: &progress{}}
	const n, rate = 400, 4000
	records, err := d.open(context.Background(), rate, n, 0, 1)
	require.NoError(t, err)
	require.Len(t, records, n)
	slices.SortFunc(records, func(a, b record) int { return int(a.due - b.due) })
	var sum, squares, last float64
	for _, r := range records {
		gap := (r.due.Seconds() - last) * rate
		sum, squares, last = sum+gap, squares+gap*gap, r.due.Seconds()
	}
	mean := sum / n
	require.InDelta(t, 1, mean, 4/math.Sqrt(n), "four standard errors")
	require.InDelta(t, 1, math.Sqrt(squares/n-mean*mean)/mean, 0.2, "gaps are exponential: they spread as much as their mean")
}
