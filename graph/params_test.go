package graph_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/sharding/axis"
)

var layouts = []graph.Layout{graph.Stacked, graph.PerMatrix, graph.PerLayer}

func TestLayoutsHaveNames(t *testing.T) {
	for name, l := range graph.Layouts {
		require.Equal(t, name, l.String())
	}
	require.Len(t, graph.Layouts, len(layouts))
	require.Equal(t, "Layout(7)", graph.Layout(7).String())
}

func TestParams(t *testing.T) {
	paths := map[string]bool{}
	for _, p := range graph.Params(small) {
		require.False(t, paths[p.Path], "%s twice", p.Path)
		paths[p.Path] = true
		require.Len(t, p.Dims, len(p.Axes), p.Path)
	}
	require.True(t, paths["head"])
	tied := graph.Params(with(func(c *graph.Config) { c.TieEmbedding = true }))
	require.Len(t, tied, len(paths)-1)
	for _, p := range tied {
		require.NotEqual(t, "head", p.Path, "tied embeddings have no head")
	}
}

// inside calls f with the index in the Param and in the piece of each element of a box.
func inside(p axis.Param, q axis.Piece, f func(inParam, inPiece int)) {
	for i := range q.Elements() {
		at, rest, stride := 0, i, 1
		for k := len(p.Dims) - 1; k >= 0; k-- {
			at += (q.Offset[k] + rest%q.Size[k]) * stride
			rest /= q.Size[k]
			stride *= p.Dims[k]
		}
		f(at, i)
	}
}

func TestPiecesCoverEveryParamOnce(t *testing.T) {
	for _, c := range []graph.Config{small, with(func(c *graph.Config) { c.TieEmbedding, c.Experts, c.TopK = true, 1, 1 })} {
		for _, l := range layouts {
			t.Run(fmt.Sprintf("%s, %d experts", l, c.Experts), func(t *testing.T) {
				params, covered, names := map[string]axis.Param{}, map[string][]int{}, map[string]bool{}
				for _, p := range graph.Params(c) {
					params[p.Path], covered[p.Path] = p, make([]int, p.Elements())
				}
				for _, q := range graph.Pieces(c, l, dtypes.BFloat16) {
					require.NoError(t, q.Check(params[q.Path]))
					require.False(t, names[q.Name], "%s twice", q.Name)
					names[q.Name] = true
					want := dtypes.BFloat16
					if q.Path == "layers/moe/router" {
						want = dtypes.Float32
					}
					require.Equal(t, want, q.DType, q.Name)
					inside(params[q.Path], q, func(at, _ int) { covered[q.Path][at]++ })
				}
				for path, times := range covered {
					for i, n := range times {
						require.Equal(t, 1, n, "element %d of %s", i, path)
					}
				}
			})
		}
	}
}

func TestInitIsTheSameInEveryLayout(t *testing.T) {
	for _, p := range graph.Params(small) {
		whole := make([]float32, p.Elements())
		require.NoError(t, graph.Init(small, axis.Whole(p, dtypes.Float32), 3, whole))
		boxes := []axis.Piece{}
		for _, l := range layouts {
			for _, q := range graph.Pieces(small, l, dtypes.Float32) {
				if q.Path == p.Path {
					boxes = append(boxes, q)
				}
			}
		}
		shard := axis.Whole(p, dtypes.Float32) // a box that starts and ends inside, on every axis that has room
		for k, d := range p.Dims {
			if d > 2 {
				shard.Offset[k], shard.Size[k] = 1, d-2
			}
		}
		shard.Shape = shard.Size
		for _, q := range append(boxes, shard) {
			part := make([]float32, q.Elements())
			require.NoError(t, graph.Init(small, q, 3, part))
			inside(p, q, func(at, i int) {
				require.Equal(t, whole[at], part[i], "%s, box at %v of %v, element %d", p.Path, q.Offset, q.Size, i)
			})
		}
	}
}

func TestInitIsNormal(t *testing.T) {
	c := with(func(c *graph.Config) { c.Width, c.Hidden, c.InitStd = 64, 128, 0.05 })
	seen := map[float32]string{}
	for _, p := range graph.Params(c) {
		x := make([]float32, p.Elements())
		require.NoError(t, graph.Init(c, axis.Whole(p, dtypes.Float32), 1, x))
		if len(p.Dims) == 1 || len(p.Dims) == 2 && p.Axes[0] == axis.Layers {
			for _, v := range x {
				require.Equal(t, float32(1), v, p.Path)
			}
			continue
		}
		var sum, squares, fourth float64
		for _, v := range x {
			z := float64(v) / c.InitStd
			sum, squares, fourth = sum+z, squares+z*z, fourth+z*z*z*z
		}
		n := float64(len(x))
		root := math.Sqrt(n) // five standard errors
		require.InDelta(t, 0, sum/n, 5/root, "mean of %s", p.Path)
		require.InDelta(t, 1, squares/n, 5*math.Sqrt2/root, "variance of %s", p.Path)
		require.InDelta(t, 3, fourth/n, 5*math.Sqrt(96)/root, "fourth moment of %s", p.Path)
		require.Empty(t, seen[x[0]], "%s starts as another weight does", p.Path)
		seen[x[0]] = p.Path

		other := make([]float32, len(x))
		require.NoError(t, graph.Init(c, axis.Whole(p, dtypes.Float32), 2, other))
		var product float64
		for i := range x {
			product += float64(x[i]) * float64(other[i]) / c.InitStd / c.InitStd
		}
		require.InDelta(t, 0, product/n, 5/root, "%s: seeds are independent", p.Path)
	}
}

func TestInitRefuses(t *testing.T) {
	gate := graph.Params(small)[8]
	tests := []struct {
		name   string
		change func(q *axis.Piece)
		room   int
		want   string
	}{
		{"a weight that is not there", func(q *axis.Piece) { q.Path = "bias" }, gate.Elements(), `init: no weight "bias" in the catalogue`},
		{"too little room", func(*axis.Piece) {}, 5, "init: layers/moe/gate takes 1200 values, got room for 5"},
		{"a box outside", func(q *axis.Piece) { q.Offset[1] = 1 }, gate.Elements(), `axis "experts" [1, 6) outside of [0, 5)`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := axis.Whole(gate, dtypes.Float32)
			tt.change(&q)
			require.ErrorContains(t, graph.Init(small, q, 1, make([]float32, tt.room)), tt.want)
		})
	}
}
