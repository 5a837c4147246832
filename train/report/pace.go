package report

import (
	"fmt"
	"math"
	"time"
)

// pace predicts the time that is left from a moving average of the seconds of a step and from what
// evaluations have added a step.
type pace struct {
	told    int // steps that it was told of
	begin   int // step before the first of these
	last    int
	average float64 // weighted sum of the seconds of steps
	weight  float64 // sum of the weights
	paused  float64 // seconds of evaluations
}

// forget is the weight of a step in the average of the next.
const forget = 0.95

func (p *pace) step(step int, seconds float64) {
	if p.told == 0 {
		p.begin = step - 1
	}
	p.last = step
	if math.IsNaN(seconds) || seconds < 0 {
		return
	}
	// The first step of a process may hold a compilation. It counts until there is another.
	if p.told++; p.told == 2 {
		p.average, p.weight = 0, 0
	}
	p.average = forget*p.average + (1-forget)*seconds
	p.weight = forget*p.weight + (1 - forget)
}

func (p *pace) pause(seconds float64) {
	if seconds > 0 {
		p.paused += seconds
	}
}

// left is how long so many steps take; negative when nothing is known.
func (p *pace) left(steps int) time.Duration {
	if p.weight == 0 || steps < 0 {
		return -1
	}
	seconds := float64(steps) * (p.average/p.weight + p.paused/float64(max(1, p.last-p.begin)))
	if seconds > math.MaxInt64/1e9 {
		return math.MaxInt64
	}
	return time.Duration(seconds * 1e9)
}

// span is a time for people: 0.8s, 45s, 12m30s, 3h05m, 2d04h.
func span(seconds float64) string {
	switch s := int64(math.Round(seconds)); {
	case math.IsNaN(seconds) || seconds < 0:
		return "–"
	case seconds < 9.95:
		return fmt.Sprintf("%.1fs", seconds)
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 24*3600:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	default:
		return fmt.Sprintf("%dd%02dh", s/86400, s/3600%24)
	}
}
