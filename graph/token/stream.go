package token

import (
	"strings"
	"unicode/utf8"
)

// A Stream turns ids into text as they come. What it has returned is always valid UTF-8: the
// bytes of an unfinished character wait for the ids that finish it.
//
// The texts of all Push calls and of Flush, joined, are the Decode of all ids.
type Stream struct {
	t        *Tokenizer
	waiting  [utf8.UTFMax]byte
	n        int
	started  bool // there was text, so a space is now a space
	controls bool // write control pieces by name
}

// Stream returns a stream at the beginning of a text.
func (t *Tokenizer) Stream() *Stream { return &Stream{t: t} }

// StreamAfter returns a stream whose ids continue those of a prompt: its text is what comes
// after the prompt's, including the space between two words.
func (t *Tokenizer) StreamAfter(prompt []int32) *Stream {
	s := t.Stream()
	for _, id := range prompt {
		s.Push(id)
	}
	return s
}

// Decode returns the text of the ids. Control ids have none. An id outside the vocabulary
// reads as the unknown piece; bytes that are no character read as U+FFFD each. The space that
// Encode puts before a text is taken away.
func (t *Tokenizer) Decode(ids []int32) string { return t.decode(ids, t.Stream()) }

// DecodeWithControls is Decode with the control ids written by name, as in "<s>Hello</s>".
// It is for people to read: encoding that text gives other ids.
func (t *Tokenizer) DecodeWithControls(ids []int32) string {
	return t.decode(ids, &Stream{t: t, controls: true})
}

func (t *Tokenizer) decode(ids []int32, s *Stream) string {
	var b strings.Builder
	for _, id := range ids {
		b.WriteString(s.Push(id))
	}
	b.WriteString(s.Flush())
	return b.String()
}

// Push takes the next id and returns the text that is complete with it, often none.
func (s *Stream) Push(id int32) string {
	if s.t.has(id) && s.t.pieces[id].kind == byteValue {
		s.waiting[s.n] = s.t.pieces[id].b
		s.n++
		return s.whole()
	}
	before := s.Flush()
	if !s.t.has(id) {
		s.started = true
		return before + s.t.unknownText
	}
	p := s.t.pieces[id]
	if p.kind == control {
		if s.controls {
			return before + p.text
		}
		return before
	}
	text := s.t.text(p)
	if !s.started && s.t.dropSpace && p.kind == normal {
		text = strings.TrimPrefix(text, " ")
	}
	s.started = true
	return before + text
}

// Flush ends the text: bytes that still wait for the rest of their character become U+FFFD.
func (s *Stream) Flush() string {
	text := strings.Repeat(string(utf8.RuneError), s.n)
	s.started = s.started || s.n > 0
	s.n = 0
	return text
}

// whole takes the finished characters off the waiting bytes. A byte that cannot begin one
// becomes U+FFFD.
func (s *Stream) whole() string {
	text := ""
	for s.n > 0 && utf8.FullRune(s.waiting[:s.n]) {
		r, n := utf8.DecodeRune(s.waiting[:s.n])
		text += string(r)
		s.n = copy(s.waiting[:], s.waiting[n:s.n])
		s.started = true
	}
	return text
}

// Bytes returns what an id stands for inside a text: the piece with real spaces, or the one
// byte of a byte piece. It is empty for control ids and ids outside the vocabulary.
func (t *Tokenizer) Bytes(id int32) []byte {
	if !t.has(id) {
		return nil
	}
	switch p := t.pieces[id]; p.kind {
	case control:
		return nil
	case byteValue:
		return []byte{p.b}
	default:
		return []byte(t.text(p))
	}
}

// text returns the text of a piece that is neither a byte nor a control piece.
func (t *Tokenizer) text(p piece) string {
	switch p.kind {
	case normal:
		return strings.ReplaceAll(p.text, string(space), " ")
	case unknown:
		return t.unknownText
	default:
		return p.text
	}
}
