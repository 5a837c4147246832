package serve

import (
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/serve/infer"
)

// gate is a mask that allows everything, once it is open.
type gate struct{ open chan struct{} }

func (g *gate) Allowed(bits []uint32) {
	<-g.open
	for i := range bits {
		bits[i] = ^uint32(0)
	}
}
func (g *gate) Accept(int32) error { return nil }
func (g *gate) Done() bool         { return true }

// heldBack runs requests that are all in the queue before the first of them begins.
func heldBack(t testing.TB, b *Batcher, requests []infer.Request) []answer {
	first := simple(1)
	open := make(chan struct{})
	first.Mask = &gate{open}
	events, err := b.Submit(t.Context(), first)
	require.NoError(t, err)
	var all []<-chan infer.Event
	for _, r := range requests {
		events, err := b.Submit(t.Context(), r)
		require.NoError(t, err)
		all = append(all, events)
	}
	close(open)
	collect(t, events)
	answers := make([]answer, len(all))
	for i, events := range all {
		answers[i] = collect(t, events)
		answers[i].last.Usage.Cached, answers[i].last.Usage.Queued = 0, 0
	}
	return answers
}

// alike are requests of one prompt that draw differently, as those of n are.
func alike(prompt int) (all []infer.Request) {
	for i := range 8 {
		r := simple(5 + 3*i)
		r.Prompt = make([]int32, prompt)
		for k := range r.Prompt {
			r.Prompt[k] = int32(3 + k*k%1500)
		}
		r.Sampling.Temperature, r.Sampling.Seed = 0.9, uint64(i)
		r.LogProbs, r.IgnoreEnd, r.Experts = 2, true, i%2 == 0
		all = append(all, r)
	}
	all[3].Sampling = infer.Greedy()
	all[4].Sampling.TopP, all[4].Sampling.Presence = 0.9, 0.5
	all[5].Mask = &list{ids: []int32{7, 70, 700}}
	all[6].Max, all[6].LogProbs = 0, -1
	return all
}

// TestEqualPromptsShareTheirBlocks runs requests of one prompt one by one and together, where the later ones join the
// first's prefill and have its blocks until they write into them: nobody sees it.
func TestEqualPromptsShareTheirBlocks(t *testing.T) {
	e := demoEngine(t, dtypes.Float32)
	for _, tt := range []struct {
		name           string
		prompt, blocks int
		speculate      int
	}{
		{"a block is begun", 73, 0, 0},
		{"blocks are full", 64, 0, 0},
		{"with guesses", 73, 0, 3},
		{"too few blocks", 73, 12, 0},
		{"too few blocks, with guesses", 73, 12, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			requests := alike(tt.prompt)
			o := BatchOptions{Slots: 6, Chunk: 32, Block: 16, Blocks: tt.blocks, Speculate: tt.speculate}
			want := oneByOne(t, batcher(t, e, o), requests)
			b := batcher(t, e, o)
			got := heldBack(t, b, requests)
			for i := range requests {
				require.Equal(t, want[i], got[i], "request %d", i)
			}
			s := b.Stats()
			require.Positive(t, s.Forks)
			require.Equal(t, tt.prompt%16 != 0, s.Copies > 0)
			require.Equal(t, tt.blocks > 0, s.Preemptions > 0)
			require.Zero(t, s.Running+s.Waiting+s.Used)
		})
	}
}

// TestMeshesCopyBlocks is the same where the pool is spread over devices, in stages and by layers, with too few blocks, and
// with guesses against none.
func TestMeshesCopyBlocks(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles eight programs for each of two meshes")
	}
	for _, mesh := range []string{"pipe=2", "tensor=2"} {
		t.Run(mesh, func(t *testing.T) {
			requests := alike(73)[:4]
			same := requests[3] // a text that is guessed
			same.Max, same.Sampling.Bias = 16, map[int32]float32{77: 100}
			requests = append(requests, same)
			e := meshEngine(t, mesh)
			o := BatchOptions{Slots: 4, Chunk: 32, Block: 16, Blocks: 8, Context: 160}
			want := oneByOne(t, batcher(t, e, o), requests)
			o.Speculate = 3
			b := batcher(t, e, o)
			got := heldBack(t, b, requests)
			for i := range requests {
				require.Equal(t, want[i], got[i], "request %d", i)
			}
			s := b.Stats()
			require.Positive(t, s.Copies)
			require.Positive(t, s.Preemptions)
			require.Positive(t, s.Accepted)
		})
	}
}

// TestBlocksOfOnePosition has chunks of one token too, whose program is that of a row.
func TestBlocksOfOnePosition(t *testing.T) {
	e := demoEngine(t, dtypes.Float32)
	r := simple(5)
	r.IgnoreEnd, r.Experts = true, true
	want := ask(t, batcher(t, e, BatchOptions{Slots: 2, Chunk: 32, Block: 16, Context: 32}), r)
	got := ask(t, batcher(t, e, BatchOptions{Slots: 2, Chunk: 1, Block: 1, Context: 32}), r)
	require.Equal(t, want.tokens, got.tokens)
	require.Equal(t, want.used, got.used)
}
