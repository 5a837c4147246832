package data

import (
	"errors"
	"fmt"
	"strings"

	"mix/graph/token"
)

// Sets is what a run is trained and evaluated on.
type Sets struct {
	Train Samples // as many as the run takes, or more
	Valid Samples // nil if not asked for
	Test  Samples // nil if not asked for

	// EvalSamples is how many of Valid an evaluation takes: the first, so that all see the same. It is what
	// was asked for, or all there are if that is less, which are not worth a second look.
	EvalSamples int

	// Fingerprint is of all that decides content and order of the samples in Train. A run that goes on
	// with another's work must have the same.
	Fingerprint string

	Segments, Positions bool // batches need them

	// BytesPerToken is how many bytes of text a label of an evaluation stands for on average, 0 if not
	// known: loss in nats divided by it and by ln 2 is bits a byte.
	BytesPerToken float64

	Description string // of what was read, a line each

	tokenizer *token.Tokenizer
	close     []func() error
}

// Close unmaps files; no sample may be read any more.
func (s *Sets) Close() error {
	var all error
	for _, f := range s.close {
		all = errors.Join(all, f())
	}
	s.close = nil
	return all
}

// Marks around what is learned, in Show.
const (
	learnBegin = "⟦"
	learnEnd   = "⟧"
)

// Show writes sample i of Train for a person: the text of its documents, what is learned in ⟦ ⟧, control
// ids by name. It is worth a look before a long run: a wrong template or mask shows here first. Texts are
// cut after most bytes; 0 cuts none.
func (s *Sets) Show(i, most int) (string, error) {
	n := s.Train.SeqLen()
	row := Row{Tokens: make([]int32, n+1), Labels: make([]int32, n), Segments: make([]int32, n)}
	if err := s.Train.Sample(i, row); err != nil {
		return "", err
	}
	learned := 0
	for _, label := range row.Labels {
		if label != NoLoss {
			learned++
		}
	}
	used := n + 1 // without padding, which has id 0 and no loss
	for used > 0 && row.Tokens[used-1] == 0 && (used == 1 || row.Labels[used-2] == NoLoss) {
		used--
	}
	var b strings.Builder
	fmt.Fprintf(&b, "sample %d: %d tokens, %d of %d positions learned (in %s %s), %d padding", i, used, learned, n, learnBegin, learnEnd, n+1-used)
	var text strings.Builder
	for begin := 0; begin < used; {
		end := begin + 1
		for end < used && (end == n || row.Segments[end] == row.Segments[begin]) {
			end++
		}
		text.WriteByte('\n')
		s.showDocument(&text, row, begin, end)
		begin = end
	}
	shown := text.String()
	if most > 0 && len(shown) > most {
		shown = strings.ToValidUTF8(shown[:most], "") + " …"
	}
	return b.String() + shown, nil
}

// showDocument writes tokens [begin, end) of a row.
func (s *Sets) showDocument(b *strings.Builder, row Row, begin, end int) {
	learns := func(j int) bool { return j > 0 && row.Labels[j-1] != NoLoss }
	for from := begin; from < end; {
		to := from + 1
		for to < end && learns(to) == learns(from) {
			to++
		}
		text := s.textOf(row.Tokens[begin:to], from-begin)
		if learns(from) {
			text = learnBegin + text + learnEnd
		}
		b.WriteString(text)
		from = to
	}
}

// textOf is the text of ids from one on, as it reads after those before.
func (s *Sets) textOf(ids []int32, from int) string {
	if s.tokenizer == nil {
		return strings.Trim(fmt.Sprint(ids[from:]), "[]") + " "
	}
	before, all := s.tokenizer.DecodeWithControls(ids[:from]), s.tokenizer.DecodeWithControls(ids)
	if text, whole := strings.CutPrefix(all, before); whole {
		return text
	}
	return s.tokenizer.DecodeWithControls(ids[from:]) // a character is cut in two
}

// bytesPerToken is the mean over the labels of the first n samples.
func bytesPerToken(of Samples, n int, t *token.Tokenizer) (float64, error) {
	row := Row{Tokens: make([]int32, of.SeqLen()+1), Labels: make([]int32, of.SeqLen())}
	labels, bytes := 0, 0
	for i := range min(n, of.Len()) {
		if err := of.Sample(i, row); err != nil {
			return 0, err
		}
		for j, id := range row.Labels {
			if id == NoLoss {
				continue
			}
			labels++
			bytes += len(t.Bytes(id))
			if t.IsControl(row.Tokens[j]) && beginsWithMadeUpSpace(t, id) {
				bytes--
			}
		}
	}
	if labels == 0 {
		return 0, nil
	}
	return float64(bytes) / float64(labels), nil
}

// beginsWithMadeUpSpace tells whether a text that begins with id begins with a space that encoding put
// there.
func beginsWithMadeUpSpace(t *token.Tokenizer, id int32) bool {
	b := t.Bytes(id)
	return len(b) > 0 && b[0] == ' ' && len(t.Decode([]int32{id})) < len(b)
}
