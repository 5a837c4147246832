package triton_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/triton"
	"mix/lower/triton/interp"
)

// attentionCase is attention of random values over places that leave blocks of queries and keys ragged.
type attentionCase struct {
	queries, keys, window  int
	ahead                  int // how much further the queries stand than the end of the keys
	shuffled               bool
	inOrder, segments      bool
	heads, groups, a       int
	elem                   triton.Elem
	at, in                 [2][]int64 // positions and segments of queries and of keys, [B, S] and [B, C]
	q, k, v, dy            *interp.Array
	wantY, wantLSE         []float64
	wantDQ, wantDK, wantDV []float64
}

// fill draws values and places of two sequences, and computes attention and its gradient by plain loops.
func (c *attentionCase) fill(r *rand.Rand) {
	const b = 2
	c.q, c.dy = random(r, c.elem, b, c.heads, c.queries, c.a), random(r, c.elem, b, c.heads, c.queries, c.a)
	c.k, c.v = random(r, c.elem, b, c.groups, c.keys, c.a), random(r, c.elem, b, c.groups, c.keys, c.a)
	for s := range b {
		shift := c.keys - c.queries
		if s == 1 {
			shift = min(shift, 3)
		}
		order, rows := r.Perm(c.keys), r.Perm(c.queries)
		for i := range c.queries {
			if c.shuffled {
				i = rows[i]
			}
			c.at[0], c.in[0] = append(c.at[0], int64(i+shift+c.ahead)), append(c.in[0], int64((i+shift+c.ahead)/10))
		}
		for i := range c.keys {
			if !c.inOrder {
				i = order[i]
			}
			c.at[1], c.in[1] = append(c.at[1], int64(i)), append(c.in[1], int64(i/10))
		}
	}
	c.wantDQ, c.wantDK, c.wantDV = make([]float64, len(c.q.Floats)), make([]float64, len(c.k.Floats)), make([]float64, len(c.v.Floats))
	for row := range b * c.heads * c.queries {
		c.row(row)
	}
}

// row is one query of one head: its result, and what it adds to the gradients.
func (c *attentionCase) row(row int) {
	s, h, i := row/(c.heads*c.queries), row/c.queries%c.heads, row%c.queries
	first := (s*c.groups + h/(c.heads/c.groups)) * c.keys // of the rows of keys
	scale := 1 / math.Sqrt(float64(c.a))
	scores, sum := make([]float64, c.keys), 0.0
	for j := range scores {
		p, k := c.at[0][s*c.queries+i], c.at[1][s*c.keys+j]
		if k > p || c.window > 0 && p-k >= int64(c.window) || c.segments && c.in[0][s*c.queries+i] != c.in[1][s*c.keys+j] {
			continue
		}
		scores[j] = math.Exp(scale * dot(c.q, row, c.k, first+j, c.a)) // small enough
		sum += scores[j]
	}
	if sum == 0 {
		c.wantLSE, c.wantY = append(c.wantLSE, math.Inf(1)), append(c.wantY, make([]float64, c.a)...)
		return
	}
	c.wantLSE = append(c.wantLSE, math.Log2(sum))
	y, delta := make([]float64, c.a), 0.0
	for j, p := range scores {
		for d := range y {
			y[d] += p / sum * float64(c.v.Floats[(first+j)*c.a+d])
		}
	}
	c.wantY = append(c.wantY, y...)
	for d := range y {
		delta += y[d] * float64(c.dy.Floats[row*c.a+d])
	}
	for j, p := range scores {
		ds := scale * p / sum * (dot(c.dy, row, c.v, first+j, c.a) - delta)
		for d := range y {
			c.wantDQ[row*c.a+d] += ds * float64(c.k.Floats[(first+j)*c.a+d])
			c.wantDK[(first+j)*c.a+d] += ds * float64(c.q.Floats[row*c.a+d])
			c.wantDV[(first+j)*c.a+d] += p / sum * float64(c.dy.Floats[row*c.a+d])
		}
	}
}

// flash is the kernel's sizes.
func (c *attentionCase) flash() triton.Flash {
	return triton.Flash{Sequences: 2, Heads: c.heads, KeyHeads: c.groups, Width: c.a, Queries: c.queries, Keys: c.keys,
		Window: c.window, InOrder: c.inOrder, Segments: c.segments, LSE: true, Elem: c.elem}
}

// places are the operands that say which keys queries see.
func (c *attentionCase) places() (all []*interp.Array) {
	all = append(all, i32(c.at[0]))
	if !c.inOrder {
		all = append(all, i32(c.at[1]))
	}
	if c.segments {
		all = append(all, i32(c.in[0]), i32(c.in[1]))
	}
	return all
}

func TestFlashGradient(t *testing.T) {
	for _, c := range []attentionCase{
		{queries: 33, keys: 33, inOrder: true, heads: 4, groups: 2, a: 24, elem: triton.F32},
		{queries: 70, keys: 70, inOrder: true, heads: 6, groups: 2, a: 16, elem: triton.F32},
		{queries: 64, keys: 64, inOrder: true, heads: 2, groups: 2, a: 32, elem: triton.BF16},
		{queries: 33, keys: 33, window: 7, inOrder: true, heads: 4, groups: 2, a: 24, elem: triton.F32},
		{queries: 100, keys: 100, window: 21, inOrder: true, heads: 4, groups: 1, a: 40, elem: triton.F16},
		{queries: 33, keys: 70, inOrder: true, heads: 4, groups: 2, a: 24, elem: triton.F32},
		{queries: 70, keys: 40, inOrder: true, heads: 4, groups: 2, a: 24, elem: triton.F32},             // many see nothing
		{queries: 33, keys: 33, ahead: -60, inOrder: true, heads: 2, groups: 1, a: 24, elem: triton.F32}, // all see nothing
		{queries: 33, keys: 40, ahead: 30, inOrder: true, heads: 4, groups: 2, a: 24, elem: triton.BF16}, // all see all
		{queries: 50, keys: 50, inOrder: true, shuffled: true, heads: 4, groups: 2, a: 24, elem: triton.F32},
		{queries: 20, keys: 40, window: 9, heads: 4, groups: 2, a: 24, elem: triton.F32},
		{queries: 40, keys: 48, heads: 4, groups: 2, a: 24, elem: triton.F32},
		{queries: 60, keys: 60, inOrder: true, segments: true, heads: 4, groups: 2, a: 24, elem: triton.F32},
		{queries: 48, keys: 48, window: 13, segments: true, shuffled: true, heads: 4, groups: 2, a: 24, elem: triton.F16},
		{queries: 40, keys: 40, inOrder: true, heads: 2, groups: 1, a: 160, elem: triton.F32},
	} {
		t.Run(fmt.Sprintf("%dx%d window %d ahead %d shuffled %v in order %v segments %v %s", c.queries, c.keys, c.window, c.ahead, c.shuffled, c.inOrder, c.segments, c.elem), func(t *testing.T) {
			c.fill(rand.New(rand.NewPCG(5, 3)))
			call, err := c.flash().Call(small)
			out := run(t, call, err, append([]*interp.Array{c.q, c.k, c.v}, c.places()...)...)
			near(t, c.wantY, out[0], attentionTolerance(c.elem))
			for i, want := range c.wantLSE {
				got := float64(out[1].Floats[i])
				require.True(t, got == want || math.Abs(got-want) < attentionTolerance(c.elem), "lse[%d] is %v, wanted %v", i, got, want)
			}
			delta := make([]float32, len(c.wantLSE))
			for i := range delta {
				delta[i] = float32(dot(c.dy, i, out[0], i, c.a))
			}
			operands := append([]*interp.Array{c.q, c.k, c.v, c.dy, out[1], interp.Floats(triton.F32, delta)}, c.places()...)
			gradient := triton.FlashGradient(c.flash())
			call, err = gradient.OfQueries(small)
			near(t, c.wantDQ, run(t, call, err, operands...)[0], attentionTolerance(c.elem))
			call, err = gradient.OfKeys(small)
			out = run(t, call, err, operands...)
			near(t, c.wantDK, out[0], attentionTolerance(c.elem))
			near(t, c.wantDV, out[1], attentionTolerance(c.elem))
		})
	}
}
