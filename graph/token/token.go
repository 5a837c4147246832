// Package token turns text into Mixtral's token ids and ids back into text, piece by piece,
// and writes conversations in the form that the Instruct models were trained on.
//
//	text ── check UTF-8 ── leading space ── cut where no piece can reach across ── merge ── bytes for the rest ── ids
//	ids  ── Stream: whole characters only ── text
//
// It reads sentencepiece models (tokenizer.model) and Hugging Face's tokenizer.json. Both
// describe byte-pair merges, so one merge engine serves both: a heap of candidate merges,
// O(n log n) in the length of the text, over a table of symbol pairs. The table is made from
// the scores of a sentencepiece model or from the merge list of a tokenizer.json. The library
// go-sentencepiece gives the same ids once a flag in the model is cleared, and is the oracle
// of a test; it reads no tokenizer.json and took eight times as long for English text.
//
// Text never becomes a control id. Whoever writes "</s>" or "[INST]" gets the ids of those
// characters; control ids come from EncodeOptions and EncodeChat alone. The same holds for
// every added token of a tokenizer.json. The one kind of piece matched in text as a whole is
// sentencepiece's user-defined piece, such as [REFERENCE_DOC_0] of the 8x22B tokenizer: it is
// ordinary vocabulary, and the reference does the same.
//
// Not supported, and refused by name: unigram and word models, normalization of characters
// (NFKC and the like), models without byte fallback.
package token

import (
	"fmt"
	"unicode/utf8"
)

// A Tokenizer converts between text and ids. It does not change after loading and is safe
// for concurrent use.
type Tokenizer struct {
	pieces  []piece
	ids     map[string]int32
	bytes   [256]int32 // id of the piece of each byte
	bos     int32      // -1 if there is none
	eos     int32
	unknown int32

	unknownText string // what an unknown id reads as
	prefix      prefix
	dropSpace   bool // text loses the leading space that encoding put there
	merges      merger
}

// piece is one entry of the vocabulary.
type piece struct {
	text string
	kind kind
	b    byte // the byte of a byte piece
}

// kind says what a piece stands for.
type kind uint8

const (
	normal      kind = iota + 1
	unknown          // reads as unknownText
	control          // no text: <s>, [INST]
	userDefined      // matched in text as a whole
	byteValue        // one byte of a character without a piece of its own
	added            // of a tokenizer.json; reads as its text, is never made from text
)

// prefix says when a space is put before a text.
type prefix uint8

const (
	prefixNever prefix = iota
	prefixAlways
	prefixUnlessSpace // not if the text has one already
)

// space is how a piece spells the blank, U+2581.
const space = '▁'

// EncodeOptions asks for control ids around a text. The zero value adds none.
type EncodeOptions struct {
	BOS bool // begin with BOS()
	EOS bool // end with EOS()
}

// Encode returns the ids of a text.
//
// It fails if the text is not UTF-8, naming the byte, or if an id that o asks for does not
// exist. The empty text has no ids beyond those of o.
func (t *Tokenizer) Encode(text string, o EncodeOptions) ([]int32, error) {
	ids := make([]int32, 0, len(text)/3+4)
	if o.BOS {
		if t.bos < 0 {
			return nil, fmt.Errorf("encode: begin of sequence asked for, but the tokenizer has no such piece")
		}
		ids = append(ids, t.bos)
	}
	ids, err := t.appendText(ids, text)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	if o.EOS {
		if t.eos < 0 {
			return nil, fmt.Errorf("encode: end of sequence asked for, but the tokenizer has no such piece")
		}
		ids = append(ids, t.eos)
	}
	return ids, nil
}

// appendText appends the ids of a text, without BOS and EOS.
func (t *Tokenizer) appendText(ids []int32, text string) ([]int32, error) {
	if err := checkUTF8(text); err != nil {
		return nil, err
	}
	if text == "" {
		return ids, nil
	}
	c := cutter{t: t, ids: ids, last: -1}
	if t.prefix == prefixAlways || t.prefix == prefixUnlessSpace && !startsWithSpace(text) {
		c.add(space)
	}
	for i := 0; i < len(text); {
		if id, n := t.merges.literal(text[i:]); n > 0 {
			c.flush()
			c.ids = append(c.ids, id)
			i += n
			continue
		}
		r, n := utf8.DecodeRuneInString(text[i:])
		if r == ' ' {
			r = space
		}
		c.add(r)
		i += n
	}
	c.flush()
	return c.ids, nil
}

// checkUTF8 names the first byte of a text that is no character.
func checkUTF8(text string) error {
	if utf8.ValidString(text) {
		return nil
	}
	i := 0
	for {
		r, n := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && n <= 1 {
			return fmt.Errorf("text of %d bytes is not UTF-8 at byte %d (0x%02x)", len(text), i, text[i])
		}
		i += n
	}
}

func startsWithSpace(text string) bool {
	r, _ := utf8.DecodeRuneInString(text)
	return r == ' ' || r == space
}

// VocabSize returns the number of ids; they are 0 to VocabSize()-1.
func (t *Tokenizer) VocabSize() int { return len(t.pieces) }

// BOS returns the id that begins a sequence, -1 if there is none.
func (t *Tokenizer) BOS() int32 { return t.bos }

// EOS returns the id that ends a sequence, -1 if there is none.
func (t *Tokenizer) EOS() int32 { return t.eos }

// Unknown returns the id of the unknown piece, -1 if there is none. Encode never makes it:
// every byte has a piece.
func (t *Tokenizer) Unknown() int32 { return t.unknown }

// Piece returns the vocabulary's spelling of an id: "▁the", "<0x0A>", "</s>". It is empty for
// an id outside the vocabulary.
func (t *Tokenizer) Piece(id int32) string {
	if !t.has(id) {
		return ""
	}
	return t.pieces[id].text
}

// ID returns the id of a piece by the vocabulary's spelling, control pieces included.
func (t *Tokenizer) ID(piece string) (id int32, ok bool) {
	id, ok = t.ids[piece]
	return id, ok
}

// IsControl reports whether an id has no text: BOS, EOS, [INST].
func (t *Tokenizer) IsControl(id int32) bool {
	return t.has(id) && t.pieces[id].kind == control
}

func (t *Tokenizer) has(id int32) bool { return id >= 0 && int(id) < len(t.pieces) }
