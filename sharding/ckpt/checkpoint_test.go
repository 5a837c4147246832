package ckpt

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/sharding/axis"
)

const golden = "../../internal/golden/testdata"

// catalogue is the weights of the model that a folder's config.json describes.
func catalogue(t testing.TB, dir string) []axis.Param {
	b, err := os.ReadFile(filepath.Join(dir, "config.json"))
	require.NoError(t, err)
	var c struct {
		Layers  int  `json:"num_hidden_layers"`
		Width   int  `json:"hidden_size"`
		Hidden  int  `json:"intermediate_size"`
		Heads   int  `json:"num_attention_heads"`
		KV      int  `json:"num_key_value_heads"`
		HeadDim *int `json:"head_dim"`
		Experts int  `json:"num_local_experts"`
		Vocab   int  `json:"vocab_size"`
		Tied    bool `json:"tie_word_embeddings"`
	}
	require.NoError(t, json.Unmarshal(b, &c))
	a := c.Width / c.Heads
	if c.HeadDim != nil {
		a = *c.HeadDim
	}
	return weights(map[axis.Logical]int{axis.Layers: c.Layers, axis.Embed: c.Width, axis.FFN: c.Hidden, axis.Heads: c.Heads,
		axis.KVHeads: c.KV, axis.HeadDim: a, axis.Experts: c.Experts, axis.Vocab: c.Vocab}, c.Tied)
}

// weights is the catalogue of a Mixtral of the given sizes.
func weights(sizes map[axis.Logical]int, tied bool) (list []axis.Param) {
	for _, line := range []string{
		"embed vocab embed",
		"layers/attn_norm layers embed",
		"layers/attn/query layers heads headdim embed",
		"layers/attn/key layers kv headdim embed",
		"layers/attn/value layers kv headdim embed",
		"layers/attn/out layers embed heads headdim",
		"layers/moe_norm layers embed",
		"layers/moe/router layers experts embed",
		"layers/moe/gate layers experts ffn embed",
		"layers/moe/up layers experts ffn embed",
		"layers/moe/down layers experts embed ffn",
		"final_norm embed",
		"head vocab embed",
	} {
		fields := strings.Fields(line)
		if tied && fields[0] == "head" {
			continue
		}
		p := axis.Param{Path: fields[0]}
		for _, f := range fields[1:] {
			p.Axes = append(p.Axes, axis.Logical(f))
			p.Dims = append(p.Dims, sizes[axis.Logical(f)])
		}
		list = append(list, p)
	}
	return list
}

func open(t testing.TB, dir string) (*Checkpoint, []axis.Param) {
	params := catalogue(t, dir)
	c, err := Open(dir, params, Options{Warn: func(m string) { t.Errorf("warned: %s", m) }})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c, params
}

func read(t testing.TB, c *Checkpoint, q axis.Piece) []byte {
	b := make([]byte, q.Bytes())
	require.NoError(t, c.Read(q, b))
	return b
}

func TestBothLayoutsHoldTheSameWeights(t *testing.T) {
	hub, params := open(t, golden+"/d_layouts/checkpoint_hubcfg")
	fused, _ := open(t, golden+"/d_layouts/checkpoint_fused")
	require.Equal(t, Hub, hub.Layout())
	require.Equal(t, Fused, fused.Layout())
	require.Equal(t, hub.Bytes(), fused.Bytes())
	total := int64(0)
	for _, p := range params {
		q := axis.Whole(p, dtypes.Float32)
		a, b := read(t, hub, q), read(t, fused, q)
		require.Equal(t, a, b, p.Path)
		require.NotEqual(t, make([]byte, len(a)), a, p.Path)
		total += int64(len(a))
	}
	require.Equal(t, total, hub.Bytes())
}

// truth is a weight put together tensor by tensor from the files, through the simple reading API and
// names spelled out here, so that the table is held to something else.
func truth(t testing.TB, dir string, p axis.Param) []float32 {
	files, err := filepath.Glob(dir + "/*.safetensors")
	require.NoError(t, err)
	tensor := func(name string) []float32 {
		for _, path := range files {
			f, err := OpenFile(path)
			require.NoError(t, err)
			v, err := f.Float32s(name)
			require.NoError(t, f.Close())
			if err == nil {
				return v
			}
		}
		t.Fatalf("no %s in %s", name, dir)
		return nil
	}
	inLayer := map[string]string{
		"layers/attn_norm": "input_layernorm.weight", "layers/moe_norm": "post_attention_layernorm.weight",
		"layers/attn/query": "self_attn.q_proj.weight", "layers/attn/key": "self_attn.k_proj.weight",
		"layers/attn/value": "self_attn.v_proj.weight", "layers/attn/out": "self_attn.o_proj.weight",
		"layers/moe/router": "block_sparse_moe.gate.weight",
		"layers/moe/gate":   "block_sparse_moe.experts.%d.w1.weight", "layers/moe/up": "block_sparse_moe.experts.%d.w3.weight",
		"layers/moe/down": "block_sparse_moe.experts.%d.w2.weight",
	}[p.Path]
	switch p.Path {
	case "embed":
		return tensor("model.embed_tokens.weight")
	case "final_norm":
		return tensor("model.norm.weight")
	case "head":
		return tensor("lm_head.weight")
	}
	var all []float32
	for l := range p.Dims[0] {
		name := fmt.Sprintf("model.layers.%d.%s", l, inLayer)
		if !strings.Contains(name, "%d") {
			all = append(all, tensor(name)...)
			continue
		}
		for e := range p.Dims[1] {
			all = append(all, tensor(fmt.Sprintf(name, e))...)
		}
	}
	return all
}

// floats widens what Read gave.
func floats(b []byte, dtype dtypes.DType) []float32 {
	if dtype != dtypes.Float32 {
		wide := make([]byte, 2*len(b))
		kernels[dtype][dtypes.Float32](wide, b)
		b = wide
	}
	v := make([]float32, len(b)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return v
}

// randomBox is any box of p.
func randomBox(r *rand.Rand, p axis.Param, dtype dtypes.DType) axis.Piece {
	q := axis.Whole(p, dtype)
	for i, d := range p.Dims {
		switch r.IntN(3) {
		case 0: // all of the axis
		case 1:
			q.Offset[i], q.Size[i] = r.IntN(d), 1
		default:
			q.Offset[i] = r.IntN(d)
			q.Size[i] = 1 + r.IntN(d-q.Offset[i])
		}
	}
	q.Shape = q.Size
	return q
}

// index picks the box out of the whole weight, one element at a time.
func index(whole []float32, p axis.Param, q axis.Piece) []float32 {
	v := make([]float32, q.Elements())
	for i := range v {
		at, rest, step := 0, i, 1
		for k := len(p.Dims) - 1; k >= 0; k-- {
			at += (q.Offset[k] + rest%q.Size[k]) * step
			rest /= q.Size[k]
			step *= p.Dims[k]
		}
		v[i] = whole[at]
	}
	return v
}

func TestReadGivesAnyBox(t *testing.T) {
	for _, dir := range []string{"a_tiny_f32/checkpoint", "b_bf16_sharded/checkpoint", "c_odd/checkpoint", "d_layouts/checkpoint_fused"} {
		t.Run(dir, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			c, params := open(t, filepath.Join(golden, dir))
			from := filepath.Join(golden, strings.Replace(dir, "fused", "hubcfg", 1))
			for _, p := range params {
				whole := truth(t, from, p)
				require.Equal(t, whole, floats(read(t, c, axis.Whole(p, dtypes.Float32)), dtypes.Float32), p.Path)
				for range 30 {
					dtype := []dtypes.DType{dtypes.Float32, dtypes.BFloat16, dtypes.Float16}[r.IntN(3)]
					q := randomBox(r, p, dtype)
					want := index(whole, p, q)
					for i, v := range want {
						b := make([]byte, dtype.Size())
						switch dtype {
						case dtypes.BFloat16:
							storeBF16(b, math.Float32bits(v))
						case dtypes.Float16:
							storeF16(b, math.Float32bits(v))
						default:
							store32(b, math.Float32bits(v))
						}
						want[i] = floats(b, dtype)[0]
					}
					require.Equal(t, want, floats(read(t, c, q), dtype), "%s %v %v %s", p.Path, q.Offset, q.Size, dtype)
				}
			}
		})
	}
}

func TestShardedCheckpointKeepsItsType(t *testing.T) {
	c, params := open(t, golden+"/b_bf16_sharded/checkpoint")
	require.Equal(t, dtypes.BFloat16, c.DType())
	elements := 0
	for _, p := range params {
		elements += p.Elements()
	}
	require.EqualValues(t, 2*elements, c.Bytes())
	require.Empty(t, c.Ignored())
}

// files reads the files of a folder.
func files(t testing.TB, dir string) MemFS {
	m := MemFS{}
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range list {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		m[e.Name()] = string(b)
	}
	return m
}

func TestAllSourcesGiveTheSame(t *testing.T) {
	dir := golden + "/b_bf16_sharded/checkpoint"
	mapped, params := open(t, dir)
	memory, err := OpenFS(files(t, dir), params, Options{})
	require.NoError(t, err)
	streamed, err := OpenFS(os.DirFS(dir), params, Options{})
	require.NoError(t, err)
	for _, p := range params {
		q := axis.Whole(p, dtypes.Float32)
		want := read(t, mapped, q)
		require.Equal(t, want, read(t, memory, q), p.Path)
		require.Equal(t, want, read(t, streamed, q), p.Path)
	}
	require.NoError(t, memory.Close())
	require.NoError(t, streamed.Close())
}

func TestReadRefuses(t *testing.T) {
	c, params := open(t, golden+"/c_odd/checkpoint")
	good := axis.Whole(params[1], dtypes.Float32)
	tests := []struct {
		name   string
		change func(q *axis.Piece)
		bytes  int
		want   string
	}{
		{"an unknown weight", func(q *axis.Piece) { q.Path = "layers/mlp" }, good.Bytes(), `no weight "layers/mlp"`},
		{"a dtype that is no float", func(q *axis.Piece) { q.DType = dtypes.Int32 }, good.Bytes(), "dtype Int32, want Float32, BFloat16 or Float16"},
		{"a box outside of the weight", func(q *axis.Piece) { q.Offset = []int{1, 0} }, good.Bytes(), "outside of"},
		{"a buffer of another size", func(q *axis.Piece) {}, good.Bytes() - 1, "buffer of"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := good
			tt.change(&q)
			require.ErrorContains(t, c.Read(q, make([]byte, tt.bytes)), tt.want)
		})
	}
	require.NoError(t, c.Close())
	require.ErrorIs(t, c.Read(good, make([]byte, good.Bytes())), fs.ErrClosed)
	require.Error(t, c.Close())
}

func TestWarnNamesTheFirstBadTensorOnce(t *testing.T) {
	dir := golden + "/d_layouts/checkpoint_hubcfg"
	m := files(t, dir)
	f, err := newFile("x", memory([]byte(m[singleFile])))
	require.NoError(t, err)
	b := []byte(m[singleFile])
	for _, name := range []string{"model.layers.1.block_sparse_moe.experts.2.w3.weight", "model.layers.0.block_sparse_moe.experts.1.w3.weight"} {
		info, err := f.Info(name)
		require.NoError(t, err)
		binary.LittleEndian.PutUint32(b[info.Offset+info.Bytes-4:], 0x7fc00000)
	}
	m[singleFile] = string(b)
	params := catalogue(t, dir)
	for _, dtype := range []dtypes.DType{dtypes.Float32, dtypes.BFloat16, dtypes.Float16} {
		var mu sync.Mutex
		var warnings []string
		c, err := OpenFS(m, params, Options{Warn: func(s string) { mu.Lock(); warnings = append(warnings, s); mu.Unlock() }})
		require.NoError(t, err)
		for _, p := range params {
			read(t, c, axis.Whole(p, dtype))
		}
		require.Len(t, warnings, 1)
		require.Contains(t, warnings[0], `tensor "model.layers.0.block_sparse_moe.experts.1.w3.weight" holds NaN or Inf`)
	}
	c, err := OpenFS(m, params, Options{})
	require.NoError(t, err)
	for _, p := range params { // nobody to tell is fine too
		read(t, c, axis.Whole(p, dtypes.Float32))
	}
}

func TestReadsInParallel(t *testing.T) {
	c, params := open(t, golden+"/a_tiny_f32/checkpoint")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, p := range params {
				q := axis.Whole(p, dtypes.BFloat16)
				if err := c.Read(q, make([]byte, q.Bytes())); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
