package lora

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/internal/ref"
	"mix/sharding/axis"
	"mix/sharding/ckpt"
)

// recordedFolder was written by PEFT; testdata/make.py says how.
const recordedFolder = "testdata/peft"

func TestOpenReadsWhatPEFTWrote(t *testing.T) {
	c, base := recorded(t)
	a, err := Open(recordedFolder, c)
	require.NoError(t, err)
	defer a.Close()
	require.Equal(t, Options{Rank: 4, Alpha: 10, Targets: names()}, a.Options())
	require.Empty(t, a.Base())

	merged, err := Merge(c, a.Options(), base, a)
	require.NoError(t, err)
	f, err := ckpt.OpenFile("testdata/logits.safetensors")
	require.NoError(t, err)
	defer f.Close()
	ids, err := f.Ints("input_ids")
	require.NoError(t, err)
	flat, err := f.Float32s("logits")
	require.NoError(t, err)
	var tokens []int32
	var want ref.Matrix
	for s, id := range ids {
		tokens = append(tokens, int32(id))
		want = append(want, ref.Vec(flat[s*c.Vocab:][:c.Vocab]))
	}
	// PEFT ran in float32, as the golden recordings did: their tolerance.
	require.LessOrEqual(t, farthest(plain(t, c, merged, tokens), want), 2e-4)
	require.Greater(t, farthest(plain(t, c, base, tokens), want), 1.0, "the adapters do something")
}

func TestWriteWritesWhatPEFTDoes(t *testing.T) {
	c, _ := recorded(t)
	a, err := Open(recordedFolder, c)
	require.NoError(t, err)
	defer a.Close()
	dir := filepath.Join(t.TempDir(), "adapters")
	require.NoError(t, Write(dir, c, a.Options(), a, WriteOptions{}))

	theirs, err := ckpt.OpenFile(filepath.Join(recordedFolder, weightsFile))
	require.NoError(t, err)
	defer theirs.Close()
	ours, err := ckpt.OpenFile(filepath.Join(dir, weightsFile))
	require.NoError(t, err)
	defer ours.Close()
	require.ElementsMatch(t, theirs.Names(), ours.Names())
	require.Contains(t, ours.Names(), "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight")
	require.Contains(t, ours.Names(), "base_model.model.model.layers.0.block_sparse_moe.experts.3.w1.lora_B.weight")
	require.Equal(t, theirs.Metadata(), ours.Metadata())
	for _, name := range theirs.Names() {
		want, err := theirs.Info(name)
		require.NoError(t, err)
		got, err := ours.Info(name)
		require.NoError(t, err)
		require.Equal(t, want.Shape, got.Shape, name)
		w, err := theirs.Bytes(name)
		require.NoError(t, err)
		g, err := ours.Bytes(name)
		require.NoError(t, err)
		require.Equal(t, w, g, name)
	}
	want, got := keysOf(t, recordedFolder), keysOf(t, dir)
	for key, v := range got {
		if key == "target_modules" {
			require.ElementsMatch(t, want[key], v)
			continue
		}
		require.Contains(t, want, key)
		require.Equal(t, want[key], v, key)
	}
}

// keysOf reads the configuration of a PEFT folder.
func keysOf(t *testing.T, dir string) (keys map[string]any) {
	b, err := os.ReadFile(filepath.Join(dir, configFile))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &keys))
	return keys
}

func TestWriteAndOpenRoundTrip(t *testing.T) {
	tests := []struct {
		name  string
		o     Options
		dtype dtypes.DType
	}{
		{"float32 unless said otherwise", Options{Rank: 3, Alpha: 8, Targets: []string{"q_proj", "o_proj"}}, dtypes.InvalidDType},
		{"bfloat16", Options{Rank: 2, Alpha: 0.5, Targets: []string{"w1", "w3"}, RsLoRA: true}, dtypes.BFloat16},
		{"float16", Options{Rank: 1, Alpha: 1e6, Targets: []string{"gate", "w2"}}, dtypes.Float16},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			made := adaptersOf(t, odd, tt.o)
			dir := t.TempDir() // there, and empty
			require.NoError(t, Write(dir, odd, tt.o, made, WriteOptions{Base: "some/model", DType: tt.dtype}))
			a, err := Open(dir, odd)
			require.NoError(t, err)
			require.Equal(t, tt.o, a.Options())
			require.Equal(t, "some/model", a.Base())
			dtype := tt.dtype
			if dtype == dtypes.InvalidDType {
				dtype = dtypes.Float32
			}
			for _, p := range made.params {
				for _, q := range boxes(p, dtype) {
					want, got := make([]byte, q.Bytes()), make([]byte, q.Bytes())
					require.NoError(t, made.Read(q, want))
					require.NoError(t, a.Read(q, got))
					require.Equal(t, want, got, "%s %v %v", q.Name, q.Offset, q.Size)
				}
			}
			q := axis.Whole(axis.Param{Path: "embed", Dims: []int{1}}, dtypes.Float32)
			require.ErrorContains(t, a.Read(q, make([]byte, 4)), `no adapter "embed"`)
			require.NoError(t, a.Close())
			require.ErrorIs(t, a.Read(axis.Whole(made.params[0], dtypes.Float32), nil), fs.ErrClosed)
			require.Error(t, a.Close())
		})
	}
}

func TestWriteLeavesNothingBehind(t *testing.T) {
	o := Options{Rank: 2, Alpha: 2, Targets: []string{"q_proj", "w2"}}
	made := adaptersOf(t, odd, o)
	parent := t.TempDir()
	listed := func() (list []string) {
		entries, err := os.ReadDir(parent)
		require.NoError(t, err)
		for _, e := range entries {
			list = append(list, e.Name())
		}
		return list
	}
	dir := filepath.Join(parent, "out")
	half := reader{made.params[:3], made.values}
	require.Error(t, Write(dir, odd, o, half, WriteOptions{}), "an adapter cannot be read")
	require.Empty(t, listed())
	require.ErrorContains(t, Write(dir, odd, o, made, WriteOptions{DType: dtypes.Int8}), "dtype Int8")
	require.ErrorContains(t, Write(dir, odd, Options{}, made, WriteOptions{}), "rank is 0")
	require.Error(t, Write(filepath.Join(dir, "deep"), odd, o, made, WriteOptions{}))
	require.Empty(t, listed())

	require.NoError(t, Write(dir, odd, o, made, WriteOptions{}))
	require.Equal(t, []string{"out"}, listed())
	require.ErrorContains(t, Write(dir, odd, o, made, WriteOptions{}), "holds adapter_config.json, want an empty folder or none")
	require.NoError(t, os.WriteFile(filepath.Join(parent, "file"), nil, 0o666))
	require.Error(t, Write(filepath.Join(parent, "file"), odd, o, made, WriteOptions{}))
	require.Equal(t, []string{"file", "out"}, listed())
}

// folder writes a PEFT folder of q_proj and w2 after a change of its configuration and its tensors.
func folder(t *testing.T, config func(keys map[string]any), tensors func(list []ckpt.Tensor) []ckpt.Tensor) string {
	t.Helper()
	dir := t.TempDir()
	o := Options{Rank: 2, Alpha: 2, Targets: []string{"q_proj", "w2"}}
	ps, err := pairs(odd, o)
	require.NoError(t, err)
	var list []ckpt.Tensor
	for _, p := range parts(ps) {
		list = append(list, ckpt.Float32Tensor(p.name, p.shape, make([]float32, axis.Count(p.shape))))
	}
	if tensors != nil {
		list = tensors(list)
	}
	require.NoError(t, ckpt.WriteFile(filepath.Join(dir, weightsFile), list, nil))
	text, err := makeConfig(o, "")
	require.NoError(t, err)
	var keys map[string]any
	require.NoError(t, json.Unmarshal(text, &keys))
	if config != nil {
		config(keys)
	}
	text, err = json.Marshal(keys)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, configFile), text, 0o666))
	return dir
}

func TestOpenAccountsForEveryTensor(t *testing.T) {
	named := func(name string, shape ...int) ckpt.Tensor {
		return ckpt.Float32Tensor("base_model.model.model.layers."+name, shape, make([]float32, axis.Count(shape)))
	}
	with := func(more ckpt.Tensor) func([]ckpt.Tensor) []ckpt.Tensor {
		return func(list []ckpt.Tensor) []ckpt.Tensor { return append(list, more) }
	}
	without := func(part string) func([]ckpt.Tensor) []ckpt.Tensor {
		return func(list []ckpt.Tensor) []ckpt.Tensor {
			return slices.DeleteFunc(list, func(t ckpt.Tensor) bool { return strings.Contains(t.Name, part) })
		}
	}
	tests := []struct {
		name   string
		change func([]ckpt.Tensor) []ckpt.Tensor
		is     error
		want   string
	}{
		{"an expert's A", without("layers.1.block_sparse_moe.experts.4.w2.lora_A"), ckpt.ErrMissing, "layers.1.block_sparse_moe.experts.4.w2.lora_A.weight"},
		{"a layer", without("layers.1.self_attn"), ckpt.ErrMissing, "layers.1.self_attn.q_proj.lora_A.weight"},
		{"a target", without("w2"), ckpt.ErrMissing, "layers.0.block_sparse_moe.experts.0.w2.lora_A.weight"},
		{"everything", func([]ckpt.Tensor) []ckpt.Tensor { return nil }, ckpt.ErrMissing, "q_proj"},
		{"a layer too many", with(named("2.self_attn.q_proj.lora_A.weight", 2, 36)), ckpt.ErrExtra, "layers.2.self_attn.q_proj"},
		{"an expert too many", with(named("0.block_sparse_moe.experts.5.w2.lora_A.weight", 2, 44)), ckpt.ErrExtra, "experts.5.w2"},
		{"half a target", with(named("0.self_attn.k_proj.lora_A.weight", 2, 36)), ckpt.ErrMissing, "layers.0.self_attn.k_proj.lora_B.weight"},
		{"magnitudes of DoRA", with(named("0.self_attn.q_proj.lora_magnitude_vector", 60)), ckpt.ErrExtra, "lora_magnitude_vector"},
		{"fused experts", with(named("0.mlp.experts.lora_A.weight", 10, 44)), ckpt.ErrExtra, "adapters of fused experts are not supported"},
		{"an adapted head", with(ckpt.Float32Tensor("base_model.model.lm_head.lora_A.weight", []int{2, 36}, make([]float32, 72))), ckpt.ErrExtra, "lm_head"},
		{"another rank", func(list []ckpt.Tensor) []ckpt.Tensor {
			list[0] = named("0.self_attn.q_proj.lora_A.weight", 3, 36)
			return list
		}, ckpt.ErrShape, "is [3 36], want [2 36]"},
		{"a transposed matrix", func(list []ckpt.Tensor) []ckpt.Tensor {
			list[0] = named("0.self_attn.q_proj.lora_A.weight", 36, 2)
			return list
		}, ckpt.ErrShape, "is [36 2], want [2 36]"},
		{"integers", func(list []ckpt.Tensor) []ckpt.Tensor {
			list[0] = ckpt.RawTensor(list[0].Name, dtypes.Int8, list[0].Shape, make([]byte, 72))
			return list
		}, ckpt.ErrDType, "is I8, want F32, BF16 or F16"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Open(folder(t, nil, tt.change), odd)
			require.ErrorIs(t, err, tt.is)
			require.ErrorContains(t, err, tt.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
	other := odd
	other.Layers = 1
	_, err := Open(folder(t, nil, nil), other)
	require.ErrorIs(t, err, ckpt.ErrExtra)
	_, err = Open(folder(t, nil, nil), graph.Config{})
	require.ErrorIs(t, err, graph.ErrConfig)
	_, err = Open(t.TempDir(), odd)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestOpenReadsTheConfiguration(t *testing.T) {
	tests := []struct {
		name  string
		key   string
		value any
		want  string // part of the error, "" for none
	}{
		{"as written", "r", 2, ""},
		{"full names", "target_modules", []string{"model.layers.0.self_attn.q_proj", "block_sparse_moe.experts.0.w2"}, ""},
		{"names of other models", "target_modules", []string{"q_proj", "gate_proj", "up_proj"}, ""},
		{"a pattern", "target_modules", ".*(q_proj|w2)", ""},
		{"no targets", "target_modules", nil, ""},
		{"an unknown key that is empty", "use_something", false, ""},
		{"dropout of training", "lora_dropout", 0.1, ""},
		{"another harmless start", "init_lora_weights", "gaussian", ""},
		{"all, but two are there", "target_modules", "all-linear", `missing tensor "base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight"`},
		{"one more than there are", "target_modules", []string{"q_proj", "v_proj"}, "v_proj.lora_A.weight"},
		{"targets of another kind", "target_modules", 3, "target_modules is 3, want a list of names"},
		{"another method", "peft_type", "IA3", `peft_type is "IA3", want "LORA"`},
		{"another task", "task_type", "SEQ_CLS", `"task_type" is "SEQ_CLS", want "CAUSAL_LM"`},
		{"ranks of their own", "rank_pattern", map[string]int{"q_proj": 4}, `"rank_pattern" is {"q_proj":4}: one rank for all`},
		{"alphas of their own", "alpha_pattern", map[string]int{"q_proj": 4}, `"alpha_pattern" is {"q_proj":4}: one alpha for all`},
		{"fused experts", "target_parameters", []string{"mlp.experts.down_proj"}, "adapters of fused experts are not supported"},
		{"whole modules", "modules_to_save", []string{"lm_head"}, `"modules_to_save" is ["lm_head"]`},
		{"some layers", "layers_to_transform", []int{0}, `"layers_to_transform" is [0]: not supported, want none`},
		{"biases", "bias", "all", `"bias" is "all", want "none"`},
		{"DoRA", "use_dora", true, `"use_dora" is true`},
		{"a start that changes the base", "init_lora_weights", "pissa", "which changes the base"},
		{"an unknown key", "use_something", true, `"use_something" is true: not supported`},
		{"a rank of another kind", "r", "four", "r of type int"},
		{"no rank", "r", 0, "rank is 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, err := Open(folder(t, func(keys map[string]any) { keys[tt.key] = tt.value }, nil), odd)
			if tt.want != "" {
				require.ErrorContains(t, err, tt.want)
				require.NotContains(t, err.Error(), "\n")
				return
			}
			require.NoError(t, err)
			require.Equal(t, Options{Rank: 2, Alpha: 2, Targets: []string{"q_proj", "w2"}}, a.Options())
			require.NoError(t, a.Close())
		})
	}
	dir := folder(t, nil, nil)
	require.NoError(t, os.WriteFile(filepath.Join(dir, configFile), []byte("[1]"), 0o666))
	_, err := Open(dir, odd)
	require.ErrorContains(t, err, "adapter_config.json: not a JSON object")
}
