package data

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// A Manifest tells how a dataset was made. Megatron's files say nothing about it; ours lies beside them
// as PREFIX.json.
type Manifest struct {
	Tokenizer  string `json:"tokenizer"`  // fingerprint, see Fingerprint
	VocabSize  int    `json:"vocab_size"` // ids
	EOD        int32  `json:"eod"`        // the id that ends documents
	AppendEOD  bool   `json:"append_eod"`
	PrependBOS bool   `json:"prepend_bos"`
	BadLines   int    `json:"bad_lines"` // left out
}

// A Vocabulary is what identifies a tokenizer.
type Vocabulary interface {
	VocabSize() int
	Piece(id int32) string
	BOS() int32
	EOS() int32
}

// Fingerprint identifies a tokenizer by its pieces and control ids, whatever file they came from.
func Fingerprint(v Vocabulary) string {
	h := sha256.New()
	var word [4]byte
	number := func(n int32) {
		binary.LittleEndian.PutUint32(word[:], uint32(n))
		h.Write(word[:])
	}
	number(v.BOS())
	number(v.EOS())
	for id := range int32(v.VocabSize()) {
		piece := v.Piece(id)
		number(int32(len(piece)))
		h.Write([]byte(piece))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// CheckTokenizer refuses a tokenizer that a dataset was not made with. Where that is not known it
// refuses uint16 tokens for a vocabulary that they cannot hold.
func (x *Indexed) CheckTokenizer(v Vocabulary) error {
	m := x.manifest
	if m == nil {
		if n := v.VocabSize(); x.dtype == Uint16 && DTypeFor(n) != Uint16 {
			return fmt.Errorf("%s: tokens are uint16, but a tokenizer of %d ids makes %s: it was made with another", x.prefix, n, DTypeFor(n))
		}
		return nil
	}
	if got := Fingerprint(v); got != m.Tokenizer {
		return fmt.Errorf("%s: made with tokenizer %.12s… of %d ids, this one is %.12s… of %d ids", x.prefix, m.Tokenizer, m.VocabSize, got, v.VocabSize())
	}
	return nil
}

// readManifest returns nil where there is no file.
func readManifest(path string) (*Manifest, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m := new(Manifest)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrFormat, path, err)
	}
	return m, nil
}

func (m *Manifest) write(path string) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, append(b, '\n'))
}
