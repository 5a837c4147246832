package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/internal/cli"
	"mix/internal/demo"
)

// run is the command in this process.
func run(ctx context.Context, stdin string, args ...string) (code int, out, err string) {
	var o, e strings.Builder
	code = cli.Run(ctx, new(command), "generate", "", args, cli.IO{In: strings.NewReader(stdin), Out: &o, Err: &e})
	return code, o.String(), e.String()
}

func TestGenerate(t *testing.T) {
	ctx := context.Background()
	code, whole, log := run(ctx, "", "--prompt", "In the beginning", "--max-tokens", "24", "--temperature", "0")
	require.Zero(t, code, log)
	require.Regexp(t, `(?m)^prompt \d+ tokens, [0-9.]+ tokens/s; decode 23 tokens, [0-9.]+ tokens/s$`, log)
	require.NotEmpty(t, strings.TrimSpace(whole))

	_, again, _ := run(ctx, "In the beginning", "--max-tokens", "24", "--temperature", "0")
	require.Equal(t, whole, again, "the prompt may come from standard input")

	words := strings.Fields(whole)
	_, cut, _ := run(ctx, "", "--prompt", "In the beginning", "--max-tokens", "24", "--temperature", "0", "--stop", words[2]+" "+words[3])
	require.Equal(t, whole[:strings.Index(whole, words[2]+" "+words[3])]+"\n", cut)

	_, a, _ := run(ctx, "", "--prompt", "And", "--max-tokens", "16", "--seed", "5", "--temperature", "1.5")
	_, b, _ := run(ctx, "", "--prompt", "And", "--max-tokens", "16", "--seed", "5", "--temperature", "1.5")
	_, c, _ := run(ctx, "", "--prompt", "And", "--max-tokens", "16", "--seed", "6", "--temperature", "1.5")
	require.Equal(t, a, b, "the same seed gives the same text")
	require.NotEqual(t, a, c)
}

func TestStopsCleanlyWhenInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	code, out, log := run(ctx, "", "--prompt", "And")
	require.Equal(t, 130, code)
	require.Empty(t, out)
	require.Empty(t, log)
}

// endless is an input that nobody closes.
type endless struct{}

func (endless) Read([]byte) (int, error) { select {} }

func TestStopsWhileItWaitsForThePrompt(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out strings.Builder
	require.Equal(t, 130, cli.Run(ctx, new(command), "generate", "", nil, cli.IO{In: endless{}, Out: &out, Err: &out}))
	require.Empty(t, out.String())
}

// copyDemo is the demo model in a folder, with some files changed; a change to "" removes the file.
func copyDemo(t *testing.T, changes map[string]string) string {
	dir := t.TempDir()
	files := map[string]string{"tokenizer.model": string(demo.Tokenizer())}
	for name, text := range demo.Files() {
		files[name] = text
	}
	for name, text := range changes {
		files[name] = text
	}
	for name, text := range files {
		if text != "" {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		}
	}
	return dir
}

func TestBadInput(t *testing.T) {
	config, weights := string(demo.Config()), demo.Files()["model.safetensors"]
	with := func(old, new string) map[string]string {
		require.Contains(t, config, old)
		return map[string]string{"config.json": strings.Replace(config, old, new, 1)}
	}
	tests := []struct {
		name    string
		changes map[string]string
		args    []string
		code    int
		want    string
	}{
		{"no such folder", nil, []string{"--checkpoint", "/does/not/exist"}, 1, "/does/not/exist"},
		{"no config", map[string]string{"config.json": ""}, nil, 1, "config.json"},
		{"no weights", map[string]string{"model.safetensors": ""}, nil, 1, "model.safetensors"},
		{"no tokenizer", map[string]string{"tokenizer.model": ""}, nil, 1, "tokenizer"},
		{"truncated weights", map[string]string{"model.safetensors": weights[:len(weights)/2]}, nil, 1, "model.layers."},
		{"header beyond the file", map[string]string{"model.safetensors": "\xff\xff\xff\x00\x00\x00\x00\x00{}"}, nil, 1, "16777215"},
		{"heads do not divide", with(`"num_key_value_heads": 2`, `"num_key_value_heads": 3`), nil, 1, "num_attention_heads 8 is not divisible by num_key_value_heads 3"},
		{"more choices than experts", with(`"num_experts_per_tok": 2`, `"num_experts_per_tok": 9`), nil, 1, "num_experts_per_tok 9 is above num_local_experts 8"},
		{"a key that changes the model", with(`"hidden_act"`, `"logit_cap": 30, "hidden_act"`), nil, 1, "logit_cap = 30"},
		{"another width", with(`"hidden_size": 160`, `"hidden_size": 128`), nil, 1, "[2048 160], want [2048 128]"},
		{"another model", with(`"mixtral"`, `"llama"`), nil, 1, `model_type is "llama"`},
		{"a window beyond int32", with(`"sliding_window": null`, `"sliding_window": 4294967296`), nil, 1, "sliding_window is 4294967296"},
		{"a prompt beyond the context", nil, []string{"--prompt", strings.Repeat("word ", 500)}, 1, "want at most 255"},
		{"invalid UTF-8", nil, []string{"--prompt", "a\xffb"}, 1, "UTF-8"},
		{"dtype", nil, []string{"--dtype", "int3"}, 2, `dtype "int3"`},
		{"device", nil, []string{"--device", "tpu"}, 2, `device "tpu"`},
		{"mesh", nil, []string{"--mesh", "expert=3"}, 1, "axis \"experts\" of 8 does not divide over 3 shards"},
		{"no mesh", nil, []string{"--mesh", "expert"}, 2, "want axis=size"},
		{"temperature", nil, []string{"--temperature", "-1"}, 2, "temperature is -1"},
		{"top-p", nil, []string{"--top-p", "0"}, 2, "top-p is 0"},
		{"tokens", nil, []string{"--max-tokens", "0"}, 2, "max-tokens is 0"},
		{"an unknown flag", nil, []string{"--beams", "3"}, 2, "--beams"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"--checkpoint", copyDemo(t, tt.changes), "--prompt", "And"}, tt.args...)
			code, out, log := run(context.Background(), "", args...)
			require.Equal(t, tt.code, code, log)
			require.Empty(t, out)
			require.Contains(t, log, tt.want)
			require.Equal(t, 1, strings.Count(log, "\n"), "one line: %s", log)
			require.NotContains(t, log, "goroutine")
		})
	}
}

func TestWriterHoldsBackStops(t *testing.T) {
	for _, tt := range []struct {
		name   string
		stops  []string
		pieces []string
		want   string
	}{
		{"none", nil, []string{"ab", "cd"}, "abcd"},
		{"in one piece", []string{"c"}, []string{"ab", "xcd", "e"}, "abx"},
		{"over pieces", []string{"bcd"}, []string{"ab", "c", "de"}, "a"},
		{"begun but not met", []string{"bcd"}, []string{"ab", "c", "x"}, "abcx"},
		{"begun at the end", []string{"bcd"}, []string{"ab", "c"}, "abc"},
		{"the earliest of two that overlap", []string{"cd", "bc"}, []string{"abcde"}, "a"},
		{"the earliest of several", []string{"de", "bc"}, []string{"ab", "cde"}, "a"},
	} {
		var out strings.Builder
		w := newWriter(&out, nil, tt.stops)
		for _, p := range tt.pieces {
			w.take(p)
		}
		if !w.ended {
			w.print(w.held)
		}
		require.Equal(t, tt.want, out.String(), tt.name)
	}
}
