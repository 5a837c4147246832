package composite_test

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/gomlx/compute"
	_ "github.com/gomlx/compute/gobackend"
	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/stretchr/testify/require"

	"mix/internal/ref"
)

// pureGo is GoMLX's pure-Go backend, one operation at a time: its parallel executor can wait for itself.
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

func tensor[T float32 | int32](values []T, dims ...int) *tensors.Tensor {
	return tensors.FromFlatDataAndDimensions(values, dims...)
}

func flat[T float32 | int32](t testing.TB, x *tensors.Tensor) []T {
	t.Helper()
	v, err := tensors.CopyFlatData[T](x)
	require.NoError(t, err)
	return v
}

// normals are n standard normal variates of a seed.
func normals(seed uint64, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, 2))
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

// argument is an input of a function under test: a tensor of floats.
type argument struct {
	name string
	flat []float32
	dims []int
}

func random(seed uint64, name string, dims ...int) argument {
	n := 1
	for _, d := range dims {
		n *= d
	}
	return argument{name, normals(seed, n), dims}
}

// matrices cuts the argument into matrices by its last two axes; one of lower rank is one matrix.
func (a argument) matrices() []ref.Matrix {
	width := a.dims[len(a.dims)-1]
	height := len(a.flat) / width
	if len(a.dims) > 2 {
		height = a.dims[len(a.dims)-2]
	}
	var ms []ref.Matrix
	for i := 0; i < len(a.flat); i += width {
		if i/width%height == 0 {
			ms = append(ms, nil)
		}
		last := &ms[len(ms)-1]
		*last = append(*last, ref.Vec(a.flat[i:i+width]))
	}
	return ms
}

// checkGradient holds fn and its gradient to the specification. fn gives one tensor y of the arguments;
// plain is y in float64, flat. The gradient is that of Σ c·y for random c, and is compared with the
// central differences of plain.
func checkGradient(t *testing.T, args []argument, fn func(in []*gx.Node) *gx.Node, plain func(args []argument) ref.Vector) {
	t.Helper()
	want := plain(args)
	c := normals(99, len(want))
	in := []any{tensor(c, len(c))}
	for _, a := range args {
		in = append(in, tensor(a.flat, a.dims...))
	}
	out := eval(t, in, func(in []*gx.Node) []*gx.Node {
		y := fn(in[1:])
		sum := gx.ReduceAllSum(gx.Mul(gx.Reshape(y, len(c)), in[0]))
		return append([]*gx.Node{y}, gx.Gradient(sum, in[1:]...)...)
	})
	near(t, want, flat[float32](t, out[0]), 1e-5, "value")
	loss := func() (sum float64) {
		for i, v := range plain(args) {
			sum += float64(c[i]) * v
		}
		return sum
	}
	const step = 1.0 / 4096
	for k, a := range args {
		slopes := make(ref.Vector, len(a.flat))
		for i, x := range a.flat {
			a.flat[i] = x + step
			up, width := loss(), float64(a.flat[i])
			a.flat[i] = x - step
			slopes[i] = (up - loss()) / (width - float64(a.flat[i]))
			a.flat[i] = x
		}
		near(t, slopes, flat[float32](t, out[1+k]), 1e-4, "gradient of "+a.name)
	}
}

// flatten puts the rows of matrices behind each other.
func flatten(ms ...ref.Matrix) ref.Vector {
	var v ref.Vector
	for _, m := range ms {
		for _, row := range m {
			v = append(v, row...)
		}
	}
	return v
}
