package train

import (
	"testing"

	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/lower"
)

// demo is the shape of the demo model.
var demo = graph.Config{Vocab: 2048, Width: 160, Hidden: 320, Layers: 4, Heads: 8, KVHeads: 2, HeadDim: 32, Experts: 8, TopK: 2,
	Context: 256, RopeTheta: 1e4, NormEps: 1e-5, AuxCoef: 0.02, InitStd: 0.02, DType: "float32"}

// BenchmarkStep times the training step of a model of the demo's size, a batch of 4 sequences of 256 tokens:
// as it is, with the layers recomputed, and without the rules for grouped products, whose bodies run every
// expert on every row.
func BenchmarkStep(b *testing.B) {
	for _, x := range []struct {
		name  string
		again Recompute
		skip  []string
	}{{"kept", RecomputeNone, nil}, {"recomputed", RecomputeFull, nil}, {"bodies", RecomputeFull, []string{"grouped_gemm"}}} {
		b.Run(x.name, func(b *testing.B) {
			be, err := lower.New(b.Context(), lower.Options{Platform: "cpu", Skip: x.skip})
			require.NoError(b, err)
			defer be.Finalize()
			const batch, length = 4, 256
			o := options(demo, 1, batch, length)
			o.Recompute = x.again
			s := newBench(b, be, modelOf(b, o), Fresh(demo, 1))
			defer s.dev.free()
			ids := make([]int32, batch*length)
			for i := range ids {
				ids[i] = int32(i * i % 2048)
			}
			t := text(ids, length)
			s.step(b, t, 1e-3)
			for b.Loop() {
				s.step(b, t, 1e-3)
			}
			b.ReportMetric(float64(len(ids)*b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}
