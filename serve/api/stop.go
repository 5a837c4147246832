package api

import "strings"

// stopper looks for stop strings in a text that comes in pieces. Text that may be the beginning of one waits.
type stopper struct {
	stops   []string
	include bool
	waiting string
}

// push takes the next piece. It returns the text that can be given out, and the stop string that ended the
// text, if one did: of those that begin first the longest.
func (s *stopper) push(piece string) (out, stop string) {
	if len(s.stops) == 0 {
		return piece, ""
	}
	s.waiting += piece
	at := -1
	for _, t := range s.stops {
		if i := strings.Index(s.waiting, t); i >= 0 && (at < 0 || i < at || i == at && len(t) > len(stop)) {
			at, stop = i, t
		}
	}
	if at >= 0 {
		if s.include {
			at += len(stop)
		}
		out, s.waiting = s.waiting[:at], ""
		return out, stop
	}
	keep := 0
	for _, t := range s.stops {
		for n := min(len(t)-1, len(s.waiting)); n > keep; n-- {
			if strings.HasSuffix(s.waiting, t[:n]) {
				keep = n
				break
			}
		}
	}
	// A cut inside a character cannot happen: a stop string begins with a whole one.
	out, s.waiting = s.waiting[:len(s.waiting)-keep], s.waiting[len(s.waiting)-keep:]
	return out, ""
}

// flush gives out what waits: the text has ended, and the stop string did not come.
func (s *stopper) flush() string {
	out := s.waiting
	s.waiting = ""
	return out
}
