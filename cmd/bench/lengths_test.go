package main

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLengths(t *testing.T) {
	for _, tt := range []struct {
		text     string
		low, top int
		mean     float64
		near     float64 // four standard errors of the mean of the draws
	}{
		{"128", 128, 128, 128, 0},
		{"16-48", 16, 48, 32, 0.38},
		{"normal:100,10", 1, 200, 100, 0.4},
		{"normal:7,0", 7, 7, 7, 0},
		{"exp:200", 1, 10_000, 200, 8},
	} {
		var l lengths
		require.NoError(t, l.UnmarshalText([]byte(tt.text)))
		require.Equal(t, tt.text, l.String())
		r := rand.New(rand.NewPCG(1, 2))
		sum := 0
		const n = 10_000
		for range n {
			x := l.draw(r)
			require.GreaterOrEqual(t, x, tt.low)
			require.LessOrEqual(t, x, tt.top)
			sum += x
		}
		require.InDelta(t, tt.mean, float64(sum)/n, tt.near, tt.text)
	}
	for _, text := range []string{"", "0", "-3", "1.5", "5-2", "1-2-3", "normal:5", "normal:5,-1", "exp:0", "exp:NaN", "exp:Inf", "uniform:1,2", "fixed:3", "zipf:3", "99999999999"} {
		require.Error(t, new(lengths).UnmarshalText([]byte(text)), text)
	}
}
