package graph_test

import (
	"encoding/json"
	"os"
	"testing"

	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/internal/purego"
	"mix/internal/ref"
)

// recordedRouter is testdata/router.json: what Megatron-LM's moe_utils gives for a block of logits, and
// transformers' load-balancing loss of the same.
type recordedRouter struct {
	Logits  [][]float32
	TopK    int
	Softmax struct{ Probs [][]float32 } `json:"softmax_post_topk"`
	Aux     recordedLoss                `json:"aux_loss"`
	Z       recordedLoss                `json:"z_loss"`
	Pooled  float64                     `json:"hf_load_balancing_value_x_coeff1"`
}

type recordedLoss struct {
	Coeff, Value float64
	Gradient     [][]float32 `json:"grad_wrt_logits"`
}

func flat(rows [][]float32) (all ref.Vector) {
	for _, r := range rows {
		for _, x := range r {
			all = append(all, float64(x))
		}
	}
	return all
}

// TestRouterAgainstMegatron also sums the losses of two halves of the rows: a product of sums is not the sum
// of products.
func TestRouterAgainstMegatron(t *testing.T) {
	b, err := os.ReadFile("testdata/router.json")
	require.NoError(t, err)
	var want recordedRouter
	require.NoError(t, json.Unmarshal(b, &want))
	rows, experts := len(want.Logits), len(want.Logits[0])
	var logits []float32
	for _, r := range want.Logits {
		logits = append(logits, r...)
	}
	out := purego.Eval(t, []any{purego.Tensor(logits, rows, experts)}, func(in []*gx.Node) []*gx.Node {
		r := graph.RouteBy(in[0], want.TopK)
		weights := gx.ReduceSum(gx.Mul(gx.OneHot(r.Chosen, experts, in[0].DType()), gx.InsertAxes(r.Weights, -1)), 1) // [T, E]
		whole := graph.SumRouter(gx.InsertAxes(r.Logits, 0), gx.InsertAxes(r.Chosen, 0), nil)
		var halves []*gx.Node
		for i := range 2 {
			half := gx.AxisRange(i*rows/2, (i+1)*rows/2)
			s := graph.SumRouter(gx.InsertAxes(gx.Slice(r.Logits, half), 0), gx.InsertAxes(gx.Slice(r.Chosen, half), 0), nil)
			for j, x := range s.Nodes() {
				if i == 0 {
					halves = append(halves, x)
				} else {
					halves[j] = gx.Add(halves[j], x)
				}
			}
		}
		weigh := func(x *gx.Node, by float64) *gx.Node { return gx.MulScalar(x, by) }
		outs := []*gx.Node{weights}
		for _, s := range []graph.RouterSums{whole, graph.RouterSumsOf(halves)} {
			aux, z := weigh(s.LoadBalancePerLayer(want.TopK), want.Aux.Coeff), weigh(s.ZLoss(), want.Z.Coeff)
			outs = append(outs, aux, gx.Gradient(aux, in[0])[0], z, gx.Gradient(z, in[0])[0], s.LoadBalance())
		}
		return outs
	})
	get := func(i int) []float32 { return purego.Flat[float32](t, out[i]) }
	purego.Near(t, flat(want.Softmax.Probs), get(0), 1e-6, "weights of the chosen")
	for i := range 2 {
		at := 1 + 5*i
		require.InEpsilon(t, want.Aux.Value, get(at)[0], 1e-6)
		purego.Near(t, flat(want.Aux.Gradient), get(at+1), 1e-5, "gradient of the load-balancing loss")
		require.InEpsilon(t, want.Z.Value, get(at + 2)[0], 1e-6)
		purego.Near(t, flat(want.Z.Gradient), get(at+3), 1e-5, "gradient of the z-loss")
		require.InEpsilon(t, want.Pooled, get(at + 4)[0], 1e-6)
	}
}
