package serve

import (
	"context"
	"testing"
	"unsafe"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/internal/golden"
	"mix/internal/ref"
	"mix/sharding/axis"
)

// fresh reads the initial weights of a model that nobody trained.
type fresh struct{ cfg graph.Config }

func (f fresh) Read(q axis.Piece, dst []byte) error {
	return graph.Init(f.cfg, q, 7, unsafe.Slice((*float32)(unsafe.Pointer(&dst[0])), q.Elements()))
}

// plain is the same model in plain loops.
func plain(t *testing.T, c graph.Config) ref.Model {
	weights := map[string][]float32{}
	for _, p := range graph.Params(c) {
		weights[p.Path] = make([]float32, p.Elements())
		require.NoError(t, graph.Init(c, axis.Whole(p, dtypes.Float32), 7, weights[p.Path]))
	}
	m := ref.New(ref.Sizes{Vocab: c.Vocab, Width: c.Width, Hidden: c.Hidden, Layers: c.Layers, Heads: c.Heads, KVHeads: c.KVHeads,
		HeadDim: c.HeadDim, Experts: c.Experts}, func(path string) []float32 { return weights[path] })
	m.TopK, m.Window, m.Theta, m.Eps = c.TopK, c.Window, c.RopeTheta, c.NormEps
	return m
}

// TestEngineAgainstPlainLoops runs models that the recordings do not have, whole and through the cache, in
// chunks that cross the window.
func TestEngineAgainstPlainLoops(t *testing.T) {
	base := graph.Config{Vocab: 61, Width: 24, Hidden: 20, Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 6, Experts: 4, TopK: 2,
		Context: 48, RopeTheta: 1e4, NormEps: 1e-5, InitStd: 0.4, BOS: 1, DType: "float32"}
	for _, tt := range []struct {
		name   string
		change func(c *graph.Config)
	}{
		{"a window", func(c *graph.Config) { c.Window = 5 }},
		{"a window of one", func(c *graph.Config) { c.Window = 1 }},
		{"tied embeddings", func(c *graph.Config) { c.TieEmbedding = true }},
		{"one expert a token", func(c *graph.Config) { c.TopK = 1 }},
		{"every expert", func(c *graph.Config) { c.TopK = 4 }},
		{"a single expert", func(c *graph.Config) { c.Experts, c.TopK = 1, 1 }},
		{"as many key heads as query heads", func(c *graph.Config) { c.KVHeads = 4 }},
		{"one key head and one layer", func(c *graph.Config) { c.KVHeads, c.Layers = 1, 1 }},
	} {
		for layout := range graph.Layouts {
			if testing.Short() && (layout != "per-matrix" || tt.name != "a window") {
				continue
			}
			if !golden.Long() && layout != "per-matrix" && tt.name != "a window" && tt.name != "every expert" {
				continue
			}
			t.Run(tt.name+"/"+layout, func(t *testing.T) {
				c := base
				tt.change(&c)
				e, err := New(context.Background(), backend(t), c, fresh{c}, Options{DType: dtypes.Float32, Layout: layout})
				require.NoError(t, err)
				defer e.Close()
				againstPlainLoops(t, e, plain(t, c))
			})
		}
	}
}

func againstPlainLoops(t *testing.T, e *Engine, m ref.Model) {
	tokens := make([]int32, 30)
	for i := range tokens {
		tokens[i] = int32((i*i*7 + 3) % e.cfg.Vocab)
	}
	logits, _ := m.Forward(tokens, 0, nil)
	near := func(p int, got []float32) {
		t.Helper()
		want := make([]float32, len(got))
		for i := range want {
			want[i] = float32(logits[p][i])
		}
		require.InDeltaSlice(t, want, got, logitsTolerance, "position %d", p)
	}
	s, err := e.Score(context.Background(), tokens)
	require.NoError(t, err)
	v := e.cfg.Vocab
	for p := range tokens {
		near(p, s.Logits.Floats[p*v:(p+1)*v])
	}

	const prompt = 11
	x, err := e.newSession(context.Background(), prompt, len(tokens)-prompt, Sampling{TopP: 1}, 4)
	require.NoError(t, err)
	defer x.Close()
	next, at, last, err := x.Prefill(context.Background(), tokens[:prompt])
	require.NoError(t, err)
	for p := prompt - 1; ; p++ {
		got, err := read(last)
		require.NoError(t, err)
		near(p, got.Floats)
		if p == len(tokens)-1 {
			break
		}
		free(next)
		forced, err := upload(e.be, tokens[p+1:p+2], 1, 1) // the sequence's own next token
		require.NoError(t, err)
		next, at, last, err = x.Step(forced, at)
		require.NoError(t, err)
	}
}

// TestLongSequencesAreScoredInChunks crosses the chunk's end, with and without a window.
func TestLongSequencesAreScoredInChunks(t *testing.T) {
	for _, window := range []int{0, 100} {
		c := graph.Config{Vocab: 31, Width: 16, Hidden: 12, Layers: 2, Heads: 2, KVHeads: 1, HeadDim: 8, Experts: 3, TopK: 2,
			Context: 1200, Window: window, RopeTheta: 1e4, NormEps: 1e-5, InitStd: 0.4, BOS: 1, DType: "float32"}
		e, err := New(context.Background(), backend(t), c, fresh{c}, Options{DType: dtypes.Float32})
		require.NoError(t, err)
		defer e.Close()
		tokens := make([]int32, 700)
		for i := range tokens {
			tokens[i] = int32((i*i*7 + 3) % c.Vocab)
		}
		logits, traces := plain(t, c).Forward(tokens, 0, nil)
		s, err := e.ScoreTrace(context.Background(), tokens)
		require.NoError(t, err)
		require.Equal(t, []int{len(tokens), c.Vocab}, s.Logits.Dims)
		require.Equal(t, []int{len(tokens), c.Width}, s.Trace.FinalNorm.Dims)
		require.Len(t, s.Trace.RouterChosen, c.Layers)
		for p := range tokens {
			for i, want := range logits[p] {
				require.InDelta(t, want, s.Logits.Floats[p*c.Vocab+i], logitsTolerance, "window %d, position %d", window, p)
			}
			for l, tr := range traces {
				for i, want := range tr.Hidden[p] {
					require.InDelta(t, want, s.Trace.Layers[l].Floats[p*c.Width+i], logitsTolerance, "window %d, layer %d, position %d", window, l, p)
				}
			}
		}
		plainly, err := e.Score(context.Background(), tokens)
		require.NoError(t, err)
		require.InEpsilon(t, s.Loss, plainly.Loss, lossTolerance)
	}
}
