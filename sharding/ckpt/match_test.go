package ckpt

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/sharding/axis"
)

// tiny has another size for every axis, so that no two can be taken for each other.
var tiny = map[axis.Logical]int{axis.Layers: 2, axis.Embed: 3, axis.FFN: 7, axis.Heads: 4, axis.KVHeads: 2,
	axis.HeadDim: 5, axis.Experts: 3, axis.Vocab: 11}

// tensors is a whole checkpoint of tiny in a layout, zeros throughout.
func tensors(layout string) map[string]Tensor {
	m := map[string]Tensor{}
	for i := range mixtral {
		r := &mixtral[i]
		if len(r.paths) == 0 || r.layout != "" && r.layout != layout {
			continue
		}
		for l := range tiny[axis.Layers] {
			for e := range tiny[axis.Experts] {
				set(m, r.nameAt(l, e, false), dtypes.BFloat16, r.dims(tiny)...)
			}
		}
	}
	return m
}

func set(m map[string]Tensor, name string, dtype dtypes.DType, shape ...int) {
	n := bytesOf(dtype)
	for _, d := range shape {
		n *= d
	}
	m[name] = RawTensor(name, dtype, shape, make([]byte, n))
}

// save writes the tensors to a file of a folder.
func save(t testing.TB, path string, m map[string]Tensor) {
	var list []Tensor
	for _, name := range sortedKeys(m) {
		list = append(list, m[name])
	}
	require.NoError(t, WriteFile(path, list, nil))
}

// cut takes the last bytes from a file.
func cut(t testing.TB, path string, bytes int64) {
	st, err := os.Stat(path)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(path, st.Size()-bytes))
}

func TestFind(t *testing.T) {
	tests := []struct {
		name, path    string
		layer, expert int
	}{
		{"lm_head.weight", "head", -1, -1},
		{"model.layers.31.self_attn.k_proj.weight", "layers/attn/key", 31, -1},
		{"model.layers.0.block_sparse_moe.experts.7.w1.weight", "layers/moe/gate", 0, 7},
		{"model.layers.0.block_sparse_moe.experts.7.w2.weight", "layers/moe/down", 0, 7},
		{"model.layers.0.block_sparse_moe.experts.7.w3.weight", "layers/moe/up", 0, 7},
		{"model.layers.12.mlp.experts.down_proj", "layers/moe/down", 12, -1},
	}
	for _, tt := range tests {
		r, l, e := find(tt.name)
		require.NotNil(t, r, tt.name)
		require.Equal(t, []any{tt.path, tt.layer, tt.expert}, []any{r.paths[0], l, e}, tt.name)
	}
	for _, name := range []string{
		"", "model.layers.0.mlp.weight", "model.layers.00.input_layernorm.weight", "model.layers.-1.input_layernorm.weight",
		"model.layers.+1.input_layernorm.weight", "model.layers.{l}.input_layernorm.weight", "model.layers.x.input_layernorm.weight",
		"model.layers.99999999999999999999.input_layernorm.weight", "layers.0.input_layernorm.weight",
	} {
		r, _, _ := find(name)
		require.Nil(t, r, name)
	}
}

func TestCheckpointsThatDoNotFit(t *testing.T) {
	const w1 = "model.layers.1.block_sparse_moe.experts.2.w1.weight"
	tests := []struct {
		name   string
		layout string
		change func(m map[string]Tensor)
		is     error
		want   []string // parts of the problems, in order and all of them
	}{
		{"a tensor is missing", Hub, func(m map[string]Tensor) { delete(m, w1) }, ErrMissing, []string{`missing tensor "` + w1 + `"`}},
		{"several are missing", Hub, func(m map[string]Tensor) { delete(m, w1); delete(m, "model.norm.weight"); delete(m, "lm_head.weight") }, ErrMissing,
			[]string{w1, `"model.norm.weight"`, `"lm_head.weight"`}},
		{"a fused tensor is missing", Fused, func(m map[string]Tensor) { delete(m, "model.layers.1.mlp.experts.gate_up_proj") }, ErrMissing,
			[]string{`"model.layers.1.mlp.experts.gate_up_proj"`}},
		{"a tensor of no model", Hub, func(m map[string]Tensor) { set(m, "model.layers.0.self_attn.q_proj.bias", dtypes.BFloat16, 20) }, ErrExtra,
			[]string{`unexpected tensor "model.layers.0.self_attn.q_proj.bias": Mixtral has none of that name`}},
		{"a layer too many", Hub, func(m map[string]Tensor) { set(m, "model.layers.2.input_layernorm.weight", dtypes.BFloat16, 3) }, ErrExtra,
			[]string{"layer 2, the model has 2"}},
		{"an expert too many", Hub, func(m map[string]Tensor) {
			set(m, "model.layers.0.block_sparse_moe.experts.3.w1.weight", dtypes.BFloat16, 7, 3)
		}, ErrExtra, []string{"expert 3, the model has 3"}},
		{"both layouts at once", Hub, func(m map[string]Tensor) { set(m, "model.layers.0.mlp.gate.weight", dtypes.BFloat16, 3, 3) }, ErrExtra,
			[]string{"of the fused layout in a checkpoint of the hub layout"}},
		{"a tensor with and without its prefix", Hub, func(m map[string]Tensor) { set(m, "norm.weight", dtypes.BFloat16, 3) }, ErrExtra, []string{`"norm.weight"`}},
		{"a transposed matrix", Hub, func(m map[string]Tensor) { set(m, w1, dtypes.BFloat16, 3, 7) }, ErrShape,
			[]string{`model.safetensors: wrong shape: tensor "` + w1 + `" is [3 7], want [7 3]`}},
		{"gate alone where gate and up belong", Fused, func(m map[string]Tensor) {
			set(m, "model.layers.0.mlp.experts.gate_up_proj", dtypes.BFloat16, 3, 7, 3)
		}, ErrShape, []string{"is [3 7 3], want [3 14 3]"}},
		{"an axis too many", Hub, func(m map[string]Tensor) { set(m, "model.norm.weight", dtypes.BFloat16, 1, 3) }, ErrShape, []string{"is [1 3], want [3]"}},
		{"weights of integers", Hub, func(m map[string]Tensor) { set(m, w1, dtypes.Int8, 7, 3) }, ErrDType, []string{`tensor "` + w1 + `" is I8, want F32, BF16 or F16`}},
		{"weights of double precision", Hub, func(m map[string]Tensor) { set(m, w1, dtypes.Float64, 7, 3) }, ErrDType, []string{"is F64, want F32, BF16 or F16"}},
		{"no tensor at all", Hub, func(m map[string]Tensor) { clear(m) }, ErrMissing, slices.Repeat([]string{"missing tensor"}, 2+1+2*(7+3*3))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			m := tensors(tt.layout)
			tt.change(m)
			save(t, filepath.Join(dir, singleFile), m)
			_, err := Open(dir, weights(tiny, false), Options{})
			require.ErrorIs(t, err, tt.is)
			require.ErrorContains(t, err, dir)
			require.NotContains(t, err.Error(), "\n")
			var p *Problems
			require.True(t, errors.As(err, &p))
			require.Len(t, p.List, len(tt.want), "%v", p.List)
			for i, want := range tt.want {
				require.ErrorContains(t, p.List[i], want)
			}
			r, err := Describe(dir, weights(tiny, false))
			require.NoError(t, err)
			require.Len(t, r.Problems, len(tt.want))
			require.Contains(t, r.Problems[0], tt.want[0])
		})
	}
}

func TestTensorsThatAreIgnoredHaveAReason(t *testing.T) {
	dir := t.TempDir()
	m := tensors(Hub)
	set(m, "model.layers.1.self_attn.rotary_emb.inv_freq", dtypes.Int64, 2)
	set(m, "model.rotary_emb.inv_freq", dtypes.Float32, 2)
	save(t, filepath.Join(dir, singleFile), m)
	c, err := Open(dir, weights(tiny, true), Options{}) // tied, and the head is in the file all the same
	require.NoError(t, err)
	defer c.Close()
	require.ElementsMatch(t, []Ignored{
		{"lm_head.weight", "the embeddings are tied: the head is model.embed_tokens.weight"},
		{"model.layers.1.self_attn.rotary_emb.inv_freq", "the rotary frequencies follow from rope_theta"},
		{"model.rotary_emb.inv_freq", "the rotary frequencies follow from rope_theta"},
	}, c.Ignored())
	delete(m, "lm_head.weight")
	save(t, filepath.Join(dir, singleFile), m)
	tiedAndGone, err := Open(dir, weights(tiny, true), Options{})
	require.NoError(t, err)
	defer tiedAndGone.Close()
	require.Len(t, tiedAndGone.Ignored(), 2)
	require.Equal(t, c.Bytes(), tiedAndGone.Bytes())
}

func TestNamesOfTheBareDecoder(t *testing.T) {
	dir := t.TempDir()
	bare := map[string]Tensor{}
	for name, x := range tensors(Hub) {
		x.Name = strings.TrimPrefix(name, "model.")
		bare[x.Name] = x
	}
	delete(bare, "lm_head.weight")
	save(t, filepath.Join(dir, singleFile), bare)
	c, err := Open(dir, weights(tiny, true), Options{})
	require.NoError(t, err)
	require.NoError(t, c.Close())
	_, err = Open(dir, weights(tiny, false), Options{})
	require.ErrorIs(t, err, ErrMissing)
	require.ErrorContains(t, err, `"lm_head.weight"`)
	delete(bare, "norm.weight")
	save(t, filepath.Join(dir, singleFile), bare)
	_, err = Open(dir, weights(tiny, true), Options{})
	require.ErrorContains(t, err, `missing tensor "norm.weight"`)
}

func TestCataloguesThatDoNotFit(t *testing.T) {
	dir := t.TempDir()
	save(t, filepath.Join(dir, singleFile), tensors(Hub))
	swapped := weights(tiny, false)
	swapped[5].Axes, swapped[5].Dims = []axis.Logical{axis.Layers, axis.Heads, axis.HeadDim, axis.Embed}, []int{2, 4, 5, 3}
	_, err := Open(dir, swapped, Options{})
	require.ErrorContains(t, err, "weight layers/attn/out: axes [layers heads headdim embed], a checkpoint has them as [layers embed heads headdim]")
	uneven := weights(tiny, false)
	uneven[0].Dims = []int{11, 4}
	_, err = Open(dir, uneven, Options{})
	require.ErrorContains(t, err, `axis "embed" is 3, and 4 in another weight`)
	unknown := append(weights(tiny, false), axis.Param{Path: "adapter", Axes: []axis.Logical{axis.Embed}, Dims: []int{3}})
	_, err = Open(dir, unknown, Options{})
	require.ErrorContains(t, err, "holds weight adapter")
	_, err = Open(dir, weights(tiny, false)[:12], Options{}) // without a head: tied
	require.NoError(t, err)
	_, err = Open(dir, weights(tiny, false)[1:], Options{})
	require.ErrorContains(t, err, `unexpected tensor "model.embed_tokens.weight": the model has no weight embed`)
}

func TestSharded(t *testing.T) {
	all := tensors(Hub)
	first, second := map[string]Tensor{}, map[string]Tensor{}
	index := map[string]string{}
	for i, name := range sortedKeys(all) {
		if i%2 == 0 {
			first[name], index[name] = all[name], "a.safetensors"
		} else {
			second[name], index[name] = all[name], "b.safetensors"
		}
	}
	moved := sortedKeys(first)[3]
	tests := []struct {
		name   string
		change func(dir string, index map[string]string)
		is     error
		want   string // the first problem; "" is none
		count  int
	}{
		{"as it should be", func(string, map[string]string) {}, nil, "", 0},
		{"a file is gone", func(dir string, _ map[string]string) { os.Remove(dir + "/b.safetensors") }, os.ErrNotExist, "model.safetensors.index.json names b.safetensors: ", 1},
		{"a file is cut", func(dir string, _ map[string]string) { cut(t, dir+"/b.safetensors", 5) }, ErrTruncated, "b.safetensors: truncated safetensors: tensor ", 1},
		{"a file's header is cut", func(dir string, _ map[string]string) { os.Truncate(dir+"/b.safetensors", 100) }, ErrTruncated, "b.safetensors: truncated safetensors: header of", 1},
		{"a tensor is in the other file", func(_ string, x map[string]string) { x[moved] = "b.safetensors" }, ErrIndex, `tensor "` + moved + `" is in a.safetensors, model.safetensors.index.json says b.safetensors`, 1},
		{"a tensor is not in the index", func(_ string, x map[string]string) { delete(x, moved) }, ErrExtra, `a.safetensors: unexpected tensor "` + moved + `" is not in model.safetensors.index.json`, 1},
		{"a tensor is in the index alone", func(_ string, x map[string]string) { x["more"] = "a.safetensors" }, ErrMissing, `a.safetensors: missing tensor "more", which model.safetensors.index.json names`, 1},
		{"a path upwards", func(_ string, x map[string]string) { x[moved] = "../a.safetensors" }, ErrIndex, `file "../a.safetensors", want a name in the same folder`, 1},
		{"a path from the root", func(_ string, x map[string]string) { x[moved] = "/etc/passwd" }, ErrIndex, `file "/etc/passwd", want a name`, 1},
		{"a path downwards", func(_ string, x map[string]string) { x[moved] = "x/a.safetensors" }, ErrIndex, "want a name in the same folder", 1},
		{"a path of another system", func(_ string, x map[string]string) { x[moved] = `..\a.safetensors` }, ErrIndex, "want a name in the same folder", 1},
		{"the folder itself", func(_ string, x map[string]string) { x[moved] = "." }, ErrIndex, "want a name in the same folder", 1},
		{"no name", func(_ string, x map[string]string) { x[moved] = "" }, ErrIndex, "want a name in the same folder", 1},
		{"a line break in a name", func(_ string, x map[string]string) { x[moved] = "a\nb" }, ErrIndex, "want a name in the same folder", 1},
		{"a tensor is in both files", func(dir string, _ map[string]string) {
			more := maps.Clone(second)
			more[moved] = first[moved]
			save(t, dir+"/b.safetensors", more)
		}, ErrExtra, `b.safetensors: unexpected tensor "` + moved + `" is in a.safetensors too`, 1},
		{"a single file beside the index comes first", func(dir string, x map[string]string) {
			save(t, dir+"/model.safetensors", all)
			clear(x)
		}, nil, "", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			save(t, dir+"/a.safetensors", first)
			save(t, dir+"/b.safetensors", second)
			x := maps.Clone(index)
			tt.change(dir, x)
			var lines []string
			for _, name := range sortedKeys(x) {
				lines = append(lines, fmt.Sprintf("%q: %q", name, x[name]))
			}
			text := `{"metadata": {"total_size": 1}, "weight_map": {` + strings.Join(lines, ", ") + `}}`
			require.NoError(t, os.WriteFile(dir+"/"+indexFile, []byte(text), 0o600))
			c, err := Open(dir, weights(tiny, false), Options{})
			if tt.want == "" {
				require.NoError(t, err)
				require.NoError(t, c.Close())
				return
			}
			require.ErrorIs(t, err, tt.is)
			var p *Problems
			require.True(t, errors.As(err, &p))
			require.ErrorContains(t, p.List[0], tt.want)
			require.Len(t, p.List, tt.count, "%v", p.List)
		})
	}
}

func TestBadIndexes(t *testing.T) {
	tests := []struct{ name, index, want string }{
		{"nothing", "", "not valid JSON"},
		{"a list", "[]", "want an object"},
		{"no map", `{"metadata": {}}`, "no weight_map"},
		{"a map that is text", `{"weight_map": "x"}`, "want an object"},
		{"a file that is a number", `{"weight_map": {"x": 1}}`, `"x": 1, want a string`},
		{"a tensor twice", `{"weight_map": {"x": "a", "x": "b"}}`, `"x" is there twice`},
		{"two maps", `{"weight_map": {}, "weight_map": {}}`, `"weight_map" is there twice`},
		{"bytes that are not UTF-8", "{\"weight_map\": {\"\xfe\": \"a\"}}", "not UTF-8"},
		{"a million lists", strings.Repeat("[", 1e6), "not valid JSON"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := OpenFS(MemFS{indexFile: tt.index}, weights(tiny, false), Options{})
			require.ErrorIs(t, err, ErrIndex)
			require.ErrorContains(t, err, tt.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestFoldersThatAreNoCheckpoint(t *testing.T) {
	dir := t.TempDir()
	_, err := Open(filepath.Join(dir, "none"), nil, Options{})
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = Open(dir, nil, Options{})
	require.ErrorContains(t, err, "neither model.safetensors nor model.safetensors.index.json is there")
	file := filepath.Join(dir, "x")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = Open(file, nil, Options{})
	require.ErrorContains(t, err, file+": not a folder")
	require.NoError(t, os.Mkdir(filepath.Join(dir, singleFile), 0o700))
	_, err = Open(dir, nil, Options{})
	require.ErrorContains(t, err, "not a regular file")
}
