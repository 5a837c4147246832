package main

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/internal/cli"
	"mix/sharding/axis"
	"mix/sharding/ckpt"
	"mix/train/store"
)

// run is a command line of ckpt.
func run(t *testing.T, args ...string) (code int, out, errs string) {
	var o, e strings.Builder
	code = cli.Run(context.Background(), new(command), "ckpt", "", args, cli.IO{Out: &o, Err: &e})
	return code, o.String(), e.String()
}

// must is run of a line that succeeds.
func must(t *testing.T, args ...string) string {
	code, out, errs := run(t, args...)
	require.Zero(t, code, "%v: %s", args, errs)
	return out
}

// fixture is a checkpoint as Megatron-LM writes it, whose settings leave out the sizes of heads.
func fixture(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "megatron")
	at := filepath.Join(dir, "iter_0000001", "mp_rank_00")
	require.NoError(t, os.MkdirAll(at, 0o777))
	for from, to := range map[string]string{
		"../../sharding/ckpt/torchfile/testdata/model_optim_rng.pt": filepath.Join(at, "model_optim_rng.pt"),
		"../../sharding/ckpt/testdata/megatron/config.json":         filepath.Join(dir, "config.json"),
	} {
		b, err := os.ReadFile(from)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(to, b, 0o666))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "latest_checkpointed_iteration.txt"), []byte("1"), 0o666))
	return dir
}

func TestConvertThereAndBack(t *testing.T) {
	from, base := fixture(t), t.TempDir()
	hf, ours, megatron := filepath.Join(base, "hf"), filepath.Join(base, "ours"), filepath.Join(base, "megatron")
	require.Equal(t, hf+"\n", must(t, "convert", "--from", from, "--to", hf, "--format", "hf"))
	must(t, "convert", "--from", hf, "--to", ours, "--tensor", "2", "--pipeline", "2", "--expert", "4")
	var d done
	require.NoError(t, json.Unmarshal([]byte(must(t, "convert", "--json", "--from", ours, "--to", megatron, "--format", "megatron", "--tensor=2")), &d))
	require.Equal(t, []any{megatron, "megatron", 4}, []any{d.To, d.Format, d.Files})
	require.NotZero(t, d.Bytes)
	for _, dir := range []string{hf, ours, megatron} {
		require.Contains(t, must(t, "diff", from, dir), "0 of 13 weights differ")
		require.Contains(t, must(t, "verify", dir), "13 weights of 10512 elements found once")
		require.Contains(t, must(t, "list", dir), "tensors in")
	}
	var x ckpt.Examination
	require.NoError(t, json.Unmarshal([]byte(must(t, "verify", "--json", megatron)), &x))
	require.Equal(t, []any{"manifest", 4, "megatron"}, []any{x.Checksums, x.Files, x.Format})
	wide := filepath.Join(base, "wide")
	must(t, "convert", "--from", from, "--to", wide, "--format", "hf", "--dtype", "f32", "--layout", "fused")
	code, out, errs := run(t, "diff", hf, wide, "--json")
	require.Equal(t, 1, code)
	require.Equal(t, "ckpt: the checkpoints differ\n", errs)
	var r ckpt.DiffReport
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	require.True(t, r.Different)
	require.Equal(t, []any{"BF16", "F32", 0}, []any{r.Weights[0].A.DType, r.Weights[0].B.DType, r.Weights[0].Elements})
}

func TestPlan(t *testing.T) {
	from := fixture(t)
	text := must(t, "plan", "--from", from, "--tensor", "2")
	require.Contains(t, text, "device-00001.safetensors ")
	require.Contains(t, text, "    layers/moe/down[0:1, 3:4, 0:16, 6:12] from iter_0000001/mp_rank_00/model_optim_rng.pt decoder.layers.0.mlp.experts.local_experts.3.linear_fc2.weight\n")
	require.Equal(t, text, must(t, "plan", "--from", from, "--tensor", "2"))
	var r ckpt.PlanReport
	require.NoError(t, json.Unmarshal([]byte(must(t, "plan", "--from", from, "--format", "hf", "--json")), &r))
	require.Len(t, r.Files, 1)
	require.Equal(t, []string{"config.json"}, r.Others)
}

func TestConvertRefuses(t *testing.T) {
	from := fixture(t)
	to := filepath.Join(t.TempDir(), "to")
	bare := fixture(t)
	require.NoError(t, os.Remove(filepath.Join(bare, "config.json")))
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"--from " + from + " --to " + from, 1, "want a name that is free"},
		{"--from " + from + " --to " + to + " --tensor 0", 2, "--tensor 0, want at least 1"},
		{"--from " + from + " --to " + to + " --dtype int8", 2, `--dtype "int8", want f32, bf16 or f16`},
		{"--from " + from + " --to " + to + " --format gguf", 1, `format "gguf", want mixtral, hf or megatron`},
		{"--from " + from + " --to " + to + " --expert 3", 1, `axis "experts" of 4 does not divide over 3 shards`},
		{"--from " + bare + " --to " + to, 1, "args lack ffn_hidden_size: put the model's config.json into the checkpoint's folder"},
		{"--to " + to, 2, "--from"},
	} {
		code, _, errs := run(t, append([]string{"convert"}, strings.Fields(tt.args)...)...)
		require.Equal(t, tt.code, code, tt.args)
		require.Contains(t, errs, tt.want)
		require.Equal(t, 1, strings.Count(errs, "\n"), errs)
	}
	must(t, "convert", "--from", bare, "--to", to, "--config", filepath.Join(from, "config.json"))
	must(t, "diff", from, to)
	code, _, errs := run(t, "verify", filepath.Join(to, "nothing"))
	require.Equal(t, 1, code)
	require.Contains(t, errs, "nothing")
}

// ones gives a weight whose elements are all the same.
type ones float32

func (v ones) Read(q axis.Piece, dst []byte) error {
	list := make([]float32, q.Elements())
	for i := range list {
		list[i] = float32(v)
	}
	ckpt.PutFloat32(dst, dtypes.Float32, list)
	return nil
}

func TestARunGoesOnFromAConvertedCheckpoint(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(fixture(t), "config.json"))
	require.NoError(t, err)
	config, err := graph.ParseConfig(text)
	require.NoError(t, err)
	o := store.Options{Params: graph.Params(config), Files: map[string][]byte{"config.json": text}}
	base := t.TempDir()
	s, err := store.Open(filepath.Join(base, "run"), o)
	require.NoError(t, err)
	require.NoError(t, s.Save(store.Snapshot{Step: 3, State: json.RawMessage(`{"seed":1}`), Score: math.NaN(),
		Groups: []store.Group{{Name: "", DType: dtypes.BFloat16, From: ones(1)}, {Name: "optimizer/first", From: ones(2)}}}))
	require.NoError(t, s.Close())
	moved := filepath.Join(base, "moved")
	must(t, "convert", "--from", filepath.Join(base, "run", "step-00000003"), "--to", filepath.Join(moved, "step-00000003"), "--tensor", "2", "--expert", "2")
	s, err = store.Open(moved, o)
	require.NoError(t, err)
	defer s.Close()
	c, err := s.Latest()
	require.NoError(t, err)
	defer c.Close()
	require.Equal(t, 3, c.Step())
	for group, want := range map[string]ones{"": 1, "optimizer/first": 2} {
		r, err := c.Reader(group)
		require.NoError(t, err)
		for _, p := range o.Params {
			q := axis.Whole(p, dtypes.Float32)
			got, expected := make([]byte, q.Bytes()), make([]byte, q.Bytes())
			require.NoError(t, r.Read(q, got))
			require.NoError(t, want.Read(q, expected))
			require.Equal(t, expected, got, p.Path)
		}
	}
}
