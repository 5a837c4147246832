package data

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRandomStateIsNumpys(t *testing.T) {
	cases := read[map[string]struct {
		First8 []uint32 `json:"mt19937_first8_u32"`
		Twenty []int32  `json:"shuffle_arange20_int32"`
		Then   []uint32 `json:"then_shuffle_arange100_uint32"`
	}](t, "numpy_randomstate.json")
	require.NotEmpty(t, cases)
	for name, c := range cases {
		seed := parse(t, name)
		r := newRandomState(seed)
		var first []uint32
		for range 8 {
			first = append(first, r.uint32())
		}
		require.Equal(t, c.First8, first, name)
		r = newRandomState(seed)
		a, b := make([]int32, 20), make([]uint32, 100)
		for i := range a {
			a[i] = int32(i)
		}
		for i := range b {
			b[i] = uint32(i)
		}
		shuffle(r, a)
		shuffle(r, b)
		require.Equal(t, c.Twenty, a, name)
		require.Equal(t, c.Then, b, name)
	}
}

func parse(t *testing.T, text string) (v uint32) {
	for _, c := range text {
		require.True(t, c >= '0' && c <= '9', text)
		v = 10*v + uint32(c-'0')
	}
	return v
}

func TestSplitBounds(t *testing.T) {
	cases := read[map[string]struct {
		Matrix []*[2]float64
		Bounds map[string][]*[2]int
	}](t, "split_bounds.json")
	require.Len(t, cases, 8)
	for text, c := range cases {
		s, err := ParseSplit(text)
		require.NoError(t, err)
		for p, want := range c.Matrix {
			if want != nil {
				require.Equal(t, *want, s[p], text)
			}
		}
		for n, bounds := range c.Bounds {
			for p, want := range bounds {
				begin, end := s.Bounds(p, int(parse(t, n)))
				if want == nil {
					require.Equal(t, begin, end, "%s of %s", text, n)
				} else {
					require.Equal(t, *want, [2]int{begin, end}, "%s of %s", text, n)
				}
			}
		}
	}
}

func TestSplitsThatAreRefused(t *testing.T) {
	for _, text := range []string{"", "1,2,3,4", "a", "-1,2", "0", "0,0,0", "NaN", "Inf", "1e308,1e308,1e308"} {
		_, err := ParseSplit(text)
		require.Error(t, err, text)
	}
	s, err := ParseSplit("99990,8,2")
	require.NoError(t, err)
	_, _, err = s.Share(Valid, 1000)
	require.EqualError(t, err, "split valid is empty: of 1000 sequences train 1000, valid 0, test 0")
	begin, end, err := s.Share(Train, 1000)
	require.NoError(t, err)
	require.Equal(t, []int{0, 1000}, []int{begin, end})
	s[0][1] = 2 // never beyond the sequences
	_, end = s.Bounds(Train, 10)
	require.Equal(t, 10, end)
}

// sample is one of Megatron's.
type sample struct {
	Tokens    []int32
	Labels    []int32
	Mask      []float64 `json:"loss_mask"`
	Positions []int32   `json:"position_ids"`
	FirstSeen []int     `json:"attention_allowed_first_col"`
	DatasetID int       `json:"dataset_id"`
}

// split is one of Megatron's datasets.
type split struct {
	Len       int
	Requested *int `json:"num_samples_requested"`
	Indices   [2]int
	Documents []int32  `json:"document_index"`
	Windows   [][2]int `json:"sample_index"`
	Shuffle   []uint32 `json:"shuffle_index"`
	Samples   []sample
	// The first entries, of mock data.
	Documents16 []int32  `json:"document_index_first16"`
	Windows8    [][2]int `json:"sample_index_first8"`
	Shuffle16   []uint32 `json:"shuffle_index_first16"`
}

// check holds samples to Megatron's. With the quirk all masks there were multiplied by the first.
func check(t *testing.T, s Samples, want []sample, quirk bool) {
	for k, w := range want {
		n := s.SeqLen()
		row := Row{Tokens: make([]int32, n+1), Labels: make([]int32, n), Segments: make([]int32, n), Positions: make([]int32, n)}
		for _, slice := range [][]int32{row.Tokens, row.Labels, row.Segments, row.Positions} {
			for i := range slice {
				slice[i] = 7777
			}
		}
		require.NoError(t, s.Sample(k, row))
		require.Equal(t, w.Tokens, row.Tokens[:n], "sample %d", k)
		require.Equal(t, w.Positions, row.Positions, "sample %d", k)
		for i, label := range row.Labels {
			mask := 1.0
			if label == NoLoss {
				mask, label = 0, row.Tokens[i+1]
			}
			if quirk {
				mask *= want[0].Mask[i]
			}
			require.Equal(t, w.Labels[i], label, "sample %d, position %d", k, i)
			require.Equal(t, w.Mask[i], mask, "sample %d, position %d", k, i)
		}
		for i := range w.FirstSeen {
			require.Equal(t, w.FirstSeen[i], slices.Index(row.Segments, row.Segments[i]), "sample %d, position %d", k, i)
		}
		tokens := make([]int32, n+1)
		require.NoError(t, s.Sample(k, Row{Tokens: tokens}))
		require.Equal(t, row.Tokens, tokens, "tokens alone")
		labels := make([]int32, n)
		require.NoError(t, s.Sample(k, Row{Labels: labels}))
		require.Equal(t, row.Labels, labels, "labels alone")
	}
}

// windowIndex is entry k of Megatron's sample index: the last token that window k-1 took, in docs.
func (d *Dataset) windowIndex(k int) [2]int {
	if k == 0 {
		return [2]int{}
	}
	total := d.ends[len(d.ends)-1]
	doc, offset := d.locate(min(int64(k)*int64(d.o.SeqLen)+int64(d.extra), total) - 1)
	return [2]int{doc, offset + 1 - d.extra}
}

func TestGPTDataset(t *testing.T) {
	cases := read[map[string]struct {
		Prefix, Split string
		SeqLen        int `json:"seq_length"`
		Seed          uint32
		EOD           int32
		Options       struct {
			ResetPositions bool  `json:"reset_position_ids"`
			ResetMask      bool  `json:"reset_attention_mask"`
			MaskEOD        bool  `json:"eod_mask_loss"`
			DropPartial    *bool `json:"drop_last_partial_validation_sequence"`
			Extra          *bool `json:"add_extra_token_to_sequence"`
		}
		Splits map[string]*split
	}](t, "gpt_dataset.json")
	require.Len(t, cases, 6)
	for name, c := range cases {
		x, err := Open(golden + c.Prefix)
		require.NoError(t, err)
		defer x.Close()
		shares, err := ParseSplit(c.Split)
		require.NoError(t, err)
		for part, partName := range partNames {
			want := c.Splits[partName]
			begin, end, err := shares.Share(part, x.Sequences())
			if want == nil {
				require.ErrorContains(t, err, "is empty", "%s %s", name, partName)
				continue
			}
			require.NoError(t, err)
			require.Equal(t, want.Indices, [2]int{begin, end})
			o := Options{SeqLen: c.SeqLen, Seed: c.Seed, EOD: c.EOD, Vocab: 420,
				ResetPositions: c.Options.ResetPositions, ResetSegments: c.Options.ResetMask, MaskEOD: c.Options.MaskEOD,
				KeepPartial:  part == Valid && c.Options.DropPartial != nil && !*c.Options.DropPartial,
				NoExtraToken: c.Options.Extra != nil && !*c.Options.Extra}
			if want.Requested != nil {
				o.Samples = *want.Requested
			}
			d, err := NewDataset(x, begin, end, o)
			require.NoError(t, err)
			require.Equal(t, want.Len, d.Len(), "%s %s", name, partName)
			require.Equal(t, want.Documents, d.docs, "%s %s", name, partName)
			require.Equal(t, want.Shuffle, d.order, "%s %s", name, partName)
			require.Len(t, want.Windows, d.Len()+1)
			for k, w := range want.Windows {
				require.Equal(t, w, d.windowIndex(k), "%s %s: window %d", name, partName, k)
			}
			check(t, d, want.Samples, o.KeepPartial)
		}
	}
}

func TestMock(t *testing.T) {
	cases := read[map[string]struct {
		EOD       int32
		Seed      uint32
		SeqLen    int `json:"seq_length"`
		Sizes     [3]int
		Lengths32 []int32 `json:"low_level_lengths_first32"`
		SHA       string  `json:"low_level_lengths_sha256_int32le"`
		Splits    map[string]split
	}](t, "mock.json")
	for name, vocab := range map[string]int{"vocab32000": 32000, "vocab420": 420} {
		c, found := cases[name]
		require.True(t, found)
		m, err := Mock(vocab, c.EOD)
		require.NoError(t, err)
		require.Equal(t, c.Lengths32, mockLengths()[:32])
		b, err := binary.Append(nil, binary.LittleEndian, mockLengths())
		require.NoError(t, err)
		require.Equal(t, c.SHA, sum(b))
		shares, err := ParseSplit(MockSplit)
		require.NoError(t, err)
		for part, partName := range partNames {
			want := c.Splits[partName]
			begin, end := shares.Bounds(part, m.Sequences())
			require.Equal(t, want.Indices, [2]int{begin, end})
			d, err := NewDataset(m, begin, end, Options{SeqLen: c.SeqLen, Samples: c.Sizes[part], Seed: c.Seed, EOD: c.EOD, Vocab: vocab})
			require.NoError(t, err)
			require.Equal(t, want.Len, d.Len())
			require.Equal(t, want.Documents16, d.docs[:16])
			require.Equal(t, want.Shuffle16, d.order[:16])
			for k, w := range want.Windows8 {
				require.Equal(t, w, d.windowIndex(k))
			}
			check(t, d, want.Samples, false)
		}
	}
	m, err := Mock(3, 2)
	require.NoError(t, err)
	ids := make([]int32, 12)
	require.NoError(t, m.Read(ids[:5], 13, m.Length(13)-5))
	require.NoError(t, m.Read(ids[5:], 13, 0))
	require.Equal(t, []int32{0, 1, 2, 0, 2, 1, 2, 0, 1, 2, 0, 1}, ids, "ids wrap around below the vocabulary")
	require.ErrorContains(t, m.Read(ids, mockSequences, 0), "want 0 to 99999")
	require.Contains(t, m.Where(7, 8), "sequence 7, token 8")
	for _, bad := range []struct {
		vocab int
		eod   int32
	}{{0, 0}, {10, 10}, {10, -1}} {
		_, err := Mock(bad.vocab, bad.eod)
		require.Error(t, err)
	}
}

func TestBlend(t *testing.T) {
	cases := read[map[string]struct {
		Weights   []float64
		Sizes     [3]*int
		Len       int
		Which     []int  `json:"dataset_index"`
		Inside    []int  `json:"dataset_sample_index"`
		InnerLen  []int  `json:"inner_len"`
		Requested []*int `json:"inner_requested"`
		Samples   []sample
	}](t, "blended.json")
	require.Len(t, cases, 3)
	for name, c := range cases {
		size := 0
		if c.Sizes[0] != nil {
			size = *c.Sizes[0]
		}
		sizes, total := []int{0, 0}, size
		if c.Weights != nil {
			var err error
			sizes, total, err = BlendSizes(c.Weights, size)
			require.NoError(t, err)
		}
		var parts []Samples
		for i, prefix := range []string{"u16_nobos", "u16_bos"} {
			x := open(t, prefix)
			if c.Requested[i] != nil {
				require.Equal(t, *c.Requested[i], sizes[i], name)
			}
			d, err := NewDataset(x, 0, x.Sequences(), Options{SeqLen: 32, Samples: sizes[i], Seed: 1234, EOD: 2})
			require.NoError(t, err)
			require.Equal(t, c.InnerLen[i], d.Len(), name)
			parts = append(parts, d)
		}
		var b *Blend
		var err error
		if c.Weights != nil {
			b, err = NewBlend(parts, c.Weights, total)
		} else {
			b, err = NewBlendOfAll(parts, size)
		}
		require.NoError(t, err)
		require.Equal(t, c.Len, b.Len(), name)
		for i := range b.Len() {
			part, inside := b.Part(i)
			require.Equal(t, []int{c.Which[i], c.Inside[i]}, []int{part, inside}, "%s: sample %d", name, i)
		}
		for i, s := range c.Samples {
			part, _ := b.Part(i)
			require.Equal(t, s.DatasetID, part)
		}
		check(t, b, c.Samples, false)
		require.Error(t, b.Sample(b.Len(), Row{}))
		require.Error(t, b.Sample(-1, Row{}))
	}
}

func TestBlendsThatAreRefused(t *testing.T) {
	x := open(t, "u16_nobos")
	d, err := NewDataset(x, 0, 19, Options{SeqLen: 32})
	require.NoError(t, err)
	other, err := NewDataset(x, 0, 19, Options{SeqLen: 16})
	require.NoError(t, err)
	for _, tt := range []struct {
		name    string
		parts   []Samples
		weights []float64
		size    int
		want    string
	}{
		{"none", nil, []float64{1}, 1, "blend of 0 datasets"},
		{"no weights", []Samples{d}, nil, 1, "weights [] sum to 0"},
		{"lengths differ", []Samples{d, other}, []float64{1, 1}, 1, "dataset 1 of the blend has 66 samples of 16 tokens, want some of 32"},
		{"a weight is missing", []Samples{d, d}, []float64{1}, 1, "1 weights for 2 datasets"},
		{"weights of nothing", []Samples{d, d}, []float64{0, 0}, 1, "sum to 0, want more than 0"},
		{"a negative weight", []Samples{d, d}, []float64{2, -1}, 1, "weight 1 is -1"},
		{"NaN", []Samples{d, d}, []float64{math.NaN(), 1}, 1, "want more than 0"},
		{"no samples", []Samples{d, d}, []float64{1, 1}, 0, "blend of 0 samples"},
		{"a part runs out", []Samples{d, d}, []float64{1, 3}, 60, "dataset 1 of the blend has 33 samples, want more for its weight 0.75 in a blend of 60"},
	} {
		_, err := NewBlend(tt.parts, tt.weights, tt.size)
		require.ErrorContains(t, err, tt.want, tt.name)
	}
	_, _, err = BlendSizes([]float64{1}, 0)
	require.ErrorContains(t, err, "blend of 0 samples")
}

func TestWeightsAreSummedPairwise(t *testing.T) {
	// A plain sum is 1e16, which swallows every 1.
	require.Equal(t, 1e16+6, pairwise([]float64{1e16, 1, 1, 1, 1, 1, 1, 1}), "((1e16+1)+(1+1)) + ((1+1)+(1+1))")
	long := make([]float64, 1000)
	for i := range long {
		long[i] = 1
	}
	require.Equal(t, 1000.0, pairwise(long))
	require.Equal(t, 13.0, pairwise(long[:13]))
}

func TestDatasetsThatAreRefused(t *testing.T) {
	x := open(t, "u16_nobos")
	for _, tt := range []struct {
		name       string
		begin, end int
		o          Options
		want       string
	}{
		{"no sequence", 3, 3, Options{SeqLen: 32, Samples: 5}, "sequences [3, 3) have no tokens, want at least 33 for one sample"},
		{"too short for one sample", 4, 5, Options{SeqLen: 32}, "sequences [4, 5) have 2 tokens: 0 samples of 32"},
		{"beyond the sequences", 0, 20, Options{SeqLen: 32}, "sequences [0, 20), want within [0, 19)"},
		{"backwards", 5, 4, Options{SeqLen: 32}, "sequences [5, 4)"},
		{"samples of no tokens", 0, 19, Options{}, "samples of 0 tokens"},
		{"a negative count", 0, 19, Options{SeqLen: 32, Samples: -1}, "-1 of them"},
		{"epochs without end", 4, 5, Options{SeqLen: 1 << 30, Samples: 1 << 30}, "epochs of 1 sequences, want at most"},
	} {
		_, err := NewDataset(x, tt.begin, tt.end, tt.o)
		require.ErrorContains(t, err, tt.want, tt.name)
	}
	d, err := NewDataset(x, 4, 5, Options{SeqLen: 32, Samples: 2})
	require.NoError(t, err, "short sequences are gone through as often as it takes")
	require.Equal(t, 33, d.Epochs())
	for _, i := range []int{-1, d.Len()} {
		require.Error(t, d.Sample(i, Row{}))
	}
	for _, i := range []int{0, 1} {
		require.NoError(t, d.Sample(i, Row{}))
	}
}

func TestIdsBeyondTheVocabularyAreRefused(t *testing.T) {
	x := open(t, "u16_nobos")
	d, err := NewDataset(x, 0, 1, Options{SeqLen: 39, Vocab: 380})
	require.NoError(t, err)
	require.EqualError(t, d.Sample(0, Row{}), "sample 0: "+golden+
		"u16_nobos_text_document.bin: offset 16: sequence 0, token 8: token id 389, want 0 to 379, the vocabulary")
}
