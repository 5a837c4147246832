package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
)

// lengths is a distribution of numbers of tokens, each at least 1.
type lengths struct {
	text string
	kind string // fixed, uniform, normal, exp
	a, b float64
}

// longest is more tokens than any context has.
const longest = 1 << 24

// UnmarshalText reads N, MIN-MAX, normal:MEAN,SD or exp:MEAN.
func (l *lengths) UnmarshalText(text []byte) error {
	s := string(text)
	kind, rest, named := strings.Cut(s, ":")
	sep := ","
	if !named {
		kind, rest, sep = "fixed", s, "-"
		if strings.Contains(s, sep) {
			kind = "uniform"
		}
	}
	parts := strings.Split(rest, sep)
	want, known := map[string]int{"fixed": 1, "uniform": 2, "normal": 2, "exp": 1}[kind]
	var numbers [2]float64
	ok := known && len(parts) == want && (!named || kind != "fixed" && kind != "uniform")
	for i := 0; ok && i < len(parts); i++ {
		var err error
		if named {
			numbers[i], err = strconv.ParseFloat(parts[i], 64)
		} else {
			var n int
			n, err = strconv.Atoi(parts[i])
			numbers[i] = float64(n)
		}
		low := 1.
		if kind == "normal" && i == 1 {
			low = 0
		}
		ok = err == nil && numbers[i] >= low && numbers[i] <= longest
	}
	if !ok || kind == "uniform" && numbers[0] > numbers[1] {
		return fmt.Errorf("lengths are %q, want N, MIN-MAX, normal:MEAN,SD or exp:MEAN, with at least 1 token", s)
	}
	*l = lengths{s, kind, numbers[0], numbers[1]}
	return nil
}

func (l lengths) String() string { return l.text }

// draw takes a length.
func (l lengths) draw(r *rand.Rand) int {
	x := l.a
	switch l.kind {
	case "uniform":
		return int(l.a) + r.IntN(int(l.b-l.a)+1)
	case "normal":
		x += l.b * r.NormFloat64()
	case "exp":
		x *= r.ExpFloat64()
	}
	return int(math.Round(min(max(x, 1), longest)))
}
