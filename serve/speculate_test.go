package serve

import (
	"math"
	"sync"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/serve/infer"
)

// repeating is a request whose answer goes on as its prompt did, with what is needed to see any difference.
func repeating(t testing.TB, b *Batcher) infer.Request {
	r := simple(100)
	r.IgnoreEnd = true
	r.Prompt = append(r.Prompt, ask(t, b, r).tokens...)
	r.Max, r.LogProbs, r.Experts = 40, 2, true
	return r
}

// guessable are requests of all kinds, whose answers can be guessed at least in part.
func guessable(t testing.TB, b *Batcher) (all []infer.Request) {
	r := repeating(t, b)
	answer := ask(t, b, r).tokens
	add := func(change func(r *infer.Request)) {
		q := r
		change(&q)
		all = append(all, q)
	}
	for max := range 7 { // it ends within what is guessed
		add(func(r *infer.Request) { r.Max = 3 + max })
	}
	for i := range 7 {
		add(func(r *infer.Request) { r.Stop = []int32{answer[3+i]} })
		add(func(r *infer.Request) { r.Stop, r.Min = []int32{answer[3+i]}, 12+i })
	}
	for i := range 3 {
		add(func(r *infer.Request) { r.Sampling.Temperature, r.Sampling.Seed = 0.3, uint64(i) })
		add(func(r *infer.Request) { r.Sampling.Temperature, r.Sampling.TopP, r.Sampling.Seed = 0.5, 0.9, uint64(i) })
	}
	add(func(r *infer.Request) { r.Sampling.Frequency = 0.02 })
	add(func(r *infer.Request) { r.Sampling.Presence, r.Sampling.Repetition = 0.1, 1.02 })
	add(func(r *infer.Request) { r.Sampling.Bias = map[int32]float32{answer[5]: 2} })
	add(func(r *infer.Request) { r.PromptLogProbs = 1 })
	add(func(r *infer.Request) { r.Mask = &list{ids: answer[:4]} })
	return append(all, mixed(12)...)
}

// TestGuessesDoNotShow compares answers with guesses, alone, in company, and with too little room for all, with
// those without: tokens, log probabilities, experts and ends are the same bit for bit.
func TestGuessesDoNotShow(t *testing.T) {
	e := demoEngine(t, dtypes.Float32)
	o := BatchOptions{Slots: 6, Chunk: 32, Block: 16}
	plain := batcher(t, e, o)
	requests := guessable(t, plain)
	want := atOnce(t, plain, requests)
	require.Zero(t, plain.Stats().Proposed)

	o.Speculate = 4
	for _, tt := range []struct {
		name   string
		blocks int
		run    func(testing.TB, *Batcher, []infer.Request) []answer
	}{
		{"alone", 0, oneByOne},
		{"together", 0, atOnce},
		{"together, room for two", 24, atOnce},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if testing.Short() && tt.name != "together, room for two" {
				t.Skip("compiles for seconds")
			}
			o.Blocks = tt.blocks
			b := batcher(t, e, o)
			got := tt.run(t, b, requests)
			for i := range requests {
				require.Equal(t, want[i], got[i], "request %d", i)
			}
			s := b.Stats()
			require.Zero(t, s.Running+s.Waiting+s.Used)
			require.Equal(t, tt.blocks > 0, s.Preemptions > 0)
			require.Positive(t, s.Accepted)
			require.Greater(t, s.Proposed, s.Accepted, "else wrong guesses are not tested")
		})
	}
}

func oneByOne(t testing.TB, b *Batcher, requests []infer.Request) (all []answer) {
	for _, r := range requests {
		a := ask(t, b, r)
		a.last.Usage.Cached, a.last.Usage.Queued = 0, 0 // depend on who came before
		all = append(all, a)
	}
	return all
}

func atOnce(t testing.TB, b *Batcher, requests []infer.Request) []answer {
	all := make([]answer, len(requests))
	var running sync.WaitGroup
	for i, r := range requests {
		events, err := b.Submit(t.Context(), r)
		require.NoError(t, err)
		running.Go(func() { all[i] = collect(t, events) })
	}
	running.Wait()
	for i := range all {
		all[i].last.Usage.Cached, all[i].last.Usage.Queued = 0, 0
	}
	return all
}

// TestGuessesSaveSteps counts the steps of a text that repeats.
func TestGuessesSaveSteps(t *testing.T) {
	e := demoEngine(t, dtypes.Float32)
	o := BatchOptions{Slots: 6, Chunk: 32, Block: 16, Speculate: 5}
	b := batcher(t, e, o)
	r := repeating(t, b)
	before := b.Stats()
	require.Len(t, ask(t, b, r).tokens, r.Max)
	after := b.Stats()
	require.Greater(t, after.Accepted-before.Accepted, int64(r.Max/2))

	r.Mask = &list{ids: []int32{r.Prompt[5]}}
	require.Len(t, ask(t, b, r).tokens, r.Max)
	require.Equal(t, after.Proposed, b.Stats().Proposed, "a mask has to be asked before each draw")
}

// TestDrawsAheadAreSetAsIfTokensHadCome compares the arguments of a draw after guesses with those after the same
// tokens were drawn.
func TestDrawsAheadAreSetAsIfTokensHadCome(t *testing.T) {
	m := infer.Model{Vocab: 64, Context: 100, Ends: []int32{2}}
	r := simple(20)
	r.Prompt, r.Min = []int32{3, 4}, 4
	r.Sampling = infer.Sampling{Temperature: 1, TopP: 0.9, Repetition: 1.5, Presence: 0.25, Frequency: 0.125, Bias: map[int32]float32{7: 1, 9: -1}}
	for n := range 6 {
		after := []int32{7, 9, 7, 11, 4}[:min(n, 5)]
		ahead, drawn := newJob(t.Context(), r, m, nil), newJob(t.Context(), r, m, nil)
		for _, j := range []*job{ahead, drawn} { // both have a text before
			_, _, err := j.take(9, nil, nil)
			require.NoError(t, err)
		}
		for _, id := range after {
			_, _, err := drawn.take(id, nil, nil)
			require.NoError(t, err)
		}
		got, want := newChoice(2, m.Vocab), newChoice(2, m.Vocab)
		require.NoError(t, got.set(1, ahead, 30, after))
		require.NoError(t, want.set(1, drawn, 30, nil))
		require.Equal(t, want, got, "after %d tokens", n)
		require.Equal(t, n < 3, math.IsInf(float64(got.added.row(1)[2]), -1))
	}
}
