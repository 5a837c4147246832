// Package flags holds the flags that several commands share, and what they open.
package flags

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"

	"github.com/gomlx/compute/dtypes"

	"mix/graph"
	"mix/graph/token"
	"mix/internal/cli"
	"mix/internal/demo"
	"mix/internal/knob"
	"mix/lower"
	"mix/lower/target"
	"mix/serve"
	"mix/sharding"
	"mix/sharding/ckpt"
)

// Device says where programs run.
type Device struct {
	Device string  `default:"cpu" placeholder:"cpu|cuda[:n]" help:"Device to run on: cpu, cuda or cuda:n for the nth GPU. Default: ${default}."`
	Mesh   string  `help:"Device mesh, e.g. \"pipe=2 expert=2 tensor=2\"; a CPU is made into as many devices. Default: one device."`
	Memory float64 `name:"gpu-memory-utilization" placeholder:"F" help:"Part of a GPU's memory to take, above 0 to 1. Default: 0.95."`
	Cache  string  `placeholder:"DIR" help:"Folder of compiled programs. Default: mix/programs in the user's cache folder."`
}

// Open makes the backend. The plugin is installed where it is missing, with progress on log, until ctx
// ends.
//
// On a mesh sequences are whole on every device, for programs that may run a single one.
func (d Device) Open(ctx context.Context, log io.Writer) (*lower.Backend, error) {
	o, err := d.options()
	if err != nil {
		return nil, err
	}
	rules, err := sharding.Derive(o.Mesh).Whole()
	if err != nil {
		return nil, err
	}
	return d.OpenOn(ctx, log, o.Mesh, rules)
}

// OpenOn is Open on a mesh that other flags made, with rules for it.
func (d Device) OpenOn(ctx context.Context, log io.Writer, mesh sharding.Mesh, rules sharding.Rules) (*lower.Backend, error) {
	o, err := d.options()
	if err != nil {
		return nil, err
	}
	o.Mesh, o.Rules = mesh, rules
	knobs, err := knob.Read(slog.Default())
	if err != nil {
		return nil, err
	}
	o.Progress = log
	return lower.New(ctx, o.WithKnobs(knobs))
}

// Platform checks the flags and returns the platform, for commands that run nothing.
func (d Device) Platform() (string, error) {
	o, err := d.options()
	return o.Platform, err
}

// Sharding is the mesh, and what words say about it; "" is every axis of it.
func (d Device) Sharding(words string) (m sharding.Mesh, r sharding.Rules, err error) {
	o, err := d.options()
	if err != nil {
		return m, r, err
	}
	if r, err = sharding.For(words, o.Mesh); err != nil {
		err = fmt.Errorf("%w: --rules: %w", cli.ErrUsage, err)
	}
	return o.Mesh, r, err
}

func (d Device) options() (lower.Options, error) {
	o := lower.Options{CacheDir: d.Cache, MemoryFraction: d.Memory}
	var err error
	if !(d.Memory >= 0 && d.Memory <= 1) {
		return o, fmt.Errorf("%w: --gpu-memory-utilization %v, want above 0 to 1", cli.ErrUsage, d.Memory)
	}
	if o.Mesh, err = sharding.ParseMesh(d.Mesh); err != nil {
		return o, fmt.Errorf("%w: --mesh: %w", cli.ErrUsage, err)
	}
	o.Platform, o.Ordinal, err = ParseDevice(d.Device)
	if o.Platform == target.CPU {
		o.MemoryFraction = 0
	}
	return o, err
}

// ParseDevice reads cpu, cuda or cuda:n.
func ParseDevice(text string) (platform string, ordinal int, err error) {
	platform, number, numbered := strings.Cut(text, ":")
	if platform != target.CPU && platform != target.CUDA || numbered && platform == target.CPU {
		return "", 0, fmt.Errorf("%w: device %q, want cpu, cuda or cuda:n", cli.ErrUsage, text)
	}
	if numbered {
		if ordinal, err = strconv.Atoi(number); err != nil || ordinal < 0 {
			return "", 0, fmt.Errorf("%w: device %q, want cuda:n with n a number from 0", cli.ErrUsage, text)
		}
	}
	return platform, ordinal, nil
}

// Model says which model runs.
type Model struct {
	Checkpoint string `placeholder:"DIR" help:"Folder of a checkpoint of Hugging Face, ours or Megatron, with its config.json and tokenizer. Default: the embedded demo model."`
	DType      string `name:"dtype" placeholder:"f32|bf16" help:"Type of weights and activations: f32 or bf16. Default: the checkpoint's own; f32 for float16."`
}

// Opened is a checkpoint before its weights are read.
type Opened struct {
	Config    graph.Config
	Weights   *ckpt.Checkpoint
	Tokenizer *token.Tokenizer // nil with a TokenizerErr
	// TokenizerErr is why there is no tokenizer: commands that read ids need none.
	TokenizerErr error
	DType        dtypes.DType
}

// Open reads everything but the weights. Warnings go to log.
func (m Model) Open(log io.Writer) (*Opened, error) {
	o := &Opened{}
	var err error
	warn := ckpt.Options{Warn: func(message string) { fmt.Fprintln(log, "warning:", message) }}
	if m.Checkpoint == "" {
		if o.Config, err = graph.ParseConfig(demo.Config()); err != nil {
			return nil, err
		}
		if o.Tokenizer, err = token.FromModel(demo.Tokenizer()); err != nil {
			return nil, err
		}
		o.Weights, err = ckpt.OpenFS(demo.Files(), graph.Params(o.Config), warn)
	} else {
		if o.Config, err = LoadConfig(m.Checkpoint); err != nil {
			return nil, err
		}
		o.Tokenizer, o.TokenizerErr = token.Load(m.Checkpoint)
		o.Weights, err = ckpt.Open(m.Checkpoint, graph.Params(o.Config), warn)
	}
	if err != nil {
		return nil, err
	}
	if o.DType, err = dtype(m.DType, o.Config); err != nil {
		o.Weights.Close()
		return nil, err
	}
	if o.Tokenizer != nil && o.Tokenizer.VocabSize() > o.Config.Vocab {
		o.Weights.Close()
		return nil, fmt.Errorf("tokenizer has %d ids, config.json's vocab_size is %d: want at most as many", o.Tokenizer.VocabSize(), o.Config.Vocab)
	}
	return o, nil
}

func dtype(name string, c graph.Config) (dtypes.DType, error) {
	switch name {
	case "f32", "float32":
		return dtypes.Float32, nil
	case "bf16", "bfloat16":
		return dtypes.BFloat16, nil
	case "":
		if c.DType == "bfloat16" {
			return dtypes.BFloat16, nil
		}
		return dtypes.Float32, nil
	}
	return dtypes.InvalidDType, fmt.Errorf("%w: dtype %q, want f32 or bf16", cli.ErrUsage, name)
}

// Start opens the device, loads the weights onto it and closes the checkpoint, with progress on log. stop
// frees the device.
func (o *Opened) Start(ctx context.Context, d Device, log io.Writer) (e *serve.Engine, stop func(), err error) {
	be, err := d.Open(ctx, log)
	if err != nil {
		return nil, nil, errors.Join(err, o.Weights.Close())
	}
	bars := newBars(log)
	e, err = serve.New(ctx, be, o.Config, o.Weights, serve.Options{DType: o.DType, Loading: bars.loading, Compiling: bars.compiling})
	bars.done()
	if errors.Is(err, sharding.ErrRules) {
		err = fmt.Errorf("--mesh %q: %w", d.Mesh, err)
	}
	if err = errors.Join(err, o.Weights.Close()); err != nil {
		be.Finalize()
		return nil, nil, err
	}
	return e, func() { e.Close(); be.Finalize() }, nil
}
