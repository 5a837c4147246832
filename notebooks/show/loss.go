package show

import (
	"fmt"
	"math"
	"strings"
	"time"

	"mix/train/report"
)

// Loss is a report.Sink that draws the cross-entropy of every step, again and again while the run goes on.
type Loss struct {
	show  func(svg string) error
	vocab int
	drawn time.Time
	seen  []report.Step // a number each, without the load of experts
}

var _ report.Sink = (*Loss)(nil)

// NewLoss makes the plot of a run, an output of its own that is redrawn in place. A model that guesses has
// the natural logarithm of vocab, the number of tokens there are: a line marks it.
func NewLoss(vocab int) *Loss {
	name := fmt.Sprintf("loss-%d", time.Now().UnixNano())
	return &Loss{vocab: vocab, show: func(svg string) error { return Update(name, svg) }}
}

// redraw is the least time between two pictures: a page shows no more, and each costs a message.
const redraw = 250 * time.Millisecond

// Start implements report.Sink: it shows the empty plot.
func (l *Loss) Start(int, int) error { return l.show(l.SVG()) }

// Step implements report.Sink.
func (l *Loss) Step(s report.Step) error {
	s.Load = nil
	l.seen = append(l.seen, s)
	if s.Step < s.Steps && time.Since(l.drawn) < redraw {
		return nil
	}
	l.drawn = time.Now()
	return l.show(l.SVG())
}

// Eval and Saved implement report.Sink: the plot has no place for them.
func (l *Loss) Eval(report.Eval) error     { return nil }
func (l *Loss) Saved(int, float64, string) {}

// Close implements report.Sink: it shows the plot of all steps, also when the run ended before its last.
func (l *Loss) Close() error { return l.show(l.SVG()) }

// Sizes of the picture, in pixels.
const (
	plotWidth, plotHeight = 720, 320
	left, right           = 46, 12 // margins
	top, bottom           = 30, 36
)

// SVG draws what is known by now: each step in grey, a running mean over it. It needs no script, and takes
// the page's colour for text, so that it can be read on a dark page too.
func (l *Loss) SVG() string {
	steps := 1
	high := math.Log(float64(l.vocab)) // of the axis
	for _, s := range l.seen {
		steps = max(steps, s.Steps)
		if !math.IsNaN(s.CE) && !math.IsInf(s.CE, 0) {
			high = max(high, s.CE)
		}
	}
	high = math.Ceil(high)
	x := func(step int) float64 {
		return left + float64(step)/float64(steps)*(plotWidth-left-right)
	}
	y := func(nats float64) float64 {
		return plotHeight - bottom - nats/high*(plotHeight-top-bottom)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="mix-loss" viewBox="0 0 %d %d" width="%[1]d" style="max-width:100%%" font-family="sans-serif" font-size="12" fill="currentColor">`,
		plotWidth, plotHeight)
	fmt.Fprintf(&b, `<text x="%d" y="18" font-size="14">%s</text>`, left, l.headline())
	for nats := 0.0; nats <= high; nats++ {
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="currentColor" stroke-opacity=".15"/><text x="%d" y="%.1f" text-anchor="end">%g</text>`,
			left, y(nats), plotWidth-right, left-6, y(nats)+4, nats)
	}
	for i := range 5 {
		step := steps * i / 4
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%d</text>`, x(step), plotHeight-bottom+16, step)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">step</text>`, (left+plotWidth-right)/2, plotHeight-4)
	guess := y(math.Log(float64(l.vocab)))
	fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="currentColor" stroke-dasharray="4 4"/><text x="%d" y="%.1f" text-anchor="end">guessing among %d tokens</text>`,
		left, guess, plotWidth-right, plotWidth-right-4, guess+14, l.vocab)
	fmt.Fprintf(&b, `<path class="each" d="%s" fill="none" stroke="#888" stroke-opacity=".6"/>`, l.line(x, y, 1))
	fmt.Fprintf(&b, `<path class="mean" d="%s" fill="none" stroke="#d1495b" stroke-width="2.5"/>`, l.line(x, y, meanOver))
	b.WriteString(`</svg>`)
	return b.String()
}

// meanOver is how many steps the running mean is over.
const meanOver = 10

func (l *Loss) headline() string {
	if len(l.seen) == 0 {
		return "compiling: the first step comes after it"
	}
	s := l.seen[len(l.seen)-1]
	return fmt.Sprintf("step %d of %d: %.2f nats a token, %.0f tokens a second", s.Step, s.Steps, l.mean(len(l.seen)-1, meanOver), s.TokensPerSecond)
}

// mean is that of the losses up to the ith over at most n steps; those that are no number do not count.
func (l *Loss) mean(i, n int) float64 {
	sum, count := 0.0, 0.0
	for _, s := range l.seen[max(0, i-n+1) : i+1] {
		if !math.IsNaN(s.CE) && !math.IsInf(s.CE, 0) {
			sum, count = sum+s.CE, count+1
		}
	}
	return sum / count
}

// line is the path through the means over n steps, with a gap where there is none.
func (l *Loss) line(x func(int) float64, y func(float64) float64, n int) string {
	var b strings.Builder
	move := "M"
	for i, s := range l.seen {
		m := l.mean(i, n)
		if math.IsNaN(m) {
			move = "M"
			continue
		}
		fmt.Fprintf(&b, "%s%.1f %.1f", move, x(s.Step), y(m))
		move = "L"
	}
	return b.String()
}
