package data

import "math/bits"

// randomState is numpy's RandomState: MT19937, seeded by one word.
//
// Source: Matsumoto and Nishimura 1998; numpy, random/src/mt19937 and random/src/legacy.
type randomState struct {
	words [624]uint32
	next  int
}

func newRandomState(seed uint32) *randomState {
	r := &randomState{next: len(randomState{}.words)}
	r.words[0] = seed
	for i := 1; i < len(r.words); i++ {
		before := r.words[i-1]
		r.words[i] = 1812433253*(before^before>>30) + uint32(i)
	}
	return r
}

func (r *randomState) uint32() uint32 {
	n := len(r.words)
	if r.next == n {
		for k := range n {
			y := r.words[k]&0x80000000 | r.words[(k+1)%n]&0x7fffffff
			r.words[k] = r.words[(k+397)%n] ^ y>>1 ^ y&1*0x9908b0df
		}
		r.next = 0
	}
	y := r.words[r.next]
	r.next++
	y ^= y >> 11
	y ^= y << 7 & 0x9d2c5680
	y ^= y << 15 & 0xefc60000
	return y ^ y>>18
}

// upTo draws from 0 to most, both included, by masking and rejection.
func (r *randomState) upTo(most uint32) uint32 {
	if most == 0 {
		return 0
	}
	mask := uint32(1)<<bits.Len32(most) - 1
	for {
		if v := r.uint32() & mask; v <= most {
			return v
		}
	}
}

// shuffle is RandomState.shuffle of an array; len(a) is below 2³².
func shuffle[T any](r *randomState, a []T) {
	for i := len(a) - 1; i > 0; i-- {
		j := r.upTo(uint32(i))
		a[i], a[j] = a[j], a[i]
	}
}

// generator is numpy's default_rng: PCG64, seeded through a SeedSequence of one word.
//
// Source: O'Neill 2014, PCG; numpy, random/src/pcg64 and random/bit_generator.pyx.
type generator struct {
	hi, lo, incHi, incLo uint64
	half                 uint32 // the upper half of a draw that gave its lower half
	kept                 bool
}

func newGenerator(seed uint32) *generator {
	s := seedSequence(seed)
	g := &generator{incHi: s[2]<<1 | s[3]>>63, incLo: s[3]<<1 | 1}
	g.step()
	var carry uint64
	g.lo, carry = bits.Add64(g.lo, s[1], 0)
	g.hi, _ = bits.Add64(g.hi, s[0], carry)
	g.step()
	return g
}

func (g *generator) step() {
	const mulHi, mulLo = 2549297995355413924, 4865540595714422341
	hi, lo := bits.Mul64(g.lo, mulLo)
	hi += g.hi*mulLo + g.lo*mulHi
	var carry uint64
	g.lo, carry = bits.Add64(lo, g.incLo, 0)
	g.hi, _ = bits.Add64(hi, g.incHi, carry)
}

func (g *generator) uint32() uint32 {
	if g.kept {
		g.kept = false
		return g.half
	}
	g.step()
	v := bits.RotateLeft64(g.hi^g.lo, -int(g.hi>>58))
	g.half, g.kept = uint32(v>>32), true
	return uint32(v)
}

// below draws from 0 to n-1 by Lemire's multiplication.
func (g *generator) below(n uint32) uint32 {
	m := uint64(g.uint32()) * uint64(n)
	if uint32(m) < n {
		for least := -n % n; uint32(m) < least; {
			m = uint64(g.uint32()) * uint64(n)
		}
	}
	return uint32(m >> 32)
}

// seedSequence spreads a seed over 256 bits, the state and the increment of PCG64, high words first.
func seedSequence(seed uint32) (out [4]uint64) {
	constant := uint32(0x43b0d7e5)
	mix := func(v uint32) uint32 {
		v ^= constant
		constant *= 0x931e8875
		v *= constant
		return v ^ v>>16
	}
	pool := [4]uint32{mix(seed)}
	for i := 1; i < len(pool); i++ {
		pool[i] = mix(0)
	}
	for from := range pool {
		for to := range pool {
			if from != to {
				v := 0xca01f9dd*pool[to] - 0x4973f715*mix(pool[from])
				pool[to] = v ^ v>>16
			}
		}
	}
	constant = 0x8b51f9dd
	for i := range 2 * len(out) {
		v := pool[i%len(pool)] ^ constant
		constant *= 0x58f38ded
		v *= constant
		v ^= v >> 16
		out[i/2] |= uint64(v) << (32 * (i % 2))
	}
	return out
}
