package serve

import (
	"context"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/serve/infer"
)

func TestSessionRefusals(t *testing.T) {
	e := demoEngine(t, dtypes.Float32)
	ctx := context.Background()
	for _, tt := range []struct {
		name        string
		prompt, max int
		s           Sampling
		want        string
	}{
		{"no prompt", 0, 1, Sampling{TopP: 1}, "prompt of 0 tokens"},
		{"a full context", 256, 1, Sampling{TopP: 1}, "256 tokens, want at most 255"},
		{"nothing to generate", 1, 0, Sampling{TopP: 1}, "0 tokens to generate"},
		{"temperature", 1, 1, Sampling{Temperature: -1, TopP: 1}, "temperature is -1"},
		{"top-k", 1, 1, Sampling{TopK: -1, TopP: 1}, "top-k is -1"},
		{"top-p", 1, 1, Sampling{}, "top-p is 0"},
		{"min-p", 1, 1, Sampling{TopP: 1, MinP: 1}, "min-p is 1"},
		{"a penalty", 1, 1, Sampling{TopP: 1, Presence: 0.5}, "penalties 0, 0.5 and 0 with 0 biases, a session has none"},
	} {
		_, err := e.NewSession(ctx, tt.prompt, tt.max, tt.s)
		require.ErrorContains(t, err, tt.want, tt.name)
	}
	x, err := e.NewSession(ctx, 4, 1, Sampling{TopP: 1})
	require.NoError(t, err)
	defer x.Close()
	_, _, _, err = x.Prefill(ctx, nil)
	require.ErrorContains(t, err, "0 tokens after 0")
	_, _, _, err = x.Prefill(ctx, []int32{1, 2048})
	require.ErrorIs(t, err, ErrToken)
	require.ErrorContains(t, err, "token 1 is 2048, want 0 to 2047")
	_, _, _, err = x.Prefill(ctx, make([]int32, 300))
	require.ErrorContains(t, err, "300 tokens after 0, want 1 to 256")
}

func TestGenerateEnds(t *testing.T) {
	e := demoEngine(t, dtypes.Float32)
	ctx := context.Background()
	prompt := []int32{1, 300, 400}
	collect := func(max int, stop map[int32]bool, emit func(n int) bool) ([]int32, infer.Finish, Timing) {
		var ids []int32
		f, timing, err := e.Generate(ctx, prompt, max, Sampling{TopP: 1}, stop, func(id int32) bool {
			ids = append(ids, id)
			return emit(len(ids))
		})
		require.NoError(t, err)
		return ids, f, timing
	}
	on := func(int) bool { return true }
	all, finish, timing := collect(20, nil, on)
	require.Len(t, all, 20)
	require.Equal(t, infer.FinishLength, finish)
	require.Equal(t, []int{3, 19}, []int{timing.PromptTokens, timing.DecodeTokens})

	one, finish, _ := collect(1, nil, on)
	require.Equal(t, all[:1], one)
	require.Equal(t, infer.FinishLength, finish)

	at := 0 // of the first token that did not come before
	for i := 1; i < len(all); i++ {
		seen := false
		for _, id := range all[:i] {
			seen = seen || id == all[i]
		}
		if !seen {
			at = i
			break
		}
	}
	require.NotZero(t, at)
	stopped, finish, _ := collect(20, map[int32]bool{all[at]: true}, on)
	require.Equal(t, all[:at], stopped, "a stop token is not handed out")
	require.Equal(t, infer.FinishStop, finish)

	three, finish, _ := collect(20, nil, func(n int) bool { return n < 3 })
	require.Equal(t, all[:3], three)
	require.Equal(t, infer.FinishStop, finish)

	rest, finish, _ := collect(10000, nil, on)
	require.Len(t, rest, e.cfg.Context-len(prompt), "the context ends the generation")
	require.Equal(t, infer.FinishLength, finish)

	cancelled, cancel := context.WithCancel(ctx)
	n := 0
	_, _, err := e.Generate(cancelled, prompt, 20, Sampling{TopP: 1}, nil, func(int32) bool {
		if n++; n == 4 {
			cancel()
		}
		return true
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, 4, n)
}

// TestPaddingDoesNotShow runs a prompt in chunks of several sizes: what pads the last one leaves no trace.
func TestPaddingDoesNotShow(t *testing.T) {
	e := demoEngine(t, dtypes.Float32)
	prompt := []int32{1, 300, 400, 500, 600, 700, 800}
	var want Array
	for i, chunk := range []int{16, 3, 64} {
		x, err := e.newSession(context.Background(), len(prompt), 8, Sampling{TopP: 1}, chunk)
		require.NoError(t, err)
		next, at, logits, err := x.Prefill(context.Background(), prompt)
		require.NoError(t, err)
		for range 3 {
			next, at, logits, err = x.Step(next, at)
			require.NoError(t, err)
		}
		got, err := read(logits)
		require.NoError(t, err)
		if i == 0 {
			want = got
		}
		require.InDeltaSlice(t, want.Floats, got.Floats, logitsTolerance, "chunks of %d", chunk)
		free(next, at, logits)
		x.Close()
	}
}

func TestCapacityHoldsWholeChunks(t *testing.T) {
	for _, tt := range []struct{ context, tokens, chunk, want int }{
		{256, 10, 16, 256},
		{256, 256, 64, 256},
		{250, 250, 64, 256},
		{100, 20, 512, 512},
		{4096, 10, 16, 512},
		{4096, 513, 512, 1024},
		{4096, 4096, 512, 4096},
		{5000, 4999, 512, 5120},
	} {
		e := &Engine{cfg: graph.Config{Context: tt.context}}
		got := e.capacityFor(tt.tokens, tt.chunk)
		require.Equal(t, tt.want, got, "%+v", tt)
		require.Zero(t, got%tt.chunk, "%+v", tt)
		require.GreaterOrEqual(t, got, tt.tokens, "%+v", tt)
	}
}

func TestSamplingModeIsTheCheapest(t *testing.T) {
	require.Equal(t, greedy, modeOf(Sampling{TopP: 0.5}))
	require.Equal(t, greedy, modeOf(Sampling{Temperature: 1, TopK: 1, TopP: 1}))
	require.Equal(t, sampled, modeOf(Sampling{Temperature: 1, TopP: 1, MinP: 0.1}))
	require.Equal(t, ranked, modeOf(Sampling{Temperature: 1, TopP: 0.9}))
	require.Equal(t, ranked, modeOf(Sampling{Temperature: 1, TopP: 1, TopK: 5}))
}

// TestPrefillInTurns fills the cache to its end in several turns: where a padded chunk would not fit, what
// is in the cache must stay.
func TestPrefillInTurns(t *testing.T) {
	e := demoEngine(t, dtypes.Float32)
	ctx := context.Background()
	ids := make([]int32, 252)
	for i := range ids {
		ids[i] = int32(1 + i*37%2000)
	}
	full, err := e.Score(ctx, ids)
	require.NoError(t, err)
	x, err := e.newSession(ctx, 16, 256, Sampling{TopP: 1}, 16)
	require.NoError(t, err)
	defer x.Close()
	for _, turn := range [][]int32{ids[:245], ids[245:251], ids[251:]} {
		next, at, logits, err := x.Prefill(ctx, turn)
		require.NoError(t, err)
		got, err := read(logits)
		require.NoError(t, err)
		v, last := e.cfg.Vocab, x.length-1
		require.InDeltaSlice(t, full.Logits.Floats[last*v:(last+1)*v], got.Floats, logitsTolerance, "after %d tokens", x.length)
		free(next, at, logits)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	_, _, _, err = x.Prefill(cancelled, ids[:2])
	require.ErrorIs(t, err, context.Canceled)
	_, err = e.newSession(cancelled, 16, 256, Sampling{TopP: 1}, 16)
	require.ErrorIs(t, err, context.Canceled)
}
