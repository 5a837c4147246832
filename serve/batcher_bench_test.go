package serve

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/stretchr/testify/require"

	"mix/lower"
	"mix/serve/infer"
	"mix/serve/sched"
)

// BenchmarkBatcher16 runs 16 requests at once, an answer of 200 tokens each, beside it the programs alone
// with the same tokens, and the scheduler alone with the same requests. of-programs is the throughput against the
// programs', 1 for a host that costs nothing; scheduler-alone-% is what the scheduler takes by itself,
// against the whole time: a lower bound, since within the loop its memory is out of the processor's caches and
// readings there are about ten times as high. Each time is the best round's, as other work on the machine only adds.
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
			var all, alone, scheduler []time.Duration
			for b.Loop() {
				r := infer.Request{Max: tokens, Sampling: tt.sampling, LogProbs: -1, PromptLogProbs: -1, IgnoreEnd: true}
				took, answers := ask16(b, x, r)
				all = append(all, took)
				scheduler = append(scheduler, schedulerAlone(b, x, tokens))
				alone = append(alone, programsAlone(b, x, tt.sampling, answers))
			}
			a, p, s := slices.Min(all).Seconds(), slices.Min(alone).Seconds(), slices.Min(scheduler).Seconds()
			b.ReportMetric(float64(tokens*o.Slots)/a, "tokens/s")
			b.ReportMetric(a*1e6/tokens, "µs/step")
			b.ReportMetric(p*1e6/tokens, "programs-µs/step")
			b.ReportMetric(p/a, "of-programs")
			b.ReportMetric(100*s/a, "scheduler-alone-%")
		})
	}
}

// prompts are different for each slot, and shorter than a chunk, so that none is found in the cache.
func prompts(b *Batcher) (all [][]int32) {
	for i := range b.o.Slots {
		all = append(all, []int32{1, int32(300 + i), 400, 500})
	}
	return all
}

func ask16(tb testing.TB, b *Batcher, r infer.Request) (time.Duration, [][]int32) {
	answers := make([][]int32, b.o.Slots)
	began := time.Now()
	var all sync.WaitGroup
	for i, p := range prompts(b) {
		r.Prompt, r.Sampling.Seed = p, uint64(i)
		events, err := b.Submit(tb.Context(), r)
		require.NoError(tb, err)
		all.Go(func() {
			for e := range events {
				if e.Has {
					answers[i] = append(answers[i], e.Token)
				}
			}
		})
	}
	all.Wait()
	return time.Since(began), answers
}

// schedulerAlone is the time of all decisions on the same requests.
func schedulerAlone(tb testing.TB, b *Batcher, tokens int) time.Duration {
	s, err := sched.New(sched.Options{Slots: b.o.Slots, Blocks: b.o.Blocks, Size: b.o.Block, Chunk: b.o.Chunk, Chunks: b.o.Chunks, Context: b.model.Context, Queue: b.o.Queue})
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
		for _, c := range step.Prefill {
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

// programsAlone is the time of the prefills, decode steps and draws that give the same answers, all rows at
// work from the first step on. All arguments are on the device before; a step waits for the ids of the one
// before, as it must. The ids have to be the answers', which shows that it is the same work; with penalties, which
// are left out here, they need not.
func programsAlone(tb testing.TB, b *Batcher, s infer.Sampling, answers [][]int32) time.Duration {
	n, v, c := b.o.Slots, b.model.Vocab, b.o.Context
	var uploaded []*lower.Buffer
	defer func() { free(uploaded...) }()
	upload := func(fill func(*arguments)) []*lower.Buffer {
		x := &arguments{be: b.e.be}
		fill(x)
		require.NoError(tb, x.err)
		uploaded = append(uploaded, x.all...)
		return x.all
	}
	ranked := s.TopP != 1
	draw := func(from, rows, position int) []*lower.Buffer {
		return upload(func(x *arguments) {
			all := func(f float32) []float32 { return slices.Repeat([]float32{f}, rows) }
			seed := make([]uint32, 2*rows)
			for i := range rows {
				seed[2*i] = uint32(from + i)
			}
			x.floats(all(s.Temperature), rows)
			x.floats(all(s.MinP), rows)
			x.add(dtypes.Uint32, seed, rows, 2)
			x.ints(slices.Repeat([]int32{int32(position)}, rows), rows)
			if ranked {
				x.ints(slices.Repeat([]int32{int32(s.TopK)}, rows), rows)
				x.floats(all(s.TopP), rows)
				x.floats(make([]float32, rows*v), rows, v)
				x.add(dtypes.Uint8, make([]uint8, rows*v), rows, v)
				x.floats(all(1), rows)
			}
		})
	}
	type call struct {
		p             *lower.Program
		forward, draw []*lower.Buffer
		want          []int32
	}
	var calls []call
	start := 0
	for i, p := range prompts(b) { // slot i has the places from i·C on
		start = len(p)
		calls = append(calls, call{b.paged.prefill, upload(func(x *arguments) {
			ids, position, write, read := make([]int32, b.o.Chunk), make([]int32, b.o.Chunk), make([]int32, b.o.Chunk), make([]int32, c)
			copy(ids, p)
			for k := range ids {
				position[k], write[k] = int32(k), b.scratch()+int32(k)
				if k < len(p) {
					write[k] = int32(i*c + k)
				}
			}
			for k := range min(b.o.Block, c) { // as far as the prompt's blocks go
				read[k] = int32(i*c + k)
			}
			x.ints(ids, 1, b.o.Chunk)
			x.ints(position, 1, b.o.Chunk)
			x.ints(write, 1, b.o.Chunk)
			x.ints(read, 1, c)
			x.ints([]int32{int32(len(p) - 1)})
		}), draw(i, 1, start), []int32{answers[i][0]}})
	}
	for t := range len(answers[0]) - 1 {
		ids, position, write, want := make([]int32, n), make([]int32, n), make([]int32, n), make([]int32, n)
		for i := range n {
			ids[i], position[i], write[i], want[i] = answers[i][t], int32(start+t), int32(i*c+start+t), answers[i][t+1]
		}
		places := make([]int32, n*c)
		for i := range n {
			for k := range min((start+t)/b.o.Block*b.o.Block+b.o.Block, c) { // the blocks so far, as the batcher reads
				places[i*c+k] = int32(i*c + k)
			}
		}
		forward := upload(func(x *arguments) {
			x.ints(ids, n, 1)
			x.ints(position, n, 1)
			x.ints(write, n, 1)
			x.ints(places, n, c)
		})
		calls = append(calls, call{b.paged.decode, forward, draw(0, n, start+t+1), want})
	}
	b.mu.Lock() // the loop is idle
	defer b.mu.Unlock()
	began := time.Now()
	for _, x := range calls {
		outs, err := x.p.Run(append(slices.Clip(x.forward), b.paged.pool...)...)
		require.NoError(tb, err)
		copy(b.paged.pool, outs[2:])
		drawn, err := b.paged.draw[drawing{len(x.want), ranked}].Run(append([]*lower.Buffer{outs[0]}, x.draw...)...)
		require.NoError(tb, err)
		ids, err := fetch[int32](drawn[0])
		require.NoError(tb, err)
		if s.Repetition == 1 && !slices.Equal(x.want, ids) {
			require.Equal(tb, x.want, ids)
		}
		free(outs[:2]...)
		free(drawn...)
	}
	return time.Since(began)
}

// arguments collects buffers of one call.
type arguments struct {
	be  *lower.Backend
	all []*lower.Buffer
	err error
}

func (a *arguments) add(dtype dtypes.DType, flat any, dims ...int) {
	if a.err != nil {
		return
	}
	var b *lower.Buffer
	if b, a.err = a.be.Upload(shapes.Make(dtype, dims...), flat); a.err == nil {
		a.all = append(a.all, b)
	}
}

func (a *arguments) ints(x []int32, dims ...int)     { a.add(dtypes.Int32, x, dims...) }
func (a *arguments) floats(x []float32, dims ...int) { a.add(dtypes.Float32, x, dims...) }
