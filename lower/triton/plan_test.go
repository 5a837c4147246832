package triton_test

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/triton"
	"mix/lower/triton/interp"
)

// execute runs a plan on named arrays, to which it adds all results.
func execute(t *testing.T, p triton.Plan, all map[string]*interp.Array) {
	t.Helper()
	for _, in := range p.Inputs {
		require.Contains(t, all, in)
	}
	for _, s := range p.Steps {
		var operands []*interp.Array
		for _, name := range s.In {
			require.Contains(t, all, name, s.Call.Name)
			operands = append(operands, all[name])
		}
		out, err := interp.RunPartial(s.Call, operands...)
		require.NoError(t, err)
		for i, name := range s.Out {
			require.NotContains(t, all, name, s.Call.Name)
			all[name] = out[i]
		}
	}
	for _, out := range p.Outputs {
		require.Contains(t, all, out)
	}
}

// tiny is a table whose tiles cut small shapes.
func tiny(split int) triton.Table {
	var table triton.Table
	for _, k := range []string{"up", "grouped", "transposed", "outer", "decode_up", "decode_down"} {
		tile := small
		tile.Split = split
		if k == "grouped" || k == "decode_down" {
			tile.M = 32 // the plan holds it to that of the product up
		}
		table = append(table, triton.Choice{Kernel: k, Tile: tile})
	}
	return table
}

func TestForwardIsRoutedExperts(t *testing.T) {
	for _, test := range []struct {
		tokens        int
		keep, partial bool
		split         int
	}{
		{5, false, false, 1}, {5, false, false, 2}, {5, false, true, 2}, {70, false, false, 1}, {70, false, true, 1}, {70, true, false, 1}, {5, true, true, 1},
	} {
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			r := rand.New(rand.NewPCG(6, 1))
			const experts, choices, width, hidden = 4, 2, 24, 40
			chosen := distinct(r, test.tokens, experts, choices)
			if test.partial {
				for i := range chosen {
					chosen[i] = chosen[i]*2 - 1 // -1, 1, 3 and 5
				}
			}
			rows := test.tokens * choices
			all := map[string]*interp.Array{"chosen": i32(chosen), "x": random(r, triton.F32, test.tokens, width),
				"weights": random(r, triton.F32, test.tokens, choices), "gate": random(r, triton.F32, experts, hidden, width),
				"up": random(r, triton.F32, experts, hidden, width), "down": random(r, triton.F32, experts, width, hidden)}
			x := triton.Experts{Tokens: test.tokens, Choices: choices, Experts: experts, Width: width, Hidden: hidden, Elem: triton.F32,
				Keep: test.keep, Partial: test.partial}
			p, err := x.Forward(tiny(test.split))
			require.NoError(t, err)
			execute(t, p, all)

			want := make([]float64, test.tokens*width)
			for row := range rows {
				e := int(chosen[row])
				if e < 0 || e >= experts {
					continue
				}
				h := interp.Floats(triton.F32, make([]float32, hidden))
				for f := range hidden {
					g := dot(all["x"], row/choices, all["gate"], e*hidden+f, width)
					u := dot(all["x"], row/choices, all["up"], e*hidden+f, width)
					h.Floats[f] = float32(silu(g) * u)
					if test.keep {
						at := int(all["place"].Ints[row])*hidden + f
						require.InDelta(t, g, all["g"].Floats[at], 1e-5)
						require.InDelta(t, u, all["u"].Floats[at], 1e-5)
					}
				}
				for i := range width {
					v := dot(h, 0, all["down"], e*width+i, hidden)
					want[row/choices*width+i] += v * float64(all["weights"].Floats[row])
					if test.keep {
						require.InDelta(t, v, all["rows"].Floats[int(all["place"].Ints[row])*width+i], 1e-5)
					}
				}
			}
			near(t, want, all["y"], 1e-5)
		})
	}
}

func TestGroupedPlansTakeSizes(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 2))
	rt := newRouting(5, 1, []int64{3, 3, 0, 3, 4, 4, 0, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3})
	rows := len(rt.order)
	const n, m = 24, 40
	a, b, w := random(r, triton.F32, rows, n), random(r, triton.F32, rows, m), random(r, triton.F32, rt.experts, m, n)
	p, err := triton.Grouped{Groups: rt.groups(), In: n, Out: m, Elem: triton.F32}.Plan(tiny(1))
	require.NoError(t, err)
	all := map[string]*interp.Array{"x": a, "w": w, "sizes": i32(rt.sizes)}
	execute(t, p, all)
	var product []float64
	outer := make([]float64, rt.experts*n*m)
	for row := range rows {
		for j := range m {
			product = append(product, dot(a, row, w, rt.group(row)*m+j, n))
			for i := range n {
				outer[(rt.group(row)*n+i)*m+j] += float64(a.Floats[row*n+i]) * float64(b.Floats[row*m+j])
			}
		}
	}
	near(t, product, all["y"], 1e-5)

	p, err = triton.Outer{Groups: rt.groups(), N: n, M: m, Elem: triton.F32}.Plan(tiny(1))
	require.NoError(t, err)
	all = map[string]*interp.Array{"a": a, "b": b, "sizes": i32(rt.sizes)}
	execute(t, p, all)
	near(t, outer, all["y"], 1e-5)

	_, err = triton.Grouped{Groups: triton.Groups{Rows: rows, Experts: 2, Rest: true}, In: n, Out: m, Elem: triton.F32, Routed: true, Choices: 1}.Call(small)
	require.ErrorContains(t, err, "wanted none in the order of routed rows")
	_, err = triton.Up{Groups: rt.groups(), Tokens: rt.tokens, Choices: rt.choices, Width: n, Hidden: m, Elem: triton.F32}.Plan(tiny(1))
	require.ErrorContains(t, err, "wanted group order")
	_, err = triton.Grouped{Groups: rt.groups(), In: n, Out: m, Elem: triton.F32, Routed: true}.Plan(tiny(1))
	require.ErrorContains(t, err, "wanted group order")
	_, err = triton.Outer{Groups: rt.groups(), N: n, M: m, Elem: triton.F32}.Plan(triton.Table{})
	require.ErrorContains(t, err, "no row for outer")
}

// TestRowsBehindTheLastGroup are zeros of products, and in no sum.
func TestRowsBehindTheLastGroup(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 4))
	const rows, n, m = 53, 24, 40
	for _, sizes := range [][]int64{{5, 0, 17}, {0, 0, 0}, {16, 16, 16}, {53, 0, 0}, {0, 0, 1}, {20, 20, 13}, {1, 1, 1, 1}} {
		t.Run(fmt.Sprint(sizes), func(t *testing.T) {
			groups := triton.Groups{Rows: rows, Experts: len(sizes), Rest: true}
			a, b, w := random(r, triton.F32, rows, n), random(r, triton.F32, rows, m), random(r, triton.F32, len(sizes), m, n)
			product, outer := make([]float64, rows*m), make([]float64, len(sizes)*n*m)
			row := 0
			for e, size := range sizes {
				for range size {
					for j := range m {
						product[row*m+j] = dot(a, row, w, e*m+j, n)
						for i := range n {
							outer[(e*n+i)*m+j] += float64(a.Floats[row*n+i]) * float64(b.Floats[row*m+j])
						}
					}
					row++
				}
			}
			for ; row < rows; row++ { // what lies there may be anything
				for i := range n {
					a.Floats[row*n+i] = float32(math.NaN())
				}
			}
			p, err := triton.Grouped{Groups: groups, In: n, Out: m, Elem: triton.F32}.Plan(tiny(1))
			require.NoError(t, err)
			all := map[string]*interp.Array{"x": a, "w": w, "sizes": i32(sizes)}
			execute(t, p, all)
			_, err = interp.Run(p.Steps[1].Call, a, w, all["blocks"], all["offsets"])
			require.NoError(t, err, "an element of y is not written")
			near(t, product, all["y"], 1e-5)
			open := triton.Groups{Rows: rows, Experts: len(sizes)} // rows behind are nobody's
			p, err = triton.Up{Groups: open, Ordered: true, Tokens: rows, Choices: 1, Width: n, Hidden: m, Elem: triton.F32}.Plan(tiny(1))
			require.NoError(t, err)
			all = map[string]*interp.Array{"x": a, "gate": w, "up": w, "sizes": i32(sizes)}
			execute(t, p, all)
			for i, x := range product {
				require.InDelta(t, silu(x)*x, all["h"].Floats[i], 1e-4, "element %d", i)
			}
			p, err = triton.Outer{Groups: groups, N: n, M: m, Elem: triton.F32}.Plan(tiny(1))
			require.NoError(t, err)
			all = map[string]*interp.Array{"a": a, "b": b, "sizes": i32(sizes)}
			execute(t, p, all)
			near(t, outer, all["y"], 1e-5)
		})
	}
}

// TestDefaultTilesComputeTheSame runs kernels as they are cut on a GPU, on shapes that fill no tile.
func TestDefaultTilesComputeTheSame(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 3))
	const experts, choices, width, hidden = 2, 2, 72, 136
	for _, tokens := range []int{1, 40, 80} {
		all := map[string]*interp.Array{"chosen": i32(distinct(r, tokens, experts, choices)), "x": random(r, triton.BF16, tokens, width),
			"weights": random(r, triton.F32, tokens, choices), "gate": random(r, triton.BF16, experts, hidden, width),
			"up": random(r, triton.BF16, experts, hidden, width), "down": random(r, triton.BF16, experts, width, hidden)}
		of := func(table triton.Table) []float32 {
			own := maps.Clone(all)
			x := triton.Experts{Tokens: tokens, Choices: choices, Experts: experts, Width: width, Hidden: hidden, Elem: triton.BF16}
			p, err := x.Forward(table)
			require.NoError(t, err)
			execute(t, p, own)
			return own["y"].Floats
		}
		want := of(tiny(1))
		for i, got := range of(triton.Default()) {
			require.InDelta(t, want[i], got, 2*tolerance(triton.BF16)*(1+math.Abs(float64(want[i]))), "%d tokens, element %d", tokens, i)
		}
	}
}

// TestForwardOfRoutedRows takes the order of rows from the kernel that chose the experts.
func TestForwardOfRoutedRows(t *testing.T) {
	r := rand.New(rand.NewPCG(16, 17))
	const experts, choices, width, hidden = 6, 2, 24, 40
	for _, tokens := range []int{1, 5, 70} {
		all := map[string]*interp.Array{"x": random(r, triton.F32, tokens, width), "gate": random(r, triton.F32, experts, hidden, width),
			"up": random(r, triton.F32, experts, hidden, width), "down": random(r, triton.F32, experts, width, hidden)}
		x := triton.Experts{Tokens: tokens, Choices: choices, Experts: experts, Width: width, Hidden: hidden, Elem: triton.F32}
		c, err := x.Route(tiny(1))
		for i, a := range run(t, c, err, random(r, triton.F32, tokens, experts)) {
			all[c.Results[i].Name] = a
		}
		plain := map[string]*interp.Array{}
		for _, name := range []string{"x", "gate", "up", "down", "chosen", "weights"} {
			plain[name] = all[name]
		}
		p, err := x.Forward(tiny(1))
		require.NoError(t, err)
		execute(t, p, plain)
		x.Routed = true
		p, err = x.Forward(tiny(1))
		require.NoError(t, err)
		execute(t, p, all)
		require.Equal(t, plain["y"].Floats, all["y"].Floats)
	}
}
