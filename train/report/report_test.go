package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// clock is a time that goes on by a second at each call.
func clock() func() time.Time {
	t := time.Unix(1700000000, 0)
	return func() time.Time { t = t.Add(time.Second); return t }
}

// walk is a step of a run that depends on its number alone.
func walk(step, steps, layers, experts int) Step {
	rng := rand.New(rand.NewPCG(uint64(step), 1))
	ce := 2 + 6*math.Exp(-float64(step)/100) + 0.1*rng.Float64()
	s := Step{Step: step, Steps: steps, CE: ce, Aux: 1 + rng.Float64()/10, LR: 1e-3 / float64(step), GradNorm: rng.Float64() + 0.5,
		Tokens: int64(step) * 1024, TokensPerSecond: 4000 + 100*rng.Float64(), MFU: 0.31, StepSeconds: 0.25, Skipped: step / 7, Good: step%7 != 0}
	s.Loss = ce + 0.02*s.Aux
	for range layers {
		row, total := make([]float64, experts), 0.0
		for e := range row {
			row[e] = 1 + float64(e%2)/4 + rng.Float64()/8
			total += row[e]
		}
		for e := range row {
			row[e] /= total
		}
		s.Load = append(s.Load, row)
	}
	return s
}

func evaluate(step int) Eval {
	return Eval{Step: step, Loss: 3 - float64(step)/100, Perplexity: 20, BitsPerByte: 1.5, Best: true, Seconds: 2,
		Samples: []Sample{{"Define <b>.", " A letter & more.\nEnd."}}}
}

// files are all files of a report in a folder.
func files(dir string) Options {
	return Options{Title: "a run", Config: []byte(`{"lr":0.001}`), JSONL: filepath.Join(dir, "metrics.jsonl"), HTML: filepath.Join(dir, "run.html"),
		TensorBoard: filepath.Join(dir, "tb"), RefreshEvery: time.Hour, now: clock()}
}

func run(t *testing.T, r *Report, from, to int) {
	for step := from; step <= to; step++ {
		require.NoError(t, r.Step(walk(step, 20, 2, 4)))
		if step%5 == 0 {
			require.NoError(t, r.Eval(evaluate(step)))
			r.Saved(step, 1, "a folder")
		}
	}
}

func TestResumedFilesEqualUninterrupted(t *testing.T) {
	whole, parts := t.TempDir(), t.TempDir()
	r, err := Open(files(whole))
	require.NoError(t, err)
	require.NoError(t, r.Start(0, 20))
	run(t, r, 1, 20)
	require.NoError(t, r.Close())

	for _, killed := range []struct{ first, last int }{{0, 7}, {5, 14}, {10, 10}} {
		r, err = Open(files(parts))
		require.NoError(t, err)
		require.NoError(t, r.Start(killed.first, 20))
		run(t, r, killed.first+1, killed.last)
	}
	r, err = Open(files(parts))
	require.NoError(t, err)
	require.NoError(t, r.Start(10, 20))
	require.NoError(t, r.Eval(evaluate(10)), "the loop may evaluate again what it resumes from")
	run(t, r, 11, 20)
	require.NoError(t, r.Close())
	require.NoError(t, r.Close(), "a second time")

	for name, rows := range map[string]int{"metrics.jsonl": 20, "metrics.eval.jsonl": 4} {
		require.Equal(t, rows, strings.Count(read(t, whole, name), "\n"))
		require.Equal(t, read(t, whole, name), read(t, parts, name))
	}
	undated := func(page string) []string {
		return strings.Split(page[strings.Index(page, "<header>"):strings.Index(page, `<script>"use strict"`)], "\n")
	}
	require.Equal(t, undated(read(t, whole, "run.html")), undated(read(t, parts, "run.html")))
	require.Contains(t, read(t, whole, "run.html"), "finished, 20 steps")
}

func read(t *testing.T, path ...string) string {
	b, err := os.ReadFile(filepath.Join(path...))
	require.NoError(t, err)
	return string(b)
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "m.eval.jsonl"), 0o755))
	for name, o := range map[string]Options{
		"settings that are no JSON":           {Config: []byte(`{"a":`)},
		"settings that are no object":         {Config: []byte(`[1]`)},
		"a negative interval":                 {RefreshEvery: -1},
		"metrics that are a folder":           {JSONL: dir},
		"metrics in a file":                   {JSONL: filepath.Join(file, "m.jsonl")},
		"evaluations that are a folder":       {JSONL: filepath.Join(dir, "m.jsonl")},
		"events in a file":                    {TensorBoard: file},
		"a page that is a folder":             {HTML: dir},
		"a page in a file":                    {HTML: filepath.Join(file, "p.html")},
		"a page in a folder that is no place": {HTML: "/dev/null/p.html"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(o)
			require.Error(t, err)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

// A full disk is the device that Linux has for this.
func TestFullDiskIsReportedAndTearsNothing(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("needs /dev/full")
	}
	dir := t.TempDir()
	r, err := Open(files(dir))
	require.NoError(t, err)
	require.NoError(t, r.Start(0, 20))
	require.NoError(t, r.Step(walk(1, 20, 2, 4)))

	good := r.metrics.steps.out.f
	r.metrics.steps.out.f = full
	for step := 2; step <= 3; step++ {
		err = r.Step(walk(step, 20, 2, 4))
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.ErrorContains(t, err, "metrics")
	}
	r.metrics.steps.out.f = good
	require.NoError(t, r.Step(walk(4, 20, 2, 4)))
	require.NoError(t, r.Close())

	var steps []int
	for _, line := range strings.Split(strings.TrimSpace(read(t, dir, "metrics.jsonl")), "\n") {
		var row struct{ Step int }
		require.NoError(t, json.Unmarshal([]byte(line), &row))
		steps = append(steps, row.Step)
	}
	require.Equal(t, []int{1, 2, 3, 4}, steps)
	require.Len(t, scalars(t, r.events.out.f.Name(), "loss"), 4, "the other file has every step")
}

func TestAFinishedRunStartedAgainIsFinished(t *testing.T) {
	for name, steps := range map[string]int{"as many steps": 5, "fewer steps": 4} {
		for _, metrics := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, metrics %t", name, metrics), func(t *testing.T) {
				dir := t.TempDir()
				for _, first := range []int{0, 5} {
					o := files(dir)
					if !metrics {
						o.JSONL = ""
					}
					r, err := Open(o)
					require.NoError(t, err)
					require.NoError(t, r.Start(first, max(steps, 5-first)))
					if first == 5 {
						require.Contains(t, read(t, dir, "run.html"), fmt.Sprintf("running, step 5 of %d", steps))
					}
					run(t, r, first+1, 5)
					require.NoError(t, r.Close())
				}
				require.Contains(t, read(t, dir, "run.html"), "finished, 5 steps, saved at step 5")
				require.Contains(t, read(t, dir, "run.html"), `aria-valuenow="100.00"`)
			})
		}
	}
}

// The host read the third step late: it looks long, and the fourth ten times as fast as the device is.
func TestSpeedShownIsThatOfTheDevice(t *testing.T) {
	dir := t.TempDir()
	var out strings.Builder
	o := files(dir)
	o.Progress = &out
	r, err := Open(o)
	require.NoError(t, err)
	require.NoError(t, r.Start(0, 4))
	for i, seconds := range []float64{0.25, 0.25, 0.475, 0.025} {
		s := walk(i+1, 4, 0, 0)
		s.StepSeconds, s.TokensPerSecond, s.MFU = seconds, 1000/seconds, 0.1/seconds
		require.NoError(t, r.Step(s))
	}
	require.NoError(t, r.Close())
	require.Regexp(t, `step 4/4 .* 4000 tok/s mfu 40%`, out.String())
	require.Contains(t, read(t, dir, "run.html"), "<b>4000</b><small>40.0% of the peak (MFU)</small>")
	require.Contains(t, read(t, dir, "run.html"), `"rate":[4000,4000,3076.9,4000]`)
	rows := strings.Split(read(t, dir, "metrics.jsonl"), "\n")
	require.Contains(t, rows[2], `"mfu":0.2105`)
	require.Contains(t, rows[3], `"tokens_per_second":40000,"mfu":1,"step_seconds":0.025,`)
	require.Equal(t, float32(1), scalars(t, r.events.out.f.Name(), "mfu")[4])
}

func TestPageThatCannotBeWrittenIsReported(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	o := files(dir)
	o.JSONL, o.TensorBoard, o.RefreshEvery = "", "", time.Nanosecond
	r, err := Open(o)
	require.NoError(t, err)
	require.NoError(t, r.Start(0, 20))
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, r.Step(walk(1, 20, 2, 4)), "written while the run goes on")
	require.ErrorIs(t, r.Close(), os.ErrNotExist)
}

func TestPageIsMadeNoOftenerThanAsked(t *testing.T) {
	dir := t.TempDir()
	o := files(dir)
	o.RefreshEvery = 10 * time.Second
	now := time.Unix(1700000000, 0)
	o.now = func() time.Time { return now }
	r, err := Open(o)
	require.NoError(t, err)
	require.NoError(t, r.Start(0, 20))
	var began []int
	for step := 1; step <= 25; step++ {
		before := r.page.began
		require.NoError(t, r.Step(walk(step, 30, 2, 4)))
		if r.page.began != before {
			began = append(began, step)
			for len(r.page.busy) == 0 { // let the version be whole
				time.Sleep(time.Millisecond)
			}
			require.Contains(t, read(t, dir, "run.html"), fmt.Sprintf("step %d of 30", step))
		}
		now = now.Add(time.Second)
	}
	require.Equal(t, []int{1, 11, 21}, began)
	require.Contains(t, read(t, dir, "run.html"), `data-refresh="10"`)
	require.NoError(t, r.Close())
	require.NotContains(t, read(t, dir, "run.html"), `data-refresh="`)
	require.Contains(t, read(t, dir, "run.html"), "stopped after step 25 of 30")
	left, err := filepath.Glob(filepath.Join(dir, ".run.html-*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestWithoutFilesNothingIsWritten(t *testing.T) {
	r, err := Open(Options{})
	require.NoError(t, err)
	var s Sink = r
	require.NoError(t, errors.Join(s.Start(0, 1), s.Step(Step{}), s.Step(Step{Step: 1, Steps: 1, Load: [][]float64{{}}}), s.Eval(Eval{}), s.Close()))
}

// BenchmarkStep is the host's cost of a step of Mixtral 8x7B's size with every file and the line.
func BenchmarkStep(b *testing.B) {
	dir := b.TempDir()
	o := files(dir)
	o.now, o.RefreshEvery, o.Progress, o.Terminal = time.Now, time.Second, io.Discard, true
	r, err := Open(o)
	require.NoError(b, err)
	require.NoError(b, r.Start(0, 1<<30))
	s := walk(1, 1<<30, 32, 8)
	worst := time.Duration(0)
	for b.Loop() {
		began := time.Now()
		require.NoError(b, r.Step(s))
		worst = max(worst, time.Since(began))
		s.Step++
	}
	b.ReportMetric(float64(worst.Microseconds()), "worst-µs")
	require.NoError(b, r.Close())
}
