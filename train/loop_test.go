package train

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/lower"
	"mix/sharding/axis"
	"mix/train/data"
	"mix/train/lora"
	"mix/train/report"
	"mix/train/store"
)

// heard is what a report was told.
type heard struct {
	first int
	steps []report.Step
	evals []report.Eval
	after func(step int) // called with every step
}

func (h *heard) Start(first, _ int) error { h.first = first; return nil }
func (h *heard) Step(s report.Step) error {
	h.steps = append(h.steps, s)
	if h.after != nil {
		h.after(s.Step)
	}
	return nil
}
func (h *heard) Eval(e report.Eval) error   { h.evals = append(h.evals, e); return nil }
func (h *heard) Saved(int, float64, string) {}
func (h *heard) Close() error               { return nil }

// losses are what a run is compared by: everything that a step's numbers depend on shows in them.
func (h *heard) losses() (all []float64) {
	for _, s := range h.steps {
		all = append(all, s.Loss, s.GradNorm)
	}
	return all
}

// sets are samples of counting numbers.
func sets(t testing.TB, seq, wanted int) *data.Sets {
	r := rand.New(rand.NewPCG(5, 6))
	var all [][]int32
	for range 40 {
		b := counting(r, 1, 30)
		all = append(all, b.Tokens)
	}
	source := data.NewMemory("numbers", all)
	train, err := data.NewDataset(source, 0, 35, data.Options{SeqLen: seq, Samples: wanted, Seed: 1})
	require.NoError(t, err)
	valid, err := data.NewDataset(source, 35, 40, data.Options{SeqLen: seq, Seed: 1})
	require.NoError(t, err)
	return &data.Sets{Train: train, Valid: valid, EvalSamples: valid.Len(), Fingerprint: "numbers"}
}

// jobOf is a run of so many steps with a store in dir, none for "".
func jobOf(t testing.TB, be *lower.Backend, dir string, steps int) (Job, *heard) {
	const seq = 16
	o := options(tiny, 2, 2, seq)
	o.Steps, o.LogEvery, o.SaveEvery, o.EvalEvery, o.EvalBatches = steps, 1, 4, 5, 2
	o.Schedule = Schedule{Peak: 1e-2, Floor: 1e-3, Decay: Cosine, Warmup: 2, End: 12}
	h := &heard{}
	j := Job{Options: o, Backend: be, Data: sets(t, seq, steps*o.Global), Report: h, Log: slog.New(slog.DiscardHandler)}
	if dir != "" {
		j.Store = open(t, dir, j)
	}
	return j, h
}

func open(t testing.TB, dir string, j Job) *store.Store {
	s, err := store.Open(dir, store.Options{KeepLast: 3, KeepBest: true, Params: graph.Params(j.Model)})
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// TestResumedIsUninterrupted stops a run at several steps, by the end of its context, and goes on with a new
// one from what it saved: the losses are bit for bit those of a run that went through.
func TestResumedIsUninterrupted(t *testing.T) {
	const steps = 12
	be, err := lower.New(t.Context(), lower.Options{Platform: "cpu", CacheDir: t.TempDir()}) // one compilation for all runs
	require.NoError(t, err)
	defer be.Finalize()
	for _, adapters := range []bool{false, true} {
		if testing.Short() && adapters {
			continue
		}
		job := func(dir string) (Job, *heard) {
			j, h := jobOf(t, be, "", steps)
			if adapters {
				j.LoRA = &lora.Options{Rank: 2, Alpha: 4, Targets: []string{"q_proj", "w1", "w2", "w3"}, Seed: 1}
			}
			if dir != "" {
				j.Store = open(t, dir, j)
			}
			return j, h
		}
		whole, want := job("")
		res, err := Run(t.Context(), whole)
		require.NoError(t, err)
		require.Equal(t, steps, res.Step)
		require.Less(t, want.steps[steps-1].Loss, want.steps[0].Loss-0.1, "it does not learn")
		require.Len(t, want.evals, 3) // at 5, at 10 and at the end

		dir := filepath.Join(t.TempDir(), "run")
		var got []float64
		var evals []report.Eval
		for _, stop := range []int{1, 5, 9, steps} { // a step more is under way by then
			ctx, cancel := context.WithCancel(t.Context())
			j, h := job(dir)
			h.after = func(step int) {
				if step == stop && stop < steps {
					cancel()
				}
			}
			res, err := Run(ctx, j)
			require.NoError(t, err)
			require.Equal(t, stop < steps, res.Interrupted)
			require.Equal(t, len(got)/2, h.first, "where it goes on")
			got = append(got, h.losses()...)
			evals = append(evals, h.evals...)
			require.NoError(t, j.Store.Close())
			cancel()
		}
		require.Equal(t, want.losses(), got)
		for i, e := range evals {
			require.Equal(t, want.evals[i].Loss, e.Loss)
			require.Equal(t, want.evals[i].Best, e.Best)
		}
	}
}

// spoiled gives weights of which one is not a number.
type spoiled struct{ Reader }

func (s spoiled) Read(q axis.Piece, dst []byte) error {
	err := s.Reader.Read(q, dst)
	if q.Path == "final_norm" {
		dst[3], dst[2] = 0x7f, 0xc0
	}
	return err
}

// TestThreeBadGradientsStopARun begins with a NaN: nothing is ever updated, and the third step in a row ends
// the run with all saved.
func TestThreeBadGradientsStopARun(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles for seconds")
	}
	j, h := jobOf(t, backend(t), filepath.Join(t.TempDir(), "run"), 12)
	j.Start = spoiled{Fresh(tiny, 1)}
	res, err := Run(t.Context(), j)
	require.ErrorIs(t, err, ErrDiverged)
	require.ErrorContains(t, err, "3 gradients in a row were not finite, the last at step 3 with loss NaN")
	require.LessOrEqual(t, res.Step, 4)
	require.Equal(t, res.Step, res.Skipped)
	require.True(t, math.IsNaN(h.steps[0].Loss))
	require.False(t, h.steps[0].Good)
	saved, err := j.Store.Latest()
	require.NoError(t, err)
	require.Equal(t, res.Step, saved.Step())
	require.NoError(t, saved.Close())
}

// TestRunRefuses looks at what ends a run before its first step.
func TestRunRefuses(t *testing.T) {
	be := backend(t)
	for _, tt := range []struct {
		name   string
		change func(j *Job)
		want   string
	}{
		{"a batch that does not divide", func(j *Job) { j.Micro = 3 }, "global batch size is 4, want a multiple of the micro-batch size, 3"},
		{"a sample longer than the context", func(j *Job) { j.Seq = 65 }, "sequence length is 65, want at most the model's context, 64"},
		{"evaluations without data", func(j *Job) { j.Data.Valid = nil }, "an evaluation every 5 steps, and no validation data"},
		{"int8 without adapters", func(j *Job) { j.Int8 = true }, "weights in int8 without adapters"},
		{"an unknown balance", func(j *Job) { j.Balance = "sinkhorn" }, `load-balancing loss is "sinkhorn", want hf or megatron`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j, h := jobOf(t, be, "", 3)
			tt.change(&j)
			_, err := Run(t.Context(), j)
			require.ErrorContains(t, err, tt.want)
			require.Empty(t, h.steps)
		})
	}
}

// failing is a report whose disk is full.
type failing struct{ heard }

var errFull = errors.New("no space left on device")

func (f *failing) Step(report.Step) error { return errFull }

// TestARunOutlivesItsReport trains to the end and then says what was not written.
func TestARunOutlivesItsReport(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles for seconds")
	}
	j, _ := jobOf(t, backend(t), "", 3)
	j.Report = &failing{}
	res, err := Run(t.Context(), j)
	require.ErrorIs(t, err, errFull)
	require.Equal(t, 3, res.Step)
}

// TestAnotherModelIsRefused resumes with a model of the same shapes that computes something else.
func TestAnotherModelIsRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles much; needs go test without -short")
	}
	be, dir := backend(t), filepath.Join(t.TempDir(), "run")
	j, _ := jobOf(t, be, dir, 2)
	_, err := Run(t.Context(), j)
	require.NoError(t, err)
	for name, change := range map[string]func(j *Job){
		"its model has epsilon of the norms 1e-05, this run's has 0.001":                           func(j *Job) { j.Model.NormEps = 1e-3 },
		"its model has experts a token 2, this run's has 1":                                        func(j *Job) { j.Model.TopK = 1 },
		"8 samples were seen in steps of 4, and 10 more steps take 40 each: the training data has": func(j *Job) { j.Global, j.Steps = 40, 12 },
	} {
		require.NoError(t, j.Store.Close())
		next, h := jobOf(t, be, dir, 4)
		change(&next)
		_, err := Run(t.Context(), next)
		require.ErrorContains(t, err, name)
		require.Empty(t, h.steps)
		j = next
	}
}

// BenchmarkHost times the loop on a model whose program takes next to nothing, and the program alone, run
// back to back on inputs that lie on the device: the difference is what the host adds to a step.
func BenchmarkHost(b *testing.B) {
	be := backend(b)
	loop := func(steps int) time.Duration {
		j, _ := jobOf(b, be, "", steps)
		j.EvalEvery, j.SaveEvery = 0, 0
		var first, last time.Time
		n := 0
		j.Report.(*heard).after = func(int) {
			if n++; n == 1 {
				first = time.Now()
			}
			last = time.Now()
		}
		_, err := Run(b.Context(), j)
		require.NoError(b, err)
		return last.Sub(first) / time.Duration(steps-1)
	}
	program := func(steps int) time.Duration {
		j, _ := jobOf(b, be, "", steps)
		x := newBench(b, be, modelOf(b, j.Options), Fresh(tiny, 1))
		loader, err := data.NewLoader(b.Context(), j.Data.Train, data.LoaderOptions{Batch: j.Global})
		require.NoError(b, err)
		defer loader.Close()
		batch, err := loader.Next()
		require.NoError(b, err)
		inputs, err := x.run.upload(batch, x.m.batchDims()...)
		require.NoError(b, err)
		rate, err := be.Upload(shapes.Make(dtypes.Float32), []float32{1e-3})
		require.NoError(b, err)
		inputs = append(inputs, rate)
		var start time.Time
		for i := range steps {
			if i == 1 {
				require.NoError(b, x.dev.state[0].Wait())
				start = time.Now()
			}
			outs, err := x.p.Run(append(append([]*lower.Buffer{}, x.dev.state...), inputs...)...)
			require.NoError(b, err)
			copy(x.dev.state, outs[1:])
			outs[0].Finalize()
		}
		require.NoError(b, x.dev.state[0].Wait())
		return time.Since(start) / time.Duration(steps-1)
	}
	var whole, alone time.Duration
	for b.Loop() {
		whole, alone = loop(400), program(400)
	}
	b.ReportMetric(float64(whole.Microseconds()), "loop-µs/step")
	b.ReportMetric(float64(alone.Microseconds()), "program-µs/step")
	b.ReportMetric(float64((whole - alone).Microseconds()), "host-µs/step")
}
