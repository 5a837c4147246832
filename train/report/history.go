package report

import (
	"maps"
	"math"
	"slices"
)

// history is what the page shows of all steps, in bounded memory: curves in at most maxPoints bins,
// expert load in at most maxColumns, at most maxEvals evaluations. What it holds depends on the steps
// alone, not on where runs were interrupted.
type history struct {
	last    Step    // without Load, its speed smoothed
	first   int     // steps that were done before this process
	seconds float64 // of steps
	judging float64 // seconds of evaluations
	speed   speed
	ce      curve
	loss    curve
	aux     curve
	z       curve
	dropped curve
	lr      curve
	norm    curve
	rate    curve
	skips   map[int]int // step to updates skipped at it
	load    heat
	evals   []Eval
	save    int // step of the last checkpoint; 0 is none
}

const (
	maxPoints  = 1000
	maxColumns = 128
	maxEvals   = 1000
)

// start comes after the rows of an earlier run.
func (h *history) start(first, steps int) { h.first, h.last.Steps, h.save = first, steps, first }

// done is the number of steps that are known to be done.
func (h *history) done() int { return max(h.first, h.last.Step) }

// step gives the step back as it is shown to a person, with a smoothed speed.
func (h *history) step(s Step) Step {
	if s.Step < 1 {
		return s
	}
	s.TokensPerSecond, s.MFU = h.speed.step(s)
	h.load.add(s.Step, s.Load)
	h.ce.add(s.Step, s.CE)
	h.loss.add(s.Step, s.Loss)
	h.aux.add(s.Step, s.Aux)
	h.z.add(s.Step, s.Z)
	h.dropped.add(s.Step, s.Dropped)
	h.lr.add(s.Step, s.LR)
	h.norm.add(s.Step, s.GradNorm)
	h.rate.add(s.Step, s.TokensPerSecond)
	if !s.Good {
		h.skip(s.Step)
	}
	if !math.IsNaN(s.StepSeconds) {
		before := h.last.Step
		if before == 0 {
			before = h.first
		}
		h.seconds += s.StepSeconds * float64(max(1, s.Step-before)) // the steps between were not told of
	}
	if s.Steps == 0 {
		s.Steps = h.last.Steps // a row of the file does not say
	}
	h.last = s
	h.last.Load = nil
	return s
}

// skip counts by step, by the first step of a bin once there are many.
func (h *history) skip(step int) {
	if h.skips == nil {
		h.skips = map[int]int{}
	}
	h.skips[step]++
	if len(h.skips) > 4*maxPoints {
		h.skips = h.skipBins()
	}
}

// skipBins moves each count to the first step of its bin.
func (h *history) skipBins() map[int]int {
	bins := map[int]int{}
	for step, n := range h.skips {
		bins[(step-1)/h.ce.width*h.ce.width+1] += n
	}
	return bins
}

func (h *history) eval(e Eval) {
	if n := len(h.evals); n > 0 && h.evals[n-1].Step == e.Step {
		h.evals[n-1] = e // done again by a resumed run
		return
	}
	h.evals = append(h.evals, e)
	if !math.IsNaN(e.Seconds) {
		h.judging += e.Seconds
	}
	if len(h.evals) > maxEvals {
		h.thin()
	}
}

// thin drops every other evaluation, never the lowest or the last.
func (h *history) thin() {
	var kept []Eval
	lowest := h.lowest()
	for i, e := range h.evals {
		if i%2 == 0 || i == lowest || i == len(h.evals)-1 {
			kept = append(kept, e)
		}
	}
	h.evals = kept
}

// lowest is the index of the evaluation with the lowest loss, the first of equals; -1 when there is none.
func (h *history) lowest() int {
	at := -1
	for i, e := range h.evals {
		if !math.IsNaN(e.Loss) && (at < 0 || e.Loss < h.evals[at].Loss) {
			at = i
		}
	}
	return at
}

func (h *history) saved(step int) { h.save = step }

// clone is a copy that may be read while h goes on.
func (h *history) clone() *history {
	c := *h
	for _, v := range []*curve{&c.ce, &c.loss, &c.aux, &c.z, &c.dropped, &c.lr, &c.norm, &c.rate} {
		*v = v.clone()
	}
	c.skips = maps.Clone(h.skips)
	c.evals = slices.Clone(h.evals)
	c.load = h.load.clone()
	return &c
}

// curve is a series in bins of width steps: bin i has steps i·width+1 to (i+1)·width. When there are too
// many bins, two become one.
type curve struct {
	width         int
	count         []int32 // finite values
	sum, min, max []float64
}

// add counts v, unless it is no number.
func (c *curve) add(step int, v float64) {
	c.width = max(c.width, 1)
	for step > c.width*maxPoints {
		c.fold()
	}
	for i := (step - 1) / c.width; len(c.count) <= i; {
		c.count, c.sum = append(c.count, 0), append(c.sum, 0)
		c.min, c.max = append(c.min, math.Inf(1)), append(c.max, math.Inf(-1))
	}
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return
	}
	i := (step - 1) / c.width
	c.count[i]++
	c.sum[i] += v
	c.min[i], c.max[i] = min(c.min[i], v), max(c.max[i], v)
}

func (c *curve) fold() {
	c.width *= 2
	half := (len(c.count) + 1) / 2
	for i := range half {
		a, b := 2*i, min(2*i+1, len(c.count)-1)
		n, sum := c.count[a], c.sum[a]
		if b > a {
			n, sum = n+c.count[b], sum+c.sum[b]
		}
		c.count[i], c.sum[i] = n, sum
		c.min[i], c.max[i] = min(c.min[a], c.min[b]), max(c.max[a], c.max[b])
	}
	c.count, c.sum, c.min, c.max = c.count[:half], c.sum[:half], c.min[:half], c.max[:half]
}

// mean is NaN where a bin is empty.
func (c *curve) mean() []float64 {
	m := make([]float64, len(c.sum))
	for i := range m {
		m[i] = c.sum[i] / float64(c.count[i]) // 0/0 is NaN
	}
	return m
}

func (c *curve) clone() curve {
	return curve{c.width, slices.Clone(c.count), slices.Clone(c.sum), slices.Clone(c.min), slices.Clone(c.max)}
}

// zero tells whether no value was other than 0.
func (c *curve) zero() bool {
	for i := range c.count {
		if c.count[i] > 0 && (c.min[i] != 0 || c.max[i] != 0) {
			return false
		}
	}
	return true
}

// heat is expert load in columns of width steps, as in curve.
type heat struct {
	layers, experts int
	width           int
	count           []int32
	sum             [][]int64 // [column][layer·experts + expert], in shareUnits
}

// add counts the load of a step. The first step sets the sizes; a load of others is left out.
func (h *heat) add(step int, load [][]float64) {
	if len(load) == 0 || len(load[0]) == 0 {
		return
	}
	if h.layers == 0 {
		h.layers, h.experts, h.width = len(load), len(load[0]), 1
	}
	if len(load) != h.layers || slices.ContainsFunc(load, func(l []float64) bool { return len(l) != h.experts }) {
		return
	}
	for step > h.width*maxColumns {
		h.fold()
	}
	for len(h.count) <= (step-1)/h.width {
		h.count, h.sum = append(h.count, 0), append(h.sum, make([]int64, h.layers*h.experts))
	}
	i := (step - 1) / h.width
	h.count[i]++
	column := h.sum[i]
	for l, shares := range load {
		for e, share := range shares {
			if share >= 0 && share <= 1 { // no NaN
				column[l*h.experts+e] += int64(math.Round(share * shareUnits))
			}
		}
	}
}

func (h *heat) fold() {
	h.width *= 2
	half := (len(h.count) + 1) / 2
	for i := range half {
		a, b := 2*i, 2*i+1
		n, column := h.count[a], h.sum[a]
		if b < len(h.count) {
			n += h.count[b]
			for j, v := range h.sum[b] {
				column[j] += v
			}
		}
		h.count[i], h.sum[i] = n, column
	}
	h.count, h.sum = h.count[:half], h.sum[:half]
}

func (h *heat) clone() heat {
	c := *h
	c.count = slices.Clone(h.count)
	c.sum = make([][]int64, len(h.sum))
	for i, column := range h.sum {
		c.sum[i] = slices.Clone(column)
	}
	return c
}

// balance is the busiest expert's share over the mean share: 1 is even.
func balance(load []float64) float64 {
	if len(load) == 0 {
		return math.NaN()
	}
	total := 0.0
	for _, share := range load {
		total += share
	}
	return slices.Max(load) * float64(len(load)) / total
}

// meanBalance is the mean of balance over layers, NaN when there are none.
func meanBalance(load [][]float64) float64 {
	total := 0.0
	for _, layer := range load {
		total += balance(layer)
	}
	return total / float64(len(load)) // 0/0 is NaN
}
