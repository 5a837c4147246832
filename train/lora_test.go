package train

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/lower"
	"mix/train/data"
	"mix/train/lora"
)

// tiny is a model that compiles quickly.
var tiny = graph.Config{Vocab: 96, Width: 32, Hidden: 48, Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 8, Experts: 4, TopK: 2, Context: 64,
	RopeTheta: 1e4, NormEps: 1e-5, AuxCoef: 0.1, InitStd: 0.1, BOS: 1, DType: "float32"}

// counting is text that can be learned: each row counts on from a number of its own.
func counting(r *rand.Rand, rows, s int) (b data.Batch) {
	for range rows {
		at := r.IntN(tiny.Vocab)
		for j := range s + 1 {
			b.Tokens = append(b.Tokens, int32((at+j)%tiny.Vocab))
		}
		for j := range s {
			b.Labels = append(b.Labels, int32((at+j+1)%tiny.Vocab))
		}
	}
	return b
}

// loss evaluates a model on a microbatch.
func (x *bench) loss(t testing.TB, b data.Batch) float64 {
	p, err := programs{be: x.run.Backend, m: x.m}.evaluate()
	require.NoError(t, err)
	defer p.Finalize()
	r := &run{Job: x.run.Job, m: x.m, dev: x.dev, eval: &evaluator{loss: p}}
	sum, n, err := r.lossOf(b)
	require.NoError(t, err)
	return sum / n
}

// TestAdapters trains adapters of every target: the model begins as its base, the forms of the step agree,
// and the base with the adapters merged into it gives the same loss as the base beside them.
func TestAdapters(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles for seconds")
	}
	const batch, seq, steps = 4, 16, 10
	be := backend(t)
	base := Fresh(tiny, 5)
	r := rand.New(rand.NewPCG(3, 4))
	held := counting(r, batch, seq)
	var texts []data.Batch
	for range steps {
		texts = append(texts, counting(r, batch, seq))
	}
	plain := newBench(t, be, modelOf(t, options(tiny, 1, batch, seq)), base)
	before := plain.loss(t, held)
	for _, int8 := range []bool{false, true} {
		var want []float32
		for _, form := range []struct {
			again Recompute
			m     int
		}{{RecomputeNone, 1}, {RecomputeFull, 1}, {RecomputeFull, 2}} {
			t.Run(fmt.Sprintf("int8 %t/recompute %s/%d microbatches", int8, form.again, form.m), func(t *testing.T) {
				o := options(tiny, form.m, batch/form.m, seq)
				o.Recompute, o.Int8 = form.again, int8
				o.LoRA = &lora.Options{Rank: 4, Alpha: 8, Targets: []string{lora.AllLinear}, Seed: 1}
				x := newBench(t, be, modelOf(t, o), base)
				var got []float32
				for _, b := range texts {
					v := x.step(t, b, 1e-2)
					require.EqualValues(t, 1, v[metricGood])
					got = append(got, v[metricLoss])
				}
				require.Less(t, got[steps-1], got[0]-0.2, "it does not learn")
				if want == nil {
					want = got
				}
				for i := range want {
					require.InEpsilon(t, want[i], got[i], 1e-5, "loss of step %d", i+1)
				}
				if form.m > 1 || form.again != RecomputeNone {
					return
				}
				after := x.loss(t, held)
				require.Less(t, after, before-0.2)
				if int8 { // of weights around 0, to one part in 254 of the largest
					fresh := newBench(t, be, x.m, base)
					require.InEpsilon(t, before, fresh.loss(t, held), 1e-2)
					return
				}
				adapters, err := x.dev.copyTo(nil)
				require.NoError(t, err)
				merged, err := lora.Merge(tiny, *o.LoRA, base, adapters.group(groupWeights))
				require.NoError(t, err)
				require.InEpsilon(t, after, newBench(t, be, plain.m, merged).loss(t, held), 1e-5)
			})
		}
	}
}

// TestFrozenWeightsHaveNoGradient counts the outer products of grouped rows, which are gradients of experts'
// matrices and nothing else: with frozen experts none is computed.
func TestFrozenWeightsHaveNoGradient(t *testing.T) {
	l, err := lower.NewLowerer(lower.Options{Verify: true, Skip: []string{"grouped_gemm", "routed_experts"}})
	require.NoError(t, err)
	outer := func(o Options) int {
		g := gx.NewGraph(l.With(lower.ProgramOptions{}), "train_step")
		require.NoError(t, g.Compile(programs{m: modelOf(t, o)}.buildStep(g)...))
		listing, err := lower.ListingOf(g.Executable())
		require.NoError(t, err)
		return strings.Count(listing.Text, "\"mix.grouped_outer\"")
	}
	for _, again := range []Recompute{RecomputeNone, RecomputeFull} {
		o := options(tiny, 1, 2, 16)
		o.Recompute = again
		require.NotZero(t, outer(o))
		o.LoRA = &lora.Options{Rank: 4, Alpha: 8, Targets: []string{"q_proj"}, Seed: 1}
		require.Zero(t, outer(o))
	}
}
