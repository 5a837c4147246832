package lora

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/sharding/axis"
	"mix/sharding/ckpt"
)

// ints reads an int8 piece.
func ints(t *testing.T, from Reader, q axis.Piece) []int8 {
	t.Helper()
	b := make([]byte, q.Bytes())
	require.NoError(t, from.Read(q, b))
	v := make([]int8, len(b))
	for i := range b {
		v[i] = int8(b[i])
	}
	return v
}

func TestQuantizedIsNearerThanHalfAStep(t *testing.T) {
	base := model(t, odd, 1)
	r := rand.New(rand.NewPCG(1, 2))
	down := base.values["layers/moe/down"] // [2, 5, 36, 44]
	for row := range len(down) / 44 {
		size := math.Pow(10, -46+84*r.Float64()) // from below the smallest subnormal number to near the largest
		for i := range 44 {
			down[row*44+i] = float32(size * r.NormFloat64())
		}
	}
	clear(down[:44])
	z, err := Quantize(odd, base)
	require.NoError(t, err)
	weights, scales, err := Quantized(odd)
	require.NoError(t, err)
	require.Len(t, weights, 7)
	for i, p := range weights {
		require.Equal(t, p.Path+"/scale", scales[i].Path)
		q, s := ints(t, z, axis.Whole(p, dtypes.Int8)), read(t, z, axis.Whole(scales[i], dtypes.Float32))
		width := p.Elements() / len(s)
		full := 0
		for j, w := range base.values[p.Path] {
			scale := float64(s[j/width])
			// The scale is rounded once, so the largest of 127 steps is off by half a unit in its last place.
			require.LessOrEqual(t, math.Abs(float64(w)-float64(q[j])*scale), scale/2*(1+1e-5), "%s element %d: %g is %d of %g", p.Path, j, w, q[j], scale)
			if q[j] == 127 || q[j] == -127 {
				full++
			}
			require.NotEqual(t, int8(-128), q[j])
		}
		if p.Path != "layers/moe/down" {
			require.GreaterOrEqual(t, full, len(s), "%s: a row's largest element takes all steps", p.Path)
		}
	}
	require.Equal(t, []int{2, 6, 10}, scales[0].Dims)
	require.Equal(t, []int{2, 36}, scales[3].Dims, "of layers/attn/out: a row is all heads")
	require.Equal(t, []int{2, 5, 36}, scales[6].Dims)
}

func TestQuantizedBoxesAreSlicesOfTheWhole(t *testing.T) {
	z, err := Quantize(odd, model(t, odd, 1))
	require.NoError(t, err)
	weights, scales, err := Quantized(odd)
	require.NoError(t, err)
	for i, p := range weights {
		whole := ints(t, z, axis.Whole(p, dtypes.Int8))
		wide := make([]float32, len(whole))
		for j, v := range whole {
			wide[j] = float32(v)
		}
		for _, q := range boxes(p, dtypes.Int8) {
			for j, v := range cut(wide, p.Dims, q.Offset, q.Size) {
				require.Equal(t, int8(v), ints(t, z, q)[j], "%s %v %v", q.Name, q.Offset, q.Size)
				if j > 50 {
					break // a shifted box differs at once
				}
			}
		}
		s := read(t, z, axis.Whole(scales[i], dtypes.Float32))
		for _, q := range boxes(scales[i], dtypes.Float32) {
			require.Equal(t, cut(s, scales[i].Dims, q.Offset, q.Size), read(t, z, q), "%s %v %v", q.Name, q.Offset, q.Size)
		}
	}
}

func TestQuantizedPassesOnWhatItLeavesAlone(t *testing.T) {
	base := model(t, odd, 1)
	z, err := Quantize(odd, base)
	require.NoError(t, err)
	for _, p := range base.params {
		switch p.Path {
		case "embed", "head", "final_norm", "layers/attn_norm", "layers/moe_norm", "layers/moe/router":
			require.Equal(t, base.values[p.Path], read(t, z, axis.Whole(p, dtypes.Float32)), p.Path)
		}
	}
}

func TestQuantizeRefuses(t *testing.T) {
	base := model(t, odd, 1)
	z, err := Quantize(odd, base)
	require.NoError(t, err)
	weights, scales, err := Quantized(odd)
	require.NoError(t, err)
	q := axis.Whole(weights[0], dtypes.Float32)
	require.ErrorContains(t, z.Read(q, make([]byte, q.Bytes())), "dtype Float32, want Int8")
	q = axis.Whole(scales[0], dtypes.Int8)
	require.ErrorContains(t, z.Read(q, make([]byte, q.Bytes())), "dtype Int8, want Float32")
	q = axis.Whole(weights[0], dtypes.Int8)
	require.ErrorContains(t, z.Read(q, make([]byte, 7)), "buffer of 7 bytes, want 4320")
	q.Offset[1] = 1
	require.ErrorContains(t, z.Read(q, make([]byte, q.Bytes())), "outside of")

	base.values[weights[2].Path][25] = float32(math.NaN())
	q = axis.Whole(weights[2], dtypes.Int8)
	require.ErrorContains(t, z.Read(q, make([]byte, q.Bytes())), "layers/attn/value has NaN in row 0")
	q = axis.Whole(scales[2], dtypes.Float32)
	require.ErrorContains(t, z.Read(q, make([]byte, q.Bytes())), "NaN")
}

func TestHalfIsRoundedToEven(t *testing.T) {
	tests := []struct {
		x    float32
		want uint16
	}{
		{1, 0x3c00}, {-2, 0xc000}, {0, 0}, {65504, 0x7bff}, {65519, 0x7bff}, {65520, 0x7c00},
		{1 + 0x1p-11, 0x3c00}, {1 + 3*0x1p-11, 0x3c02}, // ties
		{0x1p-24, 1}, {0x1p-25, 0}, {1.01 * 0x1p-25, 1}, {3 * 0x1p-25, 2}, {5 * 0x1p-25, 2}, // subnormal, and ties of them
		{0x1p-14, 0x0400}, {0x1p-14 - 0x1p-25, 0x0400},
		{float32(math.Inf(1)), 0x7c00},
	}
	for _, tt := range tests {
		b := make([]byte, 2)
		ckpt.PutFloat32(b, dtypes.Float16, []float32{tt.x})
		require.Equal(t, tt.want, binary.LittleEndian.Uint16(b), "%g", tt.x)
	}
}
