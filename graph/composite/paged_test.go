package composite_test

import (
	"testing"

	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"

	"mix/graph/composite"
	"mix/internal/purego"
)

// TestPagedAttention holds attention over a pool to attention over keys and values taken out of it by hand.
func TestPagedAttention(t *testing.T) {
	const positions, groups, width, heads = 7, 2, 4, 4
	read := [][]int32{{6, 0, 3}, {2, 5, 2}}
	at := [][]int32{{2, 1}, {0, 2}}
	pool := func(seed uint64) (whole any, taken any) {
		all := normals(seed, positions*groups*width)
		var out []float32
		for _, row := range read {
			for g := range groups {
				for _, p := range row {
					from := (int(p)*groups + g) * width
					out = append(out, all[from:from+width]...)
				}
			}
		}
		return purego.Tensor(all, positions, groups, width), purego.Tensor(out, len(read), groups, len(read[0]), width)
	}
	keys, takenKeys := pool(1)
	values, takenValues := pool(2)
	q := purego.Tensor(normals(3, 2*heads*2*width), 2, heads, 2, width)
	for _, window := range []int{0, 2} {
		out := purego.Eval(t, []any{q, keys, values, takenKeys, takenValues}, func(in []*gx.Node) []*gx.Node {
			g := in[0].Graph()
			where := gx.Const(g, at)
			places := composite.Places{Query: where, Key: gx.Const(g, [][]int32{{0, 1, 2}, {0, 1, 2}}), Window: window}
			return []*gx.Node{composite.PagedAttention(in[0], in[1], in[2], where, gx.Const(g, read), window), composite.Attention(in[0], in[3], in[4], places)}
		})
		require.Equal(t, purego.Flat[float32](t, out[1]), purego.Flat[float32](t, out[0]))
	}
}

func TestPutRows(t *testing.T) {
	x := []float32{0, 1, 2, 3, 4, 5, 6, 7}
	out := purego.Eval(t, []any{purego.Tensor(x, 4, 2)}, func(in []*gx.Node) []*gx.Node {
		g := in[0].Graph()
		return []*gx.Node{composite.PutRows(in[0], gx.Const(g, []int32{3, 0}), gx.Const(g, [][]float32{{10, 11}, {12, 13}}))}
	})
	require.Equal(t, []float32{12, 13, 2, 3, 4, 5, 10, 11}, purego.Flat[float32](t, out[0]))
}
