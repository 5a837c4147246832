package triton_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"mix/lower/triton"
	"mix/lower/triton/interp"
)

// attention is the plain form: one query q against keys, with their values, that seen lets through.
func attention(q []float32, keys, values [][]float32, seen func(int) bool) []float64 {
	scores, top := make([]float64, len(keys)), math.Inf(-1)
	for i, k := range keys {
		for j := range q {
			scores[i] += float64(q[j]) * float64(k[j]) / math.Sqrt(float64(len(q)))
		}
		if !seen(i) {
			scores[i] = math.Inf(-1)
		}
		top = max(top, scores[i])
	}
	out, sum := make([]float64, len(q)), 0.0
	if math.IsInf(top, -1) { // no key is seen
		return out
	}
	for i := range keys {
		p := math.Exp(scores[i] - top)
		sum += p
		for j := range out {
			out[j] += p * float64(values[i][j])
		}
	}
	for j := range out {
		out[j] /= sum
	}
	return out
}

func TestPagedAttention(t *testing.T) {
	for _, test := range []struct {
		name               string
		heads, groups, a   int
		page, window, part int
		elem               triton.Elem
	}{
		{"table of positions", 4, 2, 32, 1, 0, 1, triton.F32},
		{"pages", 6, 2, 24, 4, 0, 1, triton.F32},
		{"pages, split", 8, 2, 16, 8, 0, 3, triton.F32},
		{"window, split", 4, 4, 32, 4, 21, 2, triton.F32},
		{"one key head of many queries, bf16", 20, 1, 64, 4, 0, 2, triton.BF16},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(9, 1))
			const context, positions = 96, 480
			lengths := []int64{1, 17, 96, 64, 0}
			b := len(lengths)
			q := random(r, test.elem, b, test.heads, test.a)
			keys, values := random(r, test.elem, positions, test.groups, test.a), random(r, test.elem, positions, test.groups, test.a)
			pages := r.Perm(positions / test.page)[:b*context/test.page]
			table := make([]int64, len(pages))
			for i, p := range pages {
				table[i] = int64(p)
			}
			for i := 1; i < context/test.page; i++ {
				table[i] = -1 << 20 // the first sequence has one key: its other pages are never read
			}
			p := triton.Paged{Sequences: b, Heads: test.heads, KeyHeads: test.groups, Width: test.a, Positions: positions,
				Context: context, Page: test.page, Window: test.window, Elem: test.elem}
			tile := small
			tile.Split = test.part
			c, err := p.Call(tile)
			out := run(t, c, err, q, keys, values, i32(table), i32(lengths))
			if test.part > 1 {
				c, err = triton.PagedCombine{Sequences: b, Heads: test.heads, Width: test.a, Splits: test.part, Elem: test.elem}.Call()
				out = run(t, c, err, out...)
			}
			var want []float64
			for s, n := range lengths {
				for h := range test.heads {
					var ks, vs [][]float32
					for i := range int(n) {
						at := int(table[s*context/test.page+i/test.page])*test.page + i%test.page
						at = (at*test.groups + h/(test.heads/test.groups)) * test.a
						ks, vs = append(ks, keys.Floats[at:at+test.a]), append(vs, values.Floats[at:at+test.a])
					}
					row := q.Floats[(s*test.heads+h)*test.a:][:test.a]
					seen := func(i int) bool { return test.window == 0 || i >= int(n)-test.window }
					want = append(want, attention(row, ks, vs, seen)...)
				}
			}
			near(t, want, out[0], attentionTolerance(test.elem))
		})
	}
}

// attentionTolerance also covers the rounding of the softmax to the values' type.
func attentionTolerance(e triton.Elem) float64 { return 2 * tolerance(e) }

func TestFlashAttention(t *testing.T) {
	for _, test := range []struct {
		queries, keys, window int
		ahead                 int // how much further the queries stand than the end of the keys
		inOrder, segments     bool
		elem                  triton.Elem
	}{
		{33, 33, 0, 0, true, false, triton.F32},
		{33, 33, 7, 0, true, false, triton.F32},
		{33, 40, 0, 30, true, false, triton.F32},
		{33, 33, 0, -60, true, false, triton.F32}, // padding stands before position 0
		{33, 33, 5, -20, true, false, triton.F32},
		{70, 100, 0, 0, true, false, triton.F32},
		{32, 48, 0, 0, true, false, triton.BF16}, // a prompt's part: queries after keys
		{20, 40, 9, 0, false, false, triton.F32},
		{33, 33, 0, 0, true, true, triton.F32},
		{48, 48, 13, 0, false, true, triton.F16},
	} {
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			r := rand.New(rand.NewPCG(2, 7))
			const b, heads, groups, a = 2, 4, 2, 24
			f := triton.Flash{Sequences: b, Heads: heads, KeyHeads: groups, Width: a, Queries: test.queries, Keys: test.keys,
				Window: test.window, InOrder: test.inOrder, Segments: test.segments, Elem: test.elem}
			q := random(r, test.elem, b, heads, test.queries, a)
			keys, values := random(r, test.elem, b, groups, test.keys, a), random(r, test.elem, b, groups, test.keys, a)
			var queryAt, keyAt, queryIn, keyIn []int64
			for s := range b {
				shift := test.keys - test.queries
				if s == 1 {
					shift = min(shift, 3)
				}
				shift += test.ahead
				for i := range test.queries {
					queryAt, queryIn = append(queryAt, int64(i+shift)), append(queryIn, int64((i+shift)/10))
				}
				order := r.Perm(test.keys)
				for i := range test.keys {
					p := i
					if !test.inOrder {
						p = order[i]
					}
					keyAt, keyIn = append(keyAt, int64(p)), append(keyIn, int64(p/10))
				}
			}
			operands := []*interp.Array{q, keys, values, i32(queryAt)}
			if !test.inOrder {
				operands = append(operands, i32(keyAt))
			}
			if test.segments {
				operands = append(operands, i32(queryIn), i32(keyIn))
			}
			c, err := f.Call(small)
			y := run(t, c, err, operands...)[0]
			var want []float64
			for row := range b * heads * test.queries {
				s, h, i := row/(heads*test.queries), row/test.queries%heads, row%test.queries
				var ks, vs [][]float32
				for c := range test.keys {
					at := ((s*groups+h/(heads/groups))*test.keys + c) * a
					ks, vs = append(ks, keys.Floats[at:at+a]), append(vs, values.Floats[at:at+a])
				}
				want = append(want, attention(q.Floats[row*a:][:a], ks, vs, func(c int) bool {
					p, k := queryAt[s*test.queries+i], keyAt[s*test.keys+c]
					return k <= p && (test.window == 0 || p-k < int64(test.window)) &&
						(!test.segments || queryIn[s*test.queries+i] == keyIn[s*test.keys+c])
				})...)
			}
			near(t, want, y, attentionTolerance(test.elem))
		})
	}
}
