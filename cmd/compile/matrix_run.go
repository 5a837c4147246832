package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"text/tabwriter"
	"time"

	"mix/internal/cli"
	"mix/lower/aot"
	"mix/lower/target"
)

// result is a line of --results: what became of a mapping.
type result struct {
	Name     string      `json:"name"` // the mapping's, the key
	Target   string      `json:"target"`
	Preset   string      `json:"preset"`
	Program  string      `json:"program"`
	Devices  int         `json:"devices"`
	Mesh     string      `json:"mesh"`
	Planned  float64     `json:"planned_bytes"` // a device, by the planner
	Memory   aot.Memory  `json:"memory"`
	Seconds  aot.Seconds `json:"seconds"`
	Wall     float64     `json:"wall_seconds"` // of the process
	Kernels  int         `json:"kernels"`      // of ours
	Matrix   int         `json:"wgmma_kernels"`
	Spilled  int         `json:"spilled_bytes"` // of ours
	Work     float64     `json:"work"`          // operations of XLA's products over those that there are to do; kernels of ours do not count
	Problems []string    `json:"problems"`
}

// fill takes what a report says.
func (r *result) fill(m mapping, p aot.Report) {
	r.Memory, r.Seconds, r.Work = p.Memory, p.Seconds, float64(p.Cost.FLOPs)/m.work
	for _, k := range p.Kernels {
		if !k.Ours {
			continue
		}
		r.Kernels++
		r.Spilled += k.Spilled
		if k.WGMMA > 0 {
			r.Matrix++
		}
	}
	note := func(is bool, format string, args ...any) {
		if is {
			r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
		}
	}
	note(!p.Memory.Fits, "%.1f GB do not fit", float64(p.Memory.Total)/1e9)
	note(r.Spilled > 0, "%d bytes of registers spilled", r.Spilled)
	note(r.Work > m.slack, "%.1f times the work that there is: experts are computed densely", r.Work)
	note(r.Kernels == 0 && p.Target != target.CPU, "no kernel of ours")
}

// String is a row for people.
func (r result) String() string {
	verdict := "ok"
	if len(r.Problems) > 0 {
		verdict = strings.Join(r.Problems, "; ")
	}
	return fmt.Sprintf("%s\t%s\t%d\t%s\t%.1f\t%.1f\t%.0f\t%.0f\t%d\t%d\t%.2f\t%s", r.Preset, r.Program, r.Devices, r.Mesh, r.Planned/1e9, float64(r.Memory.Total)/1e9,
		r.Wall, r.Seconds.XLA, r.Kernels, r.Spilled, r.Work, verdict)
}

// matrix compiles mappings one after the other.
func (c *command) matrix(ctx context.Context, streams *cli.IO) error {
	chip, err := target.LookupChip(c.Target)
	if err != nil {
		return err
	}
	if chip.Platform == target.CPU || c.Sample < 0 || c.Timeout <= 0 {
		return fmt.Errorf("%w: --matrix of %s, sample %d, timeout %s: want a GPU, at least 0 and more than 0", cli.ErrUsage, c.Target, c.Sample, c.Timeout)
	}
	all, err := mappings(chip)
	if err != nil {
		return err
	}
	if all, err = c.chosen(all); err != nil {
		return fmt.Errorf("%w: %w", cli.ErrUsage, err)
	}
	known, err := readResults(c.Results)
	if err != nil {
		return err
	}
	if err := tools(ctx, &aot.Request{Chip: chip}, streams.Err); err != nil { // installed once, before the processes
		return err
	}
	var rows []result
	bad := 0
	for i, m := range all {
		r, done := known[c.Target+" "+m.name()]
		if !done || len(r.Problems) > 0 {
			fmt.Fprintf(streams.Err, "%d of %d: %s\n", i+1, len(all), m.name())
			if r, err = c.one(ctx, m); err != nil {
				break
			}
			if err = appendResult(c.Results, r); err != nil {
				break
			}
		}
		rows = append(rows, r)
		if len(r.Problems) > 0 {
			bad++
		}
	}
	if failed := c.printMatrix(streams.Out, rows); failed != nil {
		return failed
	}
	switch {
	case err != nil:
		return err
	case bad > 0:
		return fmt.Errorf("%d of %d mappings have problems", bad, len(rows))
	}
	return nil
}

// one compiles a mapping in a process of its own. The error is of the context.
func (c *command) one(ctx context.Context, m mapping) (result, error) {
	r := result{Name: m.name(), Target: c.Target, Preset: m.preset, Program: m.program, Devices: m.devices, Mesh: m.mesh.String(), Planned: m.planned, Problems: []string{}}
	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	args := append([]string{"--target", c.Target, "--json", "--no-keep"}, m.args...)
	if c.Cache != "" {
		args = append(args, "--cache", c.Cache)
	}
	bounded, stop := context.WithTimeout(ctx, c.Timeout)
	defer stop()
	run := exec.CommandContext(bounded, self, args...)
	run.Cancel = func() error { return run.Process.Signal(os.Interrupt) } // it ends its own worker
	run.WaitDelay = 10 * time.Second
	var out, log bytes.Buffer
	run.Stdout, run.Stderr = &out, &log
	start := time.Now()
	err = run.Run()
	r.Wall = time.Since(start).Seconds()
	if ctx.Err() != nil {
		return r, ctx.Err()
	}
	var p aot.Report
	switch {
	case bounded.Err() != nil:
		r.Problems = append(r.Problems, "took more than "+c.Timeout.String())
		return r, nil
	case err != nil:
		r.Problems = append(r.Problems, lastLine(log.String(), err))
		return r, nil
	}
	if err := json.Unmarshal(out.Bytes(), &p); err != nil {
		r.Problems = append(r.Problems, err.Error())
		return r, nil
	}
	r.fill(m, p)
	return r, nil
}

// lastLine is what a process said last.
func lastLine(log string, err error) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return last
	}
	return err.Error()
}

// readResults reads the lines of a file that may not be there. A last line that was cut off does not count.
func readResults(path string) (map[string]result, error) {
	known := map[string]result{}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return known, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	in := bufio.NewReader(f)
	for n := 1; ; n++ {
		line, err := in.ReadBytes('\n')
		if err == io.EOF {
			return known, nil
		}
		if err != nil {
			return nil, err
		}
		var r result
		if err := json.Unmarshal(line, &r); err != nil || r.Name == "" {
			return nil, fmt.Errorf("%s: line %d is no result of --matrix: %w", path, n, errors.Join(err))
		}
		known[r.Target+" "+r.Name] = r
	}
}

func appendResult(path string, r result) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}

func (c *command) printMatrix(out io.Writer, rows []result) error {
	if c.JSON {
		return json.NewEncoder(out).Encode(map[string][]result{"mappings": rows})
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "model\tprogram\tdevices\tmesh\tplanned GB\tGB\ts\tof XLA\tkernels\tspilled\twork\t")
	for _, r := range rows {
		fmt.Fprintln(w, r)
	}
	return w.Flush()
}
