package composite_test

import (
	"math/rand/v2"
	"testing"

	gx "github.com/gomlx/gomlx/core/graph"

	"mix/internal/purego"
	"mix/internal/ref"
)

// normals are n standard normal variates of a seed.
func normals(seed uint64, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, 2))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
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
	in := []any{purego.Tensor(c, len(c))}
	for _, a := range args {
		in = append(in, purego.Tensor(a.flat, a.dims...))
	}
	out := purego.Eval(t, in, func(in []*gx.Node) []*gx.Node {
		y := fn(in[1:])
		sum := gx.ReduceAllSum(gx.Mul(gx.Reshape(y, len(c)), in[0]))
		return append([]*gx.Node{y}, gx.Gradient(sum, in[1:]...)...)
	})
	purego.Near(t, want, purego.Flat[float32](t, out[0]), 1e-5, "value")
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
		purego.Near(t, slopes, purego.Flat[float32](t, out[1+k]), 1e-4, "gradient of "+a.name)
	}
}
