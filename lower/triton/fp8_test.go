package triton_test

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/triton"
	"mix/lower/triton/interp"
)

func TestFP8IsTheScaledProduct(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	tile := small
	tile.K = 64
	for name, rt := range routings(r) {
		for _, blocks := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				const in, out = 200, 144
				rows, deep, high := len(rt.order), 2, 2
				x, w := random(r, triton.F8, rows, in), random(r, triton.F8, rt.experts, out, in)
				xs, ws := random(r, triton.F32, 1), random(r, triton.F32, rt.experts)
				if blocks {
					xs, ws = random(r, triton.F32, rows, deep), random(r, triton.F32, rt.experts, high, deep)
				}
				var want []float64
				for p := range rows {
					e := rt.group(p)
					for o := range out {
						var sum float64
						for i := range in {
							a, b := xs.Floats[0], ws.Floats[min(e, len(ws.Floats)-1)]
							if blocks {
								a, b = xs.Floats[p*deep+i/128], ws.Floats[(e*high+o/128)*deep+i/128]
							}
							sum += float64(x.Floats[p*in+i]) * float64(w.Floats[(e*out+o)*in+i]) * float64(a) * float64(b)
						}
						want = append(want, sum)
					}
				}
				c, err := triton.FP8{Groups: rt.groups(), In: in, Out: out, BlockScales: blocks, Y: triton.F32}.Call(tile)
				operands := append([]*interp.Array{x, w, xs, ws}, rt.operands(tile.M)...)
				near(t, want, run(t, c, err, operands...)[0], 1e-5)
			})
		}
	}
}

func TestQuantizeKeepsThreeBits(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 5))
	const rows, width = 19, 200
	x := random(r, triton.F32, rows, width)
	for i := range 128 {
		x.Floats[i] = 0 // a block of zeros
	}
	c, err := triton.Quantize{Rows: rows, Width: width, Elem: triton.F32}.Call()
	out := run(t, c, err, x)
	for i, v := range x.Floats {
		row, part := i/width, i%width/128
		scale := out[1].Floats[row*2+part]
		var most float32
		for _, w := range x.Floats[row*width+part*128 : row*width+min(part*128+128, width)] {
			most = max(most, w, -w)
		}
		got := out[0].Floats[i] * scale
		require.InDelta(t, v, got, float64(most)/28+1e-12, "half of the last of 3 bits below 448, a unit of 32") // 448/16 = 28
	}
	require.Equal(t, float32(1), out[1].Floats[0])
}
