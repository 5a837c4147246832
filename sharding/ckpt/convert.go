package ckpt

import (
	"encoding/binary"
	"math"

	"github.com/gomlx/compute/dtypes"
)

// A kernel converts the elements of src into dst, little-endian both, and says whether dst got a NaN or
// an Inf. Narrowing rounds to nearest, ties to even; a NaN stays a NaN, and a number too large for the
// narrow type becomes Inf, which counts. Both slices hold the same number of whole elements.
type kernel func(dst, src []byte) (bad bool)

// kernels maps from and to. Absent pairs are not converted.
var kernels = map[dtypes.DType]map[dtypes.DType]kernel{
	dtypes.Float32:  {dtypes.Float32: sameF32, dtypes.BFloat16: f32ToBF16, dtypes.Float16: f32ToF16},
	dtypes.BFloat16: {dtypes.Float32: bf16ToF32, dtypes.BFloat16: sameBF16, dtypes.Float16: bf16ToF16},
	dtypes.Float16:  {dtypes.Float32: f16ToF32, dtypes.BFloat16: f16ToBF16, dtypes.Float16: sameF16},
}

// An exponent of all ones is the mark of NaN and Inf. Adding its lowest bit to the masked exponent
// carries into the sign bit exactly then, and never beyond, so one word tests all elements in it.
const (
	expF32, oneF32, signF32    = 0x7f800000_7f800000, 0x00800000_00800000, 0x80000000_80000000
	expBF16, oneBF16, signBF16 = 0x7f80_7f80_7f80_7f80, 0x0080_0080_0080_0080, 0x8000_8000_8000_8000
	expF16, oneF16, signF16    = 0x7c00_7c00_7c00_7c00, 0x0400_0400_0400_0400, signBF16
)

func sameF32(dst, src []byte) bool  { return same(dst, src, expF32, oneF32, signF32) }
func sameBF16(dst, src []byte) bool { return same(dst, src, expBF16, oneBF16, signBF16) }
func sameF16(dst, src []byte) bool  { return same(dst, src, expF16, oneF16, signF16) }

// same copies and tests. It works block by block, so that the test reads what the copy left in the cache.
func same(dst, src []byte, exp, one, sign uint64) bool {
	const block = 16 << 10
	acc := uint64(0)
	for len(src) > 0 {
		n := min(block, len(src))
		copy(dst[:n], src[:n])
		b := dst[:n]
		for len(b) >= 32 {
			acc |= binary.LittleEndian.Uint64(b[0:8])&exp + one
			acc |= binary.LittleEndian.Uint64(b[8:16])&exp + one
			acc |= binary.LittleEndian.Uint64(b[16:24])&exp + one
			acc |= binary.LittleEndian.Uint64(b[24:32])&exp + one
			b = b[32:]
		}
		if len(b) > 0 {
			var rest [32]byte
			copy(rest[:], b)
			for i := 0; i < 32; i += 8 {
				acc |= binary.LittleEndian.Uint64(rest[i:])&exp + one
			}
		}
		dst, src = dst[n:], src[n:]
	}
	return acc&sign != 0
}

// f32ToBF16 rounds two elements a step. A carry crosses from one to the other only where a NaN
// overflows, and blocks that hold one, or an Inf, or a number that became one, are done again slowly.
func f32ToBF16(dst, src []byte) (bad bool) {
	const block = 4 << 10
	for len(src) > 0 {
		n := min(block, len(src))
		in, out := src[:n], dst[:n/2]
		acc := uint64(0)
		for len(in) >= 8 && len(out) >= 4 { // the second holds with the first and spares bounds checks
			x := binary.LittleEndian.Uint64(in)
			y := x + 0x00007fff_00007fff + x>>16&0x00000001_00000001
			acc |= (x&expF32 + oneF32) | (y&expF32 + oneF32)
			binary.LittleEndian.PutUint32(out, uint32(y>>16&0xffff|y>>32&0xffff0000))
			in, out = in[8:], out[4:]
		}
		if acc&signF32 != 0 || len(in) > 0 {
			bad = each(dst[:n/2], src[:n], 2, 4, load32, storeBF16) || bad
		}
		dst, src = dst[n/2:], src[n:]
	}
	return bad
}

// bf16ToF32 widens four elements a step: a bfloat16 is the upper half of a float32.
func bf16ToF32(dst, src []byte) bool {
	acc := uint64(0)
	for len(src) >= 8 && len(dst) >= 16 { // the second holds with the first and spares bounds checks
		x := binary.LittleEndian.Uint64(src)
		acc |= x&expBF16 + oneBF16
		binary.LittleEndian.PutUint64(dst, x<<16&0xffff0000|x<<32&0xffff0000_00000000)
		binary.LittleEndian.PutUint64(dst[8:], x>>16&0xffff0000|x&0xffff0000_00000000)
		dst, src = dst[16:], src[8:]
	}
	return each(dst, src, 4, 2, loadBF16, store32) || acc&signBF16 != 0
}

func f32ToF16(dst, src []byte) bool  { return each(dst, src, 2, 4, load32, storeF16) }
func bf16ToF16(dst, src []byte) bool { return each(dst, src, 2, 2, loadBF16, storeF16) }
func f16ToBF16(dst, src []byte) bool { return each(dst, src, 2, 2, loadF16, storeBF16) }

// f16ToF32 is the common pair of the rarer type, spelled out so that nothing is called in the loop.
func f16ToF32(dst, src []byte) (bad bool) {
	for len(src) >= 2 {
		v := fromF16(binary.LittleEndian.Uint16(src))
		bad = bad || v&0x7f800000 == 0x7f800000
		binary.LittleEndian.PutUint32(dst, v)
		dst, src = dst[4:], src[2:]
	}
	return bad
}

// each converts one element a step, by way of the bits of a float32. store says whether it is NaN or Inf.
func each(dst, src []byte, to, from int, load func([]byte) uint32, store func([]byte, uint32) bool) (bad bool) {
	for len(src) >= from {
		bad = store(dst, load(src)) || bad
		dst, src = dst[to:], src[from:]
	}
	return bad
}

// PutFloat32 writes v into dst, little-endian and rounded to dtype, Float32, BFloat16 or Float16, to nearest
// with ties to even.
func PutFloat32(dst []byte, dtype dtypes.DType, v []float32) {
	store := store32
	switch dtype {
	case dtypes.BFloat16:
		store = storeBF16
	case dtypes.Float16:
		store = storeF16
	}
	size := int(dtype.Size())
	for i, x := range v {
		store(dst[size*i:], math.Float32bits(x))
	}
}

func load32(b []byte) uint32   { return binary.LittleEndian.Uint32(b) }
func loadBF16(b []byte) uint32 { return uint32(binary.LittleEndian.Uint16(b)) << 16 }
func loadF16(b []byte) uint32  { return fromF16(binary.LittleEndian.Uint16(b)) }

func store32(b []byte, v uint32) bool {
	binary.LittleEndian.PutUint32(b, v)
	return v&0x7f800000 == 0x7f800000
}

func storeBF16(b []byte, v uint32) bool {
	h := toBF16(v)
	binary.LittleEndian.PutUint16(b, h)
	return h&0x7f80 == 0x7f80
}

func storeF16(b []byte, v uint32) bool {
	h := toF16(v)
	binary.LittleEndian.PutUint16(b, h)
	return h&0x7c00 == 0x7c00
}

// toBF16 rounds the bits of a float32 to bfloat16, to nearest and ties to even. A NaN becomes quiet and
// keeps its sign and the upper part of its payload.
func toBF16(v uint32) uint16 {
	if v&0x7fffffff > 0x7f800000 {
		return uint16(v>>16) | 0x40
	}
	return uint16((v + 0x7fff + v>>16&1) >> 16)
}

// fromF16 widens IEEE half precision to the bits of a float32, exactly.
func fromF16(h uint16) uint32 {
	sign, low := uint32(h&0x8000)<<16, uint32(h&0x7fff)<<13
	switch h & 0x7c00 {
	case 0: // zero or subnormal: a multiple of 2^-24
		return sign | math.Float32bits(float32(h&0x3ff)*0x1p-24)
	case 0x7c00: // Inf, or NaN with its payload
		return sign | 0x7f800000 | low
	}
	return sign | (low + (127-15)<<23)
}

// toF16 rounds the bits of a float32 to IEEE half precision, to nearest and ties to even. A NaN becomes
// quiet and keeps its sign and the upper part of its payload.
func toF16(v uint32) uint16 {
	sign, v := uint16(v>>16&0x8000), v&0x7fffffff
	switch {
	case v > 0x7f800000:
		return sign | 0x7e00 | uint16(v>>13&0x3ff)
	case v >= 0x477ff000: // 65520 and above round to Inf
		return sign | 0x7c00
	case v < 0x38800000: // below 2^-14: subnormal, a multiple of 2^-24
		// Adding 0.5 leaves the multiple, rounded, in the lowest bits: there the unit is 2^-24.
		return sign | uint16(math.Float32bits(math.Float32frombits(v)+0.5)-math.Float32bits(0.5))
	}
	return sign | uint16((v+0xfff+v>>13&1-112<<23)>>13)
}
