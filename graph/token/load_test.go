package token

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// folder makes a folder of files; those named tokenizer.model* hold the demo's model.
func folder(t *testing.T, files map[string]string) string {
	dir := t.TempDir()
	for name, text := range files {
		if text == "" {
			b, err := os.ReadFile("testdata/demo/tokenizer.model")
			require.NoError(t, err)
			text = string(b)
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return dir
}

func TestLoad(t *testing.T) {
	tiny := string(newTinyJSON().bytes(t))
	tests := []struct {
		name     string
		files    map[string]string
		size     int
		bos, eos int32
	}{
		{"a model", map[string]string{"tokenizer.model": ""}, 2048, 1, 2},
		{"a model before a tokenizer.json", map[string]string{"tokenizer.model": "", "tokenizer.json": tiny}, 2048, 1, 2},
		{"v3 before a tokenizer.json", map[string]string{"tokenizer.model.v3": "", "tokenizer.json": tiny}, 2048, 1, 2},
		{"tokenizer.json", map[string]string{"tokenizer.json": tiny}, 264, 1, 2},
		{"names in the configuration", map[string]string{"tokenizer.model": "", "tokenizer_config.json": `{"bos_token":"</s>","eos_token":{"content":"<s>"},"chat_template":"x"}`}, 2048, 2, 1},
		{"names in the map", map[string]string{"tokenizer.model": "", "special_tokens_map.json": `{"bos_token":"</s>"}`}, 2048, 2, 2},
		{"the configuration before the map", map[string]string{
			"tokenizer.model": "", "tokenizer_config.json": `{"eos_token":"<s>"}`, "special_tokens_map.json": `{"eos_token":"</s>","bos_token":null}`,
		}, 2048, 1, 1},
		{"added tokens, one of them the end", map[string]string{
			"tokenizer.model": "",
			"tokenizer_config.json": `{"eos_token":"<|end|>","added_tokens_decoder":{
				"1":{"content":"<s>","special":true},"2048":{"content":"<|end|>","special":false},"2049":{"content":"<|x|>","special":true}}}`,
		}, 2050, 1, 2048},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tok, err := Load(folder(t, test.files))
			require.NoError(t, err)
			require.Equal(t, test.size, tok.VocabSize())
			require.Equal(t, [2]int32{test.bos, test.eos}, [2]int32{tok.BOS(), tok.EOS()})
			require.True(t, tok.IsControl(tok.EOS()))
			for _, id := range encode(t, tok, "a<|end|>é</s>") {
				require.False(t, tok.IsControl(id))
				require.Less(t, int(id), 2048)
			}
		})
	}
}

func TestLoadRefusals(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"nothing", nil, "looked for tokenizer.model.v3, tokenizer.model, tokenizer.json, tokenizer.model.v1"},
		{"a broken model", map[string]string{"tokenizer.model": "x"}, "tokenizer.model: sentencepiece model of 1 bytes: "},
		{"a broken tokenizer.json", map[string]string{"tokenizer.json": "x"}, "tokenizer.json: tokenizer.json of 1 bytes: not readable as JSON"},
		{"a broken configuration", map[string]string{"tokenizer.model": "", "tokenizer_config.json": "["}, "tokenizer_config.json: not readable as JSON"},
		{"a name of nothing", map[string]string{"tokenizer.model": "", "special_tokens_map.json": `{"eos_token":"<end>"}`}, `special_tokens_map.json: eos_token is "<end>", which is not one of the 2048 pieces`},
		{"a name of text", map[string]string{"tokenizer.model": "", "tokenizer_config.json": `{"bos_token":"▁the"}`}, `bos_token is "▁the"`},
		{"another vocabulary", map[string]string{"tokenizer.model": "", "tokenizer_config.json": `{"added_tokens_decoder":{"2":{"content":"<end>"}}}`}, `added token 2 is "<end>", and "</s>" in the vocabulary`},
		{"a hole", map[string]string{"tokenizer.model": "", "tokenizer_config.json": `{"added_tokens_decoder":{"2049":{"content":"<end>"}}}`}, `added token "<end>" has id 2049, want 2048`},
		{"a piece again", map[string]string{"tokenizer.model": "", "tokenizer_config.json": `{"added_tokens_decoder":{"2048":{"content":"<s>"}}}`}, `pieces 1 and 2048 are both "<s>"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tok, err := Load(folder(t, test.files))
			require.ErrorContains(t, err, test.want)
			require.Nil(t, tok)
		})
	}
}
