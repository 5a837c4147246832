package sched

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkStep is a step of 64 requests that decode, with their draws told.
func BenchmarkStep(b *testing.B) {
	o := Options{Slots: 64, Blocks: 1 << 14, Size: 16, Chunk: 256, Context: 1 << 12, Queue: 64}
	s, err := New(o)
	require.NoError(b, err)
	prompt := make([]int32, 100)
	step := func() {
		x, err := s.Next()
		require.NoError(b, err)
		for _, c := range x.Prefill {
			if c.Draw {
				_, err = s.Drawn(c.ID, 1)
			}
		}
		for _, r := range x.Decode {
			if _, failed := s.Drawn(r.ID, 1); failed != nil {
				err = failed
			}
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		for s.Stats().Running < o.Slots || s.prefilling() != nil {
			b.StopTimer()
			for len(s.waiting) < o.Queue {
				_, err := s.Arrive(Request{Prompt: prompt, Max: 1 << 12})
				require.NoError(b, err)
			}
			step()
			b.StartTimer()
		}
		step()
	}
}

// BenchmarkPropose looks for a match in a long text that has none.
func BenchmarkPropose(b *testing.B) {
	text := make([]int32, 4096)
	for i := range text {
		text[i] = int32(i)
	}
	for b.Loop() {
		if propose(text, 8) != nil {
			b.Fatal("a match")
		}
	}
}

// BenchmarkArrive is a prompt of 4096 tokens that arrives and ends.
func BenchmarkArrive(b *testing.B) {
	s, err := New(Options{Slots: 1, Blocks: 1 << 10, Size: 16, Chunk: 256, Context: 1 << 13, Queue: 1})
	require.NoError(b, err)
	prompt := make([]int32, 4096)
	for b.Loop() {
		id, err := s.Arrive(Request{Prompt: prompt, Max: 1})
		if err != nil || !s.End(id) {
			b.Fatal(err)
		}
	}
}
