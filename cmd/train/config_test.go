package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/internal/golden"
)

// TestPrintedConfigReadsBackToTheSame: the effective values, given back, are the same and mean the same.
func TestPrintedConfigReadsBackToTheSame(t *testing.T) {
	dir, big := demoFolder(t), bigTokenizer(t, 2100)
	for _, args := range []string{
		"",
		"--preset mixtral-8x7b",
		"--preset mixtral-8x22b --data-path x",
		"--mock-data --vocab-size 512",
		"--sample-prompt=",
		"--init " + dir,
		"--init " + dir + " --lora-rank 8 --qlora int8 --lora-targets q_proj,w1",
		"--load " + dir + " --no-load-optim --save x",
		"--bf16 --lr-warmup-fraction 0.25 --recompute-activations --moe-router-load-balancing-type aux_loss --no-decay-embeddings --no-keep-best",
		"--lr-decay-style WSD --lr-wsd-decay-iters 7 --moe-router-load-balancing-type none --save= --train-iters 77",
		"--tokenizer-model " + big + " --train-data-path a --valid-data-path b --test-data-path c --hidden-size 320",
		"--mock-data --pack --sample-tokens 0 --seed 4294967295 --lr 1e-20 --min-lr 0 --rotary-base 1e12",
		"--sample-prompt yes --sample-prompt 1e3 --sample-prompt #x:y --chat-template v3 --export out --export-dtype f32 --untie-embeddings-and-output-weights",
	} {
		t.Run(args, func(t *testing.T) {
			code, first, errs := output(t, append(strings.Fields(args), "--print-config")...)
			require.Zero(t, code, errs)
			file := write(t, t.TempDir(), "c.yaml", first)
			code, second, errs := output(t, "--config", file, "--print-config")
			require.Zero(t, code, errs)
			require.Equal(t, first, second)
			_, p, err := parsed(t, strings.Fields(args)...)
			require.NoError(t, err)
			_, q, err := parsed(t, "--config", file)
			require.NoError(t, err)
			require.Equal(t, p, q)
		})
	}
}

func TestWhoWins(t *testing.T) {
	file := write(t, t.TempDir(), "c.yaml", "lr: 1e-3\ntrain-iters: 50\nlr-warmup-iters: 3\ndtype: f32\ndata: file.txt\nsample-prompt: [a, \"b, c\"]\nlog-interval: 0x10\n")
	dir := demoFolder(t)
	for _, tt := range []struct{ name, args, want string }{
		{"the file over the preset", "--config " + file, "Schedule.Peak 0.001, Steps 50, Schedule.Warmup 3, data.Paths [file.txt], Prompts [a b, c], LogEvery 16"},
		{"the command line over the file", "--config " + file + " --lr 2e-3 --sample-prompt d", "Schedule.Peak 0.002, Steps 50, Prompts [d]"},
		{"wherever it stands", "--lr 2e-3 --config " + file, "Schedule.Peak 0.002"},
		{"the preset below both", "--config " + file, "Schedule.Floor 2e-05, Global 4"},
		{"one way to say a thing over another", "--config " + file + " --bf16 --lr-warmup-fraction 0.2 --mock-data --vocab-size 2048", "DType BFloat16, Schedule.Warmup 10, data.Mock true, data.Paths []"},
		{"a preset on the command line over the file's", "--config " + write(t, dir, "p.yaml", "preset: mixtral-8x7b\nseq-length: 128\n") + " --preset demo", "Model.Layers 4, Seq 128"},
		{"a preset in the file", "--config " + write(t, dir, "q.yaml", "preset: mixtral-8x7b\n"), "Model.Layers 32, Schedule.Warmup 500"},
		{"weights in the file choose the preset", "--config " + write(t, dir, "r.yaml", "init: "+dir+"\n"), "Schedule.Peak 1e-05"},
		{"a list of one", "--config " + write(t, dir, "s.yaml", "sample-prompt: one\n"), "Prompts [one]"},
		{"an empty file", "--config " + write(t, dir, "t.yaml", "# nothing\n"), "Schedule.Peak 0.002"},
		{"a switch turned off", "--config " + write(t, dir, "u.yaml", "decay-embeddings: false\nkeep-best: false\n"), "DecayEmbeddings false"},
		{"flags of one meaning", "--config " + write(t, dir, "v.yaml", "swiglu: true\nnormalization: RMSNorm\n"), "Seq 256"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, p, err := parsed(t, strings.Fields(tt.args)...)
			require.NoError(t, err)
			require.Equal(t, tt.want, strings.ReplaceAll(facts(t, p, strings.ReplaceAll(tt.want, "b, c", "b; c")), "b; c", "b, c"))
		})
	}
}

func TestWhatAFileMayNotSay(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct{ name, text, want string }{
		{"an unknown name", "lr: 1\n\nlearning-rate: 2\n", `F:3: unknown name "learning-rate"`},
		{"the first of several", "b: 2\na: 1\n", `F:1: unknown name "b"`},
		{"what is for the command line", "print-config: true\n", `F:1: unknown name "print-config"`},
		{"a file in a file", "config: x\n", `F:1: unknown name "config"`},
		{"a name twice", "lr: 1\nmin-lr: 2\nlr: 3\n", "F:3: lr again, first in line 1"},
		{"a word for a number", "seed: 1\nlr: fast\n", `F:2: --lr: expected a float but got "fast" (string)`},
		{"a fraction for a count", "train-iters: 1.5\n", `F:1: --train-iters: expected a valid 64 bit int but got "1.5"`},
		{"a list for a value", "lr:\n  - 1\n  - 2\n", "F:1: --lr: want one value, not a list"},
		{"nothing", "lr:\n", "F:1: lr: want a value or a list of values"},
		{"a tree", "lr:\n  peak: 1\n", "F:1: lr: want a value or a list of values"},
		{"a list", "- lr\n", "F:1: want lines of name: value"},
		{"two documents", "lr: 1\n---\nlr: 2\n", "F: more than one document, want one"},
		{"no YAML", "lr: [1\n", "F: yaml: line 1: did not find expected ',' or ']'"},
		{"a wrong value of one meaning", "swiglu: false\n", `usage: --swiglu is "false", want true: Mixtral's experts are SwiGLU`},
		{"a preset", "preset: tiny\n", `--preset is "tiny", want demo, mixtral-8x7b, mixtral-8x22b, finetune or finetune-lora`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := write(t, dir, "c.yaml", tt.text)
			code, out, err := output(t, "--config", file)
			require.Equal(t, "train: "+tt.want+"\n", strings.ReplaceAll(err, file, "F"))
			require.Empty(t, out)
			require.Equal(t, 2, code)
		})
	}
	code, _, err := output(t, "--config", filepath.Join(dir, "none"))
	require.Equal(t, 2, code)
	require.Contains(t, err, "none: no such file")
}

func TestPresets(t *testing.T) {
	golden.Run(t, "testdata/preset-*.txtar", func(t *testing.T, in map[string]string) string {
		code, out, err := output(t, append(strings.Fields(in["flags"]), "--print-config")...)
		require.Zero(t, code, err)
		return out
	})
}

func TestPresetsSayWhatEveryRunNeeds(t *testing.T) {
	for _, p := range presets {
		l, err := presetFor(p.name, false, "")
		require.NoError(t, err)
		for _, name := range []string{"train-iters", "micro-batch-size", "global-batch-size", "lr", "min-lr", "lr-warmup-iters"} {
			require.Contains(t, l.values, name, p.name)
		}
	}
}

func TestSettingsAsJSON(t *testing.T) {
	a, err := readLayer("a", []byte("lr: 1e-3\nsample-prompt: [x, \"1\"]\n"))
	require.NoError(t, err)
	text, err := settingsJSON([]setting{{"", "lr", a.values["lr"]}, {"", "sample-prompt", a.values["sample-prompt"]}})
	require.NoError(t, err)
	require.Equal(t, `{"lr":0.001,"sample-prompt":["x","1"]}`, string(text))
	require.True(t, json.Valid(text))
}

func FuzzReadLayer(f *testing.F) {
	for _, p := range presets {
		text, err := os.ReadFile("presets/" + p.name + ".yaml")
		require.NoError(f, err)
		f.Add(text)
	}
	f.Add([]byte("a: &x [1]\nb: *x\n<<: {}\n? [a]\n: b"))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := readLayer("f", text)
		if err != nil {
			return
		}
		for name, v := range l.values {
			require.Positive(t, v.Line, name)
		}
	})
}
