package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"
	"golang.org/x/tools/txtar"

	"mix/graph"
	"mix/internal/golden"
	"mix/train"
)

// scriptFlag is a flag of testdata/script.txt with its value, "" for a switch.
type scriptFlag struct{ name, value string }

func (f scriptFlag) args() []string {
	if f.value == "" {
		return []string{f.name}
	}
	return []string{f.name, f.value}
}

// script reads the seed's flags; the names of its files are those of a test.
func script(t *testing.T, checkpoint, tokenizer, data string) (all []scriptFlag) {
	text, err := os.ReadFile("testdata/script.txt")
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		all = append(all, scriptFlag{name, strings.NewReplacer("CHECKPOINT", checkpoint, "TOKENIZER", tokenizer, "DATA", data).Replace(value)})
	}
	require.Len(t, all, 64)
	return all
}

// refusals are the flags of the script that are not taken, with what is said: it starts 8 processes, its sizes need 32.
var refusals = map[string]string{
	"--nproc_per_node": "usage: --nproc_per_node: mesh: 8 devices do not divide over tensor 1 × pipe 4 × expert 8",
	"--wandb-project":  "usage: --wandb-project: nothing is sent over the network: --metrics writes the same rows",
	"--wandb-exp-name": "usage: --wandb-exp-name: nothing is sent over the network: --metrics writes the same rows",
}

// TestEveryFlagOfTheScript: without the flags that are refused, the script means what it means there; each
// of those alone is refused with its reason.
func TestEveryFlagOfTheScript(t *testing.T) {
	checkpoint, tokenizer := t.TempDir(), bigTokenizer(t, 32000)
	var taken []string
	var refused []scriptFlag
	for _, f := range script(t, checkpoint, tokenizer, "text_document") {
		if refusals[f.name] != "" {
			refused = append(refused, f)
		} else {
			taken = append(taken, f.args()...)
		}
	}
	require.Len(t, refused, len(refusals))
	c, p, err := parsed(t, taken...)
	require.NoError(t, err)

	model := graph.Mixtral8x7B
	model.AuxCoef, model.InitStd, p.Model.DType = 0.01, 0.01, model.DType
	require.Equal(t, model, p.Model)
	require.Equal(t, train.Schedule{Peak: 1e-4, Floor: 1e-5, Decay: train.Cosine, Warmup: 500, End: 320000}, p.Schedule)
	require.Equal(t, train.AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.1, Clip: 1}, p.Optimizer)
	want := "DType BFloat16, Seq 4096, Micro 1, Global 256, Steps 500000, Balance megatron, ZCoef 0, Recompute none, DecayEmbeddings true, Seed 1234, " +
		"LogEvery 1, SaveEvery 10000, EvalEvery 1000, EvalBatches 2560, from , data.Paths [text_document], data.Split 99990,8,2, data.Seed 1234"
	require.Equal(t, want, facts(t, p, want))
	require.Equal(t, "pipe=4 expert=8", p.mesh.String())
	require.Equal(t, "pp+fsdp1+ep", p.rules.String())
	require.Equal(t, checkpoint, c.Save)
	require.Equal(t, filepath.Join(checkpoint, "tensorboard"), c.TensorboardDir)

	for _, f := range refused {
		code, out, err := output(t, append(append(f.args(), taken...), "--print-config")...)
		require.Equal(t, 2, code, f.name)
		require.Empty(t, out, f.name)
		require.Equal(t, "train: "+refusals[f.name]+"\n", err)
	}
}

// TestTheScriptStartsFromAModelToo: its --load may be a Hugging Face folder, as the converted checkpoint is
// there.
func TestTheScriptStartsFromAModelToo(t *testing.T) {
	dir := demoFolder(t)
	_, p, err := parsed(t, "--save", dir, "--load", dir, "--no-load-optim", "--no-load-rng")
	require.NoError(t, err)
	require.Equal(t, dir, p.from)
}

// TestTranslationTable holds the table of the README to the flags: what each flag of the script means here
// is its help.
func TestTranslationTable(t *testing.T) {
	golden.Run(t, "testdata/translation.txtar", func(t *testing.T, _ map[string]string) string {
		_, embed := embedFixed()
		parser, err := kong.New(new(command), embed)
		require.NoError(t, err)
		help := map[string]string{}
		for _, f := range parser.Model.Flags {
			help["--"+f.Name] = f.Help
		}
		var b strings.Builder
		b.WriteString("| flag of the script | here |\n|---|---|\n")
		for _, f := range script(t, "$CHECKPOINT_PATH", "$TOKENIZER_MODEL", "$DATA_PATH") {
			require.NotEmpty(t, help[f.name], f.name)
			what := help[f.name]
			if refusal := refusals[f.name]; refusal != "" {
				what = "refused: " + strings.TrimPrefix(refusal, "usage: ")
			}
			fmt.Fprintf(&b, "| `%s` | %s |\n", strings.Join(f.args(), " "), strings.ReplaceAll(strings.TrimSuffix(what, "."), "|", `\|`))
		}
		return b.String()
	})
}

func TestREADMEHasTheTable(t *testing.T) {
	table, err := txtar.ParseFile("testdata/translation.txtar")
	require.NoError(t, err)
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	require.True(t, strings.Contains(string(readme), string(table.Files[len(table.Files)-1].Data)), "README.md is to have the table of testdata/translation.txtar")
}
