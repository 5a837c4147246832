package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"mix/cmd/bench/gpu"
	"mix/cmd/internal/flags"
	"mix/internal/cli"
	"mix/lower/target"
)

type gpuCommand struct {
	Device  string   `default:"cuda" placeholder:"cpu|cuda[:n]" help:"Device to measure: cuda, cuda:n for the nth GPU, or cpu. Default: ${default}."`
	Only    []string `placeholder:"PART,…" help:"Only these parts: parity, grouped, tune, serve, train. Default: all, tune with --tune alone."`
	Small   bool     `help:"Tiny sizes, to try everything out; rates then say nothing."`
	Layers  int      `placeholder:"N" help:"Layers of the model in serve and train. Default: as many as fit the device."`
	Seconds float64  `default:"600" placeholder:"S" help:"Time for all parts; each has a share of it, and ends at the next measurement when that is over. Default: ${default}."`
	Tune    string   `placeholder:"FILE" help:"Try tiles of kernels and write the table with the fastest there, in the form of lower/triton/tiles.json."`
	Tiles   string   `placeholder:"FILE" help:"Take the tiles of kernels that are measured by themselves from this table. Default: the compiler's own."`
	JSON    bool     `name:"json" help:"Print one JSON object; rows go to stderr as they come."`
}

// errFailed says that the report, which is printed, has failures.
var errFailed = errors.New("a kernel differs from its plain form, or a part failed: see the report")

// Run measures and reports. Where a signal ends it, it reports what it has.
func (c *gpuCommand) Run(ctx context.Context, streams *cli.IO) error {
	platform, ordinal, err := flags.ParseDevice(c.Device)
	if err != nil {
		return err
	}
	if err := c.check(platform); err != nil {
		return fmt.Errorf("%w: %w", cli.ErrUsage, err)
	}
	d, err := gpu.Open(ctx, platform, ordinal, streams.Err)
	if err != nil {
		return err
	}
	defer d.Close()
	rows := streams.Out
	if c.JSON {
		rows = streams.Err
	}
	report, interrupted := gpu.Run(ctx, d, gpu.Options{Only: c.Only, Small: c.Small, Seconds: c.Seconds, Tune: c.Tune, Tiles: c.Tiles, Layers: c.Layers,
		Out: rows, Log: streams.Err})
	if report == nil {
		return interrupted
	}
	if err := c.print(streams.Out, report); err != nil {
		return err
	}
	if interrupted == nil && report.Failed {
		return errFailed
	}
	return interrupted
}

func (c *gpuCommand) check(platform string) error {
	switch {
	case platform == target.CPU && !c.Small:
		return errors.New("--device cpu without --small: full width is for GPUs")
	case !(c.Seconds > 0):
		return fmt.Errorf("--seconds is %g, want more than 0", c.Seconds)
	case c.Layers < 0:
		return fmt.Errorf("--layers is %d, want at least 0", c.Layers)
	}
	for _, part := range c.Only {
		if !slices.Contains(gpu.Parts, part) {
			return fmt.Errorf("--only %q, want %s", part, strings.Join(gpu.Parts, ", "))
		}
		if part == "tune" && c.Tune == "" {
			return errors.New("--only tune without --tune FILE")
		}
	}
	return nil
}

func (c *gpuCommand) print(out io.Writer, r *gpu.Report) error {
	if c.JSON {
		return json.NewEncoder(out).Encode(r)
	}
	return r.Print(out)
}
