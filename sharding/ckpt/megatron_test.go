package ckpt

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/sharding/axis"
	"mix/sharding/ckpt/torchfile"
)

// The files in testdata/megatron are a tiny Mixtral, every element another whole number, and what
// Megatron-LM's own converter made of it for three grids.
const megatronData = "testdata/megatron"

// array is an array of float32 from an npz file.
type array struct {
	shape []int
	data  []byte
}

var npyHeader = regexp.MustCompile(`'descr': '<f4', 'fortran_order': False, 'shape': \(([0-9, ]*)\)`)

// readNPZ reads arrays of float32: "<folder>/<name>" to its content.
func readNPZ(t testing.TB, name string) map[string]array {
	z, err := zip.OpenReader(filepath.Join(megatronData, name))
	require.NoError(t, err)
	defer z.Close()
	arrays := map[string]array{}
	for _, e := range z.File {
		r, err := e.Open()
		require.NoError(t, err)
		b, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, "\x93NUMPY\x01\x00", string(b[:8]))
		n := 10 + int(binary.LittleEndian.Uint16(b[8:]))
		m := npyHeader.FindSubmatch(b[10:n])
		require.NotNil(t, m, "%s: %s", e.Name, b[10:n])
		x := array{shape: []int{}, data: b[n:]}
		for field := range strings.SplitSeq(string(m[1]), ",") {
			if d, err := strconv.Atoi(strings.TrimSpace(field)); err == nil {
				x.shape = append(x.shape, d)
			}
		}
		arrays[strings.TrimSuffix(e.Name, ".npy")] = x
	}
	return arrays
}

var grids = map[string]Grid{"mcore_tp1pp1ep1.npz": {1, 1, 1}, "mcore_tp2pp2ep2.npz": {2, 2, 2}, "mcore_tp1pp2ep4.npz": {1, 2, 4}}

// settings are args as the fixture's model has them.
func settings(t testing.TB, g Grid) *torchfile.Object {
	config, err := os.ReadFile(megatronData + "/config.json")
	require.NoError(t, err)
	sizes, err := sizesOf(catalogue(t, megatronData))
	require.NoError(t, err)
	args, err := megatronSettings(sizes, g, false, "float32", config)
	require.NoError(t, err)
	return args
}

// megatronFiles is the files of a checkpoint by the name of their folder.
type megatronFiles map[string]map[string]array

// filesOf sorts the arrays of an npz file by folder.
func filesOf(arrays map[string]array) megatronFiles {
	m := megatronFiles{}
	for key, x := range arrays {
		folder, name, _ := strings.Cut(key, "/")
		if m[folder] == nil {
			m[folder] = map[string]array{}
		}
		m[folder][name] = x
	}
	return m
}

// write writes a checkpoint as Megatron does. change may alter what a file holds.
func (m megatronFiles) write(t testing.TB, dir string, args *torchfile.Object, change func(folder string, root *torchfile.Dict)) {
	for _, folder := range sortedKeys(m) {
		model := &torchfile.Dict{}
		contents := map[*torchfile.Tensor][]byte{}
		for _, name := range sortedKeys(m[folder]) {
			x := m[folder][name]
			v := torchfile.NewTensor(dtypes.Float32, x.shape...)
			contents[v] = x.data
			require.NoError(t, model.Set(name, v))
		}
		root := torchfile.DictOf("args", args, "checkpoint_version", 3.0, "iteration", 1, "model", model)
		if change != nil {
			change(folder, root)
		}
		parts, err := torchfile.Plan("model_optim_rng", root)
		require.NoError(t, err)
		var b bytes.Buffer
		require.NoError(t, torchfile.Write(&b, parts, func(w io.Writer, v *torchfile.Tensor) error {
			_, err := w.Write(contents[v])
			return err
		}))
		at := filepath.Join(dir, firstFolder, folder)
		require.NoError(t, os.MkdirAll(at, 0o777))
		require.NoError(t, os.WriteFile(filepath.Join(at, megatronPt), b.Bytes(), 0o666))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, latestFile), []byte("1"), 0o666))
}

// tinyHF is the fixture's model as a Hugging Face folder.
func tinyHF(t testing.TB) string {
	dir := t.TempDir()
	for from, to := range map[string]string{"hf_tiny_mixtral.safetensors": singleFile, configFile: configFile} {
		b, err := os.ReadFile(filepath.Join(megatronData, from))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, to), b, 0o666))
	}
	return dir
}

// same requires two checkpoints to hold the same weights, bit for bit as float32.
func requireSame(t testing.TB, a, b string) {
	x, params := open(t, a)
	y, err := Open(b, params, Options{})
	require.NoError(t, err)
	defer y.Close()
	for _, p := range params {
		q := axis.Whole(p, dtypes.Float32)
		require.Equal(t, read(t, x, q), read(t, y, q), p.Path)
	}
}

// convert converts a folder and gives the target's.
func convert(t testing.TB, from string, o ConvertOptions) string {
	to := filepath.Join(t.TempDir(), "to")
	c, err := PlanConversion(from, catalogue(t, configOf(t, from)), o)
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Run(context.Background(), to, RunOptions{})
	require.NoError(t, err)
	_, err = Verify(to)
	require.NoError(t, err)
	return to
}

// configOf is a folder with the config.json of a checkpoint.
func configOf(t testing.TB, from string) string {
	text, err := ConfigText(from)
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, configFile), text, 0o666))
	return dir
}

func TestReadingWhatMegatronWrote(t *testing.T) {
	hf := tinyHF(t)
	for name, grid := range grids {
		for _, grouped := range []bool{false, true} {
			t.Run(fmt.Sprint(name, grouped), func(t *testing.T) {
				files := filesOf(readNPZ(t, name))
				if grouped {
					files = files.renamed(func(s string) string {
						m := regexp.MustCompile(`^(.*mlp\.experts\.)local_experts\.([0-9]+)\.(linear_fc[12]\.weight)$`).FindStringSubmatch(s)
						if m == nil {
							return s
						}
						return m[1] + m[3] + m[2]
					})
				}
				dir := t.TempDir()
				files.write(t, dir, settings(t, grid), nil)
				requireSame(t, hf, dir)
				config, err := ConfigText(dir)
				require.NoError(t, err)
				var got, want map[string]any
				require.NoError(t, json.Unmarshal(config, &got))
				text, err := os.ReadFile(megatronData + "/config.json")
				require.NoError(t, err)
				require.NoError(t, json.Unmarshal(text, &want))
				for key, v := range want {
					if v != nil {
						require.Equal(t, v, got[key], key)
					}
				}
			})
		}
	}
}

// renamed gives the tensors other names.
func (m megatronFiles) renamed(name func(string) string) megatronFiles {
	out := megatronFiles{}
	for folder, tensors := range m {
		out[folder] = map[string]array{}
		for s, x := range tensors {
			out[folder][name(s)] = x
		}
	}
	return out
}

func TestWritingWhatMegatronWrote(t *testing.T) {
	for name, grid := range grids {
		t.Run(name, func(t *testing.T) {
			want := filesOf(readNPZ(t, name))
			to := convert(t, tinyHF(t), ConvertOptions{Format: Megatron, Grid: grid})
			folders, err := os.ReadDir(filepath.Join(to, firstFolder))
			require.NoError(t, err)
			require.Len(t, folders, len(want))
			for folder, tensors := range want {
				r, err := openPath(filepath.Join(to, firstFolder, folder, megatronPt))
				require.NoError(t, err)
				f, err := torchfile.Parse(regionReader{r}, r.size())
				require.NoError(t, err)
				model, _ := f.Root.(*torchfile.Dict).Get("model")
				require.Len(t, model.(*torchfile.Dict).Keys, len(tensors))
				for name, x := range tensors {
					v, ok := model.(*torchfile.Dict).Get(name)
					require.True(t, ok, name)
					require.Equal(t, x.shape, v.(*torchfile.Tensor).Shape, name)
					got, err := r.view(v.(*torchfile.Tensor).At(), int64(len(x.data)))
					require.NoError(t, err)
					require.True(t, bytes.Equal(x.data, got), "%s/%s", folder, name)
				}
				require.NoError(t, r.close())
			}
		})
	}
}

func TestEveryFormatIntoEveryOther(t *testing.T) {
	hf := tinyHF(t)
	targets := map[string]ConvertOptions{
		"hub":             {Format: HuggingFace},
		"hub in shards":   {Format: HuggingFace, ShardBytes: 5000},
		"fused":           {Format: HuggingFace, Layout: Fused},
		"ours":            {Format: Mixtral},
		"ours on a mesh":  {Format: Mixtral, Grid: Grid{2, 2, 2}},
		"ours by experts": {Format: Mixtral, Grid: Grid{1, 1, 4}},
		"megatron":        {Format: Megatron},
		"megatron tp2":    {Format: Megatron, Grid: Grid{2, 1, 1}},
		"megatron pp2ep2": {Format: Megatron, Grid: Grid{1, 2, 2}},
		"megatron all":    {Format: Megatron, Grid: Grid{2, 2, 4}},
	}
	for _, first := range sortedKeys(targets) {
		middle := convert(t, hf, targets[first])
		requireSame(t, hf, middle)
		for _, second := range []string{"hub", "ours on a mesh", "megatron all"} {
			t.Run(first+" to "+second, func(t *testing.T) {
				to := convert(t, middle, targets[second])
				requireSame(t, hf, to)
				if second == "hub" {
					got, err := os.ReadFile(filepath.Join(to, singleFile))
					require.NoError(t, err)
					want, err := os.ReadFile(filepath.Join(convert(t, hf, targets[second]), singleFile))
					require.NoError(t, err)
					require.True(t, bytes.Equal(want, got))
				}
			})
		}
	}
}

func TestMegatronCheckpointsThatDoNotFit(t *testing.T) {
	const name = "mcore_tp2pp2ep2.npz"
	args := func(change func(d *torchfile.Dict)) *torchfile.Object {
		a := settings(t, grids[name])
		change(a.State.(*torchfile.Dict))
		return a
	}
	set := func(key string, value any) *torchfile.Object {
		return args(func(d *torchfile.Dict) { require.NoError(t, d.Set(key, value)) })
	}
	model := func(root *torchfile.Dict) *torchfile.Dict { m, _ := root.Get("model"); return m.(*torchfile.Dict) }
	drop := func(m megatronFiles, folder, name string) {
		_, ok := m[folder][name]
		require.True(t, ok)
		delete(m[folder], name)
	}
	tests := []struct {
		name   string
		args   *torchfile.Object
		files  func(m megatronFiles)
		change func(folder string, root *torchfile.Dict)
		is     error
		want   string
	}{
		{"a tensor is missing", nil, func(m megatronFiles) { drop(m, "mp_rank_01_000_001", "decoder.layers.0.mlp.router.weight") }, nil,
			ErrMissing, `mp_rank_01_000_001/model_optim_rng.pt: missing tensor "decoder.layers.0.mlp.router.weight"`},
		{"an expert is missing", nil, func(m megatronFiles) {
			drop(m, "mp_rank_00_001_001", "decoder.layers.0.mlp.experts.local_experts.1.linear_fc2.weight")
		}, nil, ErrMissing, "local_experts.1.linear_fc2"},
		{"a folder is missing", nil, func(m megatronFiles) { delete(m, "mp_rank_01_001_000") }, nil, nil, "want one for every part of the grid 2 × 2 × 2, such as mp_rank_01_001_000"},
		{"a folder too many", nil, func(m megatronFiles) { m["mp_rank_02_000_000"] = m["mp_rank_01_000_000"] }, nil, nil, "mp_rank_02_000_000 is outside of the grid"},
		{"the grid is another", set("pipeline_model_parallel_size", 1), nil, nil, nil, "want one for every part of the grid 2 × 1 × 2"},
		{"the grid is none", set("pipeline_model_parallel_size", 0), nil, nil, nil, "pipeline_model_parallel_size 0"},
		{"experts divided otherwise", set("expert_tensor_parallel_size", 1), nil, nil, nil, "expert_tensor_parallel_size 1, want"},
		{"norms of another kind", set("normalization", "LayerNorm"), nil, nil, nil, `args have normalization = "LayerNorm", a Mixtral "RMSNorm"`},
		{"pairs of rotated numbers side by side", set("rotary_interleaved", true), nil, nil, nil, "args have rotary_interleaved = true, a Mixtral false"},
		{"half of a head rotated", set("rotary_percent", 0.5), nil, nil, nil, "args have rotary_percent = 0.5, a Mixtral 1"},
		{"probabilities before the choice", set("moe_router_pre_softmax", true), nil, nil, nil, "moe_router_pre_softmax = true"},
		{"a setting that is a list", set("swiglu", &torchfile.List{}), nil, nil, nil, "args have swiglu = list, a Mixtral true"},
		{"no settings", nil, nil, func(_ string, root *torchfile.Dict) { require.NoError(t, root.Set("args", nil)) }, nil, "want the sizes of the grid"},
		{"no model", nil, nil, func(_ string, root *torchfile.Dict) { *root = *torchfile.DictOf("args", settings(t, Grid{2, 2, 2})) }, nil, `no "model"`},
		{"a tensor of no Mixtral", nil, func(m megatronFiles) {
			m["mp_rank_00_000_000"]["decoder.layers.0.mlp.shared_experts.linear_fc1.weight"] = array{[]int{1}, make([]byte, 4)}
		}, nil, ErrExtra, "shared_experts"},
		{"an embedding at the pipeline's tail", nil, func(m megatronFiles) {
			m["mp_rank_00_001_000"]["embedding.word_embeddings.weight"] = array{[]int{1}, make([]byte, 4)}
		}, nil, ErrExtra, "another part of the grid has it"},
		{"an expert of another place", nil, func(m megatronFiles) {
			m["mp_rank_00_001_000"]["decoder.layers.0.mlp.experts.local_experts.2.linear_fc1.weight"] = array{[]int{1}, make([]byte, 4)}
		}, nil, ErrExtra, "another part of the grid has it"},
		{"both names of an expert", nil, func(m megatronFiles) {
			f := m["mp_rank_00_001_000"]
			f["decoder.layers.0.mlp.experts.linear_fc1.weight1"] = f["decoder.layers.0.mlp.experts.local_experts.1.linear_fc1.weight"]
		}, nil, ErrExtra, "it is there under another name too"},
		{"a vocabulary of another padding", nil, func(m megatronFiles) {
			m["mp_rank_00_000_000"]["embedding.word_embeddings.weight"] = array{[]int{64, 16}, make([]byte, 4*64*16)}
		}, nil, ErrShape, "is [64 16], want [128 16]"},
		{"a layer too many", nil, func(m megatronFiles) {
			for folder := range m {
				for name, x := range maps.Clone(m[folder]) {
					m[folder][strings.Replace(name, "layers.0.", "layers.1.", 1)] = x
				}
			}
		}, nil, ErrShape, "the stages of the pipeline have 4 layers, the model has 2"},
		{"a layer of the next stage in one place of four", nil, func(m megatronFiles) {
			for name, x := range maps.Clone(m["mp_rank_01_001_001"]) {
				m["mp_rank_01_000_001"][strings.Replace(name, "layers.0.", "layers.1.", 1)] = x
			}
			delete(m["mp_rank_01_000_001"], "output_layer.weight")
			delete(m["mp_rank_01_000_001"], "decoder.final_layernorm.weight")
		}, nil, ErrExtra, `unexpected tensor "decoder.layers.1.mlp.experts.local_experts.0.linear_fc1.weight": another part of the grid has it`},
		{"a layer of the largest number", nil, func(m megatronFiles) {
			m["mp_rank_00_000_000"]["decoder.layers.9223372036854775807.mlp.router.weight"] = m["mp_rank_00_000_000"]["decoder.layers.0.mlp.router.weight"]
		}, nil, ErrExtra, "another part of the grid has it"},
		{"a tensor that is none", nil, nil, func(_ string, root *torchfile.Dict) {
			require.NoError(t, model(root).Set("output_layer.bias", 1))
		}, ErrExtra, "it is no tensor"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files := filesOf(readNPZ(t, name))
			if tt.files != nil {
				tt.files(files)
			}
			if tt.args == nil {
				tt.args = settings(t, grids[name])
			}
			dir := t.TempDir()
			files.write(t, dir, tt.args, tt.change)
			_, err := Open(dir, catalogue(t, megatronData), Options{})
			require.ErrorContains(t, err, tt.want)
			if tt.is != nil {
				require.ErrorIs(t, err, tt.is)
			}
		})
	}
}

func TestWhatMegatronAddsIsIgnoredWithAReason(t *testing.T) {
	dir := t.TempDir()
	filesOf(readNPZ(t, "mcore_tp1pp1ep1.npz")).write(t, dir, settings(t, Grid{1, 1, 1}), func(_ string, root *torchfile.Dict) {
		m, _ := root.Get("model")
		require.NoError(t, m.(*torchfile.Dict).Set("decoder.layers.0.mlp.router._extra_state", nil))
		require.NoError(t, m.(*torchfile.Dict).Set("rotary_pos_emb.inv_freq", torchfile.NewTensor(dtypes.Float32, 0)))
		require.NoError(t, root.Set("optimizer", torchfile.DictOf("param_groups", &torchfile.List{})))
	})
	c, err := Open(dir, catalogue(t, megatronData), Options{})
	require.NoError(t, err)
	defer c.Close()
	require.Equal(t, []Ignored{{"iter_0000001/mp_rank_00/model_optim_rng.pt: rotary_pos_emb.inv_freq", rotary}}, c.Ignored())
}

func TestCopiesThatDifferAreNotConverted(t *testing.T) {
	for _, name := range []string{"decoder.layers.0.pre_mlp_layernorm.weight", "decoder.layers.0.self_attention.linear_proj.weight"} {
		files := filesOf(readNPZ(t, "mcore_tp1pp2ep4.npz"))
		x := files["mp_rank_00_001_003"][name]
		binary.LittleEndian.PutUint32(x.data[4:], math.Float32bits(-1))
		dir := t.TempDir()
		files.write(t, dir, settings(t, grids["mcore_tp1pp2ep4.npz"]), nil)
		c, err := PlanConversion(dir, catalogue(t, megatronData), ConvertOptions{Format: HuggingFace})
		require.NoError(t, err)
		_, err = c.Run(context.Background(), filepath.Join(t.TempDir(), "to"), RunOptions{})
		require.ErrorIs(t, err, ErrCopies)
		require.ErrorContains(t, err, name)
		require.ErrorContains(t, err, "mp_rank_00_001_003")
		require.NoError(t, c.Close())
	}
}

func TestInterleavedStages(t *testing.T) {
	// One stage that holds each layer as a model of its own.
	files := filesOf(readNPZ(t, "mcore_tp1pp1ep1.npz"))
	dir := t.TempDir()
	files.write(t, dir, settings(t, Grid{1, 1, 1}), func(_ string, root *torchfile.Dict) {
		v, _ := root.Get("model")
		old := v.(*torchfile.Dict)
		var chunks [2]torchfile.Dict
		for i, key := range old.Keys {
			name := key.(string)
			at := 0
			if strings.HasPrefix(name, "decoder.layers.1.") || name == "output_layer.weight" || name == "decoder.final_layernorm.weight" {
				at = 1
			}
			require.NoError(t, chunks[at].Set(strings.Replace(name, "layers.1.", "layers.0.", 1), old.Values[i]))
		}
		args, _ := root.Get("args")
		*root = *torchfile.DictOf("args", args, "model0", &chunks[0], "model1", &chunks[1])
	})
	requireSame(t, tinyHF(t), dir)
}

func TestFolders(t *testing.T) {
	files := filesOf(readNPZ(t, "mcore_tp1pp1ep1.npz"))
	dir := t.TempDir()
	files.write(t, dir, settings(t, Grid{1, 1, 1}), nil)
	hf := tinyHF(t)
	require.NoError(t, os.Remove(filepath.Join(dir, latestFile)))
	requireSame(t, hf, dir) // there is only one iteration
	requireSame(t, hf, filepath.Join(dir, firstFolder))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "iter_0000002"), 0o777))
	_, err := Detect(dir)
	require.ErrorContains(t, err, "iter_0000001 and iter_0000002")
	for text, want := range map[string]string{"2": "iter_0000002: no folder mp_rank_00", "x/..": `"x/..", want a number`, "7": "no such file"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, latestFile), []byte(text), 0o666))
		_, err := Open(dir, catalogue(t, megatronData), Options{})
		require.ErrorContains(t, err, want, text)
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, latestFile), []byte("release\n"), 0o666))
	require.NoError(t, os.Rename(filepath.Join(dir, firstFolder), filepath.Join(dir, "release")))
	requireSame(t, hf, dir)
	require.Equal(t, "release/mp_rank_00", path.Join("release", Grid{1, 1, 1}.places(2)[0].folder()))
}

func TestNamesOfMegatron(t *testing.T) {
	for name, want := range map[string]struct{ l, e int }{
		"embedding.word_embeddings.weight":                               {-1, -1},
		"decoder.layers.31.self_attention.linear_qkv.weight":             {31, -1},
		"decoder.layers.31.input_layernorm.weight":                       {31, -1},
		"decoder.layers.2.mlp.experts.local_experts.7.linear_fc1.weight": {2, 7},
		"decoder.layers.2.mlp.experts.linear_fc2.weight12":               {2, 12},
	} {
		r, l, e := findMegatron(name)
		require.NotNil(t, r, name)
		require.Equal(t, []int{want.l, want.e}, []int{l, e}, name)
	}
	for _, name := range []string{"", "decoder.layers.01.mlp.router.weight", "decoder.layers.x.mlp.router.weight", "decoder.layers.{l}.mlp.router.weight",
		"decoder.layers.2.mlp.experts.linear_fc2.weight", "decoder.layers.2.mlp.experts.local_experts.7.linear_fc3.weight", "language_model.embedding.word_embeddings.weight"} {
		r, _, _ := findMegatron(name)
		require.Nil(t, r, name)
	}
}
