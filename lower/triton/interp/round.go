package interp

import (
	"math"

	"mix/lower/triton"
)

// Round is the value of type e nearest to x, of two the one with an even mantissa. To f8 it saturates, as the
// GPU's conversion does; f16 and bf16 overflow to infinity.
func Round(e triton.Elem, x float32) float32 {
	switch e {
	case triton.BF16:
		return round(x, 7, -126, math.Inf(1), math.Inf(1))
	case triton.F16:
		return round(x, 10, -14, 65520, math.Inf(1))
	case triton.F8:
		return round(x, 3, -6, 448, 448)
	}
	return x
}

// round keeps the given bits of mantissa of numbers from 2^least on, and fewer below. Magnitudes from limit on
// become over.
func round(x float32, mantissa, least int, limit, over float64) float32 {
	v := math.Abs(float64(x))
	if v != v || v == 0 {
		return x
	}
	if v >= limit {
		v = over
	} else if !math.IsInf(v, 1) {
		_, e := math.Frexp(v) // v in [2^(e-1), 2^e)
		unit := math.Ldexp(1, max(e-1, least)-mantissa)
		v = math.RoundToEven(v/unit) * unit
		if mantissa == 7 && v > math.MaxFloat32 {
			v = over
		}
	}
	return float32(math.Copysign(v, float64(x)))
}

// wrap keeps the bits that e has.
func wrap(e triton.Elem, x int64) int64 {
	switch e {
	case triton.I1:
		return x & 1
	case triton.I32:
		return int64(int32(x))
	}
	return x
}
