package grammar

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// bound is one end of a range of numbers.
type bound struct {
	value     *big.Rat
	exclusive bool
}

// maxExponent bounds the numbers that limits may have.
const maxExponent = 30

// readBound reads a number of JSON.
func readBound(text string, exclusive bool) (*bound, error) {
	mantissa, exp, _ := strings.Cut(strings.ToLower(text), "e")
	e := 0
	if exp != "" {
		var err error
		if e, err = strconv.Atoi(exp); err != nil || e > maxExponent || e < -maxExponent {
			return nil, fmt.Errorf("%.40s, want an exponent of -%d to %d", text, maxExponent, maxExponent)
		}
	}
	if len(mantissa) > maxExponent {
		return nil, fmt.Errorf("%.40s, want at most %d digits", text, maxExponent)
	}
	v, ok := new(big.Rat).SetString(text)
	if !ok {
		return nil, fmt.Errorf("%.40s is no number", text)
	}
	return &bound{v, exclusive}, nil
}

// tighter returns the bound that leaves less: the larger of two lower ones, the smaller of two upper ones.
func tighter(a, b *bound, lower bool) *bound {
	if a == nil || b == nil {
		if a == nil {
			return b
		}
		return a
	}
	c := a.value.Cmp(b.value)
	if !lower {
		c = -c
	}
	if c < 0 || c == 0 && b.exclusive {
		return b
	}
	return a
}

// holds tells whether a number is between the bounds, of which each may be nil.
func holds(v *big.Rat, lo, hi *bound) bool {
	if lo != nil {
		if c := v.Cmp(lo.value); c < 0 || c == 0 && lo.exclusive {
			return false
		}
	}
	if hi != nil {
		if c := v.Cmp(hi.value); c > 0 || c == 0 && hi.exclusive {
			return false
		}
	}
	return true
}

// integers matches the integers between bounds; without one, those of 64 bits, or up to ten times the
// other bound.
func integers(lo, hi *bound) *expr {
	least, most := big.NewInt(-1<<63), new(big.Int).SetUint64(1<<63-1)
	one := big.NewInt(1)
	if lo != nil {
		least = floor(lo.value)
		if v := new(big.Rat).SetInt(least); v.Cmp(lo.value) < 0 || lo.exclusive {
			least.Add(least, one)
		}
	}
	if hi != nil {
		most = floor(hi.value)
		if hi.exclusive && hi.value.IsInt() {
			most.Sub(most, one)
		}
	}
	ten := big.NewInt(10)
	if hi == nil && least.Cmp(most) > 0 {
		most = new(big.Int).Mul(least, ten)
	}
	if lo == nil && least.Cmp(most) > 0 {
		least = new(big.Int).Mul(most, ten)
	}
	var subs []*expr
	if most.Sign() >= 0 && least.Cmp(most) <= 0 {
		from := least
		if from.Sign() < 0 {
			from = new(big.Int)
		}
		subs = append(subs, digitsBetween(from, most))
	}
	if least.Sign() < 0 && least.Cmp(most) <= 0 {
		from := big.NewInt(1)
		if most.Sign() < 0 {
			from = new(big.Int).Neg(most)
		}
		subs = append(subs, seq(text("-"), digitsBetween(from, new(big.Int).Neg(least))))
	}
	return alt(subs...)
}

func floor(v *big.Rat) *big.Int {
	// Div rounds down for a positive divisor, as denominators are.
	return new(big.Int).Div(v.Num(), v.Denom())
}

// digitsBetween matches the integers from lo to hi, both at least 0.
func digitsBetween(lo, hi *big.Int) *expr {
	if lo.Cmp(hi) > 0 {
		return none
	}
	a, b := lo.String(), hi.String()
	var subs []*expr
	for n := len(a); n <= len(b); n++ {
		from, to := "1"+strings.Repeat("0", n-1), strings.Repeat("9", n)
		if n == len(a) {
			from = a
		}
		if n == len(b) {
			to = b
		}
		subs = append(subs, sameLength(from, to))
	}
	return alt(subs...)
}

func anyDigits(n int) *expr { return repeat(digit, n, n) }

// sameLength matches the digits from a to b, which have one length.
func sameLength(a, b string) *expr {
	switch {
	case a == "":
		return empty
	case strings.Trim(a, "0") == "" && strings.Trim(b, "9") == "":
		return anyDigits(len(a))
	case a[0] == b[0]:
		return seq(text(a[:1]), sameLength(a[1:], b[1:]))
	}
	n := len(a) - 1
	return alt(
		seq(text(a[:1]), sameLength(a[1:], strings.Repeat("9", n))),
		seq(class(rune(a[0])+1, rune(b[0])-1), anyDigits(n)),
		seq(text(b[:1]), sameLength(strings.Repeat("0", n), b[1:])),
	)
}

// decimals matches the numbers between bounds, written without exponent.
func decimals(lo, hi *bound) *expr {
	zero := &bound{value: new(big.Rat)}
	var subs []*expr
	if hi == nil || hi.value.Sign() >= 0 {
		subs = append(subs, magnitudes(tighter(lo, zero, true), hi))
	}
	if lo == nil || lo.value.Sign() < 0 {
		positive := &bound{zero.value, true}
		if hi != nil && hi.value.Sign() < 0 {
			positive = negate(hi)
		}
		subs = append(subs, seq(text("-"), magnitudes(positive, negate(lo))))
	}
	return alt(subs...)
}

func negate(b *bound) *bound {
	if b == nil {
		return nil
	}
	return &bound{new(big.Rat).Neg(b.value), b.exclusive}
}

// magnitudes matches the numbers from lo, at least 0, to hi, or without bound if hi is nil.
func magnitudes(lo, hi *bound) *expr {
	low, m := split(lo.value)
	if hi == nil {
		nines, _ := new(big.Int).SetString(strings.Repeat("9", mostDigits), 10)
		hi = &bound{value: new(big.Rat).SetInt(nines)}
	}
	if lo.value.Cmp(hi.value) > 0 {
		return none
	}
	high, n := split(hi.value)
	if low.Cmp(high) == 0 {
		width := max(len(m), len(n))
		pad := func(s string) string { return s + strings.Repeat("0", width-len(s)) }
		return seq(text(low.String()), afterPoint(between(pad(m), pad(n), lo.exclusive, hi.exclusive)))
	}
	one := big.NewInt(1)
	return alt(
		seq(text(low.String()), afterPoint(above(m, lo.exclusive))),
		seq(digitsBetween(new(big.Int).Add(low, one), new(big.Int).Sub(high, one)), optional(fraction)),
		seq(text(high.String()), afterPoint(below(n, hi.exclusive))),
	)
}

// split returns the integer and the digits after the point, without zeros at their end.
func split(v *big.Rat) (*big.Int, string) {
	whole := floor(v)
	_, digits, _ := strings.Cut(v.FloatString(2*maxExponent), ".")
	return whole, strings.TrimRight(digits, "0")
}

// afterPoint puts the point before digits, if there are any.
func afterPoint(digits *expr) *expr {
	var r rules
	if r.nullable(digits) {
		return optional(seq(text("."), r.fill(digits)))
	}
	return seq(text("."), digits)
}

var (
	moreDigits = repeat(digit, 0, mostFraction)
	zeros      = repeat(text("0"), 0, mostFraction)
	notZero    = seq(zeros, class('1', '9'), moreDigits)
)

// above matches digits after a point that are at least m, or more if exclusive.
func above(m string, exclusive bool) *expr {
	if m == "" {
		if exclusive {
			return notZero
		}
		return moreDigits
	}
	return alt(seq(class(rune(m[0])+1, '9'), moreDigits), seq(text(m[:1]), above(m[1:], exclusive)))
}

// below matches digits after a point that are at most n, or less if exclusive.
func below(n string, exclusive bool) *expr {
	if n == "" {
		if exclusive {
			return none
		}
		return zeros
	}
	return alt(empty, seq(class('0', rune(n[0])-1), moreDigits), seq(text(n[:1]), below(n[1:], exclusive)))
}

// between matches digits after a point from m to n, which have one length.
func between(m, n string, above0, below0 bool) *expr {
	if m == "" {
		if above0 || below0 {
			return none
		}
		return zeros
	}
	var subs []*expr
	if strings.Trim(m, "0") == "" && !above0 && (!below0 || strings.Trim(n, "0") != "") {
		subs = append(subs, empty)
	}
	if m[0] == n[0] {
		return alt(append(subs, seq(text(m[:1]), between(m[1:], n[1:], above0, below0)))...)
	}
	return alt(append(subs,
		seq(text(m[:1]), above(strings.TrimRight(m[1:], "0"), above0)),
		seq(class(rune(m[0])+1, rune(n[0])-1), moreDigits),
		seq(text(n[:1]), below(strings.TrimRight(n[1:], "0"), below0)),
	)...)
}
