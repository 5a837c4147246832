package train

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/internal/oracle"
	"mix/lower"
	"mix/sharding/ckpt"
	"mix/train/data"
)

// recorded is the part of golden.json about five steps of AdamW.
type recorded struct {
	AdamW struct {
		Hyper struct {
			LR, Eps     float64
			Betas       [2]float64
			WeightDecay float64 `json:"weight_decay"`
		}
		Log []struct {
			Loss float64
			Norm float64 `json:"grad_norm"`
		}
		After map[string]oracle.Stat `json:"params_after"`
		Moved map[string]float64     `json:"delta_l2"`
	}
}

// bench is a model on a device, with the step that trains it.
type bench struct {
	m   model
	dev *device
	p   *lower.Program
	run *run // for its upload
}

// backend is a CPU without a cache of programs.
func backend(t testing.TB) *lower.Backend {
	be, err := lower.New(t.Context(), lower.Options{Platform: "cpu", NoCache: true})
	require.NoError(t, err)
	t.Cleanup(be.Finalize)
	return be
}

// options are those of a run that leaves out nothing, for batches of [m, b, s].
func options(c graph.Config, m, b, s int) Options {
	return Options{Model: c, DType: dtypes.Float32, Seq: s, Micro: b, Global: m * b, Steps: 1, Balance: BalancePooled, Recompute: RecomputeNone,
		Optimizer: AdamW{Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, WeightDecay: 0.1, Clip: 1}, Schedule: Schedule{Peak: 1e-3, Decay: Constant}}
}

func modelOf(t testing.TB, o Options) model {
	m, err := newModel(o)
	require.NoError(t, err)
	return m
}

func newBench(t testing.TB, be *lower.Backend, m model, base Reader) *bench {
	x := layOut(t, be, m, base)
	var err error
	x.p, err = programs{be: be, m: x.m}.step()
	require.NoError(t, err)
	t.Cleanup(x.p.Finalize)
	return x
}

// layOut is a bench without a program yet.
func layOut(t testing.TB, be *lower.Backend, m model, base Reader) *bench {
	require.NoError(t, m.Validate())
	m, err := m.on(be)
	require.NoError(t, err)
	x := &bench{m: m, run: &run{Job: Job{Options: m.Options, Backend: be}}}
	start, frozen, err := m.start(base)
	require.NoError(t, err)
	x.dev, err = newDevice(be, m, map[string]Reader{groupWeights: start, groupFirst: zeros{}, groupSecond: zeros{}}, frozen, 0)
	require.NoError(t, err)
	t.Cleanup(x.dev.free)
	return x
}

// text is the batch of plain sequences of S tokens, whose last has no label.
func text(ids []int32, s int) (b data.Batch) {
	for i := 0; i < len(ids); i += s {
		b.Tokens = append(append(b.Tokens, ids[i:i+s]...), 0)
		b.Labels = append(append(b.Labels, ids[i+1:i+s]...), graph.Ignore)
	}
	return b
}

// step runs one update and returns the metrics.
func (x *bench) step(t testing.TB, b data.Batch, lr float64) []float32 {
	inputs, err := x.run.upload(b, x.m.batchDims()...)
	require.NoError(t, err)
	rate, err := x.run.Backend.Upload(shapes.Make(dtypes.Float32), []float32{float32(lr)})
	require.NoError(t, err)
	inputs = append(inputs, rate)
	outs, err := x.p.Run(append(append(append([]*lower.Buffer{}, x.dev.state...), x.dev.frozen...), inputs...)...)
	require.NoError(t, err)
	copy(x.dev.state, outs[1:])
	v := make([]float32, metricLoad+x.m.Model.Layers*x.m.Model.Experts)
	require.NoError(t, outs[0].ToFlatData(v))
	outs[0].Finalize()
	for _, in := range inputs {
		in.Finalize()
	}
	return v
}

// weights copies the weights to the host.
func (x *bench) weights(t testing.TB) (all [][]float32) {
	for i, q := range x.m.trained {
		values := make([]float32, q.Elements())
		require.NoError(t, x.dev.state[i].ToFlatData(values))
		all = append(all, values)
	}
	return all
}

// updates is the counter on the device.
func (d *device) updates() (int32, error) {
	var n [1]int32
	err := d.state[len(d.state)-1].ToFlatData(n[:])
	return n[0], err
}

// checkpoint opens a recorded model.
func checkpoint(t testing.TB, dir string) (graph.Config, *ckpt.Checkpoint) {
	c, err := graph.LoadConfig(dir)
	require.NoError(t, err)
	ck, err := ckpt.Open(dir, graph.Params(c), ckpt.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { ck.Close() })
	return c, ck
}

// TestFiveStepsAgainstReference holds every form of the step to five recorded ones of PyTorch's AdamW.
func TestFiveStepsAgainstReference(t *testing.T) {
	be := backend(t)
	for _, name := range oracle.Names() {
		for _, again := range []Recompute{RecomputeNone, RecomputeFull} {
			if testing.Short() && (again != RecomputeNone || name != oracle.Names()[0]) {
				continue
			}
			t.Run(name+"/"+string(again), func(t *testing.T) {
				o := oracle.Open(t, name)
				var want recorded
				b, err := os.ReadFile(filepath.Join(filepath.Dir(o.Checkpoints[0]), "golden.json"))
				require.NoError(t, err)
				require.NoError(t, json.Unmarshal(b, &want))
				h := want.AdamW.Hyper
				c, ck := checkpoint(t, o.Checkpoints[0])
				ids, dims := o.Ints(t, "train.input_ids")
				opt := options(c, 1, dims[1], dims[2])
				opt.Optimizer = AdamW{Beta1: h.Betas[0], Beta2: h.Betas[1], Eps: h.Eps, WeightDecay: h.WeightDecay}
				opt.Recompute = again
				m := modelOf(t, opt)
				for i := range m.decayed { // the reference decays all
					m.decayed[i] = true
				}
				x := newBench(t, be, m, ck)
				n := dims[1] * dims[2]
				for i, log := range want.AdamW.Log {
					v := x.step(t, text(ids[i*n:(i+1)*n], dims[2]), h.LR)
					require.InEpsilon(t, log.Loss, v[metricLoss], 1e-5, "loss of step %d", i)
					require.InEpsilon(t, log.Norm, v[metricNorm], 1e-4, "gradient norm of step %d", i)
					require.EqualValues(t, 1, v[metricGood])
				}
				o.CheckMoved(t, m.trained, x.weights(t), want.AdamW.After, want.AdamW.Moved, 1e-3)
			})
		}
	}
}

// TestStepWithoutFiniteGradient spoils one weight: the step says so and updates nothing.
func TestStepWithoutFiniteGradient(t *testing.T) {
	be := backend(t)
	c, ck := checkpoint(t, oracle.Open(t, "d_layouts").Checkpoints[0])
	x := newBench(t, be, modelOf(t, options(c, 1, 1, 4)), ck)
	values := x.weights(t)[0]
	values[0] = float32(math.NaN())
	spoiled, err := be.Upload(shapes.Make(dtypes.Float32, x.m.trained[0].Shape...), values)
	require.NoError(t, err)
	x.dev.state[0] = spoiled
	before := x.weights(t)
	v := x.step(t, text([]int32{0, 1, 2, 3}, 4), 1e-3)
	require.Zero(t, v[metricGood])
	for i, w := range x.weights(t) {
		if i > 0 {
			require.Equal(t, before[i], w, x.m.trained[i].Name)
		}
	}
	n, err := x.dev.updates()
	require.NoError(t, err)
	require.Zero(t, n)
}

// TestFormsOfAStepAgree trains the same model on the same text in every form: whole, in microbatches, with
// activations recomputed, and all of it. The load-balancing loss is a product of sums over all microbatches:
// a form that multiplied too early would differ in the third digit.
func TestFormsOfAStepAgree(t *testing.T) {
	const steps, batch, seq = 20, 4, 24
	be := backend(t)
	c := graph.Config{Vocab: 96, Width: 32, Hidden: 48, Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 8, Experts: 4, TopK: 2, Context: 64,
		RopeTheta: 1e4, NormEps: 1e-5, AuxCoef: 0.1, InitStd: 0.05, BOS: 1, DType: "float32"}
	r := rand.New(rand.NewPCG(1, 2))
	var texts []data.Batch
	for range steps {
		b := data.Batch{}
		for i := range batch {
			for j := range seq {
				b.Tokens = append(b.Tokens, int32(r.IntN(c.Vocab)))
				b.Labels = append(b.Labels, int32((i+j)%c.Vocab))
			}
			b.Tokens = append(b.Tokens, 0)
			for j := range i + 1 { // as many labels as no other row has
				b.Labels[i*seq+j] = graph.Ignore
			}
		}
		texts = append(texts, b)
	}
	losses := func(o Options, loop bool) (all []float64) {
		o.ZCoef = 1e-3
		m := modelOf(t, o)
		if loop { // as on platforms that make a loop of many layers
			m.layout = graph.Stacked
			require.NoError(t, m.list())
		}
		x := newBench(t, be, m, Fresh(c, 7))
		for i, b := range texts {
			v := x.step(t, b, 3e-3)
			require.EqualValues(t, 1, v[metricGood], "step %d", i)
			all = append(all, float64(v[metricLoss]))
		}
		return all
	}
	for _, balance := range []Balance{BalancePooled, BalancePerLayer} {
		if testing.Short() && balance != BalancePooled {
			continue
		}
		plain := options(c, 1, batch, seq)
		plain.Balance = balance
		want := losses(plain, false)
		require.Less(t, want[steps-1], want[0]-0.3, "it does not learn")
		for _, form := range []struct {
			again Recompute
			m     int
			loop  bool
		}{{RecomputeNone, 4, false}, {RecomputeSelective, 1, false}, {RecomputeFull, 1, false}, {RecomputeFull, 2, false},
			{RecomputeNone, 1, true}, {RecomputeNone, 2, true}, {RecomputeSelective, 1, true}} {
			if balance == BalancePerLayer && (form.m == 1 || form.loop) || testing.Short() && (form.again != RecomputeFull || form.m > 1) {
				continue
			}
			t.Run(fmt.Sprintf("%s/recompute %s/%d microbatches/loop %v", balance, form.again, form.m, form.loop), func(t *testing.T) {
				o := options(c, form.m, batch/form.m, seq)
				o.Balance, o.Recompute = balance, form.again
				got := losses(o, form.loop)
				for i := range want {
					require.InEpsilon(t, want[i], got[i], 1e-5, "loss of step %d", i+1)
				}
			})
		}
	}
}
