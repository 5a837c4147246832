package lower_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/stretchr/testify/require"

	"mix/graph/composite"
	"mix/lower"
)

// TestGroupedProductsEqualTheirBodies runs grouped products with the pass and without, where groups share
// rows evenly, are empty, or take them all.
func TestGroupedProductsEqualTheirBodies(t *testing.T) {
	rule := cpu(t)
	body, err := lower.New(context.Background(), lower.Options{NoCache: true, Verify: true, Skip: []string{"grouped_gemm"}})
	require.NoError(t, err)
	defer body.Finalize()
	const n, m = 20, 12
	for _, sizes := range [][]int32{{5, 5, 5}, {0, 15, 0}, {15, 0, 0}, {0, 0, 15}, {1, 0, 200}, {70, 65, 66}, {3}} {
		if testing.Short() && sizes[0] != 0 {
			continue
		}
		rows := 0
		for _, s := range sizes {
			rows += int(s)
		}
		e := len(sizes)
		for _, dtype := range []dtypes.DType{dtypes.Float32, dtypes.BFloat16} {
			t.Run(fmt.Sprintf("%v/%s", sizes, dtype), func(t *testing.T) {
				args := func() []any { return []any{noise(1, rows, m), noise(2, rows, n), noise(3, e, n, m), sizes} } // of one backend each
				want, got := grouped(t, body, dtype, args()), grouped(t, rule, dtype, args())
				// Measured, of the largest value: f32 3.4e-7, bf16 nothing; one rounding of bf16 is allowed.
				tolerance := map[dtypes.DType]float64{dtypes.Float32: 1e-6, dtypes.BFloat16: 1.0 / 256}[dtype]
				for i, name := range []string{"product", "transposed product", "outer products"} {
					largest, apart := 0.0, 0.0
					for k, v := range want[i] {
						largest = math.Max(largest, math.Abs(float64(v)))
						apart = math.Max(apart, math.Abs(float64(v-got[i][k])))
					}
					t.Logf("%s: %.2g of %.3g", name, apart, largest)
					require.InDeltaSlice(t, want[i], got[i], tolerance*largest, name)
				}
			})
		}
	}
}

// grouped evaluates the three composites in dtype: the results as f32.
func grouped(t *testing.T, be compute.Backend, dtype dtypes.DType, args []any) (out [3][]float32) {
	exec, err := gx.NewExec(be, func(in []*gx.Node) []*gx.Node {
		x, dy, w := gx.ConvertDType(in[0], dtype), gx.ConvertDType(in[1], dtype), gx.ConvertDType(in[2], dtype)
		ys := []*gx.Node{composite.GroupedGEMM(x, w, in[3]), composite.GroupedGEMMTransposed(dy, w, in[3]), composite.GroupedOuter(dy, x, in[3])}
		for i := range ys {
			ys[i] = gx.ConvertDType(ys[i], dtypes.Float32)
		}
		return ys
	})
	require.NoError(t, err)
	defer exec.Finalize()
	results, err := exec.Call(args...)
	require.NoError(t, err)
	for i, r := range results {
		out[i], err = tensors.CopyFlatData[float32](r)
		require.NoError(t, err)
	}
	return out
}

// noise is a tensor of normal values.
func noise(seed uint64, dims ...int) *tensors.Tensor {
	r, n := rand.New(rand.NewPCG(seed, 0)), 1
	for _, d := range dims {
		n *= d
	}
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return tensors.FromFlatDataAndDimensions(x, dims...)
}
