package data

import (
	"fmt"
	"sync"
)

// The made-up sequences of --mock-data.
const (
	mockSequences = 100_000
	mockLongest   = 4096 // tokens; none is quite as long
)

// mock is Megatron's made-up dataset: sequences that count 1, 2, 3 … and end with EOD.
//
// Source: Megatron-LM, core/datasets/gpt_dataset.py, MockGPTLowLevelDataset.
type mock struct {
	vocab   int
	eod     int32
	lengths []int32
}

var mockLengths = sync.OnceValue(func() []int32 {
	g := newGenerator(0)
	lengths := make([]int32, mockSequences)
	for i := range lengths {
		lengths[i] = 1 + int32(g.below(mockLongest-1))
	}
	return lengths
})

// Mock returns the source of --mock-data, the same for every seed. Its split is MockSplit.
func Mock(vocab int, eod int32) (Source, error) {
	if vocab < 1 || eod < 0 || int(eod) >= vocab {
		return nil, fmt.Errorf("mock data with a vocabulary of %d and EOD %d, want at least 1 and EOD in it", vocab, eod)
	}
	return &mock{vocab: vocab, eod: eod, lengths: mockLengths()}, nil
}

// MockSplit is how mock data is always shared out.
const MockSplit = "1,1,1"

func (m *mock) Sequences() int   { return len(m.lengths) }
func (m *mock) Length(i int) int { return int(m.lengths[i]) }

func (m *mock) Where(i, offset int) string {
	return fmt.Sprintf("mock data: sequence %d, token %d", i, offset)
}

func (m *mock) Read(dst []int32, i, offset int) error {
	if err := bounds(m, len(dst), i, offset); err != nil {
		return err
	}
	for j := range dst {
		dst[j] = int32((offset + j + 1) % m.vocab)
	}
	if len(dst) > 0 && offset+len(dst) == m.Length(i) {
		dst[len(dst)-1] = m.eod
	}
	return nil
}
