package serve

import (
	"slices"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/serve/infer"
)

// BenchmarkSpeculate has a text go on that repeats, alone and with seven others like it, in 16 rows. ahead is the share
// of the tokens that were guessed, wrong the number of wrong guesses for each token.
func BenchmarkSpeculate(b *testing.B) {
	e := demoEngine(b, dtypes.Float32)
	for _, tt := range []struct {
		name        string
		most, users int
	}{
		{"alone/0", 0, 1}, {"alone/4", 4, 1}, {"alone/8", 8, 1}, {"alone/15", 15, 1},
		{"eight/0", 0, 8}, {"eight/4", 4, 8}, {"eight/8", 8, 8},
	} {
		b.Run(tt.name, func(b *testing.B) {
			x := batcher(b, e, BatchOptions{Slots: 16, Chunk: 64, Block: 16, Speculate: tt.most})
			r := repeating(b, x)
			r.Max, r.LogProbs, r.Experts = 100, -1, false
			before, tokens := x.Stats(), 0
			var best time.Duration
			for b.Loop() {
				began := time.Now()
				requests := slices.Repeat([]infer.Request{r}, tt.users)
				for _, a := range atOnce(b, x, requests) {
					require.Len(b, a.tokens, r.Max)
					tokens += len(a.tokens)
				}
				if took := time.Since(began); best == 0 || took < best {
					best = took
				}
			}
			s := x.Stats()
			accepted := s.Accepted - before.Accepted
			b.ReportMetric(float64(r.Max*tt.users)/best.Seconds(), "tokens/s")
			b.ReportMetric(float64(accepted)/float64(tokens), "ahead")
			b.ReportMetric(float64(s.Proposed-before.Proposed-accepted)/float64(tokens), "wrong")
		})
	}
}
