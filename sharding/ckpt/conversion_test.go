package ckpt

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/sharding/axis"
)

func TestConversionsThatCannotBe(t *testing.T) {
	hf := tinyHF(t)
	params := catalogue(t, hf)
	tests := []struct {
		name string
		o    ConvertOptions
		want string
	}{
		{"no format", ConvertOptions{}, `format "", want mixtral, hf or megatron`},
		{"no such layout", ConvertOptions{Format: HuggingFace, Layout: Plain}, `layout "plain"`},
		{"a divided Hugging Face", ConvertOptions{Format: HuggingFace, Grid: Grid{2, 1, 1}}, "grid 2 × 1 × 1"},
		{"a type of no weights", ConvertOptions{Format: HuggingFace, DType: dtypes.Int8}, "dtype Int8"},
		{"shards of less than nothing", ConvertOptions{Format: HuggingFace, ShardBytes: -1}, "shards of -1 bytes"},
		{"more places than experts", ConvertOptions{Format: Megatron, Grid: Grid{1, 1, 8}}, `axis "experts" of 4 does not divide over the expert parallel size 8`},
		{"more stages than layers", ConvertOptions{Format: Megatron, Grid: Grid{1, 3, 1}}, `axis "layers" of 2 does not divide over the pipeline parallel size 3`},
		{"fewer key/value heads than places", ConvertOptions{Format: Megatron, Grid: Grid{4, 1, 1}}, `axis "kv" of 2 does not divide over the tensor parallel size 4`},
		{"a negative grid", ConvertOptions{Format: Megatron, Grid: Grid{-1, 1, 1}}, "tensor parallel size -1"},
		{"a mesh that does not fit", ConvertOptions{Format: Mixtral, Grid: Grid{3, 1, 1}}, `axis "vocab" of 130 does not divide over 3 shards`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := PlanConversion(hf, params, tt.o)
			require.ErrorContains(t, err, tt.want)
		})
	}
	_, err := PlanConversion(t.TempDir(), params, ConvertOptions{Format: Megatron})
	require.ErrorContains(t, err, "neither model.safetensors nor")
}

func TestPlansAreTheSameEveryTime(t *testing.T) {
	hf := tinyHF(t)
	var texts [3]string
	for i := range texts {
		c, err := PlanConversion(hf, catalogue(t, hf), ConvertOptions{Format: Megatron, Grid: Grid{2, 2, 2}})
		require.NoError(t, err)
		var b strings.Builder
		require.NoError(t, c.Print(&b))
		texts[i] = b.String()
		require.NoError(t, c.Close())
	}
	require.Equal(t, texts[0], texts[1])
	require.Equal(t, texts[0], texts[2])
	require.Contains(t, texts[0], `  decoder.layers.0.mlp.experts.local_experts.1.linear_fc1.weight F32 [12 16]
    layers/moe/gate[1:2, 3:4, 6:12, 0:16] from model.safetensors model.layers.1.block_sparse_moe.experts.3.w1.weight
    layers/moe/up[1:2, 3:4, 6:12, 0:16] from model.safetensors model.layers.1.block_sparse_moe.experts.3.w3.weight
`)
	require.Contains(t, texts[0], "config.json\nlatest_checkpointed_iteration.txt\n")
}

func TestATypeForAllWeights(t *testing.T) {
	hf := tinyHF(t)
	to := convert(t, hf, ConvertOptions{Format: Mixtral, Grid: Grid{2, 1, 1}, DType: dtypes.BFloat16})
	c, params := open(t, to)
	require.Equal(t, dtypes.BFloat16, c.DType())
	a, _ := open(t, hf)
	for _, p := range params {
		q := axis.Whole(p, dtypes.BFloat16)
		require.Equal(t, read(t, a, q), read(t, c, q), p.Path)
	}
	text, err := os.ReadFile(filepath.Join(to, configFile))
	require.NoError(t, err)
	require.Contains(t, string(text), `"torch_dtype": "bfloat16"`)
	back := convert(t, to, ConvertOptions{Format: HuggingFace, DType: dtypes.Float32})
	text, err = os.ReadFile(filepath.Join(back, configFile))
	require.NoError(t, err)
	require.Contains(t, string(text), `"torch_dtype": "float32"`)
	// Whole numbers of up to 8 bits survive; the larger ones were rounded.
	x, err := Diff(context.Background(), a, reopen(t, back))
	require.NoError(t, err)
	require.True(t, x.Different)
}

func reopen(t testing.TB, dir string) *Checkpoint {
	c, _ := open(t, dir)
	return c
}

func TestBitsOfTheSameTypeStayAsTheyAre(t *testing.T) {
	// A signalling NaN with a payload, as bfloat16, would not survive a change of type.
	dir := t.TempDir()
	m := tensors(Hub)
	x := m["model.norm.weight"]
	x = RawTensor(x.Name, dtypes.BFloat16, x.Shape, []byte{0x81, 0x7f, 0x80, 0xff, 0x01, 0x80})
	m[x.Name] = x
	save(t, filepath.Join(dir, singleFile), m)
	params := weights(tiny, false)
	for _, o := range []ConvertOptions{{Format: HuggingFace, Layout: Fused}, {Format: Mixtral, Grid: Grid{1, 2, 1}}} {
		to := filepath.Join(t.TempDir(), "to")
		c, err := PlanConversion(dir, params, o)
		require.NoError(t, err)
		_, err = c.Run(context.Background(), to, RunOptions{})
		require.NoError(t, err)
		require.NoError(t, c.Close())
		k, err := Open(to, params, Options{})
		require.NoError(t, err)
		e := k.matched.extents["final_norm"][0]
		b, err := e.file.region.view(e.at, 6)
		require.NoError(t, err)
		require.Equal(t, []byte{0x81, 0x7f, 0x80, 0xff, 0x01, 0x80}, b)
		require.NoError(t, k.Close())
	}
}

func TestConversionsGoOnWhereTheyWereKilled(t *testing.T) {
	hf := tinyHF(t)
	base := t.TempDir()
	to := filepath.Join(base, "to")
	o := ConvertOptions{Format: Mixtral, Grid: Grid{2, 2, 2}}
	start := func() *Conversion {
		c, err := PlanConversion(hf, catalogue(t, hf), o)
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	c := start()
	identity, err := c.identity()
	require.NoError(t, err)
	staged := filepath.Join(base, ".to.converting")
	require.NoError(t, os.MkdirAll(filepath.Join(staged, "device-00005.safetensors.part"), 0o777)) // a folder cannot be written
	require.NoError(t, os.WriteFile(filepath.Join(staged, journalFile), []byte(identity+"\n"), 0o666))
	_, err = c.Run(context.Background(), to, RunOptions{Workers: 1})
	require.ErrorContains(t, err, "device-00005.safetensors.part")
	require.NoDirExists(t, to)
	require.NoError(t, os.Remove(filepath.Join(staged, "device-00005.safetensors.part")))

	// Half a line in the journal, half a file of another name, and a finished file that lost its end.
	f, err := os.OpenFile(filepath.Join(staged, journalFile), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString(`{"name":"device-00007.safetens`)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoError(t, os.WriteFile(filepath.Join(staged, ".config.json.00000000.tmp"), nil, 0o666))
	cut(t, filepath.Join(staged, "device-00001.safetensors"), 1)
	past := time.Unix(1e9, 0)
	require.NoError(t, os.Chtimes(filepath.Join(staged, "device-00000.safetensors"), past, past))

	// Another process at it is refused.
	lock := flock.New(staged + ".lock")
	ok, err := lock.TryLock()
	require.NoError(t, err)
	require.True(t, ok)
	_, err = start().Run(context.Background(), to, RunOptions{})
	require.ErrorContains(t, err, "another conversion is writing it")
	require.NoError(t, lock.Unlock())

	_, err = start().Run(context.Background(), to, RunOptions{})
	require.NoError(t, err)
	_, err = Verify(to)
	require.NoError(t, err)
	requireSame(t, hf, to)
	st, err := os.Stat(filepath.Join(to, "device-00000.safetensors"))
	require.NoError(t, err)
	require.Equal(t, past.Unix(), st.ModTime().Unix(), "a finished file was written again")
	left, err := filepath.Glob(filepath.Join(base, ".*"))
	require.NoError(t, err)
	require.Empty(t, left)
	left, err = filepath.Glob(filepath.Join(to, ".*"))
	require.NoError(t, err)
	require.Empty(t, left)

	_, err = start().Run(context.Background(), to, RunOptions{})
	require.ErrorContains(t, err, "want a name that is free")
}

func TestAChangedSourceBeginsAnew(t *testing.T) {
	hf := tinyHF(t)
	to := filepath.Join(t.TempDir(), "to")
	plan := func() *Conversion {
		c, err := PlanConversion(hf, catalogue(t, hf), ConvertOptions{Format: Mixtral, Grid: Grid{2, 1, 1}})
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	stopped, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := plan().Run(stopped, to, RunOptions{})
	require.ErrorIs(t, err, context.Canceled)
	staged := filepath.Join(filepath.Dir(to), ".to.converting")
	require.DirExists(t, staged)
	require.NoError(t, os.WriteFile(filepath.Join(staged, "stranger.safetensors"), nil, 0o666))
	now := time.Now().Add(time.Hour)
	require.NoError(t, os.Chtimes(filepath.Join(hf, singleFile), now, now))
	_, err = plan().Run(context.Background(), to, RunOptions{})
	require.NoError(t, err)
	require.NoFileExists(t, filepath.Join(to, "stranger.safetensors"))
	requireSame(t, hf, to)
}

// aRun is the checkpoint of a training run as train/store writes it: weights, two moments, a group under
// names of its own and a folder.
func aRun(t testing.TB) (dir string, params []axis.Param) {
	dir = filepath.Join(t.TempDir(), "step-00000007")
	hf := tinyHF(t)
	config, err := os.ReadFile(filepath.Join(hf, configFile))
	require.NoError(t, err)
	params = catalogue(t, hf)
	r := rand.New(rand.NewPCG(1, 2))
	var sums []Sum
	write := func(name string, params []axis.Param, o WriteOptions) {
		h := &held{params: params, data: map[string][]byte{}}
		for _, p := range params {
			v := make([]float32, p.Elements())
			for i := range v {
				v[i] = float32(r.NormFloat64())
			}
			h.data[p.Path] = make([]byte, 4*len(v))
			PutFloat32(h.data[p.Path], dtypes.Float32, v)
		}
		o.Written = func(s Sum) {
			s.Name = filepath.ToSlash(filepath.Join(name, s.Name))
			sums = append(sums, s)
		}
		require.NoError(t, WriteHF(filepath.Join(dir, name), params, h, o))
	}
	write("", params, WriteOptions{DType: dtypes.BFloat16, Files: map[string][]byte{configFile: config, "tokenizer.model": []byte("x")}})
	write("optimizer/first", params, WriteOptions{ShardBytes: 9000})
	write("optimizer/second", params, WriteOptions{})
	other := []axis.Param{{Path: "ema/x", Axes: []axis.Logical{axis.Embed}, Dims: []int{5}}}
	write("ema", other, WriteOptions{Layout: Plain})
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "adapter"), 0o777))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "adapter", "x.bin"), []byte("adapter"), 0o666))
	more, err := SumFolder(filepath.Join(dir, "adapter"), "adapter")
	require.NoError(t, err)
	state := `{"step":7,"score":null,"groups":[{"name":"","plain":false,"params":null},{"name":"optimizer/first","plain":false,"params":null},` +
		`{"name":"optimizer/second","plain":false,"params":null},{"name":"ema","plain":true,"params":[{"path":"ema/x","axes":["embed"],"dims":[5]}]}],"run":{"seed":1}}`
	require.NoError(t, NewManifest(append(sums, more...), json.RawMessage(state)).Write(dir))
	_, err = Verify(dir)
	require.NoError(t, err)
	return dir, params
}

func TestTheOptimizersStateGoesWithTheWeights(t *testing.T) {
	dir, params := aRun(t)
	ours := convert(t, dir, ConvertOptions{Format: Mixtral, Grid: Grid{2, 2, 2}})
	hf := convert(t, ours, ConvertOptions{Format: HuggingFace, Layout: Fused, DType: dtypes.Float32})
	was, err := ReadManifest(dir)
	require.NoError(t, err)
	for _, to := range []string{ours, hf} {
		for _, group := range []string{"", "optimizer/first", "optimizer/second"} {
			a, err := Open(filepath.Join(dir, group), params, Options{})
			require.NoError(t, err)
			b, err := Open(filepath.Join(to, group), params, Options{})
			require.NoError(t, err)
			d, err := Diff(context.Background(), a, b)
			require.NoError(t, err)
			for _, w := range d.Weights {
				require.Zero(t, w.Elements, "%s of %s", w.Weight, group)
				if group != "" {
					require.Equal(t, "F32", w.B.DType)
				}
			}
			require.NoError(t, a.Close())
			require.NoError(t, b.Close())
		}
		m, err := ReadManifest(to)
		require.NoError(t, err)
		require.JSONEq(t, string(was.State), string(m.State))
		for _, name := range []string{"adapter/x.bin", "ema/model.safetensors", "tokenizer.model"} {
			a, err := os.ReadFile(filepath.Join(dir, name))
			require.NoError(t, err)
			b, err := os.ReadFile(filepath.Join(to, name))
			require.NoError(t, err)
			require.Equal(t, a, b, name)
		}
		x, err := Examine(context.Background(), to, params)
		require.NoError(t, err)
		require.Empty(t, x.Problems)
		require.Equal(t, 3*len(params), x.Weights)
	}
	c, err := PlanConversion(dir, params, ConvertOptions{Format: Megatron})
	require.NoError(t, err)
	defer c.Close()
	require.Len(t, c.Notes, 1)
	require.Contains(t, c.Notes[0], "optimizer state and progress of the run are left out")
	require.Len(t, c.outputs, 1)
}

func TestDiff(t *testing.T) {
	hf := tinyHF(t)
	a, params := open(t, hf)
	changed := t.TempDir()
	f, err := OpenFile(filepath.Join(hf, singleFile))
	require.NoError(t, err)
	var list []Tensor
	for _, name := range f.Names() {
		i, err := f.Info(name)
		require.NoError(t, err)
		v, err := f.Float32s(name)
		require.NoError(t, err)
		switch name {
		case "model.layers.1.block_sparse_moe.experts.2.w3.weight":
			v[5] += 0.25
			v[100] -= 2
		case "model.norm.weight":
			v[1] = float32(math.NaN())
		}
		list = append(list, Float32Tensor(name, i.Shape, v))
	}
	require.NoError(t, f.Close())
	require.NoError(t, WriteFile(filepath.Join(changed, singleFile), list, nil))
	b, err := Open(changed, params, Options{})
	require.NoError(t, err)
	defer b.Close()
	r, err := Diff(context.Background(), a, b)
	require.NoError(t, err)
	require.True(t, r.Different)
	var differ []WeightDiff
	for _, d := range r.Weights {
		if !d.same() {
			differ = append(differ, d)
		}
	}
	require.Len(t, differ, 2)
	require.Equal(t, "layers/moe/up", differ[0].Weight)
	require.Equal(t, 2, differ[0].Elements)
	require.Equal(t, 2.0, differ[0].Max)
	require.Equal(t, []int{1, 2, 0, 5}, differ[0].First)
	require.Equal(t, math.MaxFloat64, differ[1].Max)
	var text strings.Builder
	require.NoError(t, r.Print(&text))
	require.Contains(t, text.String(), "layers/moe/up: 2 of 1536 elements differ, by at most 2, the first at [1 2 0 5]\n")
	_, err = json.Marshal(r)
	require.NoError(t, err)
	same, err := Diff(context.Background(), b, b)
	require.NoError(t, err)
	require.False(t, same.Different, "NaN differs from itself")
	other, err := Open(hf, params[:12], Options{}) // as if tied
	require.NoError(t, err)
	defer other.Close()
	r, err = Diff(context.Background(), other, a)
	require.NoError(t, err)
	require.True(t, r.Different)
	require.Nil(t, r.Weights[12].A)
}

func TestExamine(t *testing.T) {
	hf := tinyHF(t)
	params := catalogue(t, hf)
	examine := func(dir string) Examination {
		x, err := Examine(context.Background(), dir, params)
		require.NoError(t, err)
		return x
	}
	require.Equal(t, Examination{hf, HuggingFace, "none", 0, 13, 10512, 0, []string{}}, examine(hf))
	ours := convert(t, hf, ConvertOptions{Format: Mixtral, Grid: Grid{2, 1, 1}})
	require.Equal(t, Examination{ours, Mixtral, "manifest", 4, 13, 10512, 0, []string{}}, examine(ours))
	flip := func(name string, at int64) {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		require.NoError(t, err)
		b := make([]byte, 1)
		_, err = f.ReadAt(b, at)
		require.NoError(t, err)
		b[0] ^= 1
		_, err = f.WriteAt(b, at)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	flip(filepath.Join(ours, "device-00001.safetensors"), 3000)
	x := examine(ours)
	require.Len(t, x.Problems, 1)
	require.Contains(t, x.Problems[0], "device-00001.safetensors: CRC-32C")
	megatron := convert(t, hf, ConvertOptions{Format: Megatron, Grid: Grid{1, 1, 2}})
	require.NoError(t, os.Remove(filepath.Join(megatron, ManifestFile)))
	x = examine(megatron)
	require.Empty(t, x.Problems)
	require.Equal(t, []any{"archives", 2}, []any{x.Checksums, x.Files})
	require.Positive(t, x.Copies)
	c, _ := open(t, megatron)
	e := c.matched.extents["final_norm"][0]
	flip(filepath.Join(megatron, e.file.name), e.at+2)
	x = examine(megatron)
	require.Len(t, x.Problems, 2)
	require.Contains(t, x.Problems[0], "CRC-32 is")
	require.Contains(t, x.Problems[1], "copies differ")
}

func TestIndexesOfOursThatDoNotFit(t *testing.T) {
	ours := convert(t, tinyHF(t), ConvertOptions{Format: Mixtral, Grid: Grid{2, 1, 1}})
	good, err := os.ReadFile(filepath.Join(ours, boxesFile))
	require.NoError(t, err)
	tests := []struct{ name, old, new, want string }{
		{"another version", `"version": 1`, `"version": 2`, `version 2, want "mix boxes" version 1`},
		{"an unknown field", `"mesh"`, `"maze"`, `unknown field "maze"`},
		{"no JSON", `"boxes": [`, `"boxes": `, "not valid JSON"},
		{"a file outside", `"file":"device-00000.safetensors"`, `"file":"../x.safetensors"`, "want the name of a safetensors file"},
		{"a file that is not there", `"file":"device-00000.safetensors"`, `"file":"device-00009.safetensors"`, "device-00009.safetensors"},
		{"a tensor that is not there", `"tensor":"final_norm"`, `"tensor":"norm"`, `missing tensor "norm"`},
		{"a weight of no model", `"path":"final_norm"`, `"path":"last_norm"`, "the model has no such weight"},
		{"another shape of a weight", `"dims":[130,16]`, `"dims":[131,16]`, "wrong shape: weight embed"},
		{"a box outside", `"offset":[65,0],"size":[65,16]`, `"offset":[66,0],"size":[65,16]`, "outside of [0, 130)"},
		{"boxes that overlap", `"offset":[65,0],"size":[65,16]`, `"offset":[64,0],"size":[65,16]`, "overlap"},
		{"a box twice", `"offset":[65,0],"size":[65,16]`, `"offset":[0,0],"size":[65,16]`, "have no source"},
		{"a box of another size", `"size":[16]`, `"size":[15]`, "is [16], want [15]"},
		{"a negative offset", `"offset":[65,0]`, `"offset":[-65,0]`, "outside of"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(string(good), tt.old, tt.new, 1)
			require.NotEqual(t, string(good), text)
			require.NoError(t, os.WriteFile(filepath.Join(ours, boxesFile), []byte(text), 0o666))
			_, err := Open(ours, catalogue(t, ours), Options{})
			require.ErrorContains(t, err, tt.want)
			r, err := Describe(ours, catalogue(t, ours))
			require.NoError(t, err)
			require.NotEmpty(t, r.Problems)
		})
	}
}

func FuzzParseBoxes(f *testing.F) {
	f.Add([]byte(`{"format":"mix boxes","version":1,"mesh":"","weights":[],"boxes":[{"file":"a.safetensors","tensor":"x","weight":"x","offset":[0],"size":[1]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := parseBoxes(b)
		if err != nil {
			return
		}
		again, err := parseBoxes(x.text())
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(x), fmt.Sprint(again))
	})
}

func TestListsOfEveryFormat(t *testing.T) {
	hf := tinyHF(t)
	for _, o := range []ConvertOptions{{Format: Mixtral, Grid: Grid{2, 2, 2}}, {Format: Megatron, Grid: Grid{2, 2, 2}}} {
		to := convert(t, hf, o)
		r, err := Describe(to, catalogue(t, to))
		require.NoError(t, err)
		require.Empty(t, r.Problems)
		require.Equal(t, o.Format, r.Format)
		require.Len(t, r.Files, 8)
		for _, e := range r.Tensors {
			require.NotEmpty(t, e.Holds, "%s of %s", e.Name, e.File)
		}
		r, err = Describe(to, nil)
		require.NoError(t, err)
		require.NotEmpty(t, r.Tensors)
	}
}
