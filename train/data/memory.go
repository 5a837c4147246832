package data

import (
	"context"
	"fmt"
	"io"
)

// Memory is a source of sequences that are held in memory: text tokenized on the fly.
type Memory struct {
	name      string
	sequences [][]int32
}

// NewMemory takes sequences as they are; name is for errors.
func NewMemory(name string, sequences [][]int32) *Memory { return &Memory{name, sequences} }

// ReadText tokenizes the jsonl of r as Preprocess does, into memory.
func ReadText(ctx context.Context, r io.Reader, name string, t Tokenizer, o TextOptions) (*Memory, Counts, error) {
	m := &Memory{name: name}
	var c Counts
	err := o.tokenize(ctx, r, name, t, &c, func(sequences [][]int32) error {
		m.sequences = append(m.sequences, sequences...)
		return nil
	}, nil)
	return m, c, err
}

// Sequences implements Source.
func (m *Memory) Sequences() int { return len(m.sequences) }

// Length implements Source.
func (m *Memory) Length(i int) int { return len(m.sequences[i]) }

// Read implements Source.
func (m *Memory) Read(dst []int32, i, offset int) error {
	if err := bounds(m, len(dst), i, offset); err != nil {
		return err
	}
	copy(dst, m.sequences[i][offset:])
	return nil
}

// Where implements Source.
func (m *Memory) Where(i, offset int) string {
	return fmt.Sprintf("%s: sequence %d, token %d", m.name, i, offset)
}

// Documents returns the sequences for packing, each a document that is learned whole.
func (m *Memory) Documents() []Document {
	all := make([]Document, len(m.sequences))
	for i, s := range m.sequences {
		all[i].IDs = s
	}
	return all
}
