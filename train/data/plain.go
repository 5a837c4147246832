package data

import (
	"bytes"
	"io"
	"unicode/utf8"
)

// Plain text is read in pieces, so that a large one is tokenized in parallel and gone on with after an
// interruption: a document, or where one is longer than pieceBytes a part of it that ends with a
// paragraph. A piece is cut into sequences of sequenceTokens, because sequences are what is shuffled and
// what a Split shares out.
const (
	pieceBytes     = 1 << 18
	sequenceTokens = 4096
)

// piece returns the next piece of plain text and its bytes. One that ends a document ends with NUL.
func (l *lines) piece() (piece []byte, size int64, err error) {
	b, err := l.r.Peek(pieceBytes + 1) // one more, to see whether the text goes on
	if err != nil && err != io.EOF {
		return nil, 0, err
	}
	if len(b) == 0 {
		return nil, 0, io.EOF
	}
	end := bytes.IndexByte(b, 0)
	switch {
	case end >= 0:
		end++
		piece = bytes.Clone(b[:end])
	case err == io.EOF:
		end = len(b)
		piece = append(bytes.Clone(b), 0)
	default:
		end = paragraph(b[:pieceBytes])
		piece = bytes.Clone(b[:end])
	}
	l.line++
	_, err = l.r.Discard(end)
	return piece, int64(end), err
}

// paragraph is where the first part of a text ends that goes on: after its last empty line, else its last
// line, else before its last blank, else between characters.
func paragraph(b []byte) int {
	least := len(b) / 2
	for _, mark := range []string{"\n\n", "\n"} {
		if i := bytes.LastIndex(b, []byte(mark)); i >= least {
			return i + len(mark)
		}
	}
	if i := bytes.LastIndexByte(b, ' '); i >= least {
		return i
	}
	for end := len(b); end > len(b)-utf8.UTFMax; end-- {
		if r, n := utf8.DecodeLastRune(b[:end]); r != utf8.RuneError || n > 1 {
			return end
		}
	}
	return len(b)
}

// encodePlain makes the sequences of a piece.
func (o TextOptions) encodePlain(t Tokenizer, piece []byte) ([][]int32, error) {
	text, ends := bytes.CutSuffix(piece, []byte{0})
	ids, err := o.ids(t, string(text))
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	if ends && o.AppendEOD {
		ids = append(ids, t.EOS())
	}
	var sequences [][]int32
	for len(ids) > sequenceTokens {
		sequences = append(sequences, ids[:sequenceTokens:sequenceTokens])
		ids = ids[sequenceTokens:]
	}
	return append(sequences, ids), nil
}
