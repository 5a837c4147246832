package lower

import (
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"
)

// compiled makes a program of a graph function.
func compiled(t testing.TB, b *Backend, name string, o ProgramOptions, fn func(g *gx.Graph) []*gx.Node) *Program {
	t.Helper()
	p, err := compileGraph(b, name, o, fn)
	require.NoError(t, err)
	return p
}

// compileGraph turns GoMLX's panics into errors.
func compileGraph(b *Backend, name string, o ProgramOptions, fn func(g *gx.Graph) []*gx.Node) (p *Program, err error) {
	defer func() {
		if r := recover(); r != nil {
			err, _ = r.(error)
		}
	}()
	g := gx.NewGraph(b.With(o), name)
	if err := g.Compile(fn(g)...); err != nil {
		return nil, err
	}
	return ProgramOf(g.Executable())
}

func upload(t testing.TB, b *Backend, flat any, dims ...int) *Buffer {
	t.Helper()
	dtype := dtypes.Float32
	if _, ok := flat.([]int32); ok {
		dtype = dtypes.Int32
	}
	buf, err := b.Upload(shapes.Make(dtype, dims...), flat)
	require.NoError(t, err)
	return buf
}

func floats(t testing.TB, b *Buffer) []float32 {
	t.Helper()
	out := make([]float32, b.shape.Size())
	require.NoError(t, b.ToFlatData(out))
	return out
}

func f32(dims ...int) shapes.Shape { return shapes.Make(dtypes.Float32, dims...) }

// TestGraphs runs GoMLX graphs whose control flow becomes regions, calls and composites.
func TestGraphs(t *testing.T) {
	b := testBackend(t)
	for _, tt := range []struct {
		name string
		fn   func(x *gx.Node) *gx.Node // x [4]
		want []float32                 // of x = 1, 2, 3, 4
	}{
		{"elementwise with a scalar", func(x *gx.Node) *gx.Node { return gx.AddScalar(gx.Mul(x, x), 1) }, []float32{2, 5, 10, 17}},
		{"matrix product", func(x *gx.Node) *gx.Node {
			return gx.Einsum("i,ij->j", x, gx.Const(x.Graph(), [][]float32{{1, 0}, {0, 1}, {1, 1}, {2, -1}}))
		}, []float32{12, 1}},
		{"while loop with a captured value", func(x *gx.Node) *gx.Node {
			g := x.Graph()
			cond := gx.NewClosure(g, func(g *gx.Graph) []*gx.Node {
				i := gx.Parameter(g, "i", shapes.Make(dtypes.Int32))
				gx.Parameter(g, "y", x.Shape())
				return []*gx.Node{gx.LessThan(i, gx.Const(g, int32(3)))}
			})
			body := gx.NewClosure(g, func(g *gx.Graph) []*gx.Node {
				i := gx.Parameter(g, "i", shapes.Make(dtypes.Int32))
				y := gx.Parameter(g, "y", x.Shape())
				return []*gx.Node{gx.AddScalar(i, 1), gx.Add(y, x)}
			})
			return gx.While(cond, body, gx.Const(g, int32(0)), x)[1]
		}, []float32{4, 8, 12, 16}},
		{"if with captured values", func(x *gx.Node) *gx.Node {
			g := x.Graph()
			yes := gx.NewClosure(g, func(g *gx.Graph) []*gx.Node { return []*gx.Node{gx.Neg(x)} })
			no := gx.NewClosure(g, func(g *gx.Graph) []*gx.Node { return []*gx.Node{x} })
			return gx.If(gx.GreaterThan(gx.ReduceAllSum(x), gx.Const(g, float32(5))), yes, no)[0]
		}, []float32{-1, -2, -3, -4}},
		{"sort by a comparator", func(x *gx.Node) *gx.Node {
			g := x.Graph()
			before := gx.NewClosure(g, func(g *gx.Graph) []*gx.Node {
				a := gx.Parameter(g, "a", f32())
				b := gx.Parameter(g, "b", f32())
				return []*gx.Node{gx.GreaterThan(a, b)}
			})
			return gx.SortFunc(before, 0, true, x)[0]
		}, []float32{4, 3, 2, 1}},
		{"named function with main's scalars", func(x *gx.Node) *gx.Node {
			x = gx.AddScalar(x, 2)
			f := gx.NewFunction(x.Graph(), "twice", func(g *gx.Graph) []*gx.Node {
				p := gx.Parameter(g, "p", x.Shape())
				return []*gx.Node{gx.Mul(p, gx.Const(g, float32(2)))}
			})
			return gx.Add(f.Call(x)[0], f.Call(x)[0])
		}, []float32{12, 16, 20, 24}},
		{"composite", func(x *gx.Node) *gx.Node {
			f := gx.NewFunction(x.Graph(), "mix.square(window=4;scale=0.5).1", func(g *gx.Graph) []*gx.Node {
				p := gx.Parameter(g, "p", x.Shape())
				return []*gx.Node{gx.Mul(p, p)}
			})
			return f.Call(x)[0]
		}, []float32{1, 4, 9, 16}},
		{"loop inside a function", func(x *gx.Node) *gx.Node {
			f := gx.NewFunction(x.Graph(), "loop", func(g *gx.Graph) []*gx.Node {
				p := gx.Parameter(g, "p", x.Shape())
				cond := gx.NewClosure(g, func(g *gx.Graph) []*gx.Node {
					i := gx.Parameter(g, "i", shapes.Make(dtypes.Int32))
					gx.Parameter(g, "y", x.Shape())
					return []*gx.Node{gx.LessThan(i, gx.Const(g, int32(2)))}
				})
				body := gx.NewClosure(g, func(g *gx.Graph) []*gx.Node {
					i := gx.Parameter(g, "i", shapes.Make(dtypes.Int32))
					y := gx.Parameter(g, "y", x.Shape())
					return []*gx.Node{gx.AddScalar(i, 1), gx.Mul(y, p)}
				})
				return []*gx.Node{gx.While(cond, body, gx.Const(g, int32(0)), p)[1]}
			})
			return f.Call(x)[0]
		}, []float32{1, 8, 27, 64}},
		{"cumulative sum and gather", func(x *gx.Node) *gx.Node {
			return gx.Gather(gx.CumSum(x, 0), gx.Const(x.Graph(), [][]int32{{3}, {0}}))
		}, []float32{10, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := compiled(t, b, tt.name, ProgramOptions{}, func(g *gx.Graph) []*gx.Node {
				return []*gx.Node{tt.fn(gx.Parameter(g, "x", f32(4)))}
			})
			outs, err := p.Run(upload(t, b, []float32{1, 2, 3, 4}, 4))
			require.NoError(t, err)
			require.Equal(t, tt.want, floats(t, outs[0]))
		})
	}
}
