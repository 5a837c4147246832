package graph_test

import (
	"testing"

	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/internal/purego"
	"mix/internal/ref"
)

func TestCrossEntropy(t *testing.T) {
	const batch, seq, vocab = 2, 4, 5
	tests := []struct {
		name   string
		scale  float32 // of the logits
		labels []int32
		kept   float32
	}{
		{"every label", 1, []int32{0, 1, 2, 3, 4, 3, 2, 1}, 6},
		{"some labels", 1, []int32{0, -100, 2, 3, 4, 3, -100, -100}, 3},
		{"only first labels, which are no one's next", 1, []int32{1, -100, -100, -100, 4, -100, -100, -100}, 0},
		{"no label", 1, []int32{-100, -100, -100, -100, -100, -100, -100, -100}, 0},
		{"logits beyond the range of exp", 1000, []int32{0, 1, 2, 3, 4, 3, 2, 1}, 6},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x := normals(11, batch*seq*vocab)
			for i := range x {
				x[i] *= tt.scale
			}
			out := purego.Eval(t, []any{purego.Tensor(x, batch, seq, vocab), purego.Tensor(tt.labels, batch, seq)}, func(in []*gx.Node) []*gx.Node {
				loss, kept := graph.CrossEntropy(in[0], graph.NextTokens(in[1]))
				return []*gx.Node{loss, kept, gx.Gradient(loss, in[0])[0]}
			})
			loss := func(x []float32) float64 {
				y, kept := ref.CrossEntropy([]ref.Matrix{rows(x[:seq*vocab], vocab), rows(x[seq*vocab:], vocab)}, [][]int32{tt.labels[:seq], tt.labels[seq:]})
				require.Equal(t, int(tt.kept), kept)
				return y
			}
			require.Equal(t, tt.kept, purego.Flat[float32](t, out[1])[0])
			if tt.scale > 1 { // the specification's logarithm underflows here, the difference of logits does not
				for _, v := range purego.Flat[float32](t, out[2]) {
					require.False(t, v != v, "a gradient is not a number")
				}
				require.Greater(t, purego.Flat[float32](t, out[0])[0], float32(100))
				return
			}
			purego.Near(t, ref.Vector{loss(x)}, purego.Flat[float32](t, out[0]), 1e-6, "loss")
			purego.Near(t, slopes(x, loss), purego.Flat[float32](t, out[2]), 1e-5, "gradient")
		})
	}
}

func TestLoadBalanceOfBalancedRoutingIsTheNumberOfChoices(t *testing.T) {
	// Four tokens choose the four experts in turn, two each, by equal logits.
	chosen := []int32{0, 1, 1, 2, 2, 3, 3, 0}
	out := purego.Eval(t, []any{purego.Tensor(make([]float32, 16), 1, 4, 4), purego.Tensor(chosen, 1, 4, 2)}, func(in []*gx.Node) []*gx.Node {
		return []*gx.Node{graph.LoadBalance(in[0], in[1], nil)}
	})
	require.Equal(t, []float32{2}, purego.Flat[float32](t, out[0]))
}

func TestLoadBalance(t *testing.T) {
	const layers, tokens, experts, k = 2, 5, 4, 2
	logits := normals(12, layers*tokens*experts)
	var chosen []int32
	var plain [][][]int
	for l := range layers {
		plain = append(plain, nil)
		for i := range tokens {
			a, b := (i*i+l)%experts, (i*i+l+1)%experts
			chosen = append(chosen, int32(a), int32(b))
			plain[l] = append(plain[l], []int{a, b})
		}
	}
	for name, mask := range map[string][]bool{"all rows": nil, "masked rows": {true, false, true, true, false}} {
		t.Run(name, func(t *testing.T) {
			kept := make([]float32, tokens)
			for i := range mask {
				if mask[i] {
					kept[i] = 1
				}
			}
			out := purego.Eval(t, []any{purego.Tensor(logits, layers, tokens, experts), purego.Tensor(chosen, layers, tokens, k), purego.Tensor(kept, tokens)}, func(in []*gx.Node) []*gx.Node {
				m := in[2]
				if mask == nil {
					m = nil
				}
				loss := graph.LoadBalance(in[0], in[1], m)
				return []*gx.Node{loss, gx.Gradient(loss, in[0])[0]}
			})
			loss := func(x []float32) float64 {
				half := tokens * experts
				return ref.LoadBalance([]ref.Matrix{rows(x[:half], experts), rows(x[half:], experts)}, plain, mask)
			}
			purego.Near(t, ref.Vector{loss(logits)}, purego.Flat[float32](t, out[0]), 1e-6, "loss")
			purego.Near(t, slopes(logits, loss), purego.Flat[float32](t, out[1]), 1e-5, "gradient, none of it through the choices")
		})
	}
}
