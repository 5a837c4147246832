package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/cmd/internal/flags"
	"mix/train/lora"
)

// asMain makes the test binary the command itself.
const asMain = "TRAIN_TEST_AS_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asMain) != "" {
		main()
	}
	os.Exit(m.Run())
}

// tiny is a model that compiles in seconds and a text for it.
func tiny(t *testing.T, more ...string) []string {
	text := write(t, t.TempDir(), "text.txt", strings.Repeat("And the evening and the morning were the first day.\x00Let there be light: and there was light.\x00", 60))
	return append([]string{"--data", text, "--data-cache-path", t.TempDir(), "--split", "9,1", "--num-layers", "2", "--hidden-size", "16", "--ffn-hidden-size", "16",
		"--num-attention-heads", "2", "--num-query-groups", "1", "--num-experts", "4", "--seq-length", "8", "--micro-batch-size", "2", "--global-batch-size", "4",
		"--eval-iters", "1", "--sample-tokens", "2", "--lr-decay-iters", "100"}, more...)
}

func TestTrainsGoesOnAndExports(t *testing.T) {
	if testing.Short() {
		t.Skip("needs seconds to compile")
	}
	dir := t.TempDir()
	save, export := filepath.Join(dir, "run"), filepath.Join(dir, "hf")
	args := tiny(t, "--save", save, "--eval-interval", "3", "--json")
	code, out, errs := output(t, append(args, "--train-iters", "4")...)
	require.Zero(t, code, errs)
	var r result
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	require.Equal(t, 4, r.Step)
	require.Equal(t, filepath.Join(save, "step-00000004"), r.Checkpoint)
	require.NotNil(t, r.Loss)
	require.NotNil(t, r.EvalLoss)
	require.NotContains(t, errs, "other settings")

	code, out, errs = output(t, append(args, "--train-iters", "6", "--lr", "1e-3", "--export", export)...)
	require.Zero(t, code, errs)
	require.Contains(t, errs, "other settings than the run had up to now: train-iters 6, was 4; lr 0.001, was 0.002\n")
	require.Contains(t, kept(t, save), "\nlr: 0.001\n")
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	require.Equal(t, 6, r.Step)
	require.Equal(t, []int{1, 2, 3, 4, 5, 6}, steps(t, filepath.Join(save, "metrics.jsonl")))
	require.FileExists(t, filepath.Join(save, "report.html"))

	for _, folder := range []string{export, r.Checkpoint} {
		m, err := flags.Model{Checkpoint: folder}.Open(os.Stderr)
		require.NoError(t, err)
		require.Equal(t, 16, m.Config.Width)
		require.Equal(t, 2048, m.Tokenizer.VocabSize())
		require.NoError(t, m.Weights.Close())
	}
	code, _, errs = output(t, append(args, "--train-iters", "7", "--export", export)...)
	require.Equal(t, 1, code)
	require.Equal(t, "train: --export "+export+": there are files in it, want an empty folder or none\n", errs)
	require.Len(t, steps(t, filepath.Join(save, "metrics.jsonl")), 6, "refused before the training")

	code, out, errs = output(t, append(args, "--train-iters", "5")...)
	require.Zero(t, code, errs)
	require.Contains(t, errs, "the run is already at step 6, --train-iters is 5: nothing was trained\n")
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	require.Equal(t, 6, r.Step)
	require.Contains(t, kept(t, save), "\ntrain-iters: 6\n", "what the checkpoints were made with")
}

// kept is the file of settings in a run's folder.
func kept(t *testing.T, save string) string {
	text, err := os.ReadFile(filepath.Join(save, settingsFile))
	require.NoError(t, err)
	return string(text)
}

// TestAdapters: trained beside a frozen model, they leave a PEFT folder and, merged, a model of its own.
func TestAdapters(t *testing.T) {
	if testing.Short() {
		t.Skip("needs seconds to compile")
	}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	metrics := write(t, dir, "metrics.jsonl", `{"step":1,"loss":9}`+"\n"+`{"step":2,"loss":8}`+"\n"+`{"step":3,"loss":7}`+"\n")
	code, _, errs := output(t, tiny(t, "--save", at("base"), "--eval-interval", "0", "--train-iters", "2", "--metrics", metrics)...)
	require.Zero(t, code, errs)
	require.Contains(t, errs, metrics+" has rows of an earlier run: they are replaced\n")
	require.Equal(t, []int{1, 2}, steps(t, metrics))
	args := []string{"--init", at("base/step-00000002"), "--data", "embedded:chat", "--seq-length", "64", "--lora-rank", "2", "--eval-interval", "2", "--eval-iters", "1",
		"--save", at("run"), "--json"}
	code, _, errs = output(t, append(args, "--train-iters", "2")...)
	require.Zero(t, code, errs)
	require.NotContains(t, errs, "earlier run")
	code, _, errs = output(t, "--init", at("run/step-00000002"))
	require.Equal(t, 2, code)
	require.Contains(t, errs, "it holds adapters")
	code, out, errs := output(t, append(args, "--train-iters", "4", "--export", at("merged"), "--export-dtype", "f32", "--export-adapters", at("adapters"))...)
	require.Zero(t, code, errs)
	var r result
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	require.Equal(t, 4, r.Step)
	require.Equal(t, []int{1, 2, 3, 4}, steps(t, at("run/metrics.jsonl")))

	m, err := flags.Model{Checkpoint: at("merged")}.Open(os.Stderr)
	require.NoError(t, err)
	require.NoError(t, m.Weights.Close())
	a, err := lora.Open(at("adapters"), m.Config)
	require.NoError(t, err)
	require.Equal(t, 2, a.Options().Rank)
	require.NoError(t, a.Close())
	base, err := os.ReadFile(at("base/step-00000002/model.safetensors"))
	require.NoError(t, err)
	merged, err := os.ReadFile(at("merged/model.safetensors"))
	require.NoError(t, err)
	require.Len(t, merged, len(base))
	require.NotEqual(t, base, merged)
}

// steps are those of a file of metrics.
func steps(t *testing.T, path string) (all []int) {
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		var row struct {
			Step int
			Loss *float64
		}
		require.NoError(t, json.Unmarshal([]byte(line), &row))
		if row.Loss != nil {
			all = append(all, row.Step)
		}
	}
	return all
}

// TestADeviceThatIsNotThereIsRefusedFirst: nothing is made for a run that cannot be.
func TestADeviceThatIsNotThereIsRefusedFirst(t *testing.T) {
	dir := t.TempDir()
	save, cache := filepath.Join(dir, "run"), filepath.Join(dir, "data")
	t.Setenv("MIX_FAKE_DEVICES", "none") // what Open reads before it looks for a plugin
	code, _, err := output(t, "--save", save, "--data-cache-path", cache)
	require.Equal(t, 1, code)
	require.Contains(t, err, "MIX_FAKE_DEVICES")
	require.NoDirExists(t, save)
	require.NoDirExists(t, cache)
}

func TestASaveFolderThatCannotBeWrittenIsRefusedFirst(t *testing.T) {
	file := write(t, t.TempDir(), "file", "")
	code, out, err := output(t, "--save", filepath.Join(file, "run"), "--data", "not there either")
	require.Equal(t, 1, code)
	require.Empty(t, out)
	require.Contains(t, err, "save folder "+filepath.Join(file, "run"))
	require.Equal(t, 1, strings.Count(err, "\n"))
}

func TestATextTooSmallIsRefusedWithTheCounts(t *testing.T) {
	dir := t.TempDir()
	text := write(t, dir, "text.txt", "Let there be light.")
	code, _, err := output(t, "--data", text, "--data-cache-path", dir, "--save", filepath.Join(dir, "run"))
	require.Equal(t, 1, code)
	require.Contains(t, err, "tokens, in ")
	require.Contains(t, err, "want at least 257 for one sample of 256")
}

// TestSIGTERMSaves: the run that SIGTERM ends exits 0 and leaves the step it was at; the same command goes
// on from there.
func TestSIGTERMSaves(t *testing.T) {
	if testing.Short() {
		t.Skip("needs seconds to compile")
	}
	dir := t.TempDir()
	args := tiny(t, "--save", filepath.Join(dir, "run"), "--eval-interval", "0", "--train-iters", "1000000", "--save-interval", "0")
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), asMain+"=1")
	progress, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var said strings.Builder
	sent := false
	for lines := bufio.NewScanner(progress); lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		if !sent && strings.HasPrefix(lines.Text(), "step ") {
			sent = true
			require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		}
	}
	require.NoError(t, cmd.Wait(), said.String())
	require.Contains(t, said.String(), "the same command goes on from there")
	done := steps(t, filepath.Join(dir, "run", "metrics.jsonl"))
	require.DirExists(t, filepath.Join(dir, "run", fmt.Sprintf("step-%08d", len(done))), said.String())
}

func TestHowAnInterruptedRunEnds(t *testing.T) {
	for _, tt := range []struct {
		name  string
		cause error
		want  error
	}{
		{"SIGTERM asks for just that", interruption{syscall.SIGTERM}, nil},
		{"SIGINT stopped the work", interruption{os.Interrupt}, context.Canceled},
		{"so did anything else", nil, context.Canceled},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(tt.cause)
		require.Equal(t, tt.want, interrupted(ctx), tt.name)
	}
}
