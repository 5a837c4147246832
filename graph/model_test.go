package graph_test

import (
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/internal/purego"
	"mix/internal/ref"
	"mix/sharding/axis"
)

// small is a model whose every size is different.
var small = graph.Config{Vocab: 23, Width: 12, Hidden: 10, Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 6, Experts: 5, TopK: 2,
	Context: 64, RopeTheta: 1e4, NormEps: 1e-5, InitStd: 0.4, BOS: 1, EOS: []int{2}, DType: "float32"}

func with(change func(c *graph.Config)) graph.Config {
	c := small
	change(&c)
	return c
}

// initialized are the weights of a fresh model, with norms that are not all ones, in the pieces of a layout
// and as the specification takes them.
func initialized(t *testing.T, c graph.Config, l graph.Layout) (pieces []any, plain ref.Model) {
	t.Helper()
	fill := func(q axis.Piece) []float32 {
		dst := make([]float32, q.Elements())
		require.NoError(t, graph.Init(c, q, 7, dst))
		for i := range dst {
			if strings.HasSuffix(q.Path, "norm") {
				dst[i] += float32(i%c.Width%5) / 8
			}
		}
		return dst
	}
	for _, q := range graph.Pieces(c, l, dtypes.Float32) {
		pieces = append(pieces, purego.Tensor(fill(q), q.Shape...))
	}
	weights := map[string][]float32{}
	for _, p := range graph.Params(c) {
		weights[p.Path] = fill(axis.Whole(p, dtypes.Float32))
	}
	plain = ref.New(ref.Sizes{Vocab: c.Vocab, Width: c.Width, Hidden: c.Hidden, Layers: c.Layers, Heads: c.Heads, KVHeads: c.KVHeads,
		HeadDim: c.HeadDim, Experts: c.Experts}, func(path string) []float32 { return weights[path] })
	plain.TopK, plain.Window, plain.Theta, plain.Eps = c.TopK, c.Window, c.RopeTheta, c.NormEps
	return pieces, plain
}

// TestForwardAgainstSpecification runs whole models in shapes that no published model has.
func TestForwardAgainstSpecification(t *testing.T) {
	const batch, seq = 2, 7
	tests := []struct {
		name     string
		config   graph.Config
		start    int
		segments [][]int
	}{
		{"heads wider than the model", small, 0, nil},
		{"heads narrower than the model", with(func(c *graph.Config) { c.HeadDim = 2 }), 0, nil},
		{"one expert", with(func(c *graph.Config) { c.Experts, c.TopK = 1, 1 }), 0, nil},
		{"one choice", with(func(c *graph.Config) { c.TopK = 1 }), 0, nil},
		{"every expert chosen", with(func(c *graph.Config) { c.TopK = 5 }), 0, nil},
		{"a window below the sequence", with(func(c *graph.Config) { c.Window = 3 }), 0, nil},
		{"a window of one token", with(func(c *graph.Config) { c.Window = 1 }), 0, nil},
		{"tied embeddings", with(func(c *graph.Config) { c.TieEmbedding = true }), 0, nil},
		{"one key head", with(func(c *graph.Config) { c.KVHeads = 1 }), 0, nil},
		{"a key head each", with(func(c *graph.Config) { c.KVHeads = 4 }), 0, nil},
		{"one layer", with(func(c *graph.Config) { c.Layers = 1 }), 0, nil},
		{"late positions", small, 1000, nil},
		{"packed documents", small, 0, [][]int{{0, 0, 0, 1, 1, 1, 1}, {3, 3, 2, 2, 2, 1, 1}}},
		{"packed documents in a window", with(func(c *graph.Config) { c.Window = 2 }), 5, [][]int{{0, 0, 0, 1, 1, 1, 1}, {3, 2, 2, 2, 2, 2, 2}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := tt.config
			require.NoError(t, c.Validate())
			pieces, plain := initialized(t, c, graph.PerMatrix)
			tokens, segments := make([]int32, batch*seq), make([]int32, batch*seq)
			for i := range tokens {
				tokens[i] = int32(i * 5 % c.Vocab)
				if tt.segments != nil {
					segments[i] = int32(tt.segments[i/seq][i%seq])
				}
			}
			p := program{cfg: c, weights: pieces}
			args := []any{purego.Tensor(tokens, batch, seq), int32(tt.start), purego.Tensor(segments, batch, seq)}
			out := p.run(t, graph.PerMatrix, args, func(w graph.Weights, _, args []*gx.Node) []*gx.Node {
				in := graph.Inputs{Tokens: args[0]}
				if tt.start != 0 {
					in.Start = args[1]
				}
				if tt.segments != nil {
					in.Segments = args[2]
				}
				r := graph.Run(c, w, in, nil, graph.KeepAll)
				return []*gx.Node{graph.Logits(c, w, r.Hidden), r.Layers, r.AttnOut, r.MoEOut, r.RouterLogits, r.RouterWeights, r.RouterChosen}
			})
			want, chosen := make([]ref.Vector, 6), []int32{}
			for b := range batch {
				var s []int
				if tt.segments != nil {
					s = tt.segments[b]
				}
				logits, _ := plain.Forward(tokens[b*seq:(b+1)*seq], tt.start, s)
				want[0] = append(want[0], purego.Flatten(logits)...)
			}
			for l := range c.Layers {
				for b := range batch {
					var s []int
					if tt.segments != nil {
						s = tt.segments[b]
					}
					_, traces := plain.Forward(tokens[b*seq:(b+1)*seq], tt.start, s)
					tr := traces[l]
					for i, m := range []ref.Matrix{tr.Hidden, tr.AttnOut, tr.MoEOut, tr.Logits, tr.Weights} {
						want[1+i] = append(want[1+i], purego.Flatten(m)...)
					}
					for _, row := range tr.Chosen {
						for _, e := range row {
							chosen = append(chosen, int32(e))
						}
					}
				}
			}
			for i, what := range []string{"logits", "layers", "attention", "experts", "router logits", "router weights"} {
				purego.Near(t, want[i], purego.Flat[float32](t, out[i]), 2e-4, what)
			}
			require.Equal(t, chosen, purego.Flat[int32](t, out[6]))
		})
	}
}

func TestWeightsAreCounted(t *testing.T) {
	pieces, _ := initialized(t, small, graph.PerMatrix)
	_, err := purego.TryEval(t, pieces, func(in []*gx.Node) []*gx.Node {
		graph.WeightsOf(small, graph.PerMatrix, dtypes.Float32, in[1:])
		return in[:1]
	})
	require.ErrorContains(t, err, "want 47 for the per-matrix layout")
}
