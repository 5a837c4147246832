package ckpt

import (
	"encoding/binary"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"
)

// small is a floating-point type of 16 bits, described by its widths alone.
type small struct{ exponent, mantissa int }

var smalls = map[dtypes.DType]small{dtypes.BFloat16: {8, 7}, dtypes.Float16: {5, 10}}

// value is the number that h stands for, by the definition of IEEE 754.
func (s small) value(h uint16) float64 {
	sign := 1.0
	if h&0x8000 != 0 {
		sign = -1
	}
	e, m := int(h>>s.mantissa)&(1<<s.exponent-1), int(h)&(1<<s.mantissa-1)
	bias := 1<<(s.exponent-1) - 1
	switch {
	case e == 1<<s.exponent-1 && m != 0:
		return math.NaN()
	case e == 1<<s.exponent-1:
		return math.Inf(int(sign))
	case e == 0:
		return sign * math.Ldexp(float64(m), 1-bias-s.mantissa)
	}
	return sign * math.Ldexp(float64(m|1<<s.mantissa), e-bias-s.mantissa)
}

// nearest rounds to the closest value of s by looking at both neighbours, ties to the even one. The sum of
// two neighbours is exact in big.Float, so the tie is too.
func (s small) nearest(v float64) uint16 {
	sign := uint16(0)
	if math.Signbit(v) {
		sign, v = 0x8000, -v
	}
	top := uint16(1<<s.exponent-1) << s.mantissa // Inf; as a number it is the next power of two
	lo, hi := uint16(0), top
	for hi-lo > 1 {
		mid := lo + (hi-lo)/2
		if s.value(mid) <= v {
			lo = mid
		} else {
			hi = mid
		}
	}
	next := s.value(hi)
	if hi == top {
		next = math.Ldexp(1, 1<<(s.exponent-1))
	}
	sum := new(big.Float).SetPrec(2000).Add(big.NewFloat(s.value(lo)), big.NewFloat(next))
	twice := new(big.Float).SetPrec(2000).Mul(big.NewFloat(v), big.NewFloat(2))
	switch c := twice.Cmp(sum); {
	case c < 0 || c == 0 && lo%2 == 0:
		return sign | lo
	}
	return sign | hi
}

func TestWideningIsExact(t *testing.T) {
	for from, s := range smalls {
		src := make([]byte, 2<<16)
		for h := range 1 << 16 {
			binary.LittleEndian.PutUint16(src[2*h:], uint16(h))
		}
		dst := make([]byte, 4<<16)
		require.True(t, kernels[from][dtypes.Float32](dst, src))
		for h := range 1 << 16 {
			got, want := math.Float32frombits(binary.LittleEndian.Uint32(dst[4*h:])), s.value(uint16(h))
			if math.IsNaN(want) {
				require.True(t, math.IsNaN(float64(got)), "%s %#04x", from, h)
			} else {
				require.Equal(t, math.Float64bits(want), math.Float64bits(float64(got)), "%s %#04x", from, h)
			}
			bad := kernels[from][dtypes.Float32](dst[4*h:4*h+4], src[2*h:2*h+2])
			require.Equal(t, math.IsNaN(want) || math.IsInf(want, 0), bad, "%s %#04x", from, h)
		}
	}
}

// hard is float32 values around every way to round: each 16-bit value of both types, its neighbours in
// float32, halfway points and theirs, the extremes, and random bits.
func hard() (list []uint32) {
	for _, s := range smalls {
		for h := 0; h < 1<<16; h += 7 {
			v, w := s.value(uint16(h)), s.value(uint16(h+1))
			for _, x := range []float64{v, (v + w) / 2} {
				b := math.Float32bits(float32(x))
				list = append(list, b-1, b, b+1)
			}
		}
	}
	list = append(list, 0, 1<<31, 1, 0x007fffff, 0x00800000, 0x7f7fffff, 0x7f7f8000, 0x7f7f7fff, 0x7f800000, 0xff800000,
		0x7f800001, 0x7fffffff, 0xffffffff, 0x7fc00000, 0x477fefff, 0x477ff000, 0x33000000, 0x33000001, 0x387fffff)
	r := rand.New(rand.NewPCG(3, 4))
	for range 20000 {
		list = append(list, r.Uint32())
	}
	return list
}

func TestNarrowingRoundsToNearestEven(t *testing.T) {
	list := hard()
	src := make([]byte, 4*len(list))
	for i, v := range list {
		binary.LittleEndian.PutUint32(src[4*i:], v)
	}
	for to, s := range smalls {
		dst := make([]byte, 2*len(list))
		convert := kernels[dtypes.Float32][to]
		require.True(t, convert(dst, src))
		alone := make([]byte, 2)
		for i, bits := range list {
			v := float64(math.Float32frombits(bits))
			got := binary.LittleEndian.Uint16(dst[2*i:])
			bad := convert(alone, src[4*i:4*i+4])
			require.Equal(t, got, binary.LittleEndian.Uint16(alone), "%s %#08x alone", to, bits)
			if math.IsNaN(v) {
				require.True(t, math.IsNaN(s.value(got)) && bad, "%s %#08x gave %#04x", to, bits, got)
				require.Equal(t, math.Signbit(v), got&0x8000 != 0)
				continue
			}
			require.Equal(t, s.nearest(v), got, "%s %#08x", to, bits)
			require.Equal(t, math.IsInf(s.value(got), 0), bad, "%s %#08x", to, bits)
		}
	}
}

func TestBetweenTheSmallTypesIsByWayOfFloat32(t *testing.T) {
	src := make([]byte, 2<<16)
	for h := range 1 << 16 {
		binary.LittleEndian.PutUint16(src[2*h:], uint16(h))
	}
	for _, pair := range [][2]dtypes.DType{{dtypes.BFloat16, dtypes.Float16}, {dtypes.Float16, dtypes.BFloat16}} {
		wide, want, got := make([]byte, 4<<16), make([]byte, 2<<16), make([]byte, 2<<16)
		kernels[pair[0]][dtypes.Float32](wide, src)
		kernels[dtypes.Float32][pair[1]](want, wide)
		require.True(t, kernels[pair[0]][pair[1]](got, src))
		require.Equal(t, want, got)
	}
}

func TestCopyFindsOneBadElementAnywhere(t *testing.T) {
	marks := map[dtypes.DType][]uint32{
		dtypes.Float32:  {0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001},
		dtypes.BFloat16: {0x7f80, 0xff80, 0x7fc0, 0x7f81},
		dtypes.Float16:  {0x7c00, 0xfc00, 0x7e00, 0x7c01},
	}
	largest := map[dtypes.DType]uint32{dtypes.Float32: 0xff7fffff, dtypes.BFloat16: 0xff7f, dtypes.Float16: 0xfbff}
	for dtype, bits := range marks {
		width := bytesOf(dtype)
		put := func(b []byte, v uint32) {
			if width == 4 {
				binary.LittleEndian.PutUint32(b, v)
			} else {
				binary.LittleEndian.PutUint16(b, uint16(v))
			}
		}
		for n := 1; n < 40; n++ {
			src, dst := make([]byte, n*width), make([]byte, n*width)
			for i := range n {
				put(src[i*width:], largest[dtype])
			}
			require.False(t, kernels[dtype][dtype](dst, src))
			require.Equal(t, src, dst)
			for i := range n {
				put(src[i*width:], bits[i%len(bits)])
				require.True(t, kernels[dtype][dtype](dst, src), "%s: %d of %d", dtype, i, n)
				require.Equal(t, src, dst)
				put(src[i*width:], largest[dtype])
			}
		}
	}
}

func BenchmarkConvert(b *testing.B) {
	const n = 1 << 18
	for _, pair := range [][2]dtypes.DType{
		{dtypes.BFloat16, dtypes.BFloat16}, {dtypes.BFloat16, dtypes.Float32}, {dtypes.Float32, dtypes.BFloat16},
		{dtypes.Float16, dtypes.Float32}, {dtypes.Float16, dtypes.BFloat16}, {dtypes.Float32, dtypes.Float16},
	} {
		b.Run(pair[0].String()+"→"+pair[1].String(), func(b *testing.B) {
			src, dst := make([]byte, n*bytesOf(pair[0])), make([]byte, n*bytesOf(pair[1]))
			for i := range src {
				src[i] = byte(i*7) & 0x3f
			}
			b.SetBytes(int64(len(src)))
			for b.Loop() {
				kernels[pair[0]][pair[1]](dst, src)
			}
		})
	}
}
