package composite_test

import (
	"math"
	"testing"

	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"

	"mix/graph/composite"
	"mix/internal/purego"
	"mix/internal/ref"
)

// groups are ways to share seven rows among experts.
var groups = []struct {
	name  string
	sizes []int32
}{
	{"even enough", []int32{2, 3, 2}},
	{"all to the first", []int32{7, 0, 0}},
	{"all to the last", []int32{0, 0, 7}},
	{"empty ones between", []int32{0, 4, 0, 3, 0}},
	{"one group", []int32{7}},
	{"more groups than rows", []int32{1, 1, 0, 1, 1, 1, 0, 1, 1, 0}},
}

const (
	groupRows = 7
	inWidth   = 3
	outWidth  = 5
)

// groupOf is the group of each row.
func groupOf(sizes []int32) (of []int) {
	for e, n := range sizes {
		for range n {
			of = append(of, e)
		}
	}
	return of
}

func transposed(m ref.Matrix) ref.Matrix {
	y := make(ref.Matrix, len(m[0]))
	for i := range y {
		for _, row := range m {
			y[i] = append(y[i], row[i])
		}
	}
	return y
}

func TestGroupedGEMM(t *testing.T) {
	for _, tt := range groups {
		t.Run(tt.name, func(t *testing.T) {
			args := []argument{random(1, "x", groupRows, inWidth), random(2, "w", len(tt.sizes), outWidth, inWidth)}
			checkGradient(t, args, func(in []*gx.Node) *gx.Node {
				return composite.GroupedGEMM(in[0], in[1], gx.Const(in[0].Graph(), tt.sizes))
			}, func(args []argument) ref.Vector {
				var y ref.Vector
				x, w := args[0].matrices()[0], args[1].matrices()
				for r, e := range groupOf(tt.sizes) {
					y = append(y, ref.Linear(w[e], x[r])...)
				}
				return y
			})
		})
	}
}

func TestGroupedGEMMTransposed(t *testing.T) {
	for _, tt := range groups {
		t.Run(tt.name, func(t *testing.T) {
			args := []argument{random(1, "x", groupRows, outWidth), random(2, "w", len(tt.sizes), outWidth, inWidth)}
			checkGradient(t, args, func(in []*gx.Node) *gx.Node {
				return composite.GroupedGEMMTransposed(in[0], in[1], gx.Const(in[0].Graph(), tt.sizes))
			}, func(args []argument) ref.Vector {
				var y ref.Vector
				x, w := args[0].matrices()[0], args[1].matrices()
				for r, e := range groupOf(tt.sizes) {
					y = append(y, ref.Linear(transposed(w[e]), x[r])...)
				}
				return y
			})
		})
	}
}

func TestGroupedOuter(t *testing.T) {
	for _, tt := range groups {
		t.Run(tt.name, func(t *testing.T) {
			a, b := random(3, "a", groupRows, outWidth), random(4, "b", groupRows, inWidth)
			out := purego.Eval(t, []any{purego.Tensor(a.flat, a.dims...), purego.Tensor(b.flat, b.dims...)}, func(in []*gx.Node) []*gx.Node {
				y := composite.GroupedOuter(in[0], in[1], gx.Const(in[0].Graph(), tt.sizes))
				y.AssertDims(len(tt.sizes), outWidth, inWidth)
				return []*gx.Node{y}
			})
			want := make(ref.Vector, len(tt.sizes)*outWidth*inWidth)
			for r, e := range groupOf(tt.sizes) {
				for n := range outWidth {
					for m := range inWidth {
						want[(e*outWidth+n)*inWidth+m] += float64(a.flat[r*outWidth+n]) * float64(b.flat[r*inWidth+m])
					}
				}
			}
			purego.Near(t, want, purego.Flat[float32](t, out[0]), 1e-6, "outer")
		})
	}
}

// TestNoGradient differentiates through a composite that has no gradient, in words that name it.
func TestNoGradient(t *testing.T) {
	_, err := purego.TryEval(t, []any{purego.Tensor(normals(1, 4), 2, 2)}, func(in []*gx.Node) []*gx.Node {
		y := composite.GroupedOuter(in[0], in[0], gx.Const(in[0].Graph(), []int32{1, 1}))
		return gx.Gradient(gx.ReduceAllSum(y), in[0])
	})
	require.ErrorContains(t, err, "composite: no gradient for a call of mix.grouped_outer")
}

// TestNoGradientOfOtherFunctions leaves functions that are not composites without one too.
func TestNoGradientOfOtherFunctions(t *testing.T) {
	_, err := purego.TryEval(t, []any{purego.Tensor(normals(1, 4), 4)}, func(in []*gx.Node) []*gx.Node {
		f := gx.NewFunction(in[0].Graph(), "square", func(g *gx.Graph) []*gx.Node {
			x := gx.Parameter(g, "x", in[0].Shape())
			return []*gx.Node{gx.Mul(x, x)}
		})
		return gx.Gradient(gx.ReduceAllSum(f.Call(in[0])[0]), in[0])
	})
	require.ErrorContains(t, err, "composite: no gradient for a call of square")
}

func TestGroupedGEMMRefusesShapes(t *testing.T) {
	for name, w := range map[string][]int{"another width": {2, 4, 5}, "another number of groups": {3, 4, 3}} {
		t.Run(name, func(t *testing.T) {
			w := random(1, "w", w...)
			_, err := purego.TryEval(t, []any{purego.Tensor(normals(1, 6), 2, 3), purego.Tensor(w.flat, w.dims...)}, func(in []*gx.Node) []*gx.Node {
				return []*gx.Node{composite.GroupedGEMM(in[0], in[1], gx.Const(in[0].Graph(), []int32{1, 1}))}
			})
			require.Error(t, err)
		})
	}
}

// TestGroupsAreApart gives one group a matrix that is not a number: only its own rows notice.
func TestGroupsAreApart(t *testing.T) {
	nan := float32(math.NaN())
	w := []float32{1, 2, nan, nan, 3, 4} // [3, 1, 2]
	out := purego.Eval(t, []any{purego.Tensor([]float32{1, 1, 1, 1, 1, 1}, 3, 2), purego.Tensor(w, 3, 1, 2)}, func(in []*gx.Node) []*gx.Node {
		sizes := gx.Const(in[0].Graph(), []int32{1, 1, 1})
		y := composite.GroupedGEMM(in[0], in[1], sizes)
		back := composite.GroupedGEMMTransposed(gx.Slice(in[0], gx.AxisRange(), gx.AxisRange(0, 1)), in[1], sizes)
		return []*gx.Node{y, back}
	})
	y, back := purego.Flat[float32](t, out[0]), purego.Flat[float32](t, out[1])
	require.Equal(t, []float32{3, 7}, []float32{y[0], y[2]})
	require.Equal(t, []float32{1, 2, 3, 4}, []float32{back[0], back[1], back[4], back[5]})
	require.True(t, y[1] != y[1] && back[2] != back[2], "the group's own row is not a number")
}
