// Package programs makes the programs of training and serving as cmd/train and cmd/serve do, with tensors that have a
// shape and no memory: their texts are to be compiled for any device, and no weights are needed.
package programs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/gomlx/compute/dtypes"

	"mix/graph"
	"mix/lower"
	"mix/serve"
	"mix/sharding/axis"
	"mix/train"
	"mix/train/data"
	"mix/train/report"
)

// Names are those of what can be made.
var Names = []string{"train", "prefill", "decode"}

// begins is how the names of the compiler's programs begin.
var begins = map[string]string{"train": "train_step", "prefill": "paged_prefill", "decode": "paged_decode"}

// Job says what to make.
type Job struct {
	Program string // one of Names
	Model   graph.Config
	DType   dtypes.DType // Float32 or BFloat16
	Seq     int          // tokens of a sample in training, of the longest sequence in serving
	Batch   int          // samples of a microbatch, or requests that run at once

	Global    int             // samples of a step
	Rounds    int             // of a step's pipeline, 0 for 1
	Recompute train.Recompute // of a step
	Balance   train.Balance   // of a step

	Chunk  int // tokens of a prompt run at a time
	Blocks int // of Block positions in the pool, 0 for enough
}

// Block is how many positions a block of the pool has.
const Block = 16

// errTaken ends the making of programs once the one that is wanted is there.
var errTaken = errors.New("the program is there")

// Emit makes the program and takes its text. trace is what the graph and its gradient took.
func (j Job) Emit(ctx context.Context, o lower.Options) (e lower.Emitted, trace time.Duration, err error) {
	begin, ok := begins[j.Program]
	if !ok {
		return e, 0, fmt.Errorf("program %q, want one of %s", j.Program, strings.Join(Names, ", "))
	}
	var mu sync.Mutex
	var others []string
	taken := false
	be, err := lower.NewEmitter(o, func(x lower.Emitted) error {
		mu.Lock()
		defer mu.Unlock()
		if !strings.HasPrefix(x.Name, begin) {
			others = append(others, x.Name)
			return nil
		}
		e, taken = x, true
		return errTaken
	})
	if err != nil {
		return e, 0, err
	}
	defer be.Finalize()
	start := time.Now()
	if j.Program == "train" {
		err = j.step(ctx, be)
	} else {
		err = j.serving(ctx, be)
	}
	switch {
	case taken && errors.Is(err, errTaken):
		return e, time.Since(start) - e.Passes, nil
	case err == nil:
		err = fmt.Errorf("program %s was not made, only %s", j.Program, strings.Join(others, ", "))
	}
	return e, 0, err
}

// serving makes the programs of a server.
func (j Job) serving(ctx context.Context, be *lower.Backend) error {
	engine, err := serve.New(ctx, be, j.Model, nothing{}, serve.Options{DType: j.DType})
	if err != nil {
		return err
	}
	defer engine.Close()
	b, err := serve.NewBatcher(ctx, engine, serve.BatchOptions{Slots: j.Batch, Chunk: j.Chunk, Block: Block, Context: j.Seq, Blocks: j.Blocks}, nil)
	if err == nil {
		b.Close()
	}
	return err
}

// step makes the programs of a training run. What is no field of a job is as cmd/train's defaults and presets have it.
func (j Job) step(ctx context.Context, be *lower.Backend) error {
	o := train.Options{Model: j.Model, DType: j.DType, Seq: j.Seq, Micro: j.Batch, Global: j.Global, Rounds: j.Rounds, Recompute: j.Recompute,
		Optimizer: train.AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.1, Clip: 1}, DecayEmbeddings: true,
		Schedule: train.Schedule{Peak: 1, Decay: train.Constant}, Balance: j.Balance}
	_, err := train.Run(ctx, train.Job{Options: o, Backend: be, Data: new(data.Sets), Report: silent{}})
	return err
}

// nothing is a reader of weights that nobody asks: tensors of such a backend have no memory.
type nothing struct{}

func (nothing) Read(axis.Piece, []byte) error { return nil }

// silent is a report.Sink that hears nothing.
type silent struct{}

func (silent) Start(int, int) error       { return nil }
func (silent) Step(report.Step) error     { return nil }
func (silent) Eval(report.Eval) error     { return nil }
func (silent) Saved(int, float64, string) {}
func (silent) Close() error               { return nil }
