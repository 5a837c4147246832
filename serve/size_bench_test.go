package serve

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/internal/knob"
	"mix/lower"
	"mix/sharding/axis"
)

// sizes are models between the demo and the published ones: 214 and 973 million parameters.
var sizes = map[string]graph.Config{
	"small": {Vocab: 32000, Width: 512, Hidden: 1792, Layers: 8, Heads: 8, KVHeads: 2, HeadDim: 64, Experts: 8, TopK: 2,
		Context: 4096, RopeTheta: 1e6, NormEps: 1e-5, DType: "float32"},
	"medium": {Vocab: 32000, Width: 1024, Hidden: 3584, Layers: 10, Heads: 16, KVHeads: 4, HeadDim: 64, Experts: 8, TopK: 2,
		Context: 4096, RopeTheta: 1e6, NormEps: 1e-5, DType: "float32"},
}

// noise is a Reader of uniform values of standard deviation 0.02.
type noise struct{ state uint64 }

func (n *noise) Read(q axis.Piece, dst []byte) error {
	for i := range q.Elements() {
		n.state = n.state*6364136223846793005 + 1442695040888963407
		v := (float32(n.state>>40)/(1<<24) - 0.5) * 0.07
		if q.DType == dtypes.Float32 {
			binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(v))
		} else {
			binary.LittleEndian.PutUint16(dst[2*i:], uint16(math.Float32bits(v)>>16))
		}
	}
	return nil
}

// active is the number of bytes of weights that a decode step reads.
func active(c graph.Config, dtype dtypes.DType) float64 {
	n := 0
	for _, p := range graph.Params(c) {
		switch e := p.Elements(); {
		case len(p.Axes) > 3 && p.Axes[1] == axis.Experts:
			n += e / c.Experts * c.TopK
		case p.Path != "embed":
			n += e
		}
	}
	return float64(n) * float64(dtype.Size())
}

// BenchmarkSizes measures prompt and decode speed of the sizes, batch 1, a prompt of 512 tokens.
func BenchmarkSizes(b *testing.B) {
	for _, size := range []string{"small", "medium"} {
		for _, dtype := range []dtypes.DType{dtypes.Float32, dtypes.BFloat16} {
			b.Run(fmt.Sprintf("%s/%s", size, dtype), func(b *testing.B) { benchmarkSize(b, sizes[size], dtype) })
		}
	}
}

func benchmarkSize(b *testing.B, c graph.Config, dtype dtypes.DType) {
	knobs, err := knob.Read(slog.Default()) // MIX_SKIP shows what a pass is worth
	require.NoError(b, err)
	be, err := lower.New(b.Context(), lower.Options{Platform: "cpu"}.WithKnobs(knobs))
	require.NoError(b, err)
	defer be.Finalize()
	e, err := New(context.Background(), be, c, &noise{1}, Options{DType: dtype})
	require.NoError(b, err)
	defer e.Close()
	prompt := make([]int32, 512)
	for i := range prompt {
		prompt[i] = int32(i * 61 % c.Vocab)
	}
	run := func() Timing {
		_, t, err := e.Generate(context.Background(), prompt, 33, Sampling{TopP: 1}, nil, func(int32) bool { return true })
		require.NoError(b, err)
		return t
	}
	run() // compiles
	var prefill, decode time.Duration
	n := 0
	for b.Loop() {
		t := run()
		prefill, decode, n = prefill+t.Prompt, decode+t.Decode, n+t.DecodeTokens
	}
	rate := float64(n) / decode.Seconds()
	b.ReportMetric(float64(len(prompt)*b.N)/prefill.Seconds(), "prompt-tokens/s")
	b.ReportMetric(rate, "decode-tokens/s")
	b.ReportMetric(rate*active(c, dtype)/1e9, "decode-GB/s")
}

// BenchmarkCompile times XLA on a decode step of 2, 8 and 32 layers: the stacked form does not grow with
// them, the other does.
func BenchmarkCompile(b *testing.B) {
	for _, layout := range []string{"stacked", "per-matrix"} {
		for _, layers := range []int{2, 8, 32} {
			b.Run(fmt.Sprintf("%s/%d-layers", layout, layers), func(b *testing.B) {
				be, err := lower.New(b.Context(), lower.Options{Platform: "cpu", NoCache: true})
				require.NoError(b, err)
				defer be.Finalize()
				c := sizes["small"]
				c.Width, c.Hidden, c.Layers, c.Vocab = 64, 96, layers, 256
				var took time.Duration
				for b.Loop() {
					e, err := New(context.Background(), be, c, &noise{1}, Options{DType: dtypes.BFloat16, Layout: layout})
					require.NoError(b, err)
					p, err := e.step(1, 512, greedy)
					require.NoError(b, err)
					took += p.Stats().Compile
					e.Close()
				}
				b.ReportMetric(took.Seconds()/float64(b.N), "s/compile")
			})
		}
	}
}
