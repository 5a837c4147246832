package data

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"mix/graph/token"
)

func tokenizer(t testing.TB) *token.Tokenizer {
	tok, err := token.FromModel(readFile(t, golden+"tok.model"))
	require.NoError(t, err)
	return tok
}

// numbers is a tokenizer of texts of numbers below its value, which is also its EOS.
type numbers int32

func (n numbers) VocabSize() int        { return int(n) + 1 }
func (n numbers) Piece(id int32) string { return strconv.Itoa(int(id)) }
func (n numbers) BOS() int32            { return -1 }
func (n numbers) EOS() int32            { return int32(n) }
func (n numbers) Encode(text string, _ token.EncodeOptions) (ids []int32, err error) {
	for _, f := range strings.Fields(text) {
		id, err := strconv.ParseInt(f, 10, 32)
		if err != nil {
			return nil, err
		}
		ids = append(ids, int32(id))
	}
	return ids, nil
}

func TestPreprocessGivesMegatronsBytes(t *testing.T) {
	for _, tt := range []struct {
		dataset, input string
		t              Tokenizer
		o              TextOptions
	}{
		{"u16_nobos", "docs", tokenizer(t), TextOptions{AppendEOD: true}},
		{"u16_bos", "docs", tokenizer(t), TextOptions{AppendEOD: true, PrependBOS: true}},
		{"u16_noeod", "docs", tokenizer(t), TextOptions{}},
		{"u16_multi", "docs_multi", numbers(32000), TextOptions{AppendEOD: true}},
		{"i32_null", "docs_null", numbers(131072), TextOptions{AppendEOD: true}},
	} {
		text := readFile(t, golden+tt.input+".jsonl")
		wantIdx, wantBin := files(t, golden+tt.dataset+"_text_document")
		for _, workers := range []int{1, 3} {
			prefix := filepath.Join(t.TempDir(), "x")
			var last int64
			tt.o.Workers, tt.o.Progress = workers, func(n int64) { last = n }
			c, err := Preprocess(t.Context(), bytes.NewReader(text), tt.input, prefix, tt.t, tt.o)
			require.NoError(t, err, tt.dataset)
			idx, bin := files(t, prefix)
			require.Equal(t, wantIdx, idx, tt.dataset)
			require.Equal(t, wantBin, bin, tt.dataset)
			require.Equal(t, int64(len(text)), last)
			x, err := Open(prefix)
			require.NoError(t, err)
			require.Equal(t, Counts{Documents: x.Documents(), Sequences: x.Sequences(), Tokens: x.Tokens(), Lines: bytes.Count(text, []byte("\n")), Bytes: int64(len(text))}, c)
			require.NoError(t, x.CheckTokenizer(tt.t))
			require.ErrorContains(t, x.CheckTokenizer(numbers(5)), "made with tokenizer")
			require.NoError(t, x.Close())
		}
	}
}

func TestWorkersKeepTheOrder(t *testing.T) {
	var text strings.Builder
	for i := range 20 * chunkLines {
		fmt.Fprintf(&text, "{\"text\": \"%d %s\"}\n", i, strings.Repeat(" 7", i%13))
	}
	var want []byte
	for _, workers := range []int{1, 8} {
		m, c, err := ReadText(t.Context(), strings.NewReader(text.String()), "x", numbers(1<<20), TextOptions{Workers: workers})
		require.NoError(t, err)
		require.Equal(t, 20*chunkLines, c.Documents)
		got := fmt.Append(nil, m.sequences)
		if want == nil {
			want = got
		}
		require.True(t, bytes.Equal(want, got), "%d workers", workers)
		id := make([]int32, 1)
		for i := range m.Sequences() {
			require.NoError(t, m.Read(id, i, 0))
			require.Equal(t, int32(i), id[0])
		}
		require.Error(t, m.Read(id, m.Sequences(), 0))
	}
}

func TestBadLines(t *testing.T) {
	good := `{"text": "1 2"}`
	for _, tt := range []struct{ name, line, want string }{
		{"no JSON", `hello`, `not a JSON object: "hello"`},
		{"an empty line", ``, `not a JSON object: ""`},
		{"a list", `["text"]`, "not a JSON object"},
		{"null", `null`, "not a JSON object"},
		{"two objects", good + good, "not a JSON object"},
		{"no text", `{"Text": "1"}`, `no key "text"`},
		{"a number", `{"text": 1}`, `key "text": want a text`},
		{"no string", `{"text": null}`, `key "text": null, want a text`},
		{"a list of numbers", `{"text": ["1", 2]}`, `key "text": want a text`},
		{"a list with null", `{"text": ["1", null]}`, `key "text": null`},
		{"not UTF-8", "{\"text\": \"1\xff\"}", "byte 11 is no UTF-8"},
		{"half a pair", `{"text": "1\ud83d"}`, "half a surrogate pair"},
		{"what the tokenizer refuses", `{"text": "one"}`, "invalid syntax"},
		{"an id beyond the vocabulary", `{"text": "1 -1"}`, "token 1: id -1, want 0 to 100, the vocabulary"},
	} {
		text := good + "\n" + good + "\n" + tt.line + "\n" + good // no line end after the last
		prefix := filepath.Join(t.TempDir(), "x")
		_, err := Preprocess(t.Context(), strings.NewReader(text), "in.jsonl", prefix, numbers(100), TextOptions{})
		require.ErrorContains(t, err, "in.jsonl: line 3: ", tt.name)
		require.ErrorContains(t, err, tt.want, tt.name)
		left, err := os.ReadDir(filepath.Dir(prefix))
		require.NoError(t, err)
		require.Empty(t, left, "nothing is left after a failure")
		c, err := Preprocess(t.Context(), strings.NewReader(text), "in.jsonl", prefix, numbers(100), TextOptions{SkipBad: true})
		require.NoError(t, err, tt.name)
		require.Equal(t, 1, c.BadLines, tt.name)
		require.Equal(t, 3, c.Documents, tt.name)
		x, err := Open(prefix)
		require.NoError(t, err)
		require.Equal(t, 1, x.Manifest().BadLines)
		require.NoError(t, x.Close())
	}
}

func TestCharactersThatLookLikeErrors(t *testing.T) {
	for line, want := range map[string]string{
		`{"text": "�"}`: "�", `{"text": "\uFFFD"}`: "�", `{"text": "\\ud800"}`: `\ud800`, `{"text": "😀 \ud83d\ude00"}`: "😀 😀",
	} {
		got, err := texts([]byte(line), "text")
		require.NoError(t, err, line)
		require.Equal(t, []string{want}, got)
	}
	for _, line := range []string{`{"text": "\\ufffd\udfff"}`, `{"text": ["\ud800", "x"]}`} {
		_, err := texts([]byte(line), "text")
		require.ErrorContains(t, err, "half a surrogate pair", line)
	}
}

func TestPreprocessThatCannotEnd(t *testing.T) {
	dir := t.TempDir()
	prefix := filepath.Join(dir, "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	many := strings.Repeat("{\"text\": \"1\"}\n", 10000)
	_, err := Preprocess(ctx, strings.NewReader(many), "x", prefix, numbers(5), TextOptions{})
	require.ErrorIs(t, err, context.Canceled)
	broken := errors.New("broken")
	_, err = Preprocess(t.Context(), io.MultiReader(strings.NewReader(many), iotest.ErrReader(broken)), "x", prefix, numbers(5), TextOptions{})
	require.ErrorIs(t, err, broken)
	_, err = Preprocess(t.Context(), strings.NewReader(`{"text": ""}`), "in", prefix, numbers(5), TextOptions{})
	require.EqualError(t, err, "in: 1 documents and 0 bad lines, but no tokens")
	_, err = Preprocess(t.Context(), strings.NewReader(""), "in", prefix, numbers(5), TextOptions{Workers: -1})
	require.ErrorContains(t, err, "-1 workers")
	_, err = Preprocess(t.Context(), strings.NewReader(many), "in", prefix, numbers(5), TextOptions{PrependBOS: true})
	require.ErrorContains(t, err, "BOS -1")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestAFailureLeavesTheDatasetBefore(t *testing.T) {
	prefix := filepath.Join(t.TempDir(), "x")
	_, err := Preprocess(t.Context(), strings.NewReader(`{"text": "1 2 3"}`), "x", prefix, numbers(5), TextOptions{})
	require.NoError(t, err)
	_, err = Preprocess(t.Context(), strings.NewReader("{\"text\": \"1\"}\nx"), "x", prefix, numbers(5), TextOptions{})
	require.Error(t, err)
	x, err := Open(prefix)
	require.NoError(t, err)
	require.Equal(t, int64(3), x.Tokens())
	require.NoError(t, x.Close())
	_, err = Preprocess(t.Context(), strings.NewReader(`{"text": "4"}`), "x", prefix, numbers(5), TextOptions{})
	require.NoError(t, err)
	x, err = Open(prefix)
	require.NoError(t, err)
	require.Equal(t, int64(1), x.Tokens(), "written over")
	require.NoError(t, x.Close())
	require.NoError(t, os.WriteFile(prefix+".json", []byte("{"), 0o644))
	_, err = Open(prefix)
	require.ErrorIs(t, err, ErrFormat)
	require.ErrorContains(t, err, prefix+".json")
}

func TestTokenizersOfUnknownData(t *testing.T) {
	require.NoError(t, open(t, "u16_nobos").CheckTokenizer(numbers(420)))
	require.ErrorContains(t, open(t, "u16_nobos").CheckTokenizer(numbers(131072)), "tokens are uint16, but a tokenizer of 131073 ids makes int32")
	require.NotEqual(t, Fingerprint(numbers(5)), Fingerprint(numbers(6)))
	require.Equal(t, Fingerprint(tokenizer(t)), Fingerprint(tokenizer(t)))
}

func TestTextInMemoryIsLikeTextOnDisk(t *testing.T) {
	m, _, err := ReadText(t.Context(), bytes.NewReader(readFile(t, golden+"docs.jsonl")), "docs", tokenizer(t), TextOptions{AppendEOD: true})
	require.NoError(t, err)
	x := open(t, "u16_nobos")
	o := Options{SeqLen: 16, Samples: 100, Seed: 5, EOD: 2, Vocab: 420, ResetPositions: true, ResetSegments: true}
	a, err := NewDataset(m, 0, m.Sequences(), o)
	require.NoError(t, err)
	b, err := NewDataset(x, 0, x.Sequences(), o)
	require.NoError(t, err)
	require.Equal(t, b.Len(), a.Len())
	for i := range a.Len() {
		one, other := whole(16), whole(16)
		require.NoError(t, a.Sample(i, one))
		require.NoError(t, b.Sample(i, other))
		require.Equal(t, other, one)
	}
	p, err := NewPacked(m.Documents(), PackOptions{SeqLen: 120})
	require.NoError(t, err)
	require.Equal(t, 19, p.Stats().Documents)
	require.Equal(t, int(x.Tokens()), p.Stats().Tokens)
	a, err = NewDataset(NewMemory("here", [][]int32{{1, 2, 3}}), 0, 1, Options{SeqLen: 2, Vocab: 3})
	require.NoError(t, err)
	require.EqualError(t, a.Sample(0, Row{}), "sample 0: here: sequence 0, token 2: token id 3, want 0 to 2, the vocabulary")
}
