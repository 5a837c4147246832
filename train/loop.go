package train

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"

	"mix/graph/token"
	"mix/lower"
	"mix/train/data"
	"mix/train/report"
	"mix/train/store"
)

// Job is a run: what it does and what it does it with.
type Job struct {
	Options
	Backend   *lower.Backend
	Start     Reader // weights to begin with; nil for fresh ones
	Base      string // name of the model that adapters are of, for their files
	Data      *data.Sets
	Store     *store.Store // nil saves nothing
	Report    report.Sink
	Tokenizer *token.Tokenizer // of samples; nil when there are no prompts
	Peak      float64          // operations a second, for MFU; 0 when unknown
	Log       *slog.Logger
}

// Result is how a run ended.
type Result struct {
	Step        int  // done, by this run and those before
	Interrupted bool // by the end of the context; all is saved
	Skipped     int  // updates not made
	Loss        float64
	Eval        float64 // the last evaluation's, NaN without one
}

// badInARow is how many gradients in a row may be without a finite norm.
const badInARow = 3

// ErrDiverged is wrapped by the error of a run that gave up.
var ErrDiverged = errors.New("training diverged")

// run is a Job at work.
type run struct {
	Job
	m       model
	dev     *device
	program *lower.Program
	eval    *evaluator
	copied  *host // the last snapshot's memory
	at      position
	flight  *flight   // a step whose metrics were not read yet
	done    time.Time // when the metrics of the last step were there
	saved   int       // the step of the last checkpoint
	last    float64   // the loss of the last step
	scored  float64   // of the evaluation at this step, NaN for none
	unsaved int       // saves in a row that failed
	untold  error     // the first that the report could not write
}

// flight is a step on the device.
type flight struct {
	metrics *lower.Buffer
	inputs  []*lower.Buffer
	at      position // after it
	lr      float64
	started time.Time
	seconds float64 // it took
}

func (f *flight) free() {
	f.metrics.Finalize()
	free(f.inputs)
}

// Run trains until the last step, or until ctx ends: then it saves and returns no error. With a Store that
// holds a checkpoint it goes on from there, and does exactly what a run does that was never interrupted.
func Run(ctx context.Context, j Job) (res Result, err error) {
	if err := j.Validate(); err != nil {
		return res, err
	}
	if j.Log == nil {
		j.Log = slog.Default()
	}
	m, err := newModel(j.Options)
	if err != nil {
		return res, err
	}
	if m, err = m.on(j.Backend); err != nil {
		return res, err
	}
	r := &run{Job: j, m: m, scored: math.NaN()}
	defer r.close()
	if err := r.begin(); err != nil {
		return res, err
	}
	if err := r.Report.Start(r.at.Step, r.Steps); err != nil {
		return res, err
	}
	err = r.steps(ctx)
	res = Result{Step: r.at.Step, Skipped: r.at.Skipped, Loss: r.last, Eval: math.NaN(), Interrupted: r.at.Step < r.Steps && ctx.Err() != nil && err == nil}
	if r.eval != nil {
		res.Eval = r.eval.last
	}
	if r.Store != nil {
		err = errors.Join(err, r.Store.Wait())
	}
	return res, errors.Join(err, r.untold)
}

func (r *run) close() {
	if r.flight != nil {
		r.flight.free()
	}
	if r.program != nil {
		r.program.Finalize()
	}
	if r.eval != nil {
		r.eval.close()
	}
	if r.dev != nil {
		r.dev.free()
	}
}

// begin puts the state onto the device, from the newest checkpoint or from the start, and compiles.
func (r *run) begin() error {
	base := r.Start
	if base == nil {
		base = Fresh(r.Model, r.Seed)
	}
	trained, frozen, err := r.m.start(base)
	if err != nil {
		return err
	}
	readers := map[string]Reader{groupWeights: trained, groupFirst: zeros{}, groupSecond: zeros{}}
	r.at = position{Seed: r.Seed, Data: r.Data.Fingerprint, Global: r.Global, Model: r.Model}
	if r.Store != nil {
		saved, err := r.Store.Latest()
		if err != nil {
			return err
		}
		if saved != nil {
			defer saved.Close()
			if err := r.resume(saved, readers); err != nil {
				return err
			}
		}
	}
	if r.dev, err = newDevice(r.Backend, r.m, readers, frozen, r.at.Updates); err != nil {
		return err
	}
	p := programs{r.Backend, r.m, r.Data.Segments, r.Data.Positions}
	if r.program, err = p.step(); err != nil {
		return err
	}
	if r.EvalEvery > 0 {
		r.eval, err = newEvaluator(r, p)
	}
	return err
}

// steps runs the loop.
func (r *run) steps(ctx context.Context) error {
	if r.at.Step >= r.Steps {
		return nil
	}
	batches, err := data.NewLoader(ctx, r.Data.Train, data.LoaderOptions{Batch: r.Global, First: int(r.at.Samples),
		Segments: r.Data.Segments, Positions: r.Data.Positions})
	if err != nil {
		return fmt.Errorf("training data: %w", err)
	}
	defer batches.Close()
	if r.judges() { // the run before was interrupted in its evaluation
		if err := r.evaluate(ctx); err != nil {
			return err
		}
	}
	for r.at.Step < r.Steps {
		b, err := batches.Next()
		switch {
		case ctx.Err() != nil:
			return r.finish()
		case err == io.EOF:
			return fmt.Errorf("training data ended at sample %d of step %d, want %d more", r.at.Samples, r.at.Step, r.Global)
		case err != nil:
			return err
		}
		if err := r.launch(b); err != nil {
			return err
		}
		if err := r.due(ctx); err != nil {
			return err
		}
	}
	return r.finish()
}

// finish saves what was done and is not saved yet: the run was interrupted, perhaps at its very end.
func (r *run) finish() error {
	if err := r.settle(); err != nil {
		return err
	}
	return r.save()
}

// every tells whether it is time for what comes every n steps and at the end, or never for n = 0.
func (r *run) every(n int) bool { return n > 0 && r.at.Step%n == 0 || r.at.Step == r.Steps }

// judges tells whether an evaluation is due.
func (r *run) judges() bool {
	return r.eval != nil && r.every(r.EvalEvery) && r.at.Step > 0 && r.at.Judged != r.at.Step
}

// due does what comes every so many steps.
func (r *run) due(ctx context.Context) error {
	r.scored = math.NaN()
	if r.judges() {
		if err := r.settle(); err != nil {
			return err
		}
		if err := r.evaluate(ctx); err != nil {
			return err
		}
	}
	if ctx.Err() != nil || !r.every(r.SaveEvery) {
		return nil
	}
	if err := r.settle(); err != nil {
		return err
	}
	return r.save()
}

// launch starts a step and reads the metrics of the one before, so that the device need not wait.
func (r *run) launch(b data.Batch) error {
	lr := r.Schedule.At(r.at.Step)
	inputs, err := r.upload(b, r.m.batchDims()...)
	if err != nil {
		return err
	}
	rate, err := r.Backend.Upload(shapes.Make(dtypes.Float32), []float32{float32(lr)})
	if err != nil {
		free(inputs)
		return err
	}
	inputs = append(inputs, rate)
	start := time.Now()
	args := append(append([]*lower.Buffer{}, r.dev.state...), r.dev.frozen...)
	outs, err := r.program.Run(append(args, inputs...)...)
	if err != nil {
		free(inputs)
		return fmt.Errorf("step %d: %w", r.at.Step+1, err)
	}
	copy(r.dev.state, outs[1:])
	r.at.Step++
	r.at.Samples += int64(r.Global)
	r.at.Tokens += int64(r.Global) * int64(r.Seq)
	before := r.flight
	r.flight = &flight{metrics: outs[0], inputs: inputs, at: r.at, lr: lr, started: start}
	return r.read(before)
}

// upload puts a batch of dims [M, B] or [B] onto the device, in the order of the programs' parameters.
func (r *run) upload(b data.Batch, dims ...int) (inputs []*lower.Buffer, err error) {
	for _, x := range []struct {
		values []int32
		seq    int
	}{{b.Tokens, r.Seq + 1}, {b.Labels, r.Seq}, {b.Segments, r.Seq}, {b.Positions, r.Seq}} {
		if x.values == nil {
			continue
		}
		buffer, err := r.Backend.Upload(shapes.Make(dtypes.Int32, append(slices.Clone(dims), x.seq)...), x.values)
		if err != nil {
			free(inputs)
			return nil, err
		}
		inputs = append(inputs, buffer)
	}
	return inputs, nil
}

func free(all []*lower.Buffer) {
	for _, b := range all {
		b.Finalize()
	}
}

// settle waits for the step under way.
func (r *run) settle() error {
	f := r.flight
	r.flight = nil
	return r.read(f)
}

// read takes in the metrics of a step, nil for none.
func (r *run) read(f *flight) error {
	if f == nil {
		return nil
	}
	v := make([]float32, metricLoad+r.Model.Layers*r.Model.Experts)
	err := f.metrics.ToFlatData(v)
	began := f.started
	if r.done.After(began) { // it waited for the step before
		began = r.done
	}
	r.done = time.Now()
	f.seconds = r.done.Sub(began).Seconds()
	f.free()
	if err != nil {
		return fmt.Errorf("step %d: %w", f.at.Step, err)
	}
	r.last = float64(v[metricLoss])
	if v[metricGood] != 0 {
		r.at.Updates, r.at.Bad = r.at.Updates+1, 0
	} else {
		r.at.Skipped, r.at.Bad = r.at.Skipped+1, r.at.Bad+1
		r.Log.Warn("gradient is not finite: the update was skipped", "step", f.at.Step, "loss", v[metricLoss], "norm", v[metricNorm], "in a row", r.at.Bad)
	}
	r.told(r.report(f, v))
	if r.at.Bad >= badInARow {
		return r.diverged(f.at.Step)
	}
	return nil
}

// diverged saves the state, in which the last good update is the last.
func (r *run) diverged(step int) error {
	err := fmt.Errorf("%w: %d gradients in a row were not finite, the last at step %d with loss %g", ErrDiverged, badInARow, step, r.last)
	if r.Store == nil {
		return err
	}
	if f := r.flight; f != nil { // one more step is under way
		r.flight = nil
		r.at.Bad = 0
		if e := r.read(f); e != nil {
			return errors.Join(err, e)
		}
	}
	return errors.Join(err, r.save(), r.Store.Wait())
}

// told takes the error of a report: a full disk must not lose the training. The first is shown at once, and
// ends the run as its error when all is done and saved.
func (r *run) told(err error) {
	if err != nil && r.untold == nil {
		r.untold = fmt.Errorf("report: %w", err)
		r.Log.Error("the run goes on, but its report is incomplete", "error", err)
	}
}

// report tells the sink of a step, if it is its turn.
func (r *run) report(f *flight, v []float32) error {
	if r.LogEvery == 0 || f.at.Step%r.LogEvery != 0 && f.at.Step != r.Steps {
		return nil
	}
	tokens := float64(r.Global) * float64(r.Seq)
	s := report.Step{Step: f.at.Step, Steps: r.Steps, Loss: float64(v[metricLoss]), CE: float64(v[metricCE]), Aux: float64(v[metricAux]),
		Z: float64(v[metricZ]), LR: f.lr, GradNorm: float64(v[metricNorm]), Tokens: f.at.Tokens, TokensPerSecond: tokens / f.seconds,
		StepSeconds: f.seconds, Skipped: r.at.Skipped, Good: v[metricGood] != 0, Dropped: float64(v[metricDropped])}
	if r.Peak > 0 {
		s.MFU = s.TokensPerSecond * FLOPs(r.Model, r.Seq) / r.Peak
	}
	for l := range r.Model.Layers {
		row := make([]float64, r.Model.Experts)
		for e := range row {
			row[e] = float64(v[metricLoad+l*len(row)+e])
		}
		s.Load = append(s.Load, row)
	}
	return r.Report.Step(s)
}
