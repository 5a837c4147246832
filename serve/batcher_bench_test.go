package serve

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/lower"
	"mix/serve/infer"
	"mix/serve/sched"
)

// BenchmarkBatcher16 runs 16 requests at once, an answer of 200 tokens each, and beside it the same number of
// runs of the same programs with arguments that stay on the device, and the scheduler with the same requests and no
// device. of-programs is the throughput against the programs alone, 1 for a host that costs nothing;
// scheduler-% is the scheduler's part of the time.
func BenchmarkBatcher16(b *testing.B) {
	e := demoEngine(b, dtypes.Float32)
	o := BatchOptions{Slots: 16, Chunk: 64, Block: 16}
	x := batcher(b, e, o)
	for _, tt := range []struct {
		name     string
		sampling infer.Sampling
	}{
		{"greedy", infer.Greedy()},
		{"ranked", infer.Sampling{Temperature: 0.8, TopP: 0.95, Repetition: 1}},
		{"penalties", infer.Sampling{Temperature: 0.8, TopP: 0.95, Repetition: 1.1, Presence: 0.1}},
	} {
		b.Run(tt.name, func(b *testing.B) {
			const tokens = 200
			var all, alone, scheduler time.Duration
			for b.Loop() {
				r := infer.Request{Max: tokens, Sampling: tt.sampling, LogProbs: -1, PromptLogProbs: -1, IgnoreEnd: true}
				all += together(b, x, r)
				scheduler += schedulerAlone(b, x, tokens)
				alone += programsAlone(b, x, tokens, tt.sampling)
			}
			steps := float64(b.N * tokens)
			b.ReportMetric(float64(b.N*tokens*o.Slots)/all.Seconds(), "tokens/s")
			b.ReportMetric(all.Seconds()*1e6/steps, "µs/step")
			b.ReportMetric(alone.Seconds()*1e6/steps, "programs-µs/step")
			b.ReportMetric(alone.Seconds()/all.Seconds(), "of-programs")
			b.ReportMetric(100*scheduler.Seconds()/all.Seconds(), "scheduler-%")
		})
	}
}

// prompts are different for each slot and run, so that nothing is in the cache.
func prompts(b *Batcher) (all [][]int32) {
	for i := range b.o.Slots {
		all = append(all, []int32{1, int32(300 + i), 400, 500})
	}
	return all
}

func together(tb testing.TB, b *Batcher, r infer.Request) time.Duration {
	began := time.Now()
	var all sync.WaitGroup
	for i, p := range prompts(b) {
		r.Prompt, r.Sampling.Seed = p, uint64(i)
		events, err := b.Submit(tb.Context(), r)
		require.NoError(tb, err)
		all.Go(func() {
			for range events {
			}
		})
	}
	all.Wait()
	return time.Since(began)
}

// schedulerAlone is the time of all decisions on the same requests.
func schedulerAlone(tb testing.TB, b *Batcher, tokens int) time.Duration {
	s, err := sched.New(sched.Options{Slots: b.o.Slots, Blocks: b.o.Blocks, Size: b.o.Block, Chunk: b.o.Chunk, Context: b.model.Context, Queue: b.o.Queue})
	require.NoError(tb, err)
	draws, began := 0, time.Now()
	for _, p := range prompts(b) {
		_, err := s.Arrive(sched.Request{Prompt: p, Max: tokens})
		require.NoError(tb, err)
	}
	for {
		step, err := s.Next()
		require.NoError(tb, err)
		if step.Idle() {
			took := time.Since(began)
			require.Equal(tb, b.o.Slots*tokens, draws)
			return took
		}
		if c := step.Prefill; c != nil && c.Draw {
			draws++
			if _, err := s.Drawn(c.ID, 7); err != nil {
				require.NoError(tb, err)
			}
		}
		draws += len(step.Decode)
		for _, r := range step.Decode {
			if _, err := s.Drawn(r.ID, 7); err != nil {
				require.NoError(tb, err)
			}
		}
	}
}

// programsAlone is the time of the prefills, decode steps and draws for the same requests. A step waits for
// the ids of the one before, as it must, and uploads nothing.
func programsAlone(tb testing.TB, b *Batcher, tokens int, s infer.Sampling) time.Duration {
	a := func(fill func(*arguments)) *arguments {
		x := &arguments{be: b.e.be}
		fill(x)
		require.NoError(tb, x.err)
		return x
	}
	n, v, r := b.o.Slots, b.model.Vocab, rand.New(rand.NewPCG(1, 1))
	ranked := s.TopP != 1
	forward := func(rows, tokens int, last bool) *arguments {
		return a(func(x *arguments) {
			write := make([]int32, rows*tokens)
			for i := range write {
				write[i] = b.scratch() + int32(i)
			}
			position := make([]int32, rows*tokens)
			for i := range position {
				position[i] = 100 // of 4 to 204
			}
			ids := make([]int32, rows*tokens) // different ones, as they choose different experts
			for i := range ids {
				ids[i] = int32(3 + r.IntN(v-3))
			}
			read := make([]int32, rows*b.o.Context) // every row its own places, as requests have
			for i := range read {
				read[i] = int32(i)
			}
			x.ints(ids, rows, tokens)
			x.ints(position, rows, tokens)
			x.ints(write, rows, tokens)
			x.ints(read, rows, b.o.Context)
			if last {
				x.ints([]int32{3})
			}
		})
	}
	draw := func(rows int) *arguments {
		return a(func(x *arguments) {
			ones := make([]float32, rows)
			for i := range ones {
				ones[i] = 1
			}
			x.floats(make([]float32, rows), rows)
			x.floats(make([]float32, rows), rows)
			x.add(dtypes.Uint32, make([]uint32, 2*rows), rows, 2)
			x.ints(make([]int32, rows), rows)
			if ranked {
				x.ints(make([]int32, rows), rows)
				x.floats(ones, rows)
				x.floats(make([]float32, rows*v), rows, v)
				x.add(dtypes.Uint8, make([]uint8, rows*v), rows, v)
				x.floats(ones, rows)
			}
		})
	}
	args := map[string]*arguments{"prefill": forward(1, b.o.Chunk, true), "decode": forward(n, 1, false), fmt.Sprint(1): draw(1), fmt.Sprint(n): draw(n)}
	defer func() {
		for _, x := range args {
			free(x.all...)
		}
	}()
	run := func(p *lower.Program, forward string, rows int) {
		b.mu.Lock() // the loop is idle
		outs, err := p.Run(append(append([]*lower.Buffer{}, args[forward].all...), b.paged.pool...)...)
		require.NoError(tb, err)
		copy(b.paged.pool, outs[2:])
		b.mu.Unlock()
		ids, err := b.paged.draw[drawing{rows, ranked}].Run(append([]*lower.Buffer{outs[0]}, args[fmt.Sprint(rows)].all...)...)
		require.NoError(tb, err)
		_, err = fetch[int32](ids[0])
		require.NoError(tb, err)
		free(outs[:2]...)
		free(ids...)
	}
	began := time.Now()
	for range n {
		run(b.paged.prefill, "prefill", 1)
	}
	for range tokens - 1 {
		run(b.paged.decode, "decode", n)
	}
	return time.Since(began)
}
