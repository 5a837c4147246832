package lower_test

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/gomlx/compute"
	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/stretchr/testify/require"

	"mix/graph/composite"
	"mix/lower"
)

// TestRoutedExpertsGradientEqualsBody takes value and gradient of routed experts with the passes and without,
// with the matrices in one tensor and in one each.
func TestRoutedExpertsGradientEqualsBody(t *testing.T) {
	rule := cpu(t)
	body, err := lower.New(context.Background(), lower.Options{NoCache: true, Verify: true, Skip: []string{"routed_experts", "grouped_gemm"}})
	require.NoError(t, err)
	defer body.Finalize()
	for _, tokens := range []int{3, 90} {
		for _, split := range []bool{false, true} {
			if testing.Short() && (tokens == 90 || split) {
				continue
			}
			t.Run(fmt.Sprintf("%d tokens, split %t", tokens, split), func(t *testing.T) {
				want, got := expertsGradient(t, body, tokens, split), expertsGradient(t, rule, tokens, split)
				for i := range want {
					largest := 0.0
					for _, v := range want[i] {
						largest = math.Max(largest, math.Abs(float64(v)))
					}
					require.InDeltaSlice(t, want[i], got[i], 2e-6*largest, "result %d", i)
				}
				require.Equal(t, got, expertsGradient(t, rule, tokens, split), "two runs differ")
			})
		}
	}
}

// expertsGradient is y of four experts, one of which nobody chooses, then the gradients of Σ y² / 2 by all inputs.
func expertsGradient(t *testing.T, be compute.Backend, tokens int, split bool) (all [][]float32) {
	const width, hidden, experts = 12, 20, 4
	chosen := make([][]int32, tokens)
	for i := range chosen {
		chosen[i] = []int32{int32(i * i % 3), 3}
		if i%5 == 0 {
			chosen[i] = []int32{3, 0}
		}
		if chosen[i][0] == 1 {
			chosen[i][0] = 2
		}
	}
	args := []any{noise(1, tokens, width), noise(2, tokens, 2)}
	one := [][]int{{hidden, width}, {hidden, width}, {width, hidden}}
	for i, dims := range one {
		if !split {
			args = append(args, noise(uint64(10*i+10), append([]int{experts}, dims...)...))
			continue
		}
		for e := range experts {
			args = append(args, noise(uint64(10*i+10+e), dims...))
		}
	}
	exec, err := gx.NewExec(be, func(in []*gx.Node) []*gx.Node {
		n := (len(in) - 2) / 3
		w := composite.Experts{Gate: in[2 : 2+n], Up: in[2+n : 2+2*n], Down: in[2+2*n:]}
		y := composite.RoutedExperts(in[0], gx.Const(in[0].Graph(), chosen), in[1], w)
		return append([]*gx.Node{y}, gx.Gradient(gx.MulScalar(gx.ReduceAllSum(gx.Mul(y, y)), 0.5), in...)...)
	})
	require.NoError(t, err)
	defer exec.Finalize()
	results, err := exec.Call(args...)
	require.NoError(t, err)
	for _, r := range results {
		v, err := tensors.CopyFlatData[float32](r)
		require.NoError(t, err)
		all = append(all, v)
	}
	return all
}
