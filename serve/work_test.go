package serve

import (
	"bytes"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/serve/infer"
)

// TestExpertTokens counts where the tokens of known requests went: each to TopK experts of each layer.
func TestExpertTokens(t *testing.T) {
	e := demoEngine(t, dtypes.Float32)
	b := batcher(t, e, BatchOptions{Slots: 3, Chunk: 32, Block: 16})
	r := simple(9)
	r.Prompt, r.IgnoreEnd, r.Experts = make([]int32, 70), true, true
	a := ask(t, b, r)
	want := make([][]uint64, e.cfg.Layers)
	for l := range want {
		want[l] = make([]uint64, e.cfg.Experts)
		for _, used := range a.used[1:] { // the first is of the prompt's last token
			for _, k := range used[l] {
				want[l][k]++
			}
		}
	}
	prompt, answer := uint64(len(r.Prompt)*e.cfg.TopK), uint64((r.Max-1)*e.cfg.TopK)
	got := counted(t, b, prompt+answer)
	require.Len(t, got, e.cfg.Layers)
	for l, row := range got {
		for k, n := range row {
			require.GreaterOrEqual(t, n, want[l][k], "layer %d, expert %d", l, k)
		}
	}

	r.Max, r.Experts, r.PromptLogProbs = 0, false, 0
	ask(t, b, r)
	counted(t, b, 2*prompt+answer)
}

// counted waits until so many choices are counted in each layer.
func counted(t testing.TB, b *Batcher, choices uint64) [][]uint64 {
	var all [][]uint64
	require.Eventually(t, func() bool {
		all = b.Stats().ExpertTokens
		for _, row := range all {
			total := uint64(0)
			for _, n := range row {
				total += n
			}
			if total != choices {
				return false
			}
		}
		return true
	}, 20*time.Second, 5*time.Millisecond)
	return all
}

func TestBusyTimeIsThatOfRequests(t *testing.T) {
	b := small(t, BatchOptions{Slots: 2})
	require.Zero(t, b.Stats().Busy)
	began := time.Now()
	ask(t, b, simple(20))
	took := time.Since(began)
	s := b.Stats()
	require.Positive(t, s.Busy)
	require.LessOrEqual(t, s.Busy, took)
	time.Sleep(50 * time.Millisecond)
	require.Equal(t, s.Busy, b.Stats().Busy, "none while nothing runs")
}

func TestCompiledProgramsAreCounted(t *testing.T) {
	e := demoEngine(t, dtypes.Float32)
	hits, misses := e.compiled()
	b := batcher(t, e, BatchOptions{Slots: 5, Chunk: 32, Block: 16})
	s := b.Stats()
	require.Greater(t, s.CompileHits+s.CompileMisses, hits+misses)
	require.Equal(t, len(e.programs), s.CompileHits+s.CompileMisses)
}

// watch notes what a batcher tells.
type watch struct {
	mu                sync.Mutex
	queued, prefilled []time.Duration
}

func (w *watch) Queued(d time.Duration) { w.mu.Lock(); w.queued = append(w.queued, d); w.mu.Unlock() }
func (w *watch) Prefilled(d time.Duration) {
	w.mu.Lock()
	w.prefilled = append(w.prefilled, d)
	w.mu.Unlock()
}

// TestWatch tells of each request once, also if it was preempted or has nothing to generate.
func TestWatch(t *testing.T) {
	w := &watch{}
	b := batcher(t, demoEngine(t, dtypes.Float32), BatchOptions{Slots: 4, Chunk: 32, Block: 16, Blocks: 18, Watch: w})
	requests := mixed(12)
	requests = append(requests, infer.Request{Prompt: []int32{1, 2, 3}, Sampling: infer.Greedy(), LogProbs: -1, PromptLogProbs: 0})
	for i := range requests {
		requests[i].Max = min(requests[i].Max, 60)
	}
	began := time.Now()
	atOnce(t, b, requests)
	took := time.Since(began)
	require.Positive(t, b.Stats().Preemptions)
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Len(t, w.queued, len(requests))
	require.Len(t, w.prefilled, len(requests))
	for i := range requests {
		require.True(t, w.queued[i] >= 0 && w.prefilled[i] > 0 && w.queued[i]+w.prefilled[i] <= 2*took)
	}
}

// wild is a mask that panics.
type wild struct {
	list
	inAllowed bool
}

func (m *wild) Allowed(bits []uint32) {
	if m.inAllowed {
		panic("wild bits")
	}
	m.list.Allowed(bits)
}
func (m *wild) Accept(int32) error { panic("wild id") }

// TestMaskThatPanics fails its own request, while another goes on.
func TestMaskThatPanics(t *testing.T) {
	var log bytes.Buffer
	b := small(t, BatchOptions{Slots: 2, Log: slog.New(slog.NewTextHandler(&log, nil))})
	want := ask(t, b, simple(30))
	events, err := b.Submit(t.Context(), simple(30))
	require.NoError(t, err)
	for _, inAllowed := range []bool{true, false} {
		r := simple(4)
		r.ID, r.Mask = "r7", &wild{list{ids: []int32{77}}, inAllowed}
		a := ask(t, b, r)
		require.Equal(t, infer.FinishError, a.last.Finish)
		require.ErrorContains(t, a.last.Err, "constraint after 0 tokens: panic: wild ")
		require.NotErrorIs(t, a.last.Err, infer.ErrRequest, "it is not the client's fault")
	}
	require.Equal(t, want.tokens, collect(t, events).tokens)
	require.True(t, b.Ready())
	require.Contains(t, log.String(), "request=r7")
	require.Contains(t, log.String(), "Allowed")
}

// TestLoopThatPanics fails the batcher, not the process.
func TestLoopThatPanics(t *testing.T) {
	var log bytes.Buffer
	b := small(t, BatchOptions{Slots: 2, Log: slog.New(slog.NewTextHandler(&log, nil))})
	clear(b.paged.draw)
	a := ask(t, b, simple(5))
	require.Equal(t, infer.FinishError, a.last.Finish)
	require.ErrorContains(t, a.last.Err, ": panic: ")
	require.False(t, b.Ready())
	_, err := b.Submit(t.Context(), simple(5))
	require.ErrorContains(t, err, ": panic: ")
	b.Close()
	require.Contains(t, log.String(), "drawFor")
}

// piles is a Watcher that looks at what the loop keeps, on the loop's goroutine.
type piles struct {
	b    *Batcher
	most int
}

func (p *piles) Queued(time.Duration)    {}
func (p *piles) Prefilled(time.Duration) { p.most = max(p.most, len(p.b.work.pending)) }

// TestPromptsWithoutDrawsDoNotPileUp runs many prompts with nothing to generate, without a pause between them.
func TestPromptsWithoutDrawsDoNotPileUp(t *testing.T) {
	p := &piles{}
	b := small(t, BatchOptions{Slots: 2, Watch: p})
	p.b = b
	requests := make([]infer.Request, 300)
	for i := range requests {
		requests[i] = simple(0)
		requests[i].Prompt = []int32{int32(3 + i)}
	}
	for _, a := range heldBack(t, b, requests) {
		require.Equal(t, infer.FinishLength, a.last.Finish)
	}
	require.LessOrEqual(t, p.most, unasked+b.o.Chunks)
	counted(t, b, uint64((len(requests)+3)*b.e.cfg.TopK))
}
