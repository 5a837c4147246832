// Package purego evaluates graph functions on GoMLX's pure-Go backend, for tests of the model against
// internal/ref.
package purego

import (
	"math"
	"sync"
	"testing"

	"github.com/gomlx/compute"
	_ "github.com/gomlx/compute/gobackend" // registers the backend
	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/stretchr/testify/require"

	"mix/internal/ref"
)

// backend runs one operation at a time: its parallel executor can wait for itself.
var backend = sync.OnceValues(func() (compute.Backend, error) { return compute.NewWithConfig("go:ops_sequential") })

// TryEval evaluates f over args, which are tensors or Go values.
func TryEval(t testing.TB, args []any, f func(in []*gx.Node) []*gx.Node) ([]*tensors.Tensor, error) {
	t.Helper()
	be, err := backend()
	require.NoError(t, err)
	exec, err := gx.NewExec(be, f)
	require.NoError(t, err)
	defer exec.Finalize()
	return exec.Call(args...)
}

// Eval is TryEval where nothing may fail.
func Eval(t testing.TB, args []any, f func(in []*gx.Node) []*gx.Node) []*tensors.Tensor {
	t.Helper()
	outs, err := TryEval(t, args, f)
	require.NoError(t, err)
	return outs
}

// Tensor makes a tensor of flat values.
func Tensor[T float32 | int32 | uint32](values []T, dims ...int) *tensors.Tensor {
	return tensors.FromFlatDataAndDimensions(values, dims...)
}

// Flat are the values of a tensor.
func Flat[T float32 | int32](t testing.TB, x *tensors.Tensor) []T {
	t.Helper()
	v, err := tensors.CopyFlatData[T](x)
	require.NoError(t, err)
	return v
}

// Near compares with the specification: the largest difference is at most tolerance times the largest
// element, or times one if that is less.
func Near(t testing.TB, want ref.Vector, got []float32, tolerance float64, what string) {
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

// Flatten puts the rows of matrices behind each other.
func Flatten(ms ...ref.Matrix) ref.Vector {
	var v ref.Vector
	for _, m := range ms {
		for _, row := range m {
			v = append(v, row...)
		}
	}
	return v
}
