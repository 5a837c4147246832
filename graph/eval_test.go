package graph_test

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/gomlx/compute"
	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/stretchr/testify/require"

	"mix/internal/ref"
)

// pureGo is GoMLX's pure-Go backend. Its parallel executor can wait for itself, so it runs one operation at
// a time.
var pureGo = sync.OnceValues(func() (compute.Backend, error) { return compute.NewWithConfig("go:ops_sequential") })

// tryEval evaluates f over args, which are tensors or Go values.
func tryEval(t testing.TB, args []any, f func(in []*gx.Node) []*gx.Node) ([]*tensors.Tensor, error) {
	t.Helper()
	be, err := pureGo()
	require.NoError(t, err)
	exec, err := gx.NewExec(be, f)
	require.NoError(t, err)
	defer exec.Finalize()
	return exec.Call(args...)
}

func eval(t testing.TB, args []any, f func(in []*gx.Node) []*gx.Node) []*tensors.Tensor {
	t.Helper()
	outs, err := tryEval(t, args, f)
	require.NoError(t, err)
	return outs
}

func tensor[T float32 | int32 | uint32](values []T, dims ...int) *tensors.Tensor {
	return tensors.FromFlatDataAndDimensions(values, dims...)
}

func flatInts(t testing.TB, x *tensors.Tensor) []int32 {
	t.Helper()
	v, err := tensors.CopyFlatData[int32](x)
	require.NoError(t, err)
	return v
}

// normals are n standard normal variates of a seed.
func normals(seed uint64, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// near compares with the specification: the largest difference is at most tolerance times the largest
// element, or times one if that is less.
func near(t testing.TB, want ref.Vector, got []float32, tolerance float64, what string) {
	t.Helper()
	require.Len(t, got, len(want), what)
	scale := 1.0
	for _, v := range want {
		scale = max(scale, math.Abs(v))
	}
	for i := range want {
		d := math.Abs(want[i] - float64(got[i]))
		require.True(t, d <= tolerance*scale, "%s: element %d is %g, want %g", what, i, got[i], want[i])
	}
}

// rows cuts flat values into rows of n.
func rows(flat []float32, n int) ref.Matrix {
	var m ref.Matrix
	for i := 0; i < len(flat); i += n {
		m = append(m, ref.Vec(flat[i:i+n]))
	}
	return m
}

// flatten puts rows behind each other.
func flatten(ms ...ref.Matrix) ref.Vector {
	var v ref.Vector
	for _, m := range ms {
		for _, row := range m {
			v = append(v, row...)
		}
	}
	return v
}

// slopes are the central differences of f at x, one an element of x.
func slopes(x []float32, f func(x []float32) float64) ref.Vector {
	const step = 1.0 / 4096
	y := make(ref.Vector, len(x))
	at := append([]float32{}, x...)
	for i := range x {
		at[i] = x[i] + step
		up, width := f(at), float64(at[i])
		at[i] = x[i] - step
		y[i] = (up - f(at)) / (width - float64(at[i]))
		at[i] = x[i]
	}
	return y
}
