package token

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// tinyJSON is a tokenizer.json in the making.
type tinyJSON map[string]any

func newTinyJSON() tinyJSON {
	vocab := map[string]int{"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 259, "a": 260, "b": 261, "ab": 262, "▁a": 263}
	for b := range 256 {
		vocab[fmt.Sprintf("<0x%02X>", b)] = 3 + b
	}
	token := func(id int, content string) map[string]any {
		return map[string]any{"id": id, "content": content, "special": true}
	}
	return tinyJSON{
		"added_tokens": []any{token(0, "<unk>"), token(1, "<s>"), token(2, "</s>")},
		"normalizer": map[string]any{"type": "Sequence", "normalizers": []any{
			map[string]any{"type": "Prepend", "prepend": "▁"},
			map[string]any{"type": "Replace", "pattern": map[string]any{"String": " "}, "content": "▁"},
		}},
		"pre_tokenizer": nil,
		"decoder": map[string]any{"type": "Sequence", "decoders": []any{
			map[string]any{"type": "Replace", "pattern": map[string]any{"String": "▁"}, "content": " "},
			map[string]any{"type": "ByteFallback"}, map[string]any{"type": "Fuse"},
			map[string]any{"type": "Strip", "content": " ", "start": 1, "stop": 0},
		}},
		"model": map[string]any{
			"type": "BPE", "unk_token": "<unk>", "byte_fallback": true, "vocab": vocab,
			"merges": []any{"a b", []any{"▁", "a"}},
		},
	}
}

func (f tinyJSON) model() map[string]any { return f["model"].(map[string]any) }
func (f tinyJSON) vocab() map[string]int { return f.model()["vocab"].(map[string]int) }
func (f tinyJSON) merge(pair any)        { f.model()["merges"] = append(f.model()["merges"].([]any), pair) }
func (f tinyJSON) addToken(t map[string]any) {
	f["added_tokens"] = append(f["added_tokens"].([]any), t)
}

func (f tinyJSON) bytes(t testing.TB) []byte {
	b, err := json.Marshal(f)
	require.NoError(t, err)
	return b
}

func metaspace(more string) json.RawMessage {
	return json.RawMessage(`{"type":"Metaspace","replacement":"▁"` + more + `}`)
}

func TestTinyJSON(t *testing.T) {
	tests := []struct {
		name   string
		change func(tinyJSON)
		text   string
		want   string // pieces, joined by |
		decode string
	}{
		{"merges in the file's order", func(tinyJSON) {}, "ab", "▁|ab", "ab"},
		{"a space of its own", func(tinyJSON) {}, " a", "▁|▁a", " a"},
		{"bytes", func(tinyJSON) {}, "é", "▁|<0xC3>|<0xA9>", "é"},
		{"no prefix", func(f tinyJSON) {
			f["normalizer"] = f["normalizer"].(map[string]any)["normalizers"].([]any)[1]
		}, "ab a", "ab|▁a", "ab a"},
		{"Metaspace puts a space", func(f tinyJSON) {
			f["normalizer"], f["pre_tokenizer"] = nil, metaspace(`,"prepend_scheme":"first","split":false`)
		}, "ab", "▁|ab", "ab"},
		{"Metaspace keeps a space", func(f tinyJSON) {
			f["normalizer"], f["pre_tokenizer"] = nil, metaspace(`,"split":false`)
		}, " ab", "▁|ab", "ab"},
		{"Metaspace without prefix", func(f tinyJSON) {
			f["normalizer"], f["pre_tokenizer"] = nil, metaspace(`,"add_prefix_space":false,"split":false`)
		}, "ab", "ab", "ab"},
		{"an added token is not made from text", func(f tinyJSON) {
			f.addToken(map[string]any{"id": 264, "content": "aa", "special": false})
		}, "aa", "▁a|a", "aa"},
		{"a merge to a control piece is left out", func(f tinyJSON) {
			f.vocab()["<"], f.vocab()["s>"], f.vocab()["s"], f.vocab()[">"] = 264, 265, 266, 267
			f.merge("s >")
			f.merge("< s>")
		}, "<s>", "▁|<|s>", "<s>"},
		{"no Strip, and the space stays", func(f tinyJSON) {
			d := f["decoder"].(map[string]any)
			d["decoders"] = d["decoders"].([]any)[:3]
		}, "a", "▁a", " a"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newTinyJSON()
			test.change(f)
			tok, err := FromJSON(f.bytes(t))
			require.NoError(t, err)
			ids := encode(t, tok, test.text)
			var got []string
			for _, id := range ids {
				got = append(got, tok.Piece(id))
			}
			require.Equal(t, test.want, strings.Join(got, "|"))
			require.Equal(t, test.decode, tok.Decode(ids))
		})
	}
}

func TestAddedTokens(t *testing.T) {
	f := newTinyJSON()
	f.addToken(map[string]any{"id": 264, "content": "<|end|>", "special": true})
	f.addToken(map[string]any{"id": 265, "content": "<|start|>", "special": false})
	tok, err := FromJSON(f.bytes(t))
	require.NoError(t, err)
	require.Equal(t, 266, tok.VocabSize())
	require.True(t, tok.IsControl(264))
	require.False(t, tok.IsControl(265))
	require.Equal(t, "<|start|>a", tok.Decode([]int32{265, 260, 264}))
}

func TestJSONRefusals(t *testing.T) {
	tests := []struct {
		name   string
		change func(tinyJSON)
		want   string
	}{
		{"unigram", func(f tinyJSON) { f.model()["type"] = "Unigram" }, `model type "Unigram", want "BPE"`},
		{"no vocab", func(f tinyJSON) { delete(f.model(), "vocab") }, "model has no vocab"},
		{"no byte fallback", func(f tinyJSON) { f.model()["byte_fallback"] = false }, "byte_fallback is false"},
		{"whole words first", func(f tinyJSON) { f.model()["ignore_merges"] = true }, "ignore_merges is true"},
		{"dropout", func(f tinyJSON) { f.model()["dropout"] = 0.1 }, "dropout is 0.1, want none"},
		{"marks inside words", func(f tinyJSON) { f.model()["continuing_subword_prefix"] = "##" }, `continuing_subword_prefix is "##"`},
		{"marks at the end of words", func(f tinyJSON) { f.model()["end_of_word_suffix"] = "</w>" }, `end_of_word_suffix is "</w>"`},
		{"NFC", func(f tinyJSON) { f["normalizer"] = json.RawMessage(`{"type":"NFC"}`) }, `normalizer "NFC"`},
		{"another prefix", func(f tinyJSON) { f["normalizer"] = json.RawMessage(`{"type":"Prepend","prepend":"_"}`) }, `normalizer "Prepend" "_"`},
		{"a pattern", func(f tinyJSON) {
			f["normalizer"] = json.RawMessage(`{"type":"Replace","pattern":{"Regex":" +"},"content":"▁"}`)
		}, `normalizer "Replace" " +" "▁"`},
		{"Sequence in Sequence", func(f tinyJSON) {
			f["normalizer"] = json.RawMessage(`{"type":"Sequence","normalizers":[{"type":"Sequence"}]}`)
		}, "normalizer has a Sequence inside a Sequence"},
		{"no way to write spaces", func(f tinyJSON) { f["normalizer"] = nil }, "neither normalizer nor pre_tokenizer"},
		{"byte level", func(f tinyJSON) { f["pre_tokenizer"] = json.RawMessage(`{"type":"ByteLevel"}`) }, `pre_tokenizer "ByteLevel" after 2 normalizers`},
		{"Metaspace that splits", func(f tinyJSON) { f["normalizer"], f["pre_tokenizer"] = nil, metaspace("") }, `want "split": false`},
		{"another scheme", func(f tinyJSON) {
			f["normalizer"], f["pre_tokenizer"] = nil, metaspace(`,"split":false,"prepend_scheme":"last"`)
		}, `prepend_scheme "last"`},
		{"no decoder", func(f tinyJSON) { f["decoder"] = nil }, "decoder of steps []"},
		{"another decoder", func(f tinyJSON) { f["decoder"] = json.RawMessage(`{"type":"ByteLevel"}`) }, `decoder of steps ["ByteLevel"]`},
		{"a decoder that strips more", func(f tinyJSON) {
			f["decoder"] = json.RawMessage(`{"type":"Strip","content":" ","start":2,"stop":0}`)
		}, `decoder "Strip" " "`},
		{"a hole", func(f tinyJSON) { f.vocab()["x"] = 265 }, `piece "x" has id 265, want 0 to 264`},
		{"an id twice", func(f tinyJSON) { f.vocab()["x"] = 260 }, "id 260 is both"},
		{"a negative id", func(f tinyJSON) { f.vocab()["a"] = -1 }, `piece "a" has id -1`},
		{"an added token elsewhere", func(f tinyJSON) { f.addToken(map[string]any{"id": 5, "content": "<s>"}) }, `added token "<s>" has id 5, and id 1 in the vocab`},
		{"an added token on another", func(f tinyJSON) { f.addToken(map[string]any{"id": 5, "content": "x"}) }, `id 5 is both "<0x02>" and "x"`},
		{"an added token twice", func(f tinyJSON) {
			f.addToken(map[string]any{"id": 264, "content": "x"})
			f.addToken(map[string]any{"id": 265, "content": "x"})
		}, `pieces 264 and 265 are both "x"`},
		{"a merge of strangers", func(f tinyJSON) { f.merge("a q") }, `merge 2 of "a" and "q"`},
		{"a merge twice", func(f tinyJSON) { f.merge("a b") }, `merge 2 of "a" and "b" is there twice`},
		{"a merge of three", func(f tinyJSON) { f.merge("a b c") }, `merge "a b c", want two pieces`},
		{"a list of one", func(f tinyJSON) { f.merge([]any{"a"}) }, "merge of 1 pieces, want 2"},
		{"a merge that is a number", func(f tinyJSON) { f.merge(1) }, "not readable as JSON"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newTinyJSON()
			test.change(f)
			tok, err := FromJSON(f.bytes(t))
			require.ErrorContains(t, err, "tokenizer.json of ")
			require.ErrorContains(t, err, test.want)
			require.Nil(t, tok)
		})
	}
	for text, want := range map[string]string{
		"":                 "not readable as JSON",
		"{":                "not readable as JSON",
		"[]":               "not readable as JSON",
		"{} {}":            "more text after byte",
		"null":             `model has no vocab`,
		"{\"a\":\"\xff\"}": "not UTF-8",
	} {
		_, err := FromJSON([]byte(text))
		require.ErrorContains(t, err, want, "%q", text)
	}
}

// FuzzJSON: bytes are refused, or make a tokenizer that works.
func FuzzJSON(f *testing.F) {
	f.Add(newTinyJSON().bytes(f))
	f.Add([]byte(`{"model":{"type":"BPE","byte_fallback":true,"vocab":{"a":0},"merges":["a b"]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		tok, err := FromJSON(b)
		if err == nil {
			tryOut(t, tok)
		}
	})
}
