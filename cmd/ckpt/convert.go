package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"mix/cmd/internal/flags"
	"mix/graph"
	"mix/internal/cli"
	"mix/sharding/axis"
	"mix/sharding/ckpt"
)

// target is the flags that say what a checkpoint becomes.
type target struct {
	flags.Device
	From     string `required:"" placeholder:"DIR" help:"Checkpoint of Hugging Face (either layout), ours or Megatron: which, is found out."`
	Format   string `default:"mixtral" placeholder:"mixtral|hf|megatron" help:"Format to write: ours, Hugging Face's or Megatron's. Default: ${default}."`
	Layout   string `default:"hub" placeholder:"hub|fused" help:"Of format hf: a tensor an expert as published, or the experts of a layer in one. Default: ${default}."`
	Tensor   int    `default:"1" help:"Parts along heads, hidden width and vocabulary. Default: ${default}."`
	Pipeline int    `default:"1" help:"Parts along the layers. Default: ${default}."`
	Expert   int    `default:"1" help:"Parts along the experts. Default: ${default}."`
	DType    string `name:"dtype" placeholder:"f32|bf16|f16" help:"Type of the weights. Default: what each has."`
	Config   string `placeholder:"FILE" help:"The model's config.json. Default: the one in --from, or what Megatron's own settings say."`
	JSON     bool   `name:"json" help:"Print one JSON object."`
}

// plan opens the source and plans.
func (t *target) plan() (*ckpt.Conversion, error) {
	if _, err := t.Platform(); err != nil { // it runs nothing: the flags are there for scripts
		return nil, err
	}
	o := ckpt.ConvertOptions{Format: t.Format, Layout: t.Layout, Grid: ckpt.Grid{Tensor: t.Tensor, Pipeline: t.Pipeline, Expert: t.Expert}}
	for name, size := range map[string]int{"tensor": t.Tensor, "pipeline": t.Pipeline, "expert": t.Expert} {
		if size < 1 {
			return nil, fmt.Errorf("%w: --%s %d, want at least 1", cli.ErrUsage, name, size)
		}
	}
	if t.DType != "" {
		o.DType = map[string]dtypes.DType{"f32": dtypes.Float32, "bf16": dtypes.BFloat16, "f16": dtypes.Float16}[t.DType]
		if o.DType == dtypes.InvalidDType {
			return nil, fmt.Errorf("%w: --dtype %q, want f32, bf16 or f16", cli.ErrUsage, t.DType)
		}
	}
	if t.Config == "" {
		params, err := weights(t.From)
		if err != nil {
			return nil, err
		}
		return ckpt.PlanConversion(t.From, params, o)
	}
	var err error
	if o.Config, err = os.ReadFile(t.Config); err != nil {
		return nil, err
	}
	config, err := graph.ParseConfig(o.Config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.Config, err)
	}
	return ckpt.PlanConversion(t.From, graph.Params(config), o)
}

// weights is the catalogue of the model in a folder.
func weights(dir string) ([]axis.Param, error) {
	config, err := flags.LoadConfig(dir)
	if err != nil {
		return nil, err
	}
	return graph.Params(config), nil
}

type convert struct {
	target
	To      string `required:"" placeholder:"DIR" help:"Folder to make. It appears when it is whole; an interrupted conversion goes on when it is asked for again."`
	Workers int    `placeholder:"N" help:"Files written at a time. Default: one a processor."`
}

// done is what --json prints.
type done struct {
	From    string   `json:"from"`
	To      string   `json:"to"`
	Format  string   `json:"format"`
	Files   int      `json:"files"`
	Bytes   int64    `json:"bytes"`
	Seconds float64  `json:"seconds"`
	Notes   []string `json:"notes"`
}

// Run plans and converts. Notes go to stderr, the folder's name to stdout.
func (c *convert) Run(ctx context.Context, streams *cli.IO) error {
	if c.Workers < 0 {
		return fmt.Errorf("%w: --workers %d, want at least 1", cli.ErrUsage, c.Workers)
	}
	start := time.Now()
	p, err := c.plan()
	if err != nil {
		return err
	}
	defer p.Close()
	for _, n := range p.Notes {
		fmt.Fprintln(streams.Err, "note:", n)
	}
	o := ckpt.RunOptions{Workers: c.Workers}
	var bar *progressbar.ProgressBar
	if f, ok := streams.Err.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		o.Progress = func(done, total int64) {
			if bar == nil {
				bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(f), progressbar.OptionShowBytes(true),
					progressbar.OptionSetDescription("converting"), progressbar.OptionClearOnFinish())
			}
			bar.Set64(done)
		}
	}
	m, err := p.Run(ctx, c.To, o)
	if bar != nil {
		bar.Finish()
	}
	if err != nil {
		return err
	}
	d := done{From: c.From, To: c.To, Format: c.Format, Files: len(m.Files), Seconds: time.Since(start).Seconds(), Notes: append([]string{}, p.Notes...)}
	for _, f := range m.Files {
		d.Bytes += f.Bytes
	}
	if c.JSON {
		return json.NewEncoder(streams.Out).Encode(d)
	}
	fmt.Fprintf(streams.Err, "%d files, %d bytes in %.1f s\n", d.Files, d.Bytes, d.Seconds)
	_, err = fmt.Fprintln(streams.Out, c.To)
	return err
}

type plan struct{ target }

// Run prints the copies that convert would make.
func (c *plan) Run(streams *cli.IO) error {
	p, err := c.target.plan()
	if err != nil {
		return err
	}
	defer p.Close()
	if c.JSON {
		return json.NewEncoder(streams.Out).Encode(p.Report())
	}
	return p.Print(streams.Out)
}
