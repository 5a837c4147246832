package train

import (
	"fmt"
	"math"
)

// Decay names the shape of a learning rate after warmup.
type Decay string

// Decays.
const (
	Constant Decay = "constant"
	Linear   Decay = "linear"
	Cosine   Decay = "cosine"
	WSD      Decay = "wsd" // warmup, stable, decay: constant, then linear over the last Tail steps
)

// Schedule is the learning rate as a function of the step: a linear warmup from 0, then a decay from Peak
// to Floor that ends at step End.
type Schedule struct {
	Peak, Floor float64
	Decay       Decay
	Warmup      int // steps of warmup
	End         int // steps until Floor is reached; not of Constant
	Tail        int // steps of WSD's decay
}

// Validate names the first value that is out of bounds.
func (s Schedule) Validate() error {
	switch {
	case !(s.Peak > 0) || math.IsInf(s.Peak, 0):
		return fmt.Errorf("learning rate is %g, want a positive number", s.Peak)
	case !(s.Floor >= 0) || s.Floor > s.Peak:
		return fmt.Errorf("least learning rate is %g, want 0 to %g", s.Floor, s.Peak)
	case s.Warmup < 0:
		return fmt.Errorf("warmup is %d steps, want at least 0", s.Warmup)
	case s.Decay != Constant && s.Decay != Linear && s.Decay != Cosine && s.Decay != WSD:
		return fmt.Errorf("decay is %q, want %s, %s, %s or %s", s.Decay, Constant, Linear, Cosine, WSD)
	case s.Decay != Constant && s.End <= s.Warmup:
		return fmt.Errorf("decay ends at step %d, want after the %d of warmup", s.End, s.Warmup)
	case s.Decay == WSD && (s.Tail < 1 || s.Tail > s.End-s.Warmup):
		return fmt.Errorf("decay takes %d steps, want 1 to %d", s.Tail, s.End-s.Warmup)
	}
	return nil
}

// At is the learning rate of the step that follows n completed ones, as Megatron's OptimizerParamScheduler
// has it: during warmup n/Warmup of Peak, so that the first step runs at 0.
func (s Schedule) At(n int) float64 {
	switch {
	case n < s.Warmup:
		return s.Peak * float64(n) / float64(s.Warmup)
	case s.Decay == Constant:
		return s.Peak
	case n >= s.End:
		return s.Floor
	}
	done, from := s.End-s.Warmup, s.Warmup
	if s.Decay == WSD {
		if done, from = s.Tail, s.End-s.Tail; n < from {
			return s.Peak
		}
	}
	left := 1 - float64(n-from)/float64(done) // of the decay
	if s.Decay == Cosine {
		left = 0.5 * (math.Cos(math.Pi*(1-left)) + 1)
	}
	return s.Floor + left*(s.Peak-s.Floor)
}
