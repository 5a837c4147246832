package data

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func sets(t *testing.T, s Spec) *Sets {
	all, err := OpenSets(t.Context(), s)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, all.Close()) })
	return all
}

// rows are the first n samples.
func rows(t *testing.T, s Samples, n int) (all []Row) {
	for i := range n {
		row := whole(s.SeqLen())
		require.NoError(t, s.Sample(i, row))
		all = append(all, row)
	}
	return all
}

// fileOf makes a file.
func fileOf(t *testing.T, name, text string) string {
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

const u16 = golden + "u16_nobos_text_document"

func TestSetsAreMegatrons(t *testing.T) {
	cases := read[map[string]struct {
		Splits map[string]*split
	}](t, "gpt_dataset.json")
	for _, tt := range []struct {
		name string
		s    Spec
	}{
		{"one_epoch_train_only", Spec{Paths: []string{u16}, Split: "1,0,0", Seq: 32, Global: 1}},
		{"separate_final_epoch", Spec{Paths: []string{u16 + ".bin"}, Split: "1,0,0", Seq: 32, Global: 4, Steps: 10}},
		{"three_way_80_15_5", Spec{Paths: []string{u16}, Split: "80,15,5", Seq: 16, Global: 1, Steps: 30, EvalEvery: 10, EvalBatches: 2, Test: true}},
		{"reset_pos_mask_eodloss", Spec{Paths: []string{u16}, Split: "1,0,0", Seq: 32, Global: 1, ResetPositions: true, ResetAttention: true, MaskEOD: true}},
	} {
		tt.s.Seed, tt.s.Tokenizer, tt.s.Vocab = 1234, tokenizer(t), 420
		all := sets(t, tt.s)
		for part, s := range []Samples{all.Train, all.Valid, all.Test} {
			want := cases[tt.name].Splits[partNames[part]]
			if want == nil {
				require.Nil(t, s, "%s %s", tt.name, partNames[part])
				continue
			}
			require.Equal(t, want.Len, s.Len(), "%s %s", tt.name, partNames[part])
			check(t, s, want.Samples, false)
		}
		require.Equal(t, tt.s.ResetAttention, all.Segments)
		require.Equal(t, tt.s.ResetPositions, all.Positions)
	}
}

func TestMockSetsAreMegatrons(t *testing.T) {
	c := read[map[string]struct {
		EOD    int32
		SeqLen int `json:"seq_length"`
		Sizes  [3]int
		Seed   uint32
		Splits map[string]split
	}](t, "mock.json")["vocab420"]
	all := sets(t, Spec{Mock: true, Vocab: 420, Tokenizer: tokenizer(t), Seq: c.SeqLen, Global: 1, Seed: c.Seed, Steps: c.Sizes[0],
		EvalEvery: c.Sizes[0] + 1, EvalBatches: c.Sizes[1], Test: true})
	require.Equal(t, tokenizer(t).EOS(), c.EOD)
	check(t, all.Train, c.Splits["train"].Samples, false)
	check(t, all.Valid, c.Splits["valid"].Samples, false)
	require.Equal(t, c.Sizes[1], Spec{Steps: c.Sizes[0], Global: 1, EvalEvery: c.Sizes[0] + 1, EvalBatches: c.Sizes[1]}.Counts()[Valid])
}

func TestBlendedSetsAreMegatrons(t *testing.T) {
	cases := read[map[string]struct {
		Len     int
		Samples []sample
	}](t, "blended.json")
	a, b := golden+"u16_nobos_text_document", golden+"u16_bos_text_document"
	for _, tt := range []struct {
		name  string
		paths []string
		steps int
	}{
		{"w_0.3_0.7", []string{"0.3", a, "0.7", b}, 40},
		{"w_0.3_0.7", []string{fmt.Sprintf("0.3 %s 0.7 %s", a, b)}, 40},
		{"w_none_sized", []string{a, b}, 20},
		{"w_none_exhaustive", []string{a, b}, 0},
	} {
		s := Spec{Paths: tt.paths, Split: "1,0,0", Seq: 32, Seed: 1234, Global: 1, Steps: tt.steps, Vocab: 420}
		all := sets(t, s)
		require.Equal(t, cases[tt.name].Len, all.Train.Len(), tt.name)
		check(t, all.Train, cases[tt.name].Samples, false)
		s.Paths, s.Split, s.SplitPaths = nil, "", [3][]string{Train: tt.paths}
		check(t, sets(t, s).Train, cases[tt.name].Samples, false)
	}
}

func TestBlendsNeverRunOut(t *testing.T) {
	many := []string{"0.9", golden + "u16_nobos_text_document"}
	for range 40 {
		many = append(many, "0.0025", golden+"u16_bos_text_document")
	}
	for _, paths := range [][]string{{golden + "u16_nobos_text_document", golden + "u16_bos_text_document"}, many} {
		for _, steps := range []int{1, 7, 500} {
			all := sets(t, Spec{Paths: paths, Split: "1,0,0", Seq: 64, Global: 3, Steps: steps})
			require.GreaterOrEqual(t, all.Train.Len(), 3*steps)
			rows(t, all.Train, 3*steps)
		}
	}
}

func TestTextSets(t *testing.T) {
	text := string(readFile(t, golden+"docs.jsonl"))
	jsonl := fileOf(t, "docs.jsonl", text)
	var plain []string
	for line := range strings.Lines(text) {
		one, err := texts([]byte(line), "text")
		require.NoError(t, err)
		plain = append(plain, one...)
	}
	s := Spec{Split: "8,2", Seq: 16, Seed: 3, Global: 2, Steps: 4, EvalEvery: 4, EvalBatches: 1, Tokenizer: tokenizer(t)}
	var want []Row
	var valid []Row
	var bytesPerToken float64
	dir := filepath.Join(t.TempDir(), "cache")
	for _, tt := range []struct {
		name string
		set  func(*Spec)
	}{
		{"the dataset", func(s *Spec) { s.Paths = []string{u16} }},
		{"jsonl", func(s *Spec) { s.Paths = []string{jsonl} }},
		{"jsonl, cached", func(s *Spec) { s.Paths, s.Cache = []string{jsonl}, dir }},
		{"jsonl, found in the cache", func(s *Spec) { s.Paths, s.Cache = []string{jsonl}, dir }},
		{"plain text", func(s *Spec) { s.Paths = []string{fileOf(t, "docs.txt", strings.Join(plain, "\x00"))} }},
		{"plain text, cached", func(s *Spec) { s.Paths, s.Cache = []string{fileOf(t, "docs.txt", strings.Join(plain, "\x00"))}, dir }},
		{"documents", func(s *Spec) { s.Documents = plain }},
	} {
		one := s
		tt.set(&one)
		all := sets(t, one)
		if want == nil {
			want, valid, bytesPerToken = rows(t, all.Train, 8), rows(t, all.Valid, 2), all.BytesPerToken
			require.Greater(t, bytesPerToken, 1.0)
		}
		require.Equal(t, want, rows(t, all.Train, 8), tt.name) // all within the first epoch, where the orders are the same
		require.Equal(t, valid, rows(t, all.Valid, 2), tt.name)
		require.Equal(t, bytesPerToken, all.BytesPerToken)
		require.Nil(t, all.Test)
		require.Contains(t, all.Description, "train: ", tt.name)
	}
}

func TestTheCacheIsUsedAndKeptTrue(t *testing.T) {
	path, dir := fileOf(t, "a.txt", strings.Repeat("some words to learn\x00", 50)), t.TempDir()
	read := int64(0)
	s := Spec{Paths: []string{path}, Split: "1", Seq: 8, Global: 1, Steps: 1, Tokenizer: tokenizer(t), Cache: dir,
		Progress: func(name string, done, total int64) {
			require.Equal(t, path, name)
			require.LessOrEqual(t, done, total)
			read = done
		}}
	first := sets(t, s)
	require.Equal(t, int64(1000), read)
	idx, err := filepath.Glob(filepath.Join(dir, "a.txt-*.idx"))
	require.NoError(t, err)
	require.Len(t, idx, 1)
	read = 0
	require.Equal(t, first.Fingerprint, sets(t, s).Fingerprint)
	require.Zero(t, read, "tokenized once")
	require.NoError(t, os.Truncate(idx[0], 20))
	require.Equal(t, first.Fingerprint, sets(t, s).Fingerprint)
	require.NotZero(t, read, "one that is not whole is made again")
	for name, change := range map[string]func(){
		"content": func() {
			require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("other words here    \x00", 50)), 0o644))
		},
		"time":      func() { require.NoError(t, os.Chtimes(path, time.Time{}, time.Unix(1, 0))) },
		"an option": func() { s.PrependBOS = true },
	} {
		read = 0
		change()
		sets(t, s)
		require.NotZero(t, read, name)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Cache = t.TempDir()
	_, err = OpenSets(ctx, s)
	require.ErrorIs(t, err, context.Canceled)
}

func TestChatSets(t *testing.T) {
	tok := mixtral(t, "tokenizer.model")
	var text strings.Builder
	for i := range 40 {
		fmt.Fprintf(&text, `{"messages": [{"role": "user", "content": "Q%d"}, {"role": "assistant", "content": "A%d"}]}`+"\n", i, i)
	}
	s := Spec{Split: "30,10", Seq: 40, Global: 2, Steps: 20, EvalEvery: 10, EvalBatches: 1, Tokenizer: tok}
	byPath, byReader := s, s
	byPath.Paths, byReader.Chats = []string{fileOf(t, "chat.jsonl", text.String())}, strings.NewReader(text.String())
	a, b := sets(t, byPath), sets(t, byReader)
	require.Equal(t, a.Fingerprint, b.Fingerprint)
	require.True(t, a.Segments)
	require.False(t, a.Positions)
	require.Equal(t, 40, a.Train.Len())
	require.Equal(t, 2, a.EvalSamples)
	require.Equal(t, rows(t, a.Train, 40), rows(t, b.Train, 40))
	asked := map[string]bool{}
	for _, part := range []Samples{a.Train, a.Valid} {
		seen := map[string]bool{}
		for _, row := range rows(t, part, part.Len()) {
			for _, q := range strings.Split(tok.DecodeWithControls(row.Tokens), "[INST] ")[1:] {
				q, _, _ = strings.Cut(q, " ")
				seen[q] = true
			}
		}
		for q := range seen {
			require.False(t, asked[q], "%s is in both", q)
			asked[q] = true
		}
	}
	require.Len(t, asked, 40)
	byPath.EvalBatches = 100
	many := sets(t, byPath)
	require.GreaterOrEqual(t, many.Valid.Len(), 200)
	require.Less(t, many.EvalSamples, 10, "rows of ten conversations")
	require.NotContains(t, rows(t, many.Valid, many.EvalSamples)[1:], rows(t, many.Valid, 1)[0])
	shown, err := a.Show(0, 0)
	require.NoError(t, err)
	require.Regexp(t, `^sample 0: \d+ tokens, \d+ of 40 positions learned \(in ⟦ ⟧\), \d+ padding\n(<s>\[INST\] Q\d+ \[/INST\] ?⟦ ?A\d+</s>⟧\n?)+$`, shown)
	shown, err = a.Show(0, 10)
	require.NoError(t, err)
	require.Contains(t, shown, " …")
	_, err = a.Show(40, 0)
	require.Error(t, err)
}

func TestPackedSets(t *testing.T) {
	s := Spec{Documents: []string{strings.Repeat("long ", 100), "short one", "", "another"}, Split: "1", Seq: 32, Global: 1, Pack: true, Tokenizer: tokenizer(t)}
	all := sets(t, s)
	require.True(t, all.Segments)
	learned := 0
	for _, row := range rows(t, all.Train, all.Train.Len()) {
		for _, label := range row.Labels {
			if label != NoLoss {
				learned++
			}
		}
	}
	m, c, err := ReadText(t.Context(), strings.NewReader(strings.Join(s.Documents, "\x00")), "x", s.Tokenizer, TextOptions{Plain: true, AppendEOD: true})
	require.NoError(t, err)
	require.Equal(t, int(c.Tokens)-m.Sequences(), learned, "every token after the first of a document, once")
	require.Contains(t, all.Description, "0 cut, 0 dropped")
}

func TestBytesPerTokenCountsTheText(t *testing.T) {
	texts := []string{"In the beginning", "was the Wörd 🙂"}
	tok := tokenizer(t)
	all := sets(t, Spec{Documents: []string{"x", texts[0], texts[1]}, Split: "1,2", Seq: 200, Global: 1, EvalEvery: 1, EvalBatches: 1, Tokenizer: tok, Pack: true})
	_, c, err := ReadText(t.Context(), strings.NewReader(strings.Join(texts, "\x00")), "x", tok, TextOptions{Plain: true, AppendEOD: true})
	require.NoError(t, err)
	first := 0 // of each document, which is no label
	for _, text := range texts {
		ids, err := TextOptions{}.ids(tok, text)
		require.NoError(t, err)
		first += len(tok.Bytes(ids[0]))
	}
	spaces := len(texts) // that encoding puts before each, within the first ids
	require.InDelta(t, float64(len(texts[0])+len(texts[1])+spaces-first)/float64(int(c.Tokens)-len(texts)), all.BytesPerToken, 1e-12)
	none := sets(t, Spec{Mock: true, Vocab: 50, Seq: 8, Global: 1, EvalEvery: 1, EvalBatches: 1})
	require.Zero(t, none.BytesPerToken, "no tokenizer")
	shown, err := none.Show(0, 0)
	require.NoError(t, err)
	require.Contains(t, shown, "⟦", "ids where there is no tokenizer")
}

func TestFingerprints(t *testing.T) {
	text := fileOf(t, "a.jsonl", string(readFile(t, golden+"docs.jsonl")))
	base := func() Spec {
		return Spec{Paths: []string{text}, Seq: 8, Seed: 1, Global: 2, Steps: 3, Split: "5,5", EvalEvery: 2, EvalBatches: 1, Tokenizer: tokenizer(t)}
	}
	print := func(change func(*Spec)) string {
		s := base()
		change(&s)
		return sets(t, s).Fingerprint
	}
	same := print(func(*Spec) {})
	seen := map[string]string{same: "nothing"}
	for name, change := range map[string]func(*Spec){
		"seed":      func(s *Spec) { s.Seed = 2 },
		"samples":   func(s *Spec) { s.Seq = 9 },
		"split":     func(s *Spec) { s.Split = "6,4" },
		"BOS":       func(s *Spec) { s.PrependBOS = true },
		"positions": func(s *Spec) { s.ResetPositions = true },
		"attention": func(s *Spec) { s.ResetAttention = true },
		"EOD":       func(s *Spec) { s.MaskEOD = true },
		"packing":   func(s *Spec) { s.Pack = true },
		"path":      func(s *Spec) { s.Paths = []string{u16} },
		"length":    func(s *Spec) { s.Paths, s.Steps = []string{u16}, 500 },
		"weights":   func(s *Spec) { s.Paths = []string{"1", text, "2", u16} },
		"other":     func(s *Spec) { s.Paths = []string{"2", text, "1", u16} },
		"content": func(s *Spec) {
			s.Paths = []string{fileOf(t, "a.jsonl", `{"text": "`+strings.Repeat("word ", 99)+`"}`+"\n"+`{"text": "b b b b b b b b b b b"}`)}
		},
		"documents": func(s *Spec) {
			s.Documents, s.Paths = []string{strings.Repeat("a b c ", 9), strings.Repeat("d e f ", 9)}, nil
		},
		"mock": func(s *Spec) { s.Mock, s.Split, s.Paths = true, "", nil },
	} {
		got := print(change)
		require.Empty(t, seen[got], name)
		seen[got] = name
	}
	for name, change := range map[string]func(*Spec){
		"a longer run of text": func(s *Spec) { s.Steps = 500 },
		"other evaluations":    func(s *Spec) { s.EvalEvery, s.EvalBatches, s.Test = 1, 1, true; s.Split = "5,4,1" },
		"no evaluation":        func(s *Spec) { s.EvalEvery = 0 },
		"a cache":              func(s *Spec) { s.Cache = t.TempDir() },
		"a copy elsewhere":     func(s *Spec) { s.Paths = []string{fileOf(t, "b.jsonl", string(readFile(t, golden+"docs.jsonl")))} },
		"workers":              func(s *Spec) { s.Workers = 1 },
	} {
		require.Equal(t, same, print(change), name)
	}
	long, short := base(), base()
	long.Steps = 500
	require.Equal(t, rows(t, sets(t, short).Train, 6), rows(t, sets(t, long).Train, 6))
}

func TestPathsOfEachPart(t *testing.T) {
	bos := golden + "u16_bos_text_document"
	all := sets(t, Spec{SplitPaths: [3][]string{Train: {u16}, Valid: {bos}, Test: {"1", bos, "1", u16}}, Seq: 16, Global: 2, Steps: 6,
		EvalEvery: 4, EvalBatches: 3, Test: true, Seed: 9, Vocab: 420})
	for _, tt := range []struct {
		got    Samples
		source string
		n      int
	}{{all.Train, "u16_nobos", 12}, {all.Valid, "u16_bos", 12}} { // 12 = (6/4 + 1) · 3 · 2
		x := open(t, tt.source)
		want, err := NewDataset(x, 0, x.Sequences(), Options{SeqLen: 16, Samples: tt.n, Seed: 9})
		require.NoError(t, err)
		require.Equal(t, rows(t, want, tt.n), rows(t, tt.got, tt.n), tt.source)
	}
	require.GreaterOrEqual(t, all.Test.Len(), 6)
	require.IsType(t, &Blend{}, all.Test)
	require.Equal(t, 6, all.EvalSamples)
}

func TestTextAndConversationsTogether(t *testing.T) {
	chat := fileOf(t, "chat.jsonl", strings.Repeat(`{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}`+"\n", 50))
	text := fileOf(t, "a.txt", strings.Repeat("words of a text\x00", 50))
	tok := mixtral(t, "tokenizer.model")
	all := sets(t, Spec{Paths: []string{"1", chat, "3", text}, Split: "1", Seq: 24, Global: 4, Steps: 10, Tokenizer: tok})
	require.True(t, all.Segments, "of the conversations")
	require.GreaterOrEqual(t, all.Train.Len(), 40)
	chats := 0
	for _, row := range rows(t, all.Train, 40) {
		if strings.Contains(tok.DecodeWithControls(row.Tokens), "[INST]") {
			chats++
		} else {
			require.Equal(t, make([]int32, 24), row.Segments)
		}
	}
	require.Equal(t, 10, chats)
}
