package grammar

import (
	"errors"
	"fmt"

	"mix/serve/infer"
)

// ErrAmbiguous is the error of a text that the grammar reads in too many ways to go on. Its mask lets the
// text end, and refuses the id that does.
var ErrAmbiguous = errors.New("the grammar has too many ways to read the text")

// stage is where a mask stands.
type stage uint8

const (
	free    stage = iota // anything may come, until the mark
	marking              // the mark must come
	opening              // the text begins, and its first space is dropped
	inside
	ended
)

// mask is a text under way.
type mask struct {
	g     *Grammar
	stage stage
	at    *state
	mark  int32
	err   error
}

// Mask begins a text that stands by itself. Decode of its ids matches the grammar: a space that the first
// piece begins with is dropped as Decode drops it, and so ▁{ and { both begin an object.
func (g *Grammar) Mask() infer.Mask { return &mask{g: g, stage: opening, at: g.automaton.start} }

// MaskInside begins a text that goes on after another. Its bytes match the grammar as they are, the first
// space included; it is the text of a StreamAfter.
func (g *Grammar) MaskInside() infer.Mask { return &mask{g: g, stage: inside, at: g.automaton.start} }

// MaskAfter begins with the id mark, as of [TOOL_CALLS], and goes on as Mask.
func (g *Grammar) MaskAfter(mark int32) infer.Mask {
	return &mask{g: g, stage: marking, at: g.automaton.start, mark: mark}
}

// MaskOnce lets anything come until the id mark comes, and goes on as Mask from there.
func (g *Grammar) MaskOnce(mark int32) infer.Mask {
	return &mask{g: g, stage: free, at: g.automaton.start, mark: mark}
}

// Allowed sets the bits of the ids that may come next: those that lead to a text which can be finished, and
// the ids that end a text, if it may end here. Bits beyond the vocabulary are cleared. After the end only
// the ids that end a text remain.
func (m *mask) Allowed(bits []uint32) {
	clear(bits)
	c := m.g.compiler
	switch m.stage {
	case free:
		for id := range c.vocab {
			set(bits, int32(id))
		}
	case marking:
		set(bits, m.mark)
	case ended:
		c.setEnds(bits)
	default:
		known, err := m.g.allowed(m.at, m.stage == opening)
		if err != nil {
			m.err = err
			c.setEnds(bits)
			return
		}
		copy(bits, known)
	}
}

// Accept takes in an id. An id that is not allowed is an error, and changes nothing.
func (m *mask) Accept(id int32) error {
	c := m.g.compiler
	switch {
	case m.err != nil:
		return m.err
	case id < 0 || int(id) >= c.vocab:
		return fmt.Errorf("token %d is outside the vocabulary of %d", id, c.vocab)
	case m.stage == free && id != m.mark:
		if c.isEnd(id) {
			m.stage = ended
		}
		return nil
	case m.stage <= marking:
		if id != m.mark {
			return fmt.Errorf("token %d is not allowed, only %d is", id, m.mark)
		}
		m.stage = opening
		return nil
	case c.isEnd(id):
		if !m.Done() {
			return fmt.Errorf("token %d ends the text, which may not end here", id)
		}
		m.stage = ended
		return nil
	case m.stage == ended:
		return fmt.Errorf("token %d comes after the end of the text", id)
	}
	text, blank := c.texts[id], false
	if m.stage == opening {
		text = c.openings[id]
		blank = len(text) == 0 && len(c.texts[id]) > 0
	}
	to := m.g.after(m.at, text)
	if len(text) == 0 && !blank || to == dead || to == tooMany {
		return fmt.Errorf("token %d, %q, is not allowed here", id, text)
	}
	m.at, m.stage = to, inside
	return nil
}

// Done tells whether the text may end here.
func (m *mask) Done() bool {
	return m.stage == free || m.stage == ended || m.stage >= opening && m.at.end
}

// after returns the state after some bytes.
func (g *Grammar) after(s *state, text []byte) *state {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, b := range text {
		s = g.automaton.step(s, b)
	}
	return s
}

// allowed returns the ids that may follow a state; the result is not to be changed.
func (g *Grammar) allowed(s *state, opening bool) ([]uint32, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.compiler
	known, tree := &s.mask, c.inner
	if opening {
		known, tree = &s.opening, c.outer
	}
	if *known != nil {
		return *known, nil
	}
	bits := make([]uint32, (c.vocab+31)/32)
	crowded, whole := tree.walk(g.automaton, s, bits)
	if !whole {
		return nil, fmt.Errorf("%w: the next token asks for more than %d steps", ErrAmbiguous, maxSteps)
	}
	if crowded && !s.end && isZero(bits) {
		return nil, fmt.Errorf("%w: more than %d", ErrAmbiguous, maxWays)
	}
	if opening {
		for _, id := range c.blanks {
			set(bits, id)
		}
	}
	if s.end {
		c.setEnds(bits)
	}
	*known = bits
	return bits, nil
}

func isZero(bits []uint32) bool {
	for _, w := range bits {
		if w != 0 {
			return false
		}
	}
	return true
}

// set sets the bit of an id, if there is one.
func set(bits []uint32, id int32) {
	if id >= 0 && int(id>>5) < len(bits) {
		bits[id>>5] |= 1 << (id & 31)
	}
}
