package data

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// doc is a document of n tokens, id, id+1, …
func doc(id int32, n int) Document {
	d := Document{}
	for i := range n {
		d.IDs = append(d.IDs, id+int32(i))
	}
	return d
}

// whole is a row to be filled.
func whole(n int) Row {
	return Row{Tokens: make([]int32, n+1), Labels: make([]int32, n), Segments: make([]int32, n), Positions: make([]int32, n)}
}

func TestPackedRows(t *testing.T) {
	half := doc(40, 4)
	half.Learn = []bool{true, false, true, false}
	p, err := NewPacked([]Document{doc(10, 3), doc(20, 7), doc(30, 2), half, doc(50, 1), doc(60, 9)},
		PackOptions{SeqLen: 8, ResetPositions: true, Vocab: 70})
	require.NoError(t, err)
	require.Equal(t, PackStats{Documents: 5, Dropped: 1, Rows: 3, Tokens: 25}, p.Stats())
	rows := map[int32]Row{}
	for i := range p.Len() {
		row := whole(8)
		require.NoError(t, p.Sample(i, row))
		rows[row.Tokens[0]] = row
	}
	const no = NoLoss
	require.Equal(t, map[int32]Row{
		10: {Tokens: []int32{10, 11, 12, 30, 31, 40, 41, 42, 43},
			Labels:    []int32{11, 12, no, 31, no, no, 42, no},
			Segments:  []int32{0, 0, 0, 1, 1, 2, 2, 2},
			Positions: []int32{0, 1, 2, 0, 1, 0, 1, 2}},
		20: {Tokens: []int32{20, 21, 22, 23, 24, 25, 26, 0, 0},
			Labels:    []int32{21, 22, 23, 24, 25, 26, no, no},
			Segments:  []int32{0, 0, 0, 0, 0, 0, 0, Padding},
			Positions: []int32{0, 1, 2, 3, 4, 5, 6, 0}},
		60: {Tokens: []int32{60, 61, 62, 63, 64, 65, 66, 67, 68},
			Labels:    []int32{61, 62, 63, 64, 65, 66, 67, 68},
			Segments:  []int32{0, 0, 0, 0, 0, 0, 0, 0},
			Positions: []int32{0, 1, 2, 3, 4, 5, 6, 7}},
	}, rows)
}

func TestPackedOptions(t *testing.T) {
	p, err := NewPacked([]Document{doc(10, 2), doc(20, 9)}, PackOptions{SeqLen: 4, OneSegment: true})
	require.NoError(t, err)
	require.Equal(t, PackStats{Documents: 2, Cut: 1, Rows: 2, Tokens: 7}, p.Stats())
	for i := range p.Len() {
		row := whole(4)
		require.NoError(t, p.Sample(i, row))
		require.Equal(t, map[int32][]int32{10: {0, 0, Padding, Padding}, 20: {0, 0, 0, 0}}[row.Tokens[0]], row.Segments)
		require.Equal(t, []int32{0, 1, 2, 3}, row.Positions)
		tokens := make([]int32, 5)
		require.NoError(t, p.Sample(i, Row{Tokens: tokens}))
		require.Equal(t, row.Tokens, tokens)
	}
}

func TestPackedEpochs(t *testing.T) {
	var documents []Document
	for i := range 30 {
		documents = append(documents, doc(int32(100*i), 5))
	}
	p, err := NewPacked(documents, PackOptions{SeqLen: 4, Samples: 75, Seed: 3})
	require.NoError(t, err)
	require.Equal(t, 75, p.Len())
	first := func(from, to int) (ids []int32) {
		for i := from; i < to; i++ {
			row := whole(4)
			require.NoError(t, p.Sample(i, row))
			ids = append(ids, row.Tokens[0]/100)
		}
		return ids
	}
	all := make([]int32, 30)
	for i := range all {
		all[i] = int32(i)
	}
	require.ElementsMatch(t, all, first(0, 30))
	require.ElementsMatch(t, all, first(30, 60))
	require.NotEqual(t, first(0, 30), first(30, 60))
	again, err := NewPacked(documents, PackOptions{SeqLen: 4, Samples: 75, Seed: 3})
	require.NoError(t, err)
	require.Equal(t, p.order, again.order)
	other, err := NewPacked(documents, PackOptions{SeqLen: 4, Samples: 75, Seed: 4})
	require.NoError(t, err)
	require.NotEqual(t, p.order, other.order)
}

func TestNoTokenIsLostInPacking(t *testing.T) {
	var documents []Document
	want := map[int32]bool{}
	for i := range 500 {
		d := doc(int32(100*i+1), 2+i*7919%60)
		for _, id := range d.IDs {
			want[id] = true
		}
		documents = append(documents, d)
	}
	p, err := NewPacked(documents, PackOptions{SeqLen: 64})
	require.NoError(t, err)
	got := map[int32]bool{}
	for i := range p.Len() {
		row := whole(64)
		require.NoError(t, p.Sample(i, row))
		for j, id := range row.Tokens {
			if id != 0 {
				require.False(t, got[id], "twice")
				got[id] = true
			}
			if j < 64 && row.Labels[j] != NoLoss {
				require.Equal(t, id+1, row.Labels[j], "a label is of the same document")
			}
		}
	}
	require.Equal(t, want, got)
	require.Greater(t, float64(p.Stats().Tokens), 0.9*float64(65*p.Stats().Rows), "padding")
}

func TestPackingsThatAreRefused(t *testing.T) {
	for _, tt := range []struct {
		name      string
		documents []Document
		o         PackOptions
		want      string
	}{
		{"none", nil, PackOptions{SeqLen: 4}, "0 documents, none with a token to learn within 5"},
		{"nothing to learn", []Document{doc(1, 1), {IDs: []int32{1, 2}, Learn: []bool{true, false}}}, PackOptions{SeqLen: 4}, "2 documents, none"},
		{"marks are missing", []Document{{IDs: []int32{1, 2}, Learn: []bool{true}}}, PackOptions{SeqLen: 4}, "document 0: 1 marks for 2 tokens"},
		{"beyond the vocabulary", []Document{doc(1, 3)}, PackOptions{SeqLen: 4, Vocab: 3}, "document 0, token 2: token id 3, want 0 to 2"},
		{"no length", []Document{doc(1, 3)}, PackOptions{}, "samples of 0 tokens"},
	} {
		_, err := NewPacked(tt.documents, tt.o)
		require.ErrorContains(t, err, tt.want, tt.name)
	}
	p, err := NewPacked([]Document{doc(1, 2)}, PackOptions{SeqLen: 4})
	require.NoError(t, err)
	require.Error(t, p.Sample(1, Row{}))
	require.Error(t, p.Sample(-1, Row{}))
}
