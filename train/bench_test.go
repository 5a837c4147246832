package train

import (
	"context"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/lower"
)

// BenchmarkStep times the training step of a model of the demo's size, a batch of 4 sequences of 256 tokens,
// and beside it the same step without the rules for grouped products, whose bodies run every expert on every
// row.
func BenchmarkStep(b *testing.B) {
	for name, skip := range map[string][]string{"rules": nil, "bodies": {"grouped_gemm"}} {
		b.Run(name, func(b *testing.B) {
			be, err := lower.New(context.Background(), lower.Options{Platform: "cpu", Skip: skip})
			require.NoError(b, err)
			defer be.Finalize()
			cfg := graph.Config{Vocab: 2048, Width: 160, Hidden: 320, Layers: 4, Heads: 8, KVHeads: 2, HeadDim: 32, Experts: 8, TopK: 2,
				Context: 256, RopeTheta: 1e4, NormEps: 1e-5, AuxCoef: 0.02, InitStd: 0.02, DType: "float32"}
			r := &run{cfg: cfg, be: be, a: AdamW{Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, WeightDecay: 0.1, Clip: 1},
				pieces: graph.Pieces(cfg, graph.Stacked, dtypes.Float32)}
			for i := range 3 {
				for _, q := range r.pieces {
					values := make([]float32, q.Elements())
					if i == 0 {
						require.NoError(b, graph.Init(cfg, q, 1, values))
					}
					buffer, err := be.Upload(shapes.Make(dtypes.Float32, q.Shape...), values)
					require.NoError(b, err)
					r.state = append(r.state, buffer)
				}
			}
			const batch, length = 4, 256
			ids := make([]int32, batch*length)
			for i := range ids {
				ids[i] = int32(i * i % 2048)
			}
			r.step(b, ids, []int{batch, length}, 1e-3) // compiles
			for b.Loop() {
				r.step(b, ids, []int{batch, length}, 1e-3)
			}
			b.ReportMetric(float64(len(ids)*b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}
