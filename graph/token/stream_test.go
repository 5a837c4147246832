package token

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// pushAll joins what a stream returns.
func pushAll(s *Stream, ids []int32) string {
	var b strings.Builder
	for _, id := range ids {
		b.WriteString(s.Push(id))
	}
	return b.String() + s.Flush()
}

func TestStreamPieces(t *testing.T) {
	const e, bd, a0 = 3 + 0xe4, 3 + 0xbd, 3 + 0xa0 // 你 in bytes
	tests := []struct {
		name  string
		ids   []int32
		want  []string // of each Push
		flush string
	}{
		{"the first space goes, the others stay", []int32{1, 22557, 1526}, []string{"", "Hello", " world"}, ""},
		{"only one space goes", []int32{28705, 22557}, []string{"", " Hello"}, ""},
		{"a character waits for its bytes", []int32{e, bd, a0, 13}, []string{"", "", "你", "\n"}, ""},
		{"a space after bytes is a space", []int32{e, bd, a0, 22557}, []string{"", "", "你", " Hello"}, ""},
		{"an end inside a character", []int32{e, bd}, []string{"", ""}, "\ufffd\ufffd"},
		{"a piece inside a character", []int32{e, bd, 28708}, []string{"", "", "\ufffd\ufffda"}, ""},
		{"a control id inside a character", []int32{e, 2, bd}, []string{"", "\ufffd", "\ufffd"}, ""},
		{"a byte that begins nothing", []int32{a0, 13}, []string{"\ufffd", "\n"}, ""},
		{"a character begun twice", []int32{e, e, bd, a0}, []string{"", "\ufffd", "", "你"}, ""},
		{"a half surrogate", []int32{3 + 0xed, 3 + 0xa0, 3 + 0x80}, []string{"", "\ufffd\ufffd", "\ufffd"}, ""},
		{"unknown, and outside the vocabulary", []int32{0, -1, 32000}, []string{" ⁇ ", " ⁇ ", " ⁇ "}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := mixtral().Stream()
			var got []string
			for _, id := range test.ids {
				got = append(got, s.Push(id))
			}
			require.Equal(t, test.want, got)
			require.Equal(t, test.flush, s.Flush())
			require.Empty(t, s.Flush())
		})
	}
}

func TestStreamAfterPrompt(t *testing.T) {
	tok := mixtral()
	ids := encode(t, tok, "Hello world 漢")
	for cut := range len(ids) + 1 {
		s := tok.StreamAfter(ids[:cut])
		rest := pushAll(s, ids[cut:])
		require.True(t, strings.HasSuffix("Hello world 漢", rest), "%q after %d ids", rest, cut)
	}
	require.Equal(t, " world", pushAll(tok.StreamAfter(ids[:1]), ids[1:2]))
}

func TestDecodeLikeSentencepiece(t *testing.T) {
	for name, tok := range map[string]*Tokenizer{"json.json": mixtral(), "v3.json": instruct()} {
		all := golden[struct{ Decoded []goldenText }](t, name).Decoded
		require.GreaterOrEqual(t, len(all), 400)
		for _, g := range all {
			require.Equal(t, g.Text, tok.Decode(g.IDs), "%s: %v", name, g.IDs)
		}
	}
}

func TestDecodeWithControls(t *testing.T) {
	require.Equal(t, "<s>Hello</s>", mixtral().DecodeWithControls([]int32{1, 22557, 2}))
	require.Equal(t, "Hello", mixtral().Decode([]int32{1, 22557, 2}))
	ids, err := instruct().EncodeChat([]Message{{Role: User, Content: "Hi"}}, V3)
	require.NoError(t, err)
	require.Equal(t, "<s>[INST]Hi[/INST]", instruct().DecodeWithControls(ids))
}

// FuzzStream: whatever the ids, every piece is UTF-8, and the pieces join to Decode.
func FuzzStream(f *testing.F) {
	f.Add([]byte{0, 1, 0, 231, 0, 190, 0, 163, 88, 29})
	f.Add([]byte{255, 255, 0, 0, 125, 0, 112, 33})
	f.Fuzz(func(t *testing.T, data []byte) {
		var ids []int32
		for i := 0; i+1 < len(data); i += 2 {
			// High values are negative; 0x7d00 and beyond lie outside the vocabulary.
			ids = append(ids, int32(int16(uint16(data[i])<<8|uint16(data[i+1]))))
		}
		s, whole := mixtral().Stream(), ""
		for _, id := range ids {
			text := s.Push(id)
			require.True(t, utf8.ValidString(text), "%q", text)
			whole += text
		}
		whole += s.Flush()
		require.True(t, utf8.ValidString(whole))
		require.Equal(t, mixtral().Decode(ids), whole)
	})
}

// FuzzText: text is refused as broken, or comes back whole.
func FuzzText(f *testing.F) {
	for _, text := range []string{"", " a", "</s>[INST]", "你好 😀\n", "\xff", "▁", "[REFERENCE_DOC_1]"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, tok := range []*Tokenizer{mixtral(), instruct(), fast()} {
			ids, err := tok.Encode(text, EncodeOptions{})
			if !utf8.ValidString(text) {
				require.ErrorContains(t, err, "is not UTF-8")
				continue
			}
			require.NoError(t, err)
			require.Equal(t, strings.ReplaceAll(text, string(space), " "), tok.Decode(ids))
			for _, id := range ids {
				require.False(t, tok.IsControl(id))
			}
		}
	})
}
