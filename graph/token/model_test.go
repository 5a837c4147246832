package token

import (
	"math"
	"math/rand/v2"
	"os"
	"testing"
	"unicode/utf8"

	"github.com/eliben/go-sentencepiece"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
)

// tiny is a sentencepiece model in the making: pieces <unk>, <s>, </s>, 256 bytes, more.
type tiny struct {
	pieces     []tinyPiece
	trainer    []byte
	normalizer []byte
	tail       []byte
}

type tinyPiece struct {
	text  string
	score float32
	kind  uint64
}

func newTiny(more ...tinyPiece) *tiny {
	m := &tiny{pieces: []tinyPiece{{"<unk>", 0, 2}, {"<s>", 0, 3}, {"</s>", 0, 3}}}
	for b := range 256 {
		m.pieces = append(m.pieces, tinyPiece{"<0x" + string("0123456789ABCDEF"[b>>4]) + string("0123456789ABCDEF"[b&15]) + ">", 0, 6})
	}
	m.pieces = append(m.pieces, more...)
	m.trainer = varint(varint(nil, 3, 2), 35, 1)
	m.normalizer = varint(nil, 4, 0)
	return m
}

func varint(b []byte, number protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), v)
}

func text(b []byte, number protowire.Number, v string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), v)
}

func (m *tiny) bytes() (b []byte) {
	for _, p := range m.pieces {
		one := text(nil, 1, p.text)
		one = protowire.AppendFixed32(protowire.AppendTag(one, 2, protowire.Fixed32Type), math.Float32bits(p.score))
		b = text(b, 1, string(varint(one, 3, p.kind)))
	}
	b = text(b, 2, string(m.trainer))
	b = text(b, 3, string(m.normalizer))
	return append(b, m.tail...)
}

func TestTinyModel(t *testing.T) {
	m := newTiny(
		tinyPiece{"▁", -9, 1}, tinyPiece{"a", -9, 1}, tinyPiece{"b", -9, 1},
		tinyPiece{"ab", -1, 1}, tinyPiece{"▁a", -1, 1}, tinyPiece{"éa", -3, 1}, // é alone is no piece
		tinyPiece{"ab!", 0, 4}, tinyPiece{"ab!?", 0, 4},
	)
	tok, err := FromModel(m.bytes())
	require.NoError(t, err)
	tests := []struct {
		name, text string
		want       []string
	}{
		{"equal scores: the left one", "ab", []string{"▁a", "b"}},
		{"equal scores further on", "bab", []string{"▁", "b", "ab"}},
		{"a character known only inside a piece", "éa", []string{"▁", "éa"}},
		{"the same character alone", "é", []string{"▁", "<0xC3>", "<0xA9>"}},
		{"user-defined pieces, the longest", "bab!?ab!ab", []string{"▁", "b", "ab!?", "ab!", "ab"}},
		{"user-defined at the start", "ab!", []string{"▁", "ab!"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ids := encode(t, tok, test.text)
			var got []string
			for _, id := range ids {
				got = append(got, tok.Piece(id))
			}
			require.Equal(t, test.want, got)
			require.Equal(t, test.text, tok.Decode(ids))
		})
	}
}

func TestModelRefusals(t *testing.T) {
	tests := []struct {
		name   string
		change func(*tiny)
		want   string
	}{
		{"unigram", func(m *tiny) { m.trainer = varint(m.trainer, 3, 1) }, "model type 1 (unigram), want 2 (BPE)"},
		{"no type is unigram", func(m *tiny) { m.trainer = varint(nil, 35, 1) }, "model type 1 (unigram)"},
		{"no byte fallback", func(m *tiny) { m.trainer = varint(m.trainer, 35, 0) }, "byte_fallback is false"},
		{"spaces behind", func(m *tiny) { m.trainer = varint(m.trainer, 24, 1) }, "treat_whitespace_as_suffix is true"},
		{"NFKC", func(m *tiny) { m.normalizer = text(m.normalizer, 2, "table") }, "a normalization table of 5 bytes"},
		{"a table for decoding", func(m *tiny) { m.tail = text(nil, 5, string(text(nil, 2, "t"))) }, "a normalization table of 1 bytes"},
		{"spaces trimmed", func(m *tiny) { m.normalizer = varint(m.normalizer, 4, 1) }, "remove_extra_whitespaces is true"},
		{"spaces not escaped", func(m *tiny) { m.normalizer = varint(m.normalizer, 5, 0) }, "escape_whitespaces is false"},
		{"a piece twice", func(m *tiny) { m.pieces = append(m.pieces, tinyPiece{"<s>", 0, 1}) }, `pieces 1 and 259 are both "<s>"`},
		{"an empty piece", func(m *tiny) { m.pieces = append(m.pieces, tinyPiece{"", 0, 1}) }, "piece 259 is empty"},
		{"a broken piece", func(m *tiny) { m.pieces = append(m.pieces, tinyPiece{"\xff", 0, 1}) }, `piece 259, "\xff", is not UTF-8`},
		{"an endless piece", func(m *tiny) { m.pieces = append(m.pieces, tinyPiece{string(make([]byte, 1025)), 0, 1}) }, "piece 259 has 1025 bytes, want at most 1024"},
		{"an unused piece", func(m *tiny) { m.pieces = append(m.pieces, tinyPiece{"a", 0, 5}) }, `piece 259, "a", has type 5`},
		{"a kind of the future", func(m *tiny) { m.pieces = append(m.pieces, tinyPiece{"a", 0, 1 << 60}) }, "has type 1152921504606846976"},
		{"a score that is no number", func(m *tiny) { m.pieces = append(m.pieces, tinyPiece{"a", float32(math.NaN()), 1}) }, `piece 259, "a", has the score NaN`},
		{"a byte missing", func(m *tiny) { m.pieces[5] = tinyPiece{"x", 0, 1} }, "no piece for byte 0x02"},
		{"a byte misspelt", func(m *tiny) { m.pieces[5].text = "<0x2>" }, `byte piece 5 is "<0x2>"`},
		{"a byte in small letters", func(m *tiny) { m.pieces[13].text = "<0x0a>" }, `byte piece 13 is "<0x0a>"`},
		{"two unknowns", func(m *tiny) { m.pieces = append(m.pieces, tinyPiece{"?", 0, 2}) }, "pieces 0 and 259 are both the unknown piece"},
		{"no unknown", func(m *tiny) { m.pieces[0].kind = 1 }, "none of the 259 pieces is the unknown piece"},
		{"a user-defined space", func(m *tiny) { m.pieces = append(m.pieces, tinyPiece{"a b", 0, 4}) }, "contains a space"},
		{"an unknown text that is not UTF-8", func(m *tiny) { m.trainer = text(m.trainer, 44, "\xff") }, "unk_surface"},
		{"a number for a message", func(m *tiny) { m.tail = varint(nil, 1, 7) }, "field 1 has wire type 0, want 2"},
		{"a string for a number", func(m *tiny) { m.trainer = text(m.trainer, 3, "2") }, "field 3 has wire type 2, want 0"},
		{"bytes that are no message", func(m *tiny) { m.tail = []byte{0xff} }, "bad field at byte"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := newTiny()
			test.change(m)
			tok, err := FromModel(m.bytes())
			require.ErrorContains(t, err, "sentencepiece model of ")
			require.ErrorContains(t, err, test.want)
			require.Nil(t, tok)
		})
	}
	_, err := FromModel(nil)
	require.ErrorContains(t, err, "sentencepiece model of 0 bytes: no pieces")
	_, err = FromModel(newTiny().bytes())
	require.NoError(t, err)
}

func TestTruncatedModel(t *testing.T) {
	whole, err := os.ReadFile("testdata/demo/tokenizer.model")
	require.NoError(t, err)
	for n := 0; n < len(whole); n += 97 {
		_, err := FromModel(whole[:n])
		require.Error(t, err, "the first %d of %d bytes", n, len(whole))
	}
}

// go-sentencepiece refuses models that put a space before the text, so it gets the model
// with that flag cleared (a later field of a message counts) and the space in the text.
func TestAgreesWithGoSentencepiece(t *testing.T) {
	model, err := os.ReadFile("testdata/tokenizer.model")
	require.NoError(t, err)
	path := t.TempDir() + "/tokenizer.model"
	require.NoError(t, os.WriteFile(path, text(model, 3, string(varint(nil, 3, 0))), 0o600))
	oracle, err := sentencepiece.NewProcessorFromPath(path)
	require.NoError(t, err)
	rng := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		s := ""
		for range 1 + rng.IntN(20) {
			if id := int32(rng.IntN(mixtral().VocabSize())); rng.IntN(4) > 0 && utf8.Valid(mixtral().Bytes(id)) {
				s += string(mixtral().Bytes(id))
			} else {
				s += string([]rune(" \n\tz9é漢😀")[rng.IntN(8)])
			}
		}
		var want []int32
		for _, token := range oracle.Encode(" " + s) {
			want = append(want, int32(token.ID))
		}
		require.Equal(t, want, encode(t, mixtral(), s), "%q", s)
	}
}

// FuzzModel: bytes are refused, or make a tokenizer that works.
func FuzzModel(f *testing.F) {
	f.Add(newTiny(tinyPiece{"▁", -2, 1}, tinyPiece{"▁▁", -1, 1}, tinyPiece{"[X]", 0, 4}).bytes())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, proto []byte) {
		tok, err := FromModel(proto)
		if err == nil {
			tryOut(t, tok)
		}
	})
}

// tryOut checks what holds for every tokenizer.
func tryOut(t *testing.T, tok *Tokenizer) {
	ids := encode(t, tok, "a  b\n</s> 漢")
	require.Contains(t, tok.Decode(ids), "漢")
	for id := int32(-1); id <= int32(tok.VocabSize()); id++ {
		require.True(t, utf8.ValidString(tok.Decode([]int32{id})))
		require.True(t, utf8.ValidString(tok.Piece(id)))
	}
	_, err := tok.EncodeChat([]Message{{Role: User, Content: "x"}}, TemplateFor(tok))
	if err != nil {
		require.ErrorIs(t, err, ErrChat)
	}
}
