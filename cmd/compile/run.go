package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"mix/internal/cli"
	"mix/internal/knob"
	"mix/lower"
	"mix/lower/aot"
	"mix/lower/plugin"
	"mix/lower/target"
)

// run compiles and reports.
func (c *command) run(ctx context.Context, streams *cli.IO) error {
	mesh, rules, err := c.sharding() // --device runs nothing here: it is checked, and there for scripts
	if err != nil {
		return err
	}
	chip, err := target.LookupChip(c.Target)
	if err != nil {
		return err
	}
	m, err := c.config()
	if err != nil {
		return fmt.Errorf("%w: %w", cli.ErrUsage, err)
	}
	if err := c.complete(m, mesh, chip); err != nil {
		return err
	}
	knobs, err := knob.Read(slog.Default())
	if err != nil {
		return err
	}
	o := lower.Options{Platform: chip.Platform, Mesh: mesh, Rules: rules, DumpDir: c.Dump, CacheDir: c.Cache}.WithKnobs(knobs)
	dtype, err := c.dtype(m)
	if err != nil {
		return err
	}
	e, trace, err := c.job(m, dtype).Emit(ctx, o)
	if err != nil {
		return err
	}
	r := aot.Request{Program: e.Name, Text: e.Text, Options: e.Options, Chip: chip, Devices: mesh.Devices()}
	if c.Dump != "" {
		r.Dump = filepath.Join(c.Dump, "xla")
	}
	if err := tools(ctx, &r, streams.Err); err != nil {
		return err
	}
	x, err := aot.Compile(ctx, r)
	if err != nil {
		return err
	}
	out := &aot.Report{Program: e.Name, Mesh: mesh.String(), Devices: mesh.Devices(), Settings: c.settings(), Dump: c.Dump,
		Seconds: aot.Seconds{Trace: trace.Seconds(), Passes: e.Passes.Seconds()}}
	if c.Keep {
		fingerprint, err := plugin.Fingerprint(r.Plugin)
		if err != nil {
			return err
		}
		if out.Cached, err = lower.Keep(o, fingerprint, chip.Kind, e, x.Executable); err != nil {
			return err
		}
	}
	out.Fill(chip, x)
	if c.JSON {
		return json.NewEncoder(streams.Out).Encode(out)
	}
	return out.Print(streams.Out)
}

// tools finds or installs what the worker needs.
func tools(ctx context.Context, r *aot.Request, progress io.Writer) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r.Command = []string{self, "--worker"}
	o := plugin.Options{Platform: r.Chip.Platform, Progress: progress, WithoutGPU: true}
	if r.Plugin, err = plugin.Ensure(ctx, o); err != nil {
		return err
	}
	if r.Chip.Platform == target.CUDA {
		r.Tools, err = plugin.EnsureTools(ctx, r.Plugin, o)
	}
	return err
}
