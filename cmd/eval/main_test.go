package main

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/internal/cli"
	"mix/internal/oracle"
	"mix/sharding/ckpt"
)

func run(args ...string) (code int, out, err string) {
	var o, e strings.Builder
	code = cli.Run(context.Background(), new(command), "eval", "", args, cli.IO{In: strings.NewReader(""), Out: &o, Err: &e})
	return code, o.String(), e.String()
}

// tokens writes the sequences of a recording, or its prompts, to a file.
func tokens(t *testing.T, sequences [][]int32) string {
	b, err := json.Marshal(sequences)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "ids.json")
	require.NoError(t, os.WriteFile(path, b, 0o600))
	return path
}

func TestEvalAgainstReference(t *testing.T) {
	c := oracle.Open(t, "c_odd")
	ids, dims := c.Ints(t, "input_ids")
	var rows [][]int32
	for b := range dims[0] {
		rows = append(rows, ids[b*dims[1]:(b+1)*dims[1]])
	}
	dir := t.TempDir()
	logits, trace, greedy := filepath.Join(dir, "logits"), filepath.Join(dir, "trace"), filepath.Join(dir, "greedy")
	code, out, log := run("--checkpoint", c.Checkpoints[0], "--tokens", tokens(t, rows), "--logits", logits, "--trace", trace, "--json")
	require.Zero(t, code, log)
	var r result
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	require.Equal(t, dims[0], r.Sequences)
	require.Equal(t, dims[0]*(dims[1]-1), r.Tokens, "every sequence counts once, however many files are written")

	want := c.Floats(t, "logits")
	for path, key := range map[string]string{logits: "logits.", trace: "logits."} {
		f, err := ckpt.OpenFile(path)
		require.NoError(t, err)
		defer f.Close()
		n := len(want) / dims[0]
		for b := range dims[0] {
			got, err := f.Float32s(key + string(rune('0'+b)))
			require.NoError(t, err)
			require.LessOrEqual(t, oracle.MaxDiff(got, want[b*n:(b+1)*n]), 2e-4)
		}
	}
	f, err := ckpt.OpenFile(trace)
	require.NoError(t, err)
	defer f.Close()
	hidden, err := f.Float32s("hidden.layer1.2")
	require.NoError(t, err)
	all := c.Floats(t, "hidden.layer1")
	require.LessOrEqual(t, oracle.MaxDiff(hidden, all[2*len(all)/3:]), 2e-4)
	router, err := f.Float32s("router.logits.layer0.1")
	require.NoError(t, err)
	all = c.Floats(t, "router.logits.layer0")
	require.LessOrEqual(t, oracle.MaxDiff(router, all[len(all)/3:2*len(all)/3]), 2e-4)

	code, _, log = run("--checkpoint", c.Checkpoints[0], "--tokens", tokens(t, c.Meta.Gen.Prompts), "--greedy", "32", "--ids", greedy)
	require.Zero(t, code, log)
	b, err := os.ReadFile(greedy)
	require.NoError(t, err)
	var got [][]int32
	require.NoError(t, json.Unmarshal(b, &got))
	require.Equal(t, c.Meta.Gen.Tokens, got)
}

func TestEvalText(t *testing.T) {
	path := filepath.Join(t.TempDir(), "text")
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("And God said, Let there be light: and there was light. ", 40)), 0o600))
	code, out, log := run("--text", path, "--dtype", "f32")
	require.Zero(t, code, log)
	require.Regexp(t, `(?s)^sequences [2-9]\ntokens \d+\nloss [0-9.]+\nperplexity [0-9.]+\nbits/byte [0-9.]+\ntokens/s [0-9.]+\n$`, out)
}

func TestNumbersThatJSONHasNoWordFor(t *testing.T) {
	var out strings.Builder
	require.NoError(t, result{Loss: number(math.NaN()), Perplexity: number(math.Inf(1)), Tokens: 3}.print(&out, true))
	require.JSONEq(t, `{"sequences":0,"tokens":3,"loss":null,"perplexity":null,"tokens_per_second":0}`, out.String())
}

func TestBadInput(t *testing.T) {
	golden := oracle.Open(t, "a_tiny_f32").Checkpoints[0]
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "input")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	out := filepath.Join(t.TempDir(), "out")
	for _, tt := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"nothing to score", nil, 2, "either --tokens or --text"},
		{"greedy without a file", []string{"--tokens", write("[[1]]"), "--greedy", "3"}, 2, "--ids"},
		{"not a list of lists", []string{"--tokens", write(`{"a":1}`)}, 1, "list of lists of token ids"},
		{"no sequences", []string{"--tokens", write(`[]`)}, 1, "no sequences"},
		{"an empty sequence", []string{"--tokens", write(`[[1],[]]`), "--logits", out}, 1, "sequence 1: sequence of no tokens"},
		{"an id beyond the vocabulary", []string{"--tokens", write(`[[1,512]]`), "--logits", out}, 1, "token 1 is 512, want 0 to 511"},
		{"a sequence beyond the context", []string{"--tokens", write("[[" + strings.Repeat("1,", 600) + "1]]"), "--trace", out}, 1, "601 tokens, want at most 512"},
		{"no room for greedy ids", []string{"--tokens", write("[[" + strings.Repeat("1,", 499) + "1]]"), "--greedy", "32", "--ids", out}, 1, "500 tokens and 32 greedy ones"},
		{"more than a list", []string{"--tokens", write("[[1]] [[2]]")}, 1, "more follows the list"},
		{"a context of one", []string{"--text", write("text"), "--context", "1"}, 2, "context is 1"},
		{"null in a sequence", []string{"--tokens", write("[[1,null]]")}, 1, "token 1 of sequence 0 is null"},
		{"a fraction", []string{"--tokens", write("[[1,2.5]]")}, 1, "a number 2.5 ends at byte 7"},
		{"one file for two", []string{"--tokens", write("[[1,2]]"), "--logits", out, "--trace", out}, 2, "would be written twice"},
		{"a folder in the place of a file", []string{"--tokens", write("[[1,2]]"), "--logits", t.TempDir()}, 1, "a folder is there"},
		{"a device in the place of a file", []string{"--tokens", write("[[1,2]]"), "--trace", "/dev/null"}, 1, "a device is there"},
		{"no tokenizer", []string{"--text", write("text")}, 1, "tokenizer"},
		{"no such folder for the file", []string{"--tokens", write("[[1,2]]"), "--logits", "/does/not/exist/l"}, 1, "/does/not/exist"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, log := run(append([]string{"--checkpoint", golden}, tt.args...)...)
			require.Equal(t, tt.code, code, log)
			require.Contains(t, log, tt.want)
			require.Equal(t, 1, strings.Count(log, "\n"), "one line: %s", log)
			require.Empty(t, stdout)
			require.NoFileExists(t, out, "nothing partly written")
		})
	}
}
