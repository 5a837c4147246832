package serve

import (
	"context"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/internal/demo"
	"mix/lower"
	"mix/sharding/ckpt"
)

// demoEngine is the embedded model on the CPU.
func demoEngine(b testing.TB, dtype dtypes.DType) *Engine {
	be, err := lower.New(b.Context(), lower.Options{Platform: "cpu", Verify: true})
	require.NoError(b, err)
	b.Cleanup(be.Finalize)
	cfg, err := graph.ParseConfig(demo.Config())
	require.NoError(b, err)
	ck, err := ckpt.OpenFS(demo.Files(), graph.Params(cfg), ckpt.Options{})
	require.NoError(b, err)
	defer ck.Close()
	e, err := New(context.Background(), be, cfg, ck, Options{DType: dtype})
	require.NoError(b, err)
	b.Cleanup(e.Close)
	return e
}

// BenchmarkDecode generates with the demo model, a token an iteration, and beside it runs the decode program
// alone, back to back with no word from the host. host-µs/token is the difference: what the engine adds.
func BenchmarkDecode(b *testing.B) {
	for name, dtype := range map[string]dtypes.DType{"f32": dtypes.Float32, "bf16": dtypes.BFloat16} {
		for mode, s := range map[string]Sampling{"greedy": {TopP: 1}, "sampled": {Temperature: 0.7, TopP: 1, MinP: 0.05}, "ranked": {Temperature: 0.7, TopP: 0.95}} {
			b.Run(name+"/"+mode, func(b *testing.B) { benchmarkDecode(b, demoEngine(b, dtype), s) })
		}
	}
}

func benchmarkDecode(b *testing.B, e *Engine, s Sampling) {
	ctx, prompt := context.Background(), []int32{1, 300, 400, 500}
	const n = 128 // tokens a round
	var host, device time.Duration
	tokens := 0
	for b.Loop() {
		_, t, err := e.Generate(ctx, prompt, n+1, s, nil, func(int32) bool { return true })
		require.NoError(b, err)
		host += t.Decode
		device += programAlone(b, e, prompt, n, s)
		tokens += t.DecodeTokens
	}
	b.ReportMetric(float64(host.Microseconds())/float64(tokens), "µs/token")
	b.ReportMetric(float64(device.Microseconds())/float64(tokens), "program-µs/token")
	b.ReportMetric(float64((host-device).Microseconds())/float64(tokens), "host-µs/token")
}

// programAlone is the time of n decode steps whose results nobody reads but the last.
func programAlone(b *testing.B, e *Engine, prompt []int32, n int, s Sampling) time.Duration {
	x, err := e.NewSession(context.Background(), len(prompt), n+1, s)
	require.NoError(b, err)
	defer x.Close()
	next, at, logits, err := x.Prefill(context.Background(), prompt)
	require.NoError(b, err)
	_, err = readID(next)
	require.NoError(b, err)
	began := time.Now()
	for range n {
		free(logits)
		token, position := next, at
		next, at, logits, err = x.Step(token, position)
		require.NoError(b, err)
		free(token, position)
	}
	_, err = readID(next)
	require.NoError(b, err)
	took := time.Since(began)
	free(next, at, logits)
	return took
}
