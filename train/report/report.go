// Package report shows a training run to a person: a progress line, a file of metrics, TensorBoard
// events and an HTML page.
//
//	Step, Eval → metrics (JSONL) · events (TensorBoard) · history → page (HTML) · progress line
//
// The page's past comes from the files of metrics, so a resumed run's page shows all of the run.
package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Step is what one step of training did.
type Step struct {
	Step, Steps     int         // this one, counted from 1, and the last
	Loss, CE, Aux   float64     // nats a token: what is minimised, cross-entropy, load balancing before its coefficient
	Z               float64     // the router's z-loss before its coefficient
	LR, GradNorm    float64     // learning rate; global norm of the gradient before clipping
	Tokens          int64       // trained on up to now
	TokensPerSecond float64     // tokens of the step over StepSeconds
	MFU             float64     // model FLOPs utilisation by TokensPerSecond; 0 when the peak is unknown
	StepSeconds     float64     // wall clock, between the host's readings of this step's numbers and the last one's
	Skipped         int         // updates skipped up to now because the gradient was not finite
	Load            [][]float64 // [layer][expert] share of the routed tokens; rows sum to 1
	Good            bool        // the update was made
	Dropped         float64     // share of the routed tokens that found no room at their experts
}

// Eval is what one evaluation found.
type Eval struct {
	Step        int     // steps done before it
	Loss        float64 // cross-entropy, nats a token
	Perplexity  float64
	BitsPerByte float64 // 0 when unknown
	Best        bool    // the lowest loss up to now
	Seconds     float64
	Samples     []Sample
}

// Sample is text that the model wrote.
type Sample struct {
	Prompt string `json:"prompt"`
	Text   string `json:"text"` // what follows the prompt
}

// Sink is told what a run does. Errors are those of writing; the loop decides what they mean.
type Sink interface {
	// Start comes before all else. Steps up to first, of steps in all, were done by an earlier run: what
	// the files say of later ones is dropped.
	Start(first, steps int) error
	// Step tells of a step. Not all steps need be told of, those that are in their order.
	Step(Step) error
	Eval(Eval) error
	// Saved tells of a checkpoint of that step which is whole on disk.
	Saved(step int, seconds float64, path string)
	// Close finishes the files. The run has ended, at its last step or before.
	Close() error
}

// Options of a report. What is empty is not written.
type Options struct {
	Title       string
	Config      json.RawMessage // an object, the settings shown in the page
	JSONL       string          // file of metrics, a line a step; F.eval.jsonl beside F.jsonl has a line an evaluation
	TensorBoard string          // folder of event files
	HTML        string          // file of the page
	Progress    io.Writer       // of the progress line; writing it never fails a step
	Terminal    bool            // Progress is a terminal, whose line is rewritten in place
	Width       func() int      // columns of the terminal; nil is 80

	// RefreshEvery is the least time between two versions of the page, and how often an open page
	// reloads; 0 is 10 seconds.
	RefreshEvery time.Duration

	now func() time.Time
}

const defaultRefresh = 10 * time.Second

// Validate refuses settings that are no JSON object and a negative interval.
func (o Options) Validate() error {
	if o.RefreshEvery < 0 {
		return fmt.Errorf("report: RefreshEvery is %s, want 0 or more", o.RefreshEvery)
	}
	if _, err := settings(o.Config); err != nil {
		return fmt.Errorf("report: Config: %w", err)
	}
	return nil
}

// A Report is the Sink of one run. Its methods may be called from several goroutines.
type Report struct {
	mu       sync.Mutex
	now      func() time.Time
	pace     pace
	history  *history
	metrics  *metrics      // nil writes none
	events   *events       // nil writes none
	page     *page         // nil writes none
	progress *progressLine // never nil
	closed   bool
}

// Open makes the files, or fails at once if one cannot be written. Nothing that is there is lost before
// Start.
func Open(o Options) (_ *Report, err error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.now == nil {
		o.now = time.Now
	}
	if o.RefreshEvery == 0 {
		o.RefreshEvery = defaultRefresh
	}
	r := &Report{now: o.now, history: &history{}, progress: newProgressLine(o)}
	defer func() {
		if err != nil {
			r.closeFiles()
		}
	}()
	if o.JSONL != "" {
		if r.metrics, err = openMetrics(o.JSONL); err != nil {
			return nil, fmt.Errorf("report: metrics: %w", err)
		}
	}
	if o.TensorBoard != "" {
		if r.events, err = openEvents(o.TensorBoard, o.now); err != nil {
			return nil, fmt.Errorf("report: TensorBoard: %w", err)
		}
	}
	if o.HTML != "" {
		if r.page, err = openPage(o); err != nil {
			return nil, fmt.Errorf("report: page: %w", err)
		}
	}
	return r, nil
}

// Start implements Sink. It fails if a file of metrics holds anything else.
func (r *Report) Start(first, steps int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	if r.metrics != nil {
		errs = append(errs, wrap("metrics", r.metrics.start(first, r.history)))
	}
	r.history.start(first, steps)
	if r.events != nil {
		errs = append(errs, wrap("TensorBoard", r.events.start(first)))
	}
	if r.page != nil {
		errs = append(errs, wrap("page", r.page.write(r.view(true))))
	}
	return errors.Join(errs...)
}

// Step implements Sink. A file that fails does not keep the others from their row.
//
// Metrics and events have the step's speed as it was measured, with an MFU of 1 for more than that: the
// host read the clock late. The line and the page show the speed of the last ten steps.
func (r *Report) Step(s Step) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	r.pace.step(s.Step, s.StepSeconds)
	shown := r.history.step(s)
	s.MFU = min(s.MFU, 1)
	var errs []error
	if r.metrics != nil {
		errs = append(errs, wrap("metrics", r.metrics.step(s)))
	}
	if r.events != nil {
		errs = append(errs, wrap("TensorBoard", r.events.step(s)))
	}
	errs = append(errs, r.refresh(now))
	r.progress.step(now, shown, r.pace.left(s.Steps-s.Step))
	return errors.Join(errs...)
}

// Eval implements Sink.
func (r *Report) Eval(e Eval) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pace.pause(e.Seconds)
	r.history.eval(e)
	var errs []error
	if r.metrics != nil {
		errs = append(errs, wrap("metrics", r.metrics.eval(e)))
	}
	if r.events != nil {
		errs = append(errs, wrap("TensorBoard", r.events.eval(e)))
	}
	errs = append(errs, r.refresh(r.now()))
	r.progress.say(evalText(e))
	return errors.Join(errs...)
}

// Saved implements Sink.
func (r *Report) Saved(step int, seconds float64, path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.saved(step)
	r.progress.say(fmt.Sprintf("saved step %d to %s in %s\n", step, printable(path), span(seconds)))
}

// Close implements Sink. The page no longer reloads. A second call does nothing.
func (r *Report) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	r.progress.close()
	var err error
	if r.page != nil {
		err = wrap("page", errors.Join(r.page.wait(), r.page.write(r.view(false))))
	}
	return errors.Join(err, r.closeFiles())
}

// Messages is a writer for lines that belong above the progress line, such as a log's.
func (r *Report) Messages() io.Writer { return messages{r} }

type messages struct{ r *Report }

func (m messages) Write(b []byte) (int, error) {
	m.r.mu.Lock()
	defer m.r.mu.Unlock()
	m.r.progress.say(string(b))
	return len(b), nil
}

// refresh begins a version of the page if one is due. Its error is that of the version before.
func (r *Report) refresh(now time.Time) error {
	if r.page == nil || !r.page.due(now) {
		return nil
	}
	err := r.page.wait()
	r.page.begin(now, r.view(true))
	return wrap("page", err)
}

// view is a copy of all that the page shows.
func (r *Report) view(running bool) view {
	v := view{history: r.history.clone(), running: running, at: r.now()}
	v.left = r.pace.left(v.history.last.Steps - v.history.done())
	return v
}

func (r *Report) closeFiles() error {
	var errs []error
	if r.metrics != nil {
		errs = append(errs, wrap("metrics", r.metrics.close()))
	}
	if r.events != nil {
		errs = append(errs, wrap("TensorBoard", r.events.close()))
	}
	return errors.Join(errs...)
}

func wrap(file string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("report: %s: %w", file, err)
}
