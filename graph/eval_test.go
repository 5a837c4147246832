package graph_test

import (
	"math/rand/v2"

	"mix/internal/ref"
)

// normals are n standard normal variates of a seed.
func normals(seed uint64, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// rows cuts flat values into rows of n.
func rows(flat []float32, n int) ref.Matrix {
	var m ref.Matrix
	for i := 0; i < len(flat); i += n {
		m = append(m, ref.Vec(flat[i:i+n]))
	}
	return m
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
