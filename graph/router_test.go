package graph_test

import (
	"fmt"
	"testing"

	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/internal/purego"
	"mix/internal/ref"
)

func TestRouteTiesGoToTheLowerExpert(t *testing.T) {
	tests := []struct {
		name   string
		logits []float32 // of the experts for the one token
		k      int
		want   []int32
	}{
		{"all equal", []float32{0, 0, 0, 0}, 3, []int32{0, 1, 2}},
		{"a tie for the first place", []float32{1, 4, 2, 4}, 2, []int32{1, 3}},
		{"a tie at the border", []float32{3, 1, 5, 3, 3}, 3, []int32{2, 0, 3}},
		{"negative numbers", []float32{-3, -1, -1, -2}, 2, []int32{1, 2}},
		{"every expert", []float32{1, 1, 2, 2}, 4, []int32{2, 3, 0, 1}},
		{"one expert", []float32{-7}, 1, []int32{0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out := purego.Eval(t, []any{purego.Tensor([]float32{1}, 1, 1), purego.Tensor(tt.logits, len(tt.logits), 1)}, func(in []*gx.Node) []*gx.Node {
				r := graph.Route(in[0], in[1], tt.k)
				return []*gx.Node{r.Chosen, r.Weights}
			})
			require.Equal(t, tt.want, purego.Flat[int32](t, out[0]))
			_, weights, _ := ref.Route(ref.Vector{1}, rows(tt.logits, 1), tt.k)
			purego.Near(t, weights, purego.Flat[float32](t, out[1]), 1e-6, "weights")
		})
	}
}

func TestRouteGradient(t *testing.T) {
	const tokens, width, experts, k = 4, 3, 5, 2
	x, router, c := normals(8, tokens*width), normals(9, experts*width), normals(10, tokens*k)
	args := []any{purego.Tensor(x, tokens, width), purego.Tensor(router, experts, width), purego.Tensor(c, tokens, k)}
	out := purego.Eval(t, args, func(in []*gx.Node) []*gx.Node {
		r := graph.Route(in[0], in[1], k)
		return gx.Gradient(gx.ReduceAllSum(gx.Mul(r.Weights, in[2])), in[0], in[1])
	})
	loss := func(x, router []float32) (sum float64) {
		for i, row := range rows(x, width) {
			_, w, _ := ref.Route(row, rows(router, width), k)
			for j := range w {
				sum += float64(c[i*k+j]) * w[j]
			}
		}
		return sum
	}
	purego.Near(t, slopes(x, func(x []float32) float64 { return loss(x, router) }), purego.Flat[float32](t, out[0]), 1e-4, "gradient of x")
	purego.Near(t, slopes(router, func(r []float32) float64 { return loss(x, r) }), purego.Flat[float32](t, out[1]), 1e-4, "gradient of the router")
}

func TestRouteRefuses(t *testing.T) {
	for name, k := range map[string]int{"more choices than experts": 3, "no choice": 0} {
		t.Run(name, func(t *testing.T) {
			_, err := purego.TryEval(t, []any{purego.Tensor(normals(1, 4), 2, 2), purego.Tensor(normals(2, 4), 2, 2)}, func(in []*gx.Node) []*gx.Node {
				return []*gx.Node{graph.Route(in[0], in[1], k).Chosen}
			})
			require.ErrorContains(t, err, fmt.Sprintf("route: %d experts a token, want 1 to 2", k))
		})
	}
	_, err := purego.TryEval(t, []any{purego.Tensor(normals(1, 4), 2, 2), purego.Tensor(normals(2, 6), 2, 3)}, func(in []*gx.Node) []*gx.Node {
		return []*gx.Node{graph.Route(in[0], in[1], 1).Chosen}
	})
	require.Error(t, err, "widths that disagree")
}
