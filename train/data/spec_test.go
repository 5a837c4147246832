package data

import (
	"math"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCountsAreMegatrons(t *testing.T) {
	s := Spec{Steps: 500_000, Global: 256, EvalEvery: 1000, EvalBatches: 10}
	require.Equal(t, [3]int{128_000_000, 501 * 10 * 256, 2560}, s.Counts())
	s.EvalEvery = 0
	require.Equal(t, [3]int{128_000_000, 0, 2560}, s.Counts())
}

func TestBlendsAreParsed(t *testing.T) {
	for _, tt := range []struct {
		list    []string
		paths   []string
		weights []float64
		err     string
	}{
		{[]string{"a"}, []string{"a"}, nil, ""},
		{[]string{"a", "b"}, []string{"a", "b"}, nil, ""},
		{[]string{"0.3", "a", "7", "b"}, []string{"a", "b"}, []float64{0.3, 7}, ""},
		{[]string{" 0.3 a  7 b"}, []string{"a", "b"}, []float64{0.3, 7}, ""},
		{[]string{"1", "a"}, []string{"a"}, []float64{1}, ""},
		{[]string{"a", "b", "c"}, []string{"a", "b", "c"}, nil, ""},
		{[]string{"1", "a", "b", "c"}, nil, nil, `"b" is no weight`},
		{[]string{"a", "b", "1", "c"}, nil, nil, `"a" is no weight`},
		{[]string{"-1", "a"}, nil, nil, "weight of a is -1"},
		{[]string{"NaN", "a"}, nil, nil, "weight of a is NaN"},
		{[]string{"Inf", "a"}, nil, nil, "weight of a is Inf"},
		{[]string{" "}, nil, nil, "0 paths"},
	} {
		paths, weights, err := parseBlend(tt.list)
		if tt.err != "" {
			require.ErrorContains(t, err, tt.err, tt.list)
			continue
		}
		require.NoError(t, err, tt.list)
		require.Equal(t, tt.paths, paths)
		require.Equal(t, tt.weights, weights)
	}
	spaced := fileOf(t, "a name with blanks", "x")
	paths, _, err := parseBlend([]string{spaced})
	require.NoError(t, err)
	require.Equal(t, []string{spaced}, paths)
}

func TestSpecsThatAreRefused(t *testing.T) {
	tok := tokenizer(t)
	texts := []string{strings.Repeat("words ", 30), strings.Repeat("more ", 30), "little"}
	folder := t.TempDir()
	unread := Manifest{Tokenizer: "0123456789abcdef", VocabSize: 5, EOD: 2}
	other := folder + "/other"
	for _, end := range []string{".bin", ".idx"} {
		require.NoError(t, os.WriteFile(other+end, readFile(t, u16+end), 0o644))
	}
	require.NoError(t, unread.write(other+".json"))
	for _, tt := range []struct {
		name string
		s    Spec
		want string
	}{
		{"nothing", Spec{}, "0 kinds of data"},
		{"two kinds", Spec{Documents: texts, Paths: []string{u16}}, "2 kinds of data"},
		{"no samples", Spec{Mock: true, Vocab: 9, Seq: -1}, "Seq is -1, want 1 to"},
		{"steps", Spec{Mock: true, Vocab: 9, Steps: -1}, "Steps is -1, want 0 to"},
		{"too many", Spec{Mock: true, Vocab: 9, Steps: most, Global: 2}, "more than 1073741824 samples"},
		{"text without tokenizer", Spec{Documents: texts}, "no tokenizer"},
		{"a file without tokenizer", Spec{Paths: []string{fileOf(t, "a.txt", "x")}}, "no tokenizer"},
		{"a tokenizer too large", Spec{Documents: texts, Tokenizer: tok, Vocab: 419}, "the tokenizer has 420 ids, want at most 419"},
		{"a split of mock data", Spec{Mock: true, Vocab: 9, Split: "1"}, `split "1": made-up data`},
		{"mock data without vocabulary", Spec{Mock: true}, "vocabulary of 0 ids"},
		{"a split that is none", Spec{Documents: texts, Tokenizer: tok, Split: "x"}, `split "x"`},
		{"a part without paths", Spec{SplitPaths: [3][]string{Train: {u16}}, EvalEvery: 1, EvalBatches: 1}, "no valid data"},
		{"no training data", Spec{SplitPaths: [3][]string{Valid: {u16}}}, "no train data"},
		{"no file", Spec{Paths: []string{folder + "/x"}}, "no such file, nor a dataset " + folder + "/x.idx"},
		{"a folder", Spec{Paths: []string{folder}, Tokenizer: tok}, "not a file"},
		{"other keys", Spec{Paths: []string{fileOf(t, "a.jsonl", `{"b": 1, "a": 2}`)}, Tokenizer: tok}, `line 1 has the keys ["a" "b"], want "text" or "messages"`},
		{"no JSON", Spec{Paths: []string{fileOf(t, "a.jsonl", "\nhello")}, Tokenizer: tok}, "a.jsonl: line 2: not a JSON object"},
		{"an empty file", Spec{Paths: []string{fileOf(t, "a.jsonl", "")}, Tokenizer: tok}, "empty, want a JSON object a line"},
		{"a bad line", Spec{Paths: []string{fileOf(t, "a.jsonl", `{"text": "a"}`+"\nx")}, Tokenizer: tok}, "a.jsonl: line 2: not a JSON object"},
		{"text that is not UTF-8", Spec{Paths: []string{fileOf(t, "a.txt", "abc\x00d\xff")}, Tokenizer: tok}, "a.txt: text at byte 4: "},
		{"an empty text", Spec{Paths: []string{fileOf(t, "a.txt", "")}, Tokenizer: tok}, "split train is empty: of 0 sequences"},
		{"another tokenizer", Spec{Paths: []string{other}, Tokenizer: tok}, "made with tokenizer 0123456789ab… of 5 ids"},
		{"documents without known ends", Spec{Paths: []string{u16}, MaskEOD: true}, "it is not known which id ends documents"},
		{"an empty split", Spec{Paths: []string{u16}, EvalEvery: 1, EvalBatches: 1, Split: "99990,8,2", Steps: 5}, "split valid is empty: of 19 sequences train 19, valid 0, test 0; more data, a larger share, shorter samples or no evaluations would do"},
		{"a split too small", Spec{Documents: texts, Tokenizer: tok, EvalEvery: 1, EvalBatches: 1, Split: "2,1", Seq: 20, Steps: 5}, "documents: valid of split 2,1 has "},
		{"an empty test", Spec{Paths: []string{u16}, Test: true, Split: "1"}, "or no test would do"},
		{"too little data", Spec{Documents: texts, Tokenizer: tok, Split: "1", Seq: 5000, Steps: 5}, "in 3 of 3 sequences, want at least 5001 for one sample of 5000; more data, a larger share or shorter samples would do"},
		{"weights without steps", Spec{Paths: []string{"1", u16}, Split: "1"}, "weights but no number of steps"},
		{"weights of nothing", Spec{Paths: []string{"0", u16}, Split: "1", Steps: 1}, "sum to 0"},
		{"ids beyond the vocabulary", Spec{Paths: []string{u16}, Split: "1", Pack: true, Vocab: 380}, u16 + ".bin: offset 16: sequence 0, token 8: token id 389, want 0 to 379, the vocabulary"},
		{"no conversation", Spec{Chats: strings.NewReader(""), Tokenizer: tok}, "split train is empty"},
		{"a bad conversation", Spec{Chats: strings.NewReader("{}"), Tokenizer: tok}, `conversations: line 1: no key "messages"`},
	} {
		if tt.s.Seq == 0 {
			tt.s.Seq = 8
		}
		tt.s.Global = max(tt.s.Global, 1)
		_, err := OpenSets(t.Context(), tt.s)
		require.ErrorContains(t, err, tt.want, tt.name)
		require.NotContains(t, err.Error(), "\n")
	}
}

func TestKindsAreToldByContent(t *testing.T) {
	s := Spec{Key: "body"}
	for _, tt := range []struct {
		file, text string
		want       fileKind
	}{
		{"a.jsonl", `{"body": "x"}`, textFile},
		{"a.jsonl", "\n \n" + `{"body": "x", "messages": []}`, textFile},
		{"a.JSON", `{"messages": []}`, chatFile},
		{"a", `{"messages": []}`, chatFile},
		{"a.txt", `{"body": "x"}`, textFile},
		{"a.txt", `{"text": "x"}`, plainFile},
		{"a.txt", "{ not JSON", plainFile},
		{"a.md", "text", plainFile},
		{"a", "", plainFile},
	} {
		got, err := s.kindOf(fileOf(t, tt.file, tt.text))
		require.NoError(t, err, tt.text)
		require.Equal(t, tt.want, got, "%s: %s", tt.file, tt.text)
	}
}

func TestEpochs(t *testing.T) {
	var sequences [][]int32
	for i := range int32(40) {
		sequences = append(sequences, []int32{i})
	}
	m := NewMemory("m", sequences)
	e, err := NewEpochs(m, 0, 40, Options{SeqLen: 3, Samples: 100, Seed: 7})
	require.NoError(t, err)
	require.Equal(t, 100, e.Len())
	d, err := NewDataset(m, 0, 40, Options{SeqLen: 3, Seed: 7})
	require.NoError(t, err)
	n := d.Len()
	require.Equal(t, rows(t, d, n), rows(t, e, n), "the first epoch is a dataset's")
	all := rows(t, e, 100)
	require.NotEqual(t, all[:n], all[n:2*n])
	require.NotEqual(t, all[n:2*n], all[2*n:3*n])
	for _, epoch := range [][]Row{all[:n], all[n : 2*n]} { // no token is a label twice
		seen := map[int32]bool{}
		for _, row := range epoch {
			for _, id := range row.Labels {
				require.False(t, seen[id])
				seen[id] = true
			}
		}
	}
	for _, i := range []int{99, 0, 55, 30, 12, 70} { // in any order
		row := whole(3)
		require.NoError(t, e.Sample(i, row))
		require.Equal(t, all[i], row)
	}
	for _, i := range []int{-1, 100} {
		require.ErrorContains(t, e.Sample(i, Row{}), "want 0 to 99")
	}
	l, err := NewLoader(t.Context(), e, LoaderOptions{Batch: 5, Workers: 4})
	require.NoError(t, err)
	defer l.Close()
	for i := 0; i < 100; i += 5 {
		b, err := l.Next()
		require.NoError(t, err)
		require.Equal(t, all[i].Tokens, b.Tokens[:4], "batch at %d", i)
	}
	_, err = NewEpochs(m, 0, 2, Options{SeqLen: 3})
	require.Error(t, err)
	_, err = NewEpochs(m, 0, 40, Options{SeqLen: 3, Samples: math.MaxInt})
	require.Error(t, err)
}
