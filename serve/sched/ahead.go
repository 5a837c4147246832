package sched

// ahead makes rows of tokens after those of the step's rows, in slots that no row needs.
func (s *Scheduler) ahead() {
	left := s.o.Slots - len(s.step.Decode)
	if left == 0 || len(s.step.Decode) == 0 {
		return
	}
	needed := make([]bool, s.o.Slots)
	for _, row := range s.step.Decode {
		needed[row.Slot] = true
	}
	slot := 0
	add := func(r *request, token int32, replay, guess bool, position int) {
		for needed[slot] {
			slot++
		}
		s.step.Ahead = append(s.step.Ahead, Row{
			ID: r.id, Slot: slot, Position: position, Token: token, Table: r.table, Replay: replay, Guess: guess,
		})
		slot++
		left--
	}
	for _, row := range s.step.Decode {
		r := s.all[row.ID]
		for left > 0 && !r.drawing { // its blocks are there since it was admitted
			n := r.done - len(r.Prompt)
			replay := n < len(r.generated)-1
			add(r, r.generated[n], replay, false, r.done)
			s.stats.Ahead++
			r.done++
			if !replay {
				s.draws(r)
			}
		}
		r.guesses = s.guess(r, left)
		for i, token := range r.guesses {
			add(r, token, false, true, r.done+i)
		}
	}
}

// guess is what may come after r's token that is drawn in this step, no more than fits into most rows and into
// blocks that r has or that are free.
func (s *Scheduler) guess(r *request, most int) []int32 {
	if r.text == nil || !r.drawing {
		return nil
	}
	// The last token that is drawn is not a guess.
	most = min(most, s.o.Speculate, r.Max-len(r.generated)-1, s.most-r.known()-1)
	tokens := propose(r.text, most)
	for i := range tokens {
		if n := (r.done + i) / s.o.Size; n == len(r.table) {
			if len(s.blocks.free) == 0 {
				tokens = tokens[:i]
				break
			}
			b, _ := s.blocks.take()
			r.table = append(r.table, b)
		}
	}
	s.stats.Proposed += int64(len(tokens))
	return tokens
}

// How many of the last tokens have to have come before.
const (
	leastMatch = 2
	mostMatch  = 4
)

// propose guesses up to most tokens that follow text: those that followed the longest of its ends, of leastMatch
// to mostMatch tokens, where it last came before; as if the text went round from there. nil for no guess.
//
// Source: Saxena 2023, prompt lookup decoding.
func propose(text []int32, most int) []int32 {
	n := len(text)
	if most < 1 {
		return nil
	}
	best, follow := leastMatch-1, 0 // the longest match, and where it ends
	for end := n - 1; end >= leastMatch && best < mostMatch; end-- {
		match := 0
		for match < min(mostMatch, end) && text[end-1-match] == text[n-1-match] {
			match++
		}
		if match > best {
			best, follow = match, end
		}
	}
	if follow == 0 {
		return nil
	}
	tokens := make([]int32, most)
	for i := range tokens {
		if at := follow + i; at < n {
			tokens[i] = text[at]
		} else {
			tokens[i] = tokens[at-n]
		}
	}
	return tokens
}
