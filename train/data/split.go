package data

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Split is how sequences are shared out to training, validation and test: the fraction where each
// begins and ends. A part of weight 0 is empty.
type Split [3][2]float64

// The parts of a Split.
const (
	Train = iota
	Valid
	Test
)

var partNames = [...]string{"train", "valid", "test"}

// ParseSplit reads weights as in "969,30,1", one to three of them.
//
// Source: Megatron-LM, core/datasets/blended_megatron_dataset_config.py.
func ParseSplit(text string) (Split, error) {
	var s Split
	fields := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == '/' || r == ' ' })
	if len(fields) < 1 || len(fields) > 3 {
		return s, fmt.Errorf("split %q: %d weights, want 1 to 3", text, len(fields))
	}
	var weights [3]float64
	sum := 0.0
	for i, f := range fields {
		w, err := strconv.ParseFloat(f, 64)
		if err != nil || !(w >= 0) || math.IsInf(w, 0) {
			return s, fmt.Errorf("split %q: weight %q, want a number of at least 0", text, f)
		}
		weights[i] = w
		sum += w
	}
	if !(sum > 0) || math.IsInf(sum, 0) {
		return s, fmt.Errorf("split %q: the weights sum to %g, want more than 0", text, sum)
	}
	at := 0.0
	for i, w := range weights {
		next := at + w/sum
		if w > 0 {
			s[i] = [2]float64{at, next}
		}
		at = next
	}
	return s, nil
}

// Bounds returns the sequences [begin, end) of n that belong to a part. Halves are rounded to even.
func (s Split) Bounds(part, n int) (begin, end int) {
	at := func(fraction float64) int { return min(n, int(math.RoundToEven(fraction*float64(n)))) }
	return at(s[part][0]), at(s[part][1])
}

// Share is Bounds that refuses an empty part, with the counts of all three.
func (s Split) Share(part, n int) (begin, end int, err error) {
	begin, end = s.Bounds(part, n)
	if begin < end {
		return begin, end, nil
	}
	var counts []string
	for p, name := range partNames {
		b, e := s.Bounds(p, n)
		counts = append(counts, fmt.Sprintf("%s %d", name, e-b))
	}
	return 0, 0, fmt.Errorf("split %s is empty: of %d sequences %s", partNames[part], n, strings.Join(counts, ", "))
}
