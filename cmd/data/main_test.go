package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/internal/cli"
	"mix/train/data"
)

const golden = "../../train/data/testdata/megatron/"

// run returns exit code, stdout and stderr.
func run(t *testing.T, stdin string, args ...string) (code int, out, err string) {
	var o, e strings.Builder
	code = cli.Run(t.Context(), new(command), "data", "", args, cli.IO{In: strings.NewReader(stdin), Out: &o, Err: &e})
	return code, o.String(), e.String()
}

func TestPreprocess(t *testing.T) {
	prefix := filepath.Join(t.TempDir(), "out")
	code, out, errs := run(t, "", "preprocess", "--input", golden+"docs.jsonl", "--tokenizer", golden+"tok.model",
		"--output-prefix", prefix, "--append-eod", "--workers", "2", "--json")
	require.Zero(t, code, errs)
	require.Empty(t, errs)
	var m made
	require.NoError(t, json.Unmarshal([]byte(out), &m))
	require.Equal(t, data.Counts{Documents: 20, Sequences: 19, Tokens: 1071, Lines: 20, Bytes: 2776}, m.Counts)
	require.Equal(t, "uint16", m.DType)
	for _, ext := range []string{".bin", ".idx"} {
		got, err := os.ReadFile(prefix + "_text_document" + ext)
		require.NoError(t, err)
		want, err := os.ReadFile(golden + "u16_nobos_text_document" + ext)
		require.NoError(t, err)
		require.Equal(t, want, got, ext)
	}
	text, err := os.ReadFile(golden + "docs.jsonl")
	require.NoError(t, err)
	code, out, errs = run(t, string(text)+"x\n", "preprocess", "--input", "-", "--tokenizer", golden+"tok.model",
		"--output-prefix", prefix, "--skip-bad")
	require.Zero(t, code, errs)
	require.Contains(t, out, "_text_document: 20 documents, 19 sequences, 1052 tokens in uint16; 1 bad lines; ")
}

func TestWhatPreprocessRefuses(t *testing.T) {
	prefix := filepath.Join(t.TempDir(), "out")
	for _, tt := range []struct {
		name  string
		stdin string
		args  []string
		code  int
		want  string
	}{
		{"no input", "", []string{"--tokenizer", golden + "tok.model", "--output-prefix", prefix}, 2, "--input"},
		{"no such input", "", []string{"--input", prefix, "--tokenizer", golden + "tok.model", "--output-prefix", prefix}, 1, prefix},
		{"no such tokenizer", "", []string{"--input", "-", "--tokenizer", prefix, "--output-prefix", prefix}, 1, prefix},
		{"no tokenizer", "", []string{"--input", "-", "--tokenizer", golden + "docs.jsonl", "--output-prefix", prefix}, 1, "docs.jsonl"},
		{"a bad line", "{}", []string{"--input", "-", "--tokenizer", golden + "tok.model", "--output-prefix", prefix}, 1, `-: line 1: no key "text"`},
		{"no folder", "{}", []string{"--input", "-", "--tokenizer", golden + "tok.model", "--output-prefix", prefix + "/x"}, 1, "no such file"},
		{"workers", "", []string{"--input", "-", "--tokenizer", golden + "tok.model", "--output-prefix", prefix, "--workers=-1"}, 2, "-1 workers"},
	} {
		code, out, errs := run(t, tt.stdin, append([]string{"preprocess"}, tt.args...)...)
		require.Equal(t, tt.code, code, tt.name)
		require.Empty(t, out, tt.name)
		require.Contains(t, errs, tt.want, tt.name)
		require.Equal(t, 1, strings.Count(errs, "\n"), tt.name)
	}
	left, err := os.ReadDir(filepath.Dir(prefix))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestInspect(t *testing.T) {
	code, out, errs := run(t, "", "inspect", golden+"u16_nobos_text_document", "--tokenizer", golden+"tok.model", "--show", "5", "--json")
	require.Zero(t, code, errs)
	var r report
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	require.Equal(t, 5, len(r.First))
	require.Equal(t, "a</s>", r.First[4])
	r.First = nil
	require.Equal(t, report{Prefix: golden + "u16_nobos_text_document", DType: "uint16", Documents: 20, Empty: 1, Sequences: 19,
		Tokens: 1071, Shortest: 2, Longest: 114, Mean: 1071.0 / 19, MinID: 2, MaxID: 412}, r)
	code, out, errs = run(t, "", "inspect", golden+"u16_nobos_text_document", "--show", "5")
	require.Zero(t, code, errs)
	require.Contains(t, out, "sequences   19 of 2 to 114 tokens, 56.4 on average\n")
	require.Contains(t, out, "document 4  \"261 2\"\n")
	code, _, errs = run(t, "", "inspect", golden+"i32_null_text_document", "--tokenizer", golden+"tok.model")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "i32_null_text_document.bin: offset 0: sequence 0, token 0: token id 122067, want 0 to 419, the vocabulary")
	code, _, errs = run(t, "", "inspect", golden+"none")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "none.idx")
}
