package composite_test

import (
	"testing"

	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"

	"mix/graph/composite"
	"mix/internal/purego"
	"mix/internal/ref"
)

func TestAttention(t *testing.T) {
	const width = 4
	tests := []struct {
		name             string
		batch, heads, kv int
		query, key       []int32 // positions, the same in every sequence
		querySeg, keySeg [][]int32
		window           int
		unseen           int // a key that no query sees, -1 for none
	}{
		{"one head", 1, 1, 1, []int32{0, 1, 2}, []int32{0, 1, 2}, nil, nil, 0, -1},
		{"grouped heads", 2, 4, 2, []int32{0, 1, 2}, []int32{0, 1, 2}, nil, nil, 0, -1},
		{"one key head", 1, 3, 1, []int32{0, 1}, []int32{0, 1}, nil, nil, 0, -1},
		{"a window", 1, 2, 1, []int32{0, 1, 2, 3}, []int32{0, 1, 2, 3}, nil, nil, 2, -1},
		{"a window of one", 1, 2, 2, []int32{0, 1, 2}, []int32{0, 1, 2}, nil, nil, 1, -1},
		{"segments", 2, 2, 1, []int32{0, 1, 2, 3}, []int32{0, 1, 2, 3}, [][]int32{{0, 0, 1, 1}, {5, 4, 4, 4}}, [][]int32{{0, 0, 1, 1}, {5, 4, 4, 4}}, 0, -1},
		{"a cache longer than what was written", 1, 2, 1, []int32{1, 2}, []int32{0, 1, 2, 3, 4}, nil, nil, 0, 4},
		{"a cache in a window", 1, 2, 1, []int32{3}, []int32{0, 1, 2, 3, 4}, nil, nil, 2, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, c := len(tt.query), len(tt.key)
			args := []argument{random(1, "q", tt.batch, tt.heads, s, width), random(2, "k", tt.batch, tt.kv, c, width), random(3, "v", tt.batch, tt.kv, c, width)}
			repeat := func(x []int32) (rows [][]int32) {
				for range tt.batch {
					rows = append(rows, x)
				}
				return rows
			}
			fn := func(in []*gx.Node) *gx.Node {
				g := in[0].Graph()
				at := composite.Places{Query: gx.Const(g, repeat(tt.query)), Key: gx.Const(g, repeat(tt.key)), Window: tt.window}
				if tt.querySeg != nil {
					at.QuerySegments, at.KeySegments = gx.Const(g, tt.querySeg), gx.Const(g, tt.keySeg)
				}
				return composite.Attention(in[0], in[1], in[2], at)
			}
			plain := func(a []argument) (y ref.Vector) {
				q, k, v := a[0].matrices(), a[1].matrices(), a[2].matrices()
				for b := range tt.batch {
					at := ref.Places{Query: wide(tt.query), Key: wide(tt.key), Window: tt.window}
					if tt.querySeg != nil {
						at.QuerySegments, at.KeySegments = wide(tt.querySeg[b]), wide(tt.keySeg[b])
					}
					h, n := b*tt.heads, b*tt.kv
					y = append(y, purego.Flatten(ref.Attention(q[h:h+tt.heads], k[n:n+tt.kv], v[n:n+tt.kv], at)...)...)
				}
				return y
			}
			checkGradient(t, args, fn, plain)
			if tt.unseen >= 0 { // what a key holds that nobody sees does not matter
				want := plain(args)
				for d := range width {
					args[1].flat[tt.unseen*width+d], args[2].flat[tt.unseen*width+d] = 1e30, -1e30
				}
				var in []any
				for _, a := range args {
					in = append(in, purego.Tensor(a.flat, a.dims...))
				}
				out := purego.Eval(t, in, func(in []*gx.Node) []*gx.Node { return []*gx.Node{fn(in)} })
				purego.Near(t, want, purego.Flat[float32](t, out[0]), 1e-5, "value beside a poisoned key")
			}
		})
	}
}

func wide(x []int32) []int {
	y := make([]int, len(x))
	for i := range x {
		y[i] = int(x[i])
	}
	return y
}

func TestAttentionRefusesHeads(t *testing.T) {
	_, err := purego.TryEval(t, []any{purego.Tensor(normals(1, 6), 1, 3, 1, 2), purego.Tensor(normals(2, 4), 1, 2, 1, 2)}, func(in []*gx.Node) []*gx.Node {
		at := gx.Const(in[0].Graph(), [][]int32{{0}})
		return []*gx.Node{composite.Attention(in[0], in[1], in[1], composite.Places{Query: at, Key: at})}
	})
	require.ErrorContains(t, err, "attention: 3 query heads do not divide over 2 key heads")
}
