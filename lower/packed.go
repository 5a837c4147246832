package lower

import "github.com/gomlx/compute/dtypes"

// GoMLX keeps elements of 2 and 4 bits several to a byte, the lowest bits first; PJRT takes and gives
// one a byte.

// unpack spreads n packed elements over a byte each, signed ones with their sign.
func unpack(t dtypes.DType, packed []byte, n int) []byte {
	bits, signed := t.Bits(), !t.IsUnsigned()
	out := make([]byte, n)
	for i := range out {
		v := packed[i*bits/8] >> (i * bits % 8) & (1<<bits - 1)
		if signed && v>>(bits-1) == 1 {
			v |= 0xff << bits
		}
		out[i] = v
	}
	return out
}

// pack is the reverse; dst holds exactly the packed size.
func pack(t dtypes.DType, one []byte, dst []byte) {
	bits := t.Bits()
	clear(dst)
	for i, v := range one {
		dst[i*bits/8] |= v & (1<<bits - 1) << (i * bits % 8)
	}
}
