package serve

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/serve/infer"
)

// answer is all that a request was told.
type answer struct {
	tokens []int32
	places []infer.Place
	prompt []infer.Place
	used   [][][]uint8
	last   infer.Event
}

func collect(t testing.TB, events <-chan infer.Event) (a answer) {
	for e := range events {
		if e.Has {
			a.tokens = append(a.tokens, e.Token)
		}
		if e.Place != nil {
			a.places = append(a.places, *e.Place)
		}
		if e.Experts != nil {
			a.used = append(a.used, e.Experts)
		}
		a.prompt = append(a.prompt, e.Prompt...)
		a.last = e
	}
	require.NotEmpty(t, a.last.Finish, "the last event says why")
	return a
}

func ask(t testing.TB, b *Batcher, r infer.Request) answer {
	events, err := b.Submit(t.Context(), r)
	require.NoError(t, err)
	return collect(t, events)
}

func batcher(t testing.TB, e *Engine, o BatchOptions) *Batcher {
	b, err := NewBatcher(t.Context(), e, o, []int32{2})
	require.NoError(t, err)
	t.Cleanup(b.Close)
	return b
}

// mixed are requests of many kinds, all with log probabilities, so that any difference shows.
func mixed(n int) (all []infer.Request) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		q := infer.Request{Max: 1 + r.IntN(30), Sampling: infer.Greedy(), LogProbs: 3, PromptLogProbs: -1, Experts: i%3 == 0, IgnoreEnd: true}
		for range 1 + r.IntN(100) {
			q.Prompt = append(q.Prompt, int32(3+r.IntN(2000)))
		}
		s := &q.Sampling
		switch i % 6 {
		case 1:
			s.Temperature, s.Seed = 0.9, uint64(i)
		case 2:
			s.Temperature, s.TopK, s.TopP, s.Seed = 1.1, 40, 0.9, uint64(i)
		case 3:
			s.Repetition, s.Presence, s.Frequency = 1.2, 0.5, 0.3
		case 4:
			s.Temperature, s.MinP, s.Bias = 0.8, 0.1, map[int32]float32{5: 3, 6: -100}
		case 5:
			q.PromptLogProbs = 2
		}
		all = append(all, q)
	}
	return all
}

// TestBatchesDoNotShow runs requests one after another and all at once, with enough room and with so little
// that they preempt each other: tokens, log probabilities and experts are the same bit for bit.
func TestBatchesDoNotShow(t *testing.T) {
	e := demoEngine(t, dtypes.Float32)
	requests := mixed(18)
	var want []answer
	alone := batcher(t, e, BatchOptions{Slots: 6, Chunk: 32, Block: 16})
	for _, r := range requests {
		want = append(want, ask(t, alone, r))
	}
	for name, blocks := range map[string]int{"room for all": 0, "room for two": 18} {
		t.Run(name, func(t *testing.T) {
			b := batcher(t, e, BatchOptions{Slots: 6, Chunk: 32, Block: 16, Blocks: blocks})
			got := make([]answer, len(requests))
			var all sync.WaitGroup
			for i, r := range requests {
				events, err := b.Submit(t.Context(), r)
				require.NoError(t, err)
				all.Go(func() { got[i] = collect(t, events) })
			}
			all.Wait()
			for i := range requests {
				require.Equal(t, want[i].tokens, got[i].tokens, "tokens of request %d", i)
				require.Equal(t, want[i].places, got[i].places, "log probabilities of request %d", i)
				require.Equal(t, want[i].prompt, got[i].prompt, "log probabilities of the prompt of request %d", i)
				require.Equal(t, want[i].used, got[i].used, "experts of request %d", i)
				require.Equal(t, infer.FinishLength, got[i].last.Finish)
			}
			s := b.Stats()
			require.Zero(t, s.Running+s.Waiting)
			require.Zero(t, s.Used)
			if blocks > 0 {
				require.Positive(t, s.Preemptions)
			}
		})
	}
}

// TestBatcherAgreesWithTheEngine compares with one sequence at a time through a cache of its own.
func TestBatcherAgreesWithTheEngine(t *testing.T) {
	e := demoEngine(t, dtypes.Float32)
	b := batcher(t, e, BatchOptions{Slots: 4, Chunk: 32, Block: 16})
	prompt := []int32{1, 300, 400, 500, 17, 23}
	var want []int32
	_, _, err := e.Generate(t.Context(), prompt, 40, Sampling{TopP: 1}, nil, func(id int32) bool { want = append(want, id); return true })
	require.NoError(t, err)
	r := infer.Request{Prompt: prompt, Max: 40, Sampling: infer.Greedy(), LogProbs: 0, PromptLogProbs: 0, IgnoreEnd: true}
	a := ask(t, b, r)
	require.Equal(t, want, a.tokens)
	require.Len(t, a.prompt, len(prompt)-1)
	require.Positive(t, a.last.Usage.Queued)
	a.last.Usage.Queued = 0
	require.Equal(t, infer.Usage{Prompt: 6, Generated: 40}, a.last.Usage)

	// The prompt with the answer, scored, has the log probabilities that the answer was given with.
	whole := infer.Request{Prompt: append(prompt, want...), Sampling: infer.Greedy(), LogProbs: -1, PromptLogProbs: 0}
	scored := ask(t, b, whole)
	for i, p := range a.places {
		require.Equal(t, p.Chosen.ID, scored.prompt[len(prompt)-1+i].Chosen.ID)
		require.InDelta(t, p.Chosen.LogProb, scored.prompt[len(prompt)-1+i].Chosen.LogProb, 1e-4)
	}
	sum, err := e.Score(t.Context(), whole.Prompt)
	require.NoError(t, err)
	total := 0.0
	for _, p := range scored.prompt {
		total -= float64(p.Chosen.LogProb)
	}
	require.InEpsilon(t, sum.Loss, total, 1e-5)
}

func TestCancelledRequestsLeaveNothing(t *testing.T) {
	e := demoEngine(t, dtypes.Float32)
	b := batcher(t, e, BatchOptions{Slots: 2, Chunk: 32, Block: 16})
	var all sync.WaitGroup
	for i := range 12 {
		ctx, cancel := context.WithCancel(t.Context())
		events, err := b.Submit(ctx, infer.Request{Prompt: []int32{1, int32(10 + i)}, Max: 200, Sampling: infer.Greedy(), LogProbs: -1, PromptLogProbs: -1, IgnoreEnd: true})
		require.NoError(t, err)
		all.Go(func() {
			n := 0
			for range events {
				if n++; n == i {
					cancel()
				}
			}
			cancel()
		})
		if i == 0 {
			cancel()
		}
	}
	all.Wait()
	require.Eventually(t, func() bool { s := b.Stats(); return s.Running+s.Waiting+s.Used == 0 }, 10*time.Second, 5*time.Millisecond)
}

func TestBatcherRefuses(t *testing.T) {
	e := demoEngine(t, dtypes.Float32)
	for _, o := range []BatchOptions{{}, {Slots: 1, Chunk: 20, Block: 16}, {Slots: 1, Chunk: 32, Block: 16, Context: 512},
		{Slots: 1, Chunk: 32, Block: 16, Chunks: -1}, {Slots: 1, Chunk: 32, Block: 16, Speculate: -1}} {
		_, err := NewBatcher(t.Context(), e, o, nil)
		require.ErrorContains(t, err, "batcher: ", fmt.Sprint(o))
	}
}
