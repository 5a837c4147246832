package serve

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/serve/infer"
)

// list is a mask that allows the same ids at each place.
type list struct {
	ids  []int32
	fail error // of Accept
}

func (l *list) Allowed(bits []uint32) {
	clear(bits)
	for _, id := range l.ids {
		bits[id/32] |= 1 << (id % 32)
	}
}
func (l *list) Accept(int32) error { return l.fail }
func (l *list) Done() bool         { return true }

func simple(max int) infer.Request {
	return infer.Request{Prompt: []int32{1, 300, 400}, Max: max, Sampling: infer.Greedy(), LogProbs: -1, PromptLogProbs: -1}
}

func small(t testing.TB, o BatchOptions) *Batcher {
	o.Chunk, o.Block = 32, 16
	return batcher(t, demoEngine(t, dtypes.Float32), o)
}

// leftNothing waits until there are no more goroutines than before.
func leftNothing(t testing.TB, before int, b *Batcher) {
	for range 4000 {
		s := b.Stats()
		if runtime.NumGoroutine() <= before && s.Running+s.Waiting+s.Used == 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	require.Fail(t, "something is left", "%d goroutines, before there were %d; %+v\n%s", runtime.NumGoroutine(), before, b.Stats(), stacks)
}

func TestMasks(t *testing.T) {
	b := small(t, BatchOptions{Slots: 2})
	const end = 2 // of batcher
	broken := errors.New("broken rule")
	for _, tt := range []struct {
		name   string
		mask   *list
		min    int
		ignore bool
		finish infer.Finish
		tokens []int32
		wrong  string
	}{
		{"one id", &list{ids: []int32{77}}, 0, false, infer.FinishLength, []int32{77, 77, 77, 77}, ""},
		{"only the end", &list{ids: []int32{end}}, 0, false, infer.FinishStop, nil, ""},
		{"only the end, which is not to end", &list{ids: []int32{end}}, 0, true, infer.FinishStop, nil, ""},
		{"nothing", &list{}, 0, false, infer.FinishError, nil, "invalid request: the constraint allows no token after 0"},
		{"only the end, too early", &list{ids: []int32{end}}, 3, false, infer.FinishError, nil, "invalid request: after 0 tokens only an end may come, but at least 3 are asked for"},
		{"goes wrong", &list{ids: []int32{77}, fail: broken}, 0, false, infer.FinishError, nil, "invalid request: constraint: broken rule"},
		{"goes wrong at the end", &list{ids: []int32{end}, fail: broken}, 0, false, infer.FinishError, nil, "invalid request: constraint: broken rule"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := simple(4)
			r.Mask, r.Min, r.IgnoreEnd = tt.mask, tt.min, tt.ignore
			a := ask(t, b, r)
			require.Equal(t, tt.finish, a.last.Finish)
			require.Equal(t, tt.tokens, a.tokens)
			if tt.wrong != "" {
				require.EqualError(t, a.last.Err, tt.wrong)
				require.ErrorIs(t, a.last.Err, infer.ErrRequest)
			}
			if tt.finish == infer.FinishStop {
				require.EqualValues(t, end, a.last.StopID)
			}
		})
	}
	require.True(t, b.Ready(), "one request's failure is its own")
}

// TestLogProbsAreOfRawLogits narrows, penalizes and heats a draw: what is reported of the model is the same.
func TestLogProbsAreOfRawLogits(t *testing.T) {
	b := small(t, BatchOptions{Slots: 2})
	r := simple(1)
	r.LogProbs, r.IgnoreEnd = infer.MaxLogProbs, true
	free := ask(t, b, r).places[0]
	r.Sampling = infer.Sampling{Temperature: 3, TopP: 0.5, TopK: 7, MinP: 0.1, Repetition: 1.5, Presence: 1, Bias: map[int32]float32{9: 50}}
	r.Mask = &list{ids: []int32{free.Top[5].ID}}
	bound := ask(t, b, r).places[0]
	require.Equal(t, free.Top, bound.Top)
	require.Equal(t, free.Top[5], bound.Chosen)
	require.Equal(t, 6, bound.Rank)
}

func TestStops(t *testing.T) {
	b := small(t, BatchOptions{Slots: 2})
	r := simple(12)
	r.IgnoreEnd = true
	all := ask(t, b, r).tokens
	at := len(all) - 1
	for k, id := range all[:at] { // where the last token comes first
		if id == all[at] {
			at = k
			break
		}
	}
	r.Stop = []int32{all[at]}
	a := ask(t, b, r)
	require.Equal(t, infer.FinishStop, a.last.Finish)
	require.Equal(t, all[at], a.last.StopID)
	require.Equal(t, all[:at], append([]int32{}, a.tokens...))
	require.Equal(t, at, a.last.Usage.Generated)

	r.Min = at + 1
	require.Greater(t, len(ask(t, b, r).tokens), at, "a stop id does not come before Min")

	r.Stop = []int32{-1, int32(b.model.Vocab), 1 << 30}
	require.Equal(t, all, ask(t, b, r).tokens, "ids outside the vocabulary never come")
}

func TestTinyTemperaturesTakeTheBest(t *testing.T) {
	b := small(t, BatchOptions{Slots: 2})
	r := simple(8)
	want := ask(t, b, r).tokens
	for _, x := range []float32{1e-45, 1.2e-38, 2e-38, 5e-38, 1e-6} {
		for _, p := range []float32{1, 0.9} {
			r.Sampling.Temperature, r.Sampling.MinP, r.Sampling.TopP = x, 0.05, p
			require.Equal(t, want, ask(t, b, r).tokens, "temperature %g, top-p %g", x, p)
		}
	}
}

func TestRefusedRequestsLeaveNothing(t *testing.T) {
	b := small(t, BatchOptions{Slots: 1, Queue: 1})
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(t.Context())
	refused := 0
	for range 200 {
		r := simple(200)
		r.IgnoreEnd = true
		if _, err := b.Submit(ctx, r); err != nil {
			require.ErrorIs(t, err, infer.ErrBusy)
			refused++
		}
	}
	require.Greater(t, refused, 100)
	cancel()
	leftNothing(t, before, b)
}

// TestNobodyReads leaves answers unread: others go on, and the end of the context clears everything away.
func TestNobodyReads(t *testing.T) {
	b := small(t, BatchOptions{Slots: 2})
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(t.Context())
	for range 4 {
		r := simple(60)
		r.IgnoreEnd = true
		_, err := b.Submit(ctx, r)
		require.NoError(t, err)
	}
	require.NotEmpty(t, ask(t, b, simple(5)).last.Finish)
	cancel()
	leftNothing(t, before, b)
}

// TestFailedStep takes a program away under the batcher: requests are told, new ones are refused, and it can
// be closed.
func TestFailedStep(t *testing.T) {
	b := small(t, BatchOptions{Slots: 2})
	b.paged.decode.Finalize()
	a := ask(t, b, simple(5))
	require.Equal(t, infer.FinishError, a.last.Finish)
	require.ErrorContains(t, a.last.Err, "step ")
	require.False(t, b.Ready())
	require.ErrorContains(t, b.Failed(), "step ")
	_, err := b.Submit(t.Context(), simple(5))
	require.ErrorContains(t, err, "step ")
	require.Zero(t, b.Stats().Used)
}

func TestCloseEndsRequests(t *testing.T) {
	b := small(t, BatchOptions{Slots: 2})
	var all []<-chan infer.Event
	for range 5 {
		r := simple(200)
		r.IgnoreEnd = true
		events, err := b.Submit(t.Context(), r)
		require.NoError(t, err)
		all = append(all, events)
	}
	b.Close()
	b.Close()
	for _, events := range all {
		a := collect(t, events)
		require.ErrorIs(t, a.last.Err, infer.ErrDraining)
	}
	_, err := b.Submit(t.Context(), simple(1))
	require.ErrorIs(t, err, infer.ErrDraining)
	require.False(t, b.Ready())
}

func TestCompilingEndsWithTheContext(t *testing.T) {
	e := demoEngine(t, dtypes.Float32)
	ctx, cancel := context.WithCancel(t.Context())
	compiled := 0
	e.o.Compiling = func(string) func() { compiled++; cancel(); return func() {} }
	_, err := NewBatcher(ctx, e, BatchOptions{Slots: 2, Chunk: 32, Block: 16}, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.LessOrEqual(t, compiled, compilers, "nothing more is begun")
}
