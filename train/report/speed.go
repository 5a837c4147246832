package report

import "math"

// speed smooths tokens a second over the last steps that were told of: all their tokens over all their
// seconds. The host takes a step's time when it reads the step's numbers. When it is late, the step looks
// long and the next one short, up to many times faster than the device can be; over some steps both are
// in the sum.
type speed struct {
	tokens, seconds [smoothOver]float64
	next            int
	share           float64 // MFU of a token a second; 0 when unknown
}

// smoothOver is how many steps a speed that a person sees is over, at most.
const smoothOver = 10

// step gives the speed after s, and the MFU that belongs to it: at most 1, and 0 when unknown. Steps
// without a speed that can be are left out.
func (v *speed) step(s Step) (tokensPerSecond, mfu float64) {
	tokens := s.TokensPerSecond * s.StepSeconds
	if tokens > 0 && !math.IsInf(tokens, 0) {
		v.tokens[v.next], v.seconds[v.next] = tokens, s.StepSeconds
		v.next = (v.next + 1) % smoothOver
		switch {
		case s.MFU >= 1: // late; a row has 1 for all of these
		case s.MFU > 0:
			v.share = s.MFU / s.TokensPerSecond
		default:
			v.share = 0
		}
	}
	allTokens, allSeconds := 0.0, 0.0
	for i := range smoothOver {
		allTokens += v.tokens[i]
		allSeconds += v.seconds[i]
	}
	if allSeconds == 0 {
		return s.TokensPerSecond, 0
	}
	rate := allTokens / allSeconds
	return rate, min(1, v.share*rate)
}
