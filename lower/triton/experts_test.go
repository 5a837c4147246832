package triton_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/triton"
	"mix/lower/triton/interp"
)

// sizes of matrices: tiles divide them or not.
var widths = []struct {
	name          string
	width, hidden int
	elem          triton.Elem
}{
	{"whole tiles", 32, 48, triton.F32},
	{"ragged", 24, 40, triton.F32},
	{"bf16", 32, 32, triton.BF16},
	{"f16 ragged", 20, 24, triton.F16},
}

// each runs f on every routing and size.
func each(t *testing.T, f func(t *testing.T, r *rand.Rand, x routing, width, hidden int, elem triton.Elem)) {
	r := rand.New(rand.NewPCG(1, 2))
	for name, x := range routings(r) {
		for _, w := range widths {
			t.Run(name+"/"+w.name, func(t *testing.T) { f(t, r, x, w.width, w.hidden, w.elem) })
		}
	}
}

// upReference gives h, g and u in group order.
func upReference(x *interp.Array, gate, up *interp.Array, rt routing, width, hidden int) (h, g, u []float64) {
	for p, row := range rt.order {
		token, e := int(row)/rt.choices, rt.group(p)
		for f := range hidden {
			a, b := dot(x, token, gate, e*hidden+f, width), dot(x, token, up, e*hidden+f, width)
			g, u, h = append(g, a), append(u, b), append(h, silu(a)*b)
		}
	}
	return h, g, u
}

func TestUpIsGatherProductsAndSwiGLU(t *testing.T) {
	each(t, func(t *testing.T, r *rand.Rand, rt routing, width, hidden int, elem triton.Elem) {
		x := random(r, elem, rt.tokens, width)
		gate, up := random(r, elem, rt.experts, hidden, width), random(r, elem, rt.experts, hidden, width)
		k := triton.Up{Groups: rt.groups(), Tokens: rt.tokens, Choices: rt.choices, Width: width, Hidden: hidden, Elem: elem, Keep: true}
		c, err := k.Call(small)
		out := run(t, c, err, append([]*interp.Array{x, i32(rt.order), gate, up}, rt.operands(small.M)...)...)
		h, g, u := upReference(x, gate, up, rt, width, hidden)
		near(t, h, out[0], tolerance(elem))
		near(t, g, out[1], tolerance(elem))
		near(t, u, out[2], tolerance(elem))

		rows := interp.Floats(elem, nil) // the same gathered before
		for _, row := range rt.order {
			at := int(row) / rt.choices * width
			rows.Floats = append(rows.Floats, x.Floats[at:at+width]...)
		}
		k.Tokens, k.Choices, k.Ordered, k.Keep = len(rt.order), 1, true, false
		c, err = k.Call(small)
		near(t, h, run(t, c, err, append([]*interp.Array{rows, gate, up}, rt.operands(small.M)...)...)[0], tolerance(elem))
	})
}

// TestGradientOfSwiGLU holds the kernel to differences of silu(g)·u; rows behind the last group are not read.
func TestGradientOfSwiGLU(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	const rows, hidden, full = 11, 40, 7
	for _, elem := range []triton.Elem{triton.F32, triton.BF16} {
		dh, g, u := random(r, elem, rows, hidden), random(r, elem, rows, hidden), random(r, elem, rows, hidden)
		var want [3][]float64
		for i := range full * hidden {
			d, x, y := float64(dh.Floats[i]), float64(g.Floats[i]), float64(u.Floats[i])
			const step = 1e-5
			want[0] = append(want[0], d*y*(silu(x+step)-silu(x-step))/(2*step))
			want[1] = append(want[1], d*silu(x))
			want[2] = append(want[2], silu(x)*y)
		}
		for i := full * hidden; i < rows*hidden; i++ {
			dh.Floats[i], g.Floats[i], u.Floats[i] = float32(math.NaN()), float32(math.NaN()), float32(math.NaN())
		}
		p, err := triton.SwiGLUGradient{Groups: triton.Groups{Rows: rows, Experts: 3}, Hidden: hidden, Elem: elem}.Plan()
		require.NoError(t, err)
		all := map[string]*interp.Array{"dh": dh, "g": g, "u": u, "sizes": i32([]int64{2, 0, 5})}
		execute(t, p, all)
		for i, name := range p.Outputs {
			all[name].Floats = all[name].Floats[:full*hidden]
			near(t, want[i], all[name], tolerance(elem))
		}
	}
	_, err := triton.SwiGLUGradient{Groups: triton.Groups{Rows: rows, Experts: 3}, Hidden: hidden, Elem: triton.I32}.Call()
	require.ErrorContains(t, err, "elements i32")
}

func TestGroupedMultipliesRowsByTheirMatrix(t *testing.T) {
	each(t, func(t *testing.T, r *rand.Rand, rt routing, width, hidden int, elem triton.Elem) {
		rows := len(rt.order)
		x, w := random(r, elem, rows, width), random(r, elem, rt.experts, hidden, width)
		weights := random(r, triton.F32, rows)
		var want, routed []float64
		routed = make([]float64, rows*hidden)
		for p, row := range rt.order {
			for f := range hidden {
				v := dot(x, p, w, rt.group(p)*hidden+f, width)
				want = append(want, v)
				routed[int(row)*hidden+f] = v * float64(weights.Floats[row])
			}
		}
		k := triton.Grouped{Groups: rt.groups(), In: width, Out: hidden, Elem: elem}
		c, err := k.Call(small)
		near(t, want, run(t, c, err, append([]*interp.Array{x, w}, rt.operands(small.M)...)...)[0], tolerance(elem))

		k.Transposed = true
		turned := interp.Floats(elem, turn(w.Floats, rt.experts, hidden, width))
		c, err = k.Call(small)
		near(t, want, run(t, c, err, append([]*interp.Array{x, turned}, rt.operands(small.M)...)...)[0], tolerance(elem))

		k.Pair = true
		x2, w2 := random(r, elem, rows, width), random(r, elem, rt.experts, width, hidden)
		both := make([]float64, len(want))
		for p := range rows {
			for f := range hidden {
				both[p*hidden+f] = want[p*hidden+f]
				for i := range width {
					both[p*hidden+f] += float64(x2.Floats[p*width+i]) * float64(w2.Floats[(rt.group(p)*width+i)*hidden+f])
				}
			}
		}
		c, err = k.Call(small)
		near(t, both, run(t, c, err, append([]*interp.Array{x, turned, x2, w2}, rt.operands(small.M)...)...)[0], tolerance(elem))

		k.Pair = false
		k.Transposed, k.Routed, k.Choices, k.Y = false, true, rt.choices, triton.F32
		c, err = k.Call(small)
		near(t, routed, run(t, c, err, append([]*interp.Array{x, w, i32(rt.order), weights}, rt.operands(small.M)...)...)[0], tolerance(triton.F32))
	})
}

// turn transposes each matrix [n, m] of e.
func turn(w []float32, e, n, m int) []float32 {
	out := make([]float32, len(w))
	for g := range e {
		for i := range n {
			for j := range m {
				out[(g*m+j)*n+i] = w[(g*n+i)*m+j]
			}
		}
	}
	return out
}

func TestOuterSumsOverTheRowsOfAGroup(t *testing.T) {
	each(t, func(t *testing.T, r *rand.Rand, rt routing, n, m int, elem triton.Elem) {
		rows := len(rt.order)
		a, b := random(r, elem, rows, n), random(r, elem, rows, m)
		want := make([]float64, rt.experts*n*m)
		for p := range rows {
			for i := range n {
				for j := range m {
					want[(rt.group(p)*n+i)*m+j] += float64(a.Floats[p*n+i]) * float64(b.Floats[p*m+j])
				}
			}
		}
		c, err := triton.Outer{Groups: rt.groups(), N: n, M: m, Elem: elem}.Call(small)
		near(t, want, run(t, c, err, a, b, i32(rt.offsets))[0], tolerance(elem))
		c, err = triton.Outer{Groups: rt.groups(), N: n, M: m, Elem: elem, Wide: true}.Call(small)
		near(t, want, run(t, c, err, a, b, i32(rt.offsets))[0], tolerance(triton.F32))
	})
}

// TestDecodeIsTheExperts runs all kernels of a step with few tokens: permute, up, down, combine.
func TestDecodeIsTheExperts(t *testing.T) {
	each(t, func(t *testing.T, r *rand.Rand, rt routing, width, hidden int, elem triton.Elem) {
		for _, split := range []int{1, 3} {
			tile := small
			tile.Split = split
			rows := len(rt.order)
			x := random(r, elem, rt.tokens, width)
			gate, up := random(r, elem, rt.experts, hidden, width), random(r, elem, rt.experts, hidden, width)
			down, weights := random(r, elem, rt.experts, width, hidden), random(r, triton.F32, rt.tokens, rt.choices)
			d := triton.Decode{Groups: rt.groups(), Tokens: rt.tokens, Choices: rt.choices, Width: width, Hidden: hidden, Elem: elem}
			c, err := d.Up(tile)
			out := run(t, c, err, append([]*interp.Array{x, i32(rt.order), gate, up}, rt.operands(tile.M)...)...)
			if split > 1 {
				c, err = triton.SwiGLU{Rows: rows, Hidden: hidden, Splits: split, Elem: elem}.Call()
				out = run(t, c, err, out...)
			}
			h, _, _ := upReference(x, gate, up, rt, width, hidden)
			near(t, h, out[0], tolerance(elem))

			c, err = d.Down(tile)
			y := run(t, c, err, append([]*interp.Array{out[0], down, i32(rt.order)}, rt.operands(tile.M)...)...)[0]
			c, err = triton.Combine{Tokens: rt.tokens, Choices: rt.choices, Width: width, Splits: split, Weighted: true, Rows: triton.F32, Elem: elem}.Call()
			sum := run(t, c, err, y, weights)[0]
			want := make([]float64, rt.tokens*width)
			for p, row := range rt.order {
				for i := range width {
					v := dot(out[0], p, down, rt.group(p)*width+i, hidden)
					want[int(row)/rt.choices*width+i] += v * float64(weights.Floats[row])
				}
			}
			near(t, want, sum, tolerance(elem))
		}
	})
}

func TestCombineReadsRowsInGroupOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	rt := newRouting(4, 2, distinct(r, 9, 4, 2))
	rows := random(r, triton.BF16, len(rt.order), 300)
	c, err := triton.Combine{Tokens: 9, Choices: 2, Width: 300, Splits: 1, Grouped: true, Rows: triton.BF16, Elem: triton.F32}.Call()
	y := run(t, c, err, rows, i32(rt.place))[0]
	var want []float64
	for token := range 9 {
		for i := range 300 {
			a, b := rows.Floats[int(rt.place[token*2])*300+i], rows.Floats[int(rt.place[token*2+1])*300+i]
			want = append(want, float64(a)+float64(b))
		}
	}
	near(t, want, y, 1e-6)
}

func TestPermuteCounts(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	all := routings(r)
	all["many tokens, six experts"] = newRouting(6, 3, distinct(r, 1500, 6, 3))
	all["many experts"] = newRouting(100, 4, distinct(r, 50, 100, 4))
	for name, x := range all {
		t.Run(name, func(t *testing.T) {
			c, err := triton.Permute{Tokens: x.tokens, Experts: x.experts, Choices: x.choices, Block: 16}.Call()
			out := run(t, c, err, i32(x.chosen))
			for i, want := range [][]int64{x.place, x.order, x.sizes, x.offsets, x.blocks(16)} {
				if i == 4 {
					unused(x, out[i].Ints, 16)
				}
				require.Equal(t, want, out[i].Ints, c.Results[i].Name)
			}
			m := triton.BlockMap{Groups: x.groups(), Block: 16}
			c, err = m.Call()
			out = run(t, c, err, i32(x.sizes))
			unused(x, out[1].Ints, 16)
			require.Equal(t, x.offsets, out[0].Ints)
			require.Equal(t, x.blocks(16), out[1].Ints)
		})
	}
}

// unused clears the first rows of blocks that are not used: nobody reads them.
func unused(x routing, blocks []int64, m int) {
	half := len(blocks) / 2
	for i, e := range blocks[:half] {
		if int(e) == x.experts {
			blocks[half+i] = 0
		}
	}
}

func TestRouteChoosesTheBest(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	const tokens, experts, choices = 50, 6, 2
	logits := random(r, triton.F32, tokens, experts)
	nan, inf := float32(0), float32(1e38)
	nan, inf = nan/nan, inf*inf
	copy(logits.Floats, []float32{1, 2, 2, 1, 0, 0, nan, nan, 3, nan, nan, nan, nan, nan, nan, nan, nan, nan, -inf, -inf, -inf, -inf, 5, -inf, 7, 7, 7, 7, 7, 7})
	c, err := triton.Route{Tokens: tokens, Experts: experts, Choices: choices, Block: 16}.Call()
	out := run(t, c, err, logits)
	weights, chosen := out[0], out[1].Ints
	require.Equal(t, []int64{1, 2, 2, 0, 0, 1, 4, 0, 0, 1}, chosen[:10], "ties go to the lower id and NaN counts as -Inf")
	require.Equal(t, []float32{0.5, 0.5, 1, 0, 0.5, 0.5, 1, 0, 0.5, 0.5}, weights.Floats[:10])
	for token := 5; token < tokens; token++ {
		l := logits.Floats[token*experts : (token+1)*experts]
		ids := []int64{0, 1, 2, 3, 4, 5}
		slices.SortStableFunc(ids, func(a, b int64) int {
			if l[a] > l[b] {
				return -1
			}
			return 1
		})
		require.Equal(t, ids[:2], chosen[token*2:token*2+2])
		require.InDelta(t, 1, weights.Floats[token*2]+weights.Floats[token*2+1], 1e-6)
	}
	x := newRouting(experts, choices, chosen)
	unused(x, out[6].Ints, 16)
	for i, want := range [][]int64{x.place, x.order, x.sizes, x.offsets, x.blocks(16)} {
		require.Equal(t, want, out[i+2].Ints, c.Results[i+2].Name)
	}
}

// TestExpertsOfAnotherDevice leaves out the rows whose experts are elsewhere.
func TestExpertsOfAnotherDevice(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	const tokens, choices, here, width, hidden = 21, 2, 3, 32, 32
	chosen := distinct(r, tokens, 6, choices)
	for i := range chosen {
		chosen[i] -= 2 // experts 2, 3 and 4 of 6 are here
	}
	c, err := triton.Permute{Tokens: tokens, Experts: here, Choices: choices, Block: 16}.Call()
	require.NoError(t, err)
	meta, err := interp.RunPartial(c, i32(chosen))
	require.NoError(t, err)
	place, order, offsets, blocks := meta[0], meta[1], meta[3], meta[4]

	g := triton.Groups{Rows: tokens * choices, Experts: here}
	d := triton.Decode{Groups: g, Tokens: tokens, Choices: choices, Width: width, Hidden: hidden, Elem: triton.F32}
	x, weights := random(r, triton.F32, tokens, width), random(r, triton.F32, tokens, choices)
	gate, up, down := random(r, triton.F32, here, hidden, width), random(r, triton.F32, here, hidden, width), random(r, triton.F32, here, width, hidden)
	c, err = d.Up(small)
	require.NoError(t, err)
	h, err := interp.RunPartial(c, x, order, gate, up, blocks, offsets)
	require.NoError(t, err)
	c, err = d.Down(small)
	require.NoError(t, err)
	y, err := interp.RunPartial(c, h[0], down, order, blocks, offsets)
	require.NoError(t, err)
	want := make([]float64, tokens*width)
	for row, e := range chosen {
		p := place.Ints[row]
		if e < 0 || e >= here {
			require.Equal(t, int64(-1), p)
			for i := range width {
				y[0].Floats[row*width+i] = float32(math.NaN()) // what was never written may hold anything
			}
			continue
		}
		require.Equal(t, int64(row), order.Ints[p])
		for i := range width {
			want[row/choices*width+i] += dot(h[0], int(p), down, int(e)*width+i, hidden) * float64(weights.Floats[row])
		}
	}
	c, err = triton.Combine{Tokens: tokens, Choices: choices, Width: width, Splits: 1, Weighted: true, Partial: true, Rows: triton.F32, Elem: triton.F32}.Call()
	near(t, want, run(t, c, err, y[0], weights, place)[0], 1e-5)
}
