package token

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// The tokenizers of testdata, each read once.
var (
	mixtral  = sync.OnceValue(func() *Tokenizer { return must(FromModel(must(os.ReadFile("testdata/tokenizer.model")))) })
	instruct = sync.OnceValue(func() *Tokenizer { return must(FromModel(must(os.ReadFile("testdata/tokenizer.model.v3")))) })
	demo     = sync.OnceValue(func() *Tokenizer { return must(FromModel(must(os.ReadFile("testdata/demo/tokenizer.model")))) })
	fast     = sync.OnceValue(func() *Tokenizer { return must(FromJSON(unzip("testdata/tokenizer.json.gz"))) })
	meta     = sync.OnceValue(func() *Tokenizer { return must(FromJSON(unzip("testdata/metaspace.json.gz"))) })
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func unzip(path string) []byte {
	return must(io.ReadAll(must(gzip.NewReader(must(os.Open(path))))))
}

// golden reads a file of testdata.
func golden[T any](t testing.TB, name string) (v T) {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &v))
	return v
}

type goldenString struct {
	Text        string
	IDs         []int32
	Pieces      []string
	Decoded     string
	Incremental []string // text of each id alone; absent for long texts
}

type goldenText struct {
	IDs  []int32
	Text string
}

func goldenStrings(t testing.TB) []goldenString {
	all := golden[struct{ Strings []goldenString }](t, "strings.json").Strings
	require.Len(t, all, 214)
	return all
}

// encode returns the ids of a text without BOS, never nil.
func encode(t testing.TB, tok *Tokenizer, text string) []int32 {
	t.Helper()
	ids, err := tok.Encode(text, EncodeOptions{})
	require.NoError(t, err)
	return ids
}

func TestMixtralStrings(t *testing.T) {
	tok, incremental := mixtral(), 0
	for _, g := range goldenStrings(t) {
		ids, err := tok.Encode(g.Text, EncodeOptions{BOS: true})
		require.NoError(t, err)
		require.Equal(t, g.IDs, ids, "%q", g.Text)
		for i, id := range ids {
			require.Equal(t, g.Pieces[i], tok.Piece(id))
		}
		require.Equal(t, g.Decoded, tok.Decode(ids), "%q", g.Text)
		require.Equal(t, g.Decoded, pushAll(tok.Stream(), ids), "%q", g.Text)
		for i, text := range g.Incremental {
			require.Equal(t, text, tok.Decode(ids[i:i+1]), "id %d of %q alone", i, g.Text)
			incremental++
		}
	}
	require.Greater(t, incremental, 500)
}

func TestInstructStrings(t *testing.T) {
	v3 := golden[struct{ Strings []goldenString }](t, "v3.json").Strings
	require.Greater(t, len(v3), 250)
	for _, g := range v3 {
		require.Equal(t, g.IDs, encode(t, instruct(), g.Text), "%q", g.Text)
	}
}

func TestRandomStrings(t *testing.T) {
	type line struct {
		Text             string
		IDs, Demo, Small []int32
	}
	lines := golden[struct{ Strings []line }](t, "json.json").Strings
	require.Greater(t, len(lines), 600)
	for _, g := range lines {
		require.Equal(t, g.IDs, encode(t, mixtral(), g.Text), "%q", g.Text)
		require.Equal(t, g.IDs, encode(t, fast(), g.Text), "tokenizer.json: %q", g.Text)
		require.Equal(t, g.Demo, encode(t, demo(), g.Text), "demo: %q", g.Text)
		if g.Small == nil {
			g.Small = g.Demo
		}
		require.Equal(t, g.Small, encode(t, meta(), g.Text), "Metaspace: %q", g.Text)
	}
}

func TestBothSourcesAgree(t *testing.T) {
	model, file := mixtral(), fast()
	for _, g := range goldenStrings(t) {
		ids := encode(t, file, g.Text)
		require.Equal(t, encode(t, model, g.Text), ids, "%q", g.Text)
		require.Equal(t, model.Decode(ids), file.Decode(ids), "%q", g.Text)
	}
	require.Equal(t, model.VocabSize(), file.VocabSize())
	require.Equal(t, model.pieces, file.pieces)
	require.Equal(t, [3]int32{0, 1, 2}, [3]int32{file.Unknown(), file.BOS(), file.EOS()})
}

func TestTextIsNeverControl(t *testing.T) {
	for name, tok := range map[string]*Tokenizer{"model": mixtral(), "v3": instruct(), "json": fast(), "demo": demo()} {
		for id := range int32(tok.VocabSize()) {
			if !tok.IsControl(id) {
				continue
			}
			for _, text := range []string{tok.Piece(id), "a" + tok.Piece(id) + "b", " " + tok.Piece(id) + " "} {
				for _, got := range encode(t, tok, text) {
					require.False(t, tok.IsControl(got), "%s: %q gives %q", name, text, tok.Piece(got))
					require.NotEqual(t, tok.Unknown(), got)
				}
			}
		}
	}
}

// slowMerge is byte-pair encoding by its definition: over the whole text, again and again
// the best pair, the leftmost of equals.
func slowMerge(tok *Tokenizer, text string) []int32 {
	var ids []int32
	var chars []rune
	for _, r := range string(space) + strings.ReplaceAll(text, " ", string(space)) {
		ids, chars = append(ids, tok.merges.symbol(r)), append(chars, r)
	}
	for {
		at, best := -1, merge{rank: 1 << 30}
		for i := range len(ids) - 1 {
			if m, ok := tok.merges.pairs[pair{ids[i], ids[i+1]}]; ok && m.rank < best.rank {
				at, best = i, m
			}
		}
		if at < 0 {
			break
		}
		ids[at] = best.id
		ids = append(ids[:at+1], ids[at+2:]...)
		chars = append(chars[:at+1], chars[at+2:]...)
	}
	var out []int32
	for i, id := range ids {
		if id >= 0 && id < tok.merges.vocab {
			out = append(out, id)
			continue
		}
		for _, b := range []byte(string(chars[i])) {
			out = append(out, tok.bytes[b])
		}
	}
	return out
}

func TestCuttingEqualsMergingWhole(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	alphabet := []rune("aabeehilnorst  \n.,10é你😀▁")
	for name, tok := range map[string]*Tokenizer{"model": mixtral(), "json": fast(), "demo": demo()} {
		for range 300 {
			var b strings.Builder
			for range 1 + rng.IntN(60) {
				b.WriteRune(alphabet[rng.IntN(len(alphabet))])
			}
			require.Equal(t, slowMerge(tok, b.String()), encode(t, tok, b.String()), "%s: %q", name, b.String())
		}
	}
}

func TestEncodeOptions(t *testing.T) {
	tok := mixtral()
	tests := []struct {
		name string
		text string
		o    EncodeOptions
		want []int32
	}{
		{"nothing", "", EncodeOptions{}, []int32{}},
		{"only the marks", "", EncodeOptions{BOS: true, EOS: true}, []int32{1, 2}},
		{"text alone", "Hello", EncodeOptions{}, []int32{22557}},
		{"begun", "Hello", EncodeOptions{BOS: true}, []int32{1, 22557}},
		{"ended", "Hello", EncodeOptions{EOS: true}, []int32{22557, 2}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ids, err := tok.Encode(test.text, test.o)
			require.NoError(t, err)
			require.Equal(t, test.want, ids)
		})
	}
}

func TestEncodeRefusesBrokenText(t *testing.T) {
	for text, want := range map[string]string{
		"ab\xff":        "encode: text of 3 bytes is not UTF-8 at byte 2 (0xff)",
		"\xe4\xbd":      "encode: text of 2 bytes is not UTF-8 at byte 0 (0xe4)",
		"你\xed\xa0\x80": "encode: text of 6 bytes is not UTF-8 at byte 3 (0xed)",
	} {
		ids, err := mixtral().Encode(text, EncodeOptions{BOS: true})
		require.EqualError(t, err, want)
		require.Nil(t, ids)
	}
	_, err := mixtral().Encode("\ufffd", EncodeOptions{})
	require.NoError(t, err, "the replacement character is a character")
	bare := *mixtral()
	bare.bos, bare.eos = -1, -1
	_, err = bare.Encode("x", EncodeOptions{BOS: true})
	require.ErrorContains(t, err, "no such piece")
	_, err = bare.Encode("x", EncodeOptions{EOS: true})
	require.ErrorContains(t, err, "no such piece")
}

func TestVocabulary(t *testing.T) {
	tok := mixtral()
	require.Equal(t, 32000, tok.VocabSize())
	require.Equal(t, [3]int32{0, 1, 2}, [3]int32{tok.Unknown(), tok.BOS(), tok.EOS()})
	for id := range int32(tok.VocabSize()) {
		back, ok := tok.ID(tok.Piece(id))
		require.True(t, ok)
		require.Equal(t, id, back)
	}
	_, ok := tok.ID("no such piece")
	require.False(t, ok)
	for _, id := range []int32{-1, -1 << 31, 32000, 1<<31 - 1} {
		require.Empty(t, tok.Piece(id))
		require.Nil(t, tok.Bytes(id))
		require.False(t, tok.IsControl(id))
	}
	require.Equal(t, []byte("\n"), tok.Bytes(13))
	require.Equal(t, []byte(" Hello"), tok.Bytes(22557))
	require.Nil(t, tok.Bytes(2))
	require.Equal(t, 32768, instruct().VocabSize())
	require.Equal(t, 2048, demo().VocabSize())
}

// Time grows as n log n: a megabyte, words or one run of a letter, is done in a moment.
// A quadratic engine would run into the test's time limit here.
func TestLongTexts(t *testing.T) {
	for name, text := range map[string]string{
		"words":  strings.Repeat("The quick brown fox jumps over the lazy dog. ", 24000),
		"letter": strings.Repeat("a", 1<<20),
		"spaces": strings.Repeat(" ", 1<<20),
		"bytes":  strings.Repeat("🕆", 1<<18),
	} {
		t.Run(name, func(t *testing.T) {
			ids := encode(t, mixtral(), text)
			require.Equal(t, text, mixtral().Decode(ids))
			require.True(t, utf8.ValidString(mixtral().Decode(ids)))
			require.Equal(t, ids, encode(t, fast(), text))
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	var all strings.Builder
	for _, g := range goldenStrings(b) {
		all.WriteString(g.Text)
	}
	for _, bench := range []struct{ name, text string }{
		{"english", strings.Repeat("In the beginning God created the heaven and the earth. And the earth was without form, and void;\n", 1000)},
		{"golden", strings.Repeat(all.String(), 4)},
		{"letter", strings.Repeat("a", 100_000)},
		{"prompt", "Once upon a time there was a king."},
	} {
		b.Run(bench.name, func(b *testing.B) {
			tok := mixtral()
			b.SetBytes(int64(len(bench.text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tok.Encode(bench.text, EncodeOptions{BOS: true}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkFromModel(b *testing.B) {
	proto := must(os.ReadFile("testdata/tokenizer.model"))
	for b.Loop() {
		must(FromModel(proto))
	}
}

func BenchmarkDecode(b *testing.B) {
	tok := mixtral()
	text := strings.Repeat("In the beginning God created the heaven and the earth.\n", 1000)
	ids := must(tok.Encode(text, EncodeOptions{}))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		tok.Decode(ids)
	}
}
