package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/internal/cli"
	"mix/internal/golden"
)

// run is the command with args: its output, what it said, and the exit code.
func run(args ...string) (out, log string, code int) {
	var o, e strings.Builder
	code = cli.Run(context.Background(), new(command), "plan", "", args, cli.IO{Out: &o, Err: &e})
	return o.String(), e.String(), code
}

func TestGolden(t *testing.T) {
	golden.Run(t, "testdata/*.txtar", func(t *testing.T, in map[string]string) string {
		out, log, code := run(strings.Fields(in["args"])...)
		if code != 0 {
			return fmt.Sprintf("exit %d\n%s", code, log)
		}
		require.Empty(t, log)
		return out
	})
}

func TestJSONIsOneObject(t *testing.T) {
	for _, args := range [][]string{
		{"--json", "--gpus", "32"},
		{"--json", "--serve", "--gpus", "4", "--dtype", "fp8"},
		{"--json", "--describe", "--mesh", "pipe=4,expert=8"},
	} {
		out, log, code := run(args...)
		require.Zero(t, code, log)
		d := json.NewDecoder(strings.NewReader(out))
		var object map[string]any
		require.NoError(t, d.Decode(&object))
		require.False(t, d.More())
		require.NotEmpty(t, object)
	}
	out, _, _ := run("--json", "--gpus", "32", "--mesh", "pipe=4,expert=8")
	var r struct {
		Fits []struct {
			Mesh   string             `json:"mesh"`
			Memory map[string]float64 `json:"memory"`
			Step   float64            `json:"step_seconds"`
			MFU    float64            `json:"mfu"`
		} `json:"fits"`
	}
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	require.Len(t, r.Fits, 1)
	require.Equal(t, "pipe=4 expert=8", r.Fits[0].Mesh)
	require.Positive(t, r.Fits[0].Memory["weights"])
	require.Positive(t, r.Fits[0].Step)
	require.Positive(t, r.Fits[0].MFU)
}

func TestWrongUsage(t *testing.T) {
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"--preset mistral", 2, `preset "mistral", want mixtral-8x22b or mixtral-8x7b`},
		{"--gpu tpu", 2, `GPU "tpu", want A100-80G`},
		{"--mesh data=0", 2, "data=0, want at least 1"},
		{"--mesh data=2 --gpus 4", 2, `--mesh "data=2" has 2 devices, --gpus is 4`},
		{"--serve --train", 2, "--serve and --train, want one"},
		{"--rules ep", 2, "--rules without --describe"},
		{"--gpus -1", 2, "below 0"},
		{"--zero 4", 2, "--zero 4, want 0 to 3"},
		{"--recompute all", 2, `--recompute "all", want none, selective, moe or full`},
		{"--describe --mesh expert=8 --rules tp", 2, "preset tp does not use expert=8"},
		{"--describe --gpus 12 --expert-model-parallel-size 8", 2, "12 devices do not divide over tensor 1 × pipe 1 × expert 8"},
		{"--describe --expert-model-parallel-size 16", 1, `layers/moe/gate: axis "experts" of 8 does not divide over 16 shards [expert]`},
		{"--device tpu", 2, `device "tpu", want cpu, cuda or cuda:n`},
		{"--seq-length 0", 1, "256 sequences of 0 tokens on 64 devices"},
		{"--checkpoint testdata", 1, "config.json"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			out, log, code := run(strings.Fields(tt.args)...)
			require.Equal(t, tt.code, code)
			require.Empty(t, out)
			require.Contains(t, log, tt.want)
			require.Equal(t, 1, strings.Count(log, "\n"))
		})
	}
}
