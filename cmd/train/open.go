package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"mix/graph"
	"mix/internal/cli"
	"mix/sharding/ckpt"
	"mix/train"
	"mix/train/data"
	"mix/train/report"
	"mix/train/store"
)

// session is a run with everything that it holds open.
type session struct {
	c       *command
	p       plan
	out     io.Writer // for messages: standard error, then the report's
	log     *slog.Logger
	job     train.Job
	store   *store.Store // nil saves nothing
	saved   string       // the last checkpoint's folder
	closers []func() error

	settings []byte // to be written with the first checkpoint, nil for none
}

// Write sends messages to where they are shown now.
func (s *session) Write(b []byte) (int, error) { return s.out.Write(b) }

// train opens everything and trains: the device first, which makes no files, then the save folder.
func (c *command) train(ctx context.Context, p plan, shown []setting, streams *cli.IO) (err error) {
	s := &session{c: c, p: p, out: streams.Err}
	s.log = slog.New(slog.NewTextHandler(s, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey && len(groups) == 0 {
			return slog.Attr{}
		}
		return a
	}}))
	s.job = train.Job{Options: p.Options, Base: p.from, Tokenizer: p.tokenizer, Log: s.log}
	defer func() {
		for i := len(s.closers) - 1; i >= 0; i-- {
			err = errors.Join(err, s.closers[i]())
		}
		if errors.Is(err, context.Canceled) && ctx.Err() != nil {
			err = interrupted(ctx)
		}
	}()
	for _, open := range []func() error{func() error { return s.openDevice(ctx) }, s.openStore, s.checkExport,
		func() error { return s.openReport(shown, streams) }, func() error { return s.openData(ctx, streams) }, s.openWeights,
		func() error { return s.keepSettings(shown) }, s.measure} {
		if err := open(); err != nil {
			return err
		}
	}
	res, err := train.Run(ctx, s.job)
	if err != nil {
		return err
	}
	if res.Interrupted {
		fmt.Fprintf(s, "interrupted after step %d of %d%s\n", res.Step, s.p.Steps, s.resumeHint())
		return interrupted(ctx)
	}
	if res.Step > s.p.Steps {
		fmt.Fprintf(s, "the run is already at step %d, --train-iters is %d: nothing was trained\n", res.Step, s.p.Steps)
	}
	if err := s.export(); err != nil {
		return err
	}
	return s.print(streams.Out, res)
}

func (s *session) resumeHint() string {
	if s.store == nil {
		return ": nothing is saved without --save"
	}
	return ": the same command goes on from there"
}

func (s *session) openStore() error {
	if s.c.Save == "" {
		s.log.Warn("nothing of this run is kept: --save names a folder for checkpoints")
		return nil
	}
	files, err := s.c.files(s.p, "float32")
	if err != nil {
		return err
	}
	s.store, err = store.Open(s.c.Save, store.Options{KeepLast: s.c.KeepLast, KeepBest: s.c.KeepBest, Params: graph.Params(s.p.Model), Files: files, Log: s.log,
		Saved: func(step int, took time.Duration, dir string) {
			s.saved = dir
			s.settingsSaved()
			s.job.Report.Saved(step, took.Seconds(), dir)
		}})
	if err != nil {
		return err
	}
	s.job.Store = s.store
	s.closers = append(s.closers, s.store.Close)
	return nil
}

func (s *session) openReport(shown []setting, streams *cli.IO) error {
	for _, file := range []string{s.c.Metrics, s.c.Report} {
		if file != "" {
			if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
				return err
			}
		}
	}
	if info, err := os.Stat(s.c.Metrics); err == nil && info.Size() > 0 && !s.goesOn() {
		fmt.Fprintf(s, "%s has rows of an earlier run: they are replaced\n", s.c.Metrics)
	}
	config, err := settingsJSON(shown)
	if err != nil {
		return err
	}
	o := report.Options{Title: s.title(), Config: config, JSONL: s.c.Metrics, TensorBoard: s.c.TensorboardDir, HTML: s.c.Report, Progress: streams.Err}
	if f, ok := streams.Err.(*os.File); ok {
		o.ProgressOn(f)
	}
	r, err := report.Open(o)
	if err != nil {
		return err
	}
	s.job.Report, s.out = r, r.Messages()
	s.closers = append(s.closers, func() error {
		s.out = streams.Err
		return r.Close()
	})
	return nil
}

// title names a run in its report.
func (s *session) title() string {
	if s.c.Save != "" {
		return s.c.Preset + " · " + s.c.Save
	}
	return s.c.Preset
}

func (s *session) openData(ctx context.Context, streams *cli.IO) error {
	spec, err := s.c.spec(s.p)
	if err != nil {
		return err
	}
	spec.Progress = tokenizing(streams.Err)
	if s.job.Data, err = data.OpenSets(ctx, spec); err != nil {
		return err
	}
	s.closers = append(s.closers, s.job.Data.Close)
	fmt.Fprintln(s, s.job.Data.Description)
	if s.p.tokenizer == nil {
		return nil
	}
	sample, err := s.job.Data.Show(0, 400)
	if err != nil {
		return err
	}
	fmt.Fprintln(s, sample)
	return nil
}

// openWeights opens the checkpoint that the weights begin with. Its tensors are read later.
func (s *session) openWeights() error {
	n, _ := s.p.bytes()
	if s.p.from == "" {
		fmt.Fprintf(s, "model: %d parameters, fresh weights of seed %d\n", n, s.p.Seed)
		return nil
	}
	weights, err := ckpt.Open(s.p.from, graph.Params(s.p.Model), ckpt.Options{Warn: func(message string) { s.log.Warn(message) }})
	if err != nil {
		return err
	}
	s.job.Start = weights
	s.closers = append(s.closers, weights.Close)
	fmt.Fprintf(s, "model: %d parameters of %s\n", n, s.p.from)
	return nil
}

func (s *session) openDevice(ctx context.Context) error {
	be, err := s.c.Device.OpenOn(ctx, s, s.p.mesh, s.p.rules)
	if err != nil {
		return err
	}
	s.job.Backend = be
	s.closers = append(s.closers, func() error { be.Finalize(); return nil })
	return nil
}

// measure finds what the device can do at most, the last thing before programs are compiled.
func (s *session) measure() (err error) {
	if s.job.Peak, err = train.Peak(s.job.Backend, s.p.DType); err != nil {
		return err
	}
	fmt.Fprintln(s, "compiling")
	return nil
}
