package data

import (
	"context"
	"fmt"
	"io"

	"mix/graph/token"
)

// A Tokenizer makes ids from texts, without control ids unless asked. *token.Tokenizer is one. It must be
// safe for concurrent use.
type Tokenizer interface {
	Vocabulary
	Encode(text string, o token.EncodeOptions) ([]int32, error)
}

// TextOptions say how a line of jsonl, or plain text, becomes a document.
type TextOptions struct {
	Key        string // of the text; "" means "text"
	Plain      bool   // plain text, documents separated by NUL bytes, rather than jsonl; see plain.go
	AppendEOD  bool   // the tokenizer's EOS after the last text of a document that is not empty
	PrependBOS bool   // BOS before every text, which is then never empty
	SkipBad    bool   // leave bad lines out and count them, rather than fail
	Workers    int    // 0: one a processor

	// Progress, if not nil, is told how many bytes have been read. Calls do not overlap.
	Progress func(bytes int64)
}

func (o TextOptions) key() string {
	if o.Key == "" {
		return "text"
	}
	return o.Key
}

// Counts is what became of the lines.
type Counts struct {
	Documents int   `json:"documents"` // pieces of plain text
	Sequences int   `json:"sequences"`
	Tokens    int64 `json:"tokens"`
	Lines     int   `json:"lines"`
	BadLines  int   `json:"bad_lines"`
	Bytes     int64 `json:"bytes"`         // of jsonl
	Resumed   int64 `json:"resumed_bytes"` // of them done by a run before
}

// Preprocess tokenizes the jsonl of r, called name in errors, and writes the dataset prefix. It gives the
// bytes of Megatron's preprocess_data.py whatever the number of workers. Nothing appears under the name
// unless all went well.
func Preprocess(ctx context.Context, r io.Reader, name, prefix string, t Tokenizer, o TextOptions) (Counts, error) {
	w, err := Create(prefix, DTypeFor(t.VocabSize()))
	if err != nil {
		return Counts{}, err
	}
	defer w.Abort()
	var c Counts
	if err := o.tokenize(ctx, r, name, t, &c, w.document, nil); err != nil {
		return c, err
	}
	return c, o.commit(w, name, t, c)
}

// document adds the sequences of one document.
func (w *Writer) document(sequences [][]int32) error {
	for _, s := range sequences {
		if err := w.Add(s); err != nil {
			return err
		}
	}
	w.EndDocument()
	return nil
}

// commit ends a dataset and tells how it was made.
func (o TextOptions) commit(w *Writer, name string, t Tokenizer, c Counts) error {
	if c.Tokens == 0 {
		return fmt.Errorf("%s: %d documents and %d bad lines, but no tokens", name, c.Documents, c.BadLines)
	}
	eod := int32(-1)
	if o.AppendEOD {
		eod = t.EOS()
	}
	w.Describe(Manifest{Tokenizer: Fingerprint(t), VocabSize: t.VocabSize(), EOD: eod,
		AppendEOD: o.AppendEOD, PrependBOS: o.PrependBOS, BadLines: c.BadLines})
	return w.Commit()
}

// tokenize hands the documents of r to emit, in order, and counts them in c, which holds what was done
// before. After each chunk c is complete and took, if there is one, is called.
func (o TextOptions) tokenize(ctx context.Context, r io.Reader, name string, t Tokenizer, c *Counts, emit func([][]int32) error, took func() error) error {
	if o.AppendEOD && t.EOS() < 0 || o.PrependBOS && t.BOS() < 0 {
		return fmt.Errorf("the tokenizer has BOS %d and EOS %d, want those that are to be added", t.BOS(), t.EOS())
	}
	encode := o.encode
	if o.Plain {
		encode = o.encodePlain
	}
	p := pool[[][]int32]{name: name, workers: o.Workers, skipBad: o.SkipBad, plain: o.Plain, progress: o.Progress,
		encode: func(line []byte) ([][]int32, error) { return encode(t, line) },
		emit: func(sequences [][]int32) error {
			c.Documents++
			c.Sequences += len(sequences)
			for _, s := range sequences {
				c.Tokens += int64(len(s))
			}
			return emit(sequences)
		}}
	p.bytes, p.lines, p.bad = c.Bytes, c.Lines, c.BadLines
	p.took = func() error {
		c.Bytes, c.Lines, c.BadLines = p.bytes, p.lines, p.bad
		if took == nil {
			return nil
		}
		return took()
	}
	return p.run(ctx, r)
}

// encode makes the sequences of one line; none of them is empty.
func (o TextOptions) encode(t Tokenizer, line []byte) ([][]int32, error) {
	all, err := texts(line, o.key())
	if err != nil {
		return nil, err
	}
	var sequences [][]int32
	for _, text := range all {
		ids, err := o.ids(t, text)
		if err != nil {
			return nil, err
		}
		if len(ids) > 0 {
			sequences = append(sequences, ids)
		}
	}
	if n := len(sequences); n > 0 && o.AppendEOD {
		sequences[n-1] = append(sequences[n-1], t.EOS())
	}
	return sequences, nil
}

// ids are those of one text, all within the vocabulary.
func (o TextOptions) ids(t Tokenizer, text string) ([]int32, error) {
	ids, err := t.Encode(text, token.EncodeOptions{BOS: o.PrependBOS})
	if err != nil {
		return nil, err
	}
	for i, id := range ids {
		if id < 0 || int(id) >= t.VocabSize() {
			return nil, fmt.Errorf("token %d: id %d, want 0 to %d, the vocabulary", i, id, t.VocabSize()-1)
		}
	}
	return ids, nil
}
