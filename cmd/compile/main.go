// Command compile makes the programs of training and serving ahead of time, for devices that need not be here, and
// tells what they take.
package main

import (
	"context"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"mix/cmd/internal/flags"
	"mix/cmd/internal/programs"
	"mix/internal/cli"
	"mix/lower/aot"
	"mix/lower/target"
)

type command struct {
	flags.Device
	Preset  string `default:"mixtral-8x7b" enum:"${presets}" help:"Model: ${presets}. Default: ${default}."`
	Program string `default:"train" enum:"${programs}" help:"Program: ${programs}. Default: ${default}."`
	Target  string `default:"h200" enum:"${targets}" help:"Device to compile for: ${targets}. Default: ${default}."`
	Layers  int    `placeholder:"N" help:"Layers of the model. Default: the preset's."`
	DType   string `name:"dtype" placeholder:"f32|bf16" help:"Type of activations, and of weights that are not trained. Default: the preset's."`
	Seq     int    `name:"seq-length" placeholder:"N" help:"Tokens of a sample in training, of the longest sequence in serving. Default: 4096 or the model's context."`
	Batch   int    `placeholder:"N" help:"Samples of a microbatch in training, default 1; requests that run at once in serving, default 16."`

	Global    int    `name:"global-batch-size" placeholder:"N" help:"train: samples of a step. Default: one microbatch for each part of the mesh but tensor."`
	Recompute string `name:"recompute-granularity" default:"none" enum:"none,selective,full" help:"train: none, selective or full. Default: ${default}."`
	Rules     string `placeholder:"WORDS" help:"train: how the mesh is used, words joined by +, as cmd/plan lists them. Default: every axis of the mesh."`
	Rounds    int    `default:"1" placeholder:"N" help:"train: rounds of a pipeline. Default: ${default}."`
	Chunk     int    `name:"prefill-chunk" placeholder:"N" help:"prefill: tokens of a prompt run at a time. Default: 64 on a CPU, 1024 on a GPU."`
	Blocks    int    `name:"kv-blocks" placeholder:"N" help:"prefill, decode: blocks of 16 positions in the pool. Default: enough for all at their longest."`

	Dump string `placeholder:"DIR" help:"Keep every stage of the program there, from the trace to XLA's own."`
	Keep bool   `default:"true" negatable:"" help:"Put the executable into the cache of compiled programs, from where serve and train load it. Default: on."`
	JSON bool   `name:"json" help:"Print one JSON object."`

	Matrix  bool          `help:"Compile every mapping that cmd/plan calls feasible, each in a process of its own: training, prefill and decode of both published models on 1, 8 and 64 devices of --target. Only --cache is taken of the flags above."`
	Results string        `placeholder:"FILE" default:"matrix.jsonl" help:"--matrix: a line of JSON for each mapping; what is there without problems is not compiled again. Default: ${default}."`
	Only    []string      `placeholder:"WORD,…" help:"--matrix: only mappings whose name has all of these words, such as mixtral-8x7b, train, 64 or pipe=4."`
	Sample  int           `placeholder:"N" help:"--matrix: only N of them, spread evenly. Default: all."`
	Timeout time.Duration `default:"20m" help:"--matrix: longest time for one. Default: ${default}."`

	Worker string `hidden:"" help:"Do the job of this folder."`
}

// Run is the command, or its worker.
func (c *command) Run(ctx context.Context, streams *cli.IO) error {
	if c.Worker != "" {
		return aot.Work(c.Worker)
	}
	if c.Matrix {
		return c.matrix(ctx, streams)
	}
	return c.run(ctx, streams)
}

func main() {
	cli.Main(new(command), "compile", "Compile the programs of a Mixtral ahead of time, and tell what they take.", vars)
}

var vars = kong.Vars{
	"presets": strings.Join(presets(), ","), "programs": strings.Join(programs.Names, ","), "targets": strings.Join(target.Chips(), ","),
}
