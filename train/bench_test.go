package train

import (
	"encoding/binary"
	"math"
	"os"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/lower"
	"mix/sharding/axis"
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

// sizes are models of 214 and 973 million parameters.
var sizes = []struct {
	name string
	cfg  graph.Config
}{
	{"small", graph.Config{Width: 512, Hidden: 1792, Layers: 8, Heads: 8, KVHeads: 2, HeadDim: 64}},
	{"medium", graph.Config{Width: 1024, Hidden: 3584, Layers: 10, Heads: 16, KVHeads: 4, HeadDim: 64}},
}

// BenchmarkStepSizes times the training step of the sizes with random weights on 2 sequences of 256 random tokens, in
// float32 and computing in bfloat16. MFU is what the model's products need, nothing counted twice, over the rate of a
// large product in float32 measured beside it. The memory is the most that the process has had, so run one size at a time.
func BenchmarkStepSizes(b *testing.B) {
	for _, s := range sizes {
		for _, dtype := range []dtypes.DType{dtypes.Float32, dtypes.BFloat16} {
			b.Run(s.name+"/"+dtype.String(), func(b *testing.B) {
				be, err := lower.New(b.Context(), lower.Options{Platform: "cpu"})
				require.NoError(b, err)
				defer be.Finalize()
				c := s.cfg
				c.Vocab, c.Experts, c.TopK, c.Context, c.RopeTheta, c.NormEps = 32000, 8, 2, 4096, 1e6, 1e-5
				c.AuxCoef, c.InitStd, c.DType = 0.02, 0.02, "float32"
				const batch, length = 2, 256
				o := options(c, 1, batch, length)
				o.DType = dtype
				x := newBench(b, be, modelOf(b, o), uniform{})
				defer x.dev.free()
				ids := make([]int32, batch*length)
				for i := range ids {
					ids[i] = int32(uint32(i+1) * 2654435761 % uint32(c.Vocab))
				}
				t := text(ids, length)
				x.step(b, t, 1e-4)
				peak, best, used := matmulRate(b, be), math.Inf(1), processorTime(b)
				for b.Loop() {
					start := time.Now()
					x.step(b, t, 1e-4)
					best = min(best, time.Since(start).Seconds())
				}
				b.ReportMetric((processorTime(b)-used)/float64(b.N), "cpu-s/op")
				b.ReportMetric(float64(len(ids)*b.N)/b.Elapsed().Seconds(), "tokens/s")
				b.ReportMetric(float64(len(ids))/best, "best-tokens/s")
				b.ReportMetric(100*stepWork(c, batch, length)/best/peak, "%MFU")
				b.ReportMetric(peak/1e9, "matmul-GFLOP/s")
				b.ReportMetric(peakMemory(b)/1e9, "GB")
			})
		}
	}
}

// uniform are weights of mean 0 and standard deviation 0.02, each the next of a linear congruential generator.
type uniform struct{}

func (uniform) Read(q axis.Piece, dst []byte) error {
	x := uint64(len(q.Name)) + uint64(q.Offset[0])<<32
	for i := 0; i < len(dst); i += 4 {
		x = x*6364136223846793005 + 1442695040888963407
		v := (float32(x>>40)/(1<<23) - 1) * 0.02 * math.Sqrt2 * 1.2247449 // √3
		binary.LittleEndian.PutUint32(dst[i:], math.Float32bits(v))
	}
	return nil
}

// stepWork are the floating-point operations of a step's matrix products, forward and twice that backward.
func stepWork(c graph.Config, batch, length int) float64 {
	var weights float64 // that a token meets
	for _, p := range graph.Params(c) {
		n := 1.0
		for i, d := range p.Dims {
			if p.Axes[i] == axis.Experts && len(p.Axes) > 3 {
				d = c.TopK
			}
			n *= float64(d)
		}
		if p.Path != "embed" {
			weights += n
		}
	}
	attention := 2 * float64(c.Layers*c.Heads*c.HeadDim*length) // scores and their sums, by half of which nobody is seen
	return 6 * (weights + attention) * float64(batch*length)
}

// matmulRate is the best rate of a large product in float32, operations a second.
func matmulRate(b *testing.B, be *lower.Backend) float64 {
	const n = 2048
	g := gx.NewGraph(be, "matmul")
	x := gx.Parameter(g, "x", shapes.Make(dtypes.Float32, n, n))
	require.NoError(b, g.Compile(gx.Einsum("ab,cb->ac", x, x)))
	p, err := lower.ProgramOf(g.Executable())
	require.NoError(b, err)
	defer p.Finalize()
	in, err := be.Upload(shapes.Make(dtypes.Float32, n, n), make([]float32, n*n))
	require.NoError(b, err)
	defer in.Finalize()
	best := math.Inf(1)
	for range 8 {
		start := time.Now()
		outs, err := p.Run(in)
		require.NoError(b, err)
		require.NoError(b, outs[0].Wait())
		best = min(best, time.Since(start).Seconds())
		outs[0].Finalize()
	}
	return 2 * n * n * n / best
}

// peakMemory is the most memory that the process has had, in bytes.
func peakMemory(b *testing.B) float64 {
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(b, err)
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	require.NotNil(b, m)
	kb, err := strconv.ParseFloat(string(m[1]), 64)
	require.NoError(b, err)
	return kb * 1024
}

// processorTime is what all threads of the process have used, in seconds. On a busy machine it says more than the
// wall clock.
func processorTime(b *testing.B) float64 {
	var r syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &r))
	return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9
}
