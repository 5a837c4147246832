package graph_test

import (
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/internal/purego"
	"mix/internal/ref"
)

func TestRMSNorm(t *testing.T) {
	const eps = 0.25 // large enough to matter
	x, scale := normals(1, 5*6), normals(2, 6)
	args := []any{purego.Tensor(x, 5, 6), purego.Tensor(scale, 6), purego.Tensor(normals(3, 5*6), 5, 6)}
	out := purego.Eval(t, args, func(in []*gx.Node) []*gx.Node {
		y := graph.RMSNorm(in[0], in[1], eps)
		return append([]*gx.Node{y}, gx.Gradient(gx.ReduceAllSum(gx.Mul(y, in[2])), in[0], in[1])...)
	})
	norm := func(x, scale []float32) ref.Vector {
		var y ref.Vector
		for _, row := range rows(x, 6) {
			y = append(y, ref.RMSNorm(row, ref.Vec(scale), eps)...)
		}
		return y
	}
	weigh := func(y ref.Vector) (sum float64) {
		for i, c := range normals(3, 5*6) {
			sum += float64(c) * y[i]
		}
		return sum
	}
	purego.Near(t, norm(x, scale), purego.Flat[float32](t, out[0]), 1e-6, "norm")
	purego.Near(t, slopes(x, func(x []float32) float64 { return weigh(norm(x, scale)) }), purego.Flat[float32](t, out[1]), 1e-4, "gradient of x")
	purego.Near(t, slopes(scale, func(s []float32) float64 { return weigh(norm(x, s)) }), purego.Flat[float32](t, out[2]), 1e-4, "gradient of scale")
}

// TestRMSNormOfBFloat16 takes a row so long that a sum in bfloat16 would stand still, and numbers so small
// that eps would vanish beside a rounded sum.
func TestRMSNormOfBFloat16(t *testing.T) {
	const width, eps = 4096, 1e-5
	x, scale := normals(4, width), normals(5, width)
	round := func(v float32) float32 { return bfloat16.FromFloat32(v).Float32() }
	for i := range x {
		x[i], scale[i] = round(x[i]/256), round(scale[i])
	}
	out := purego.Eval(t, []any{purego.Tensor(x, 1, width), purego.Tensor(scale, width)}, func(in []*gx.Node) []*gx.Node {
		y := graph.RMSNorm(gx.ConvertDType(in[0], dtypes.BFloat16), gx.ConvertDType(in[1], dtypes.BFloat16), eps)
		y.AssertDims(1, width)
		if y.DType() != dtypes.BFloat16 {
			panic(y.DType().String())
		}
		return []*gx.Node{gx.ConvertDType(y, dtypes.Float32)}
	})
	ones := make(ref.Vector, width)
	for i := range ones {
		ones[i] = 1
	}
	want := make([]float32, width)
	for i, v := range ref.RMSNorm(ref.Vec(x), ones, eps) {
		want[i] = round(round(float32(v)) * scale[i]) // rounded before the scale, and after
	}
	require.Equal(t, want, purego.Flat[float32](t, out[0]))
}
