package ckpt

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io/fs"
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

// held is weights in memory, float32, each whole.
type held struct {
	params []axis.Param
	data   map[string][]byte

	mu      sync.Mutex
	largest int   // elements asked for at once
	left    int   // reads until it fails, if fails is there
	fails   error // what it fails with
}

// random fills every weight with any bits, among them NaN, Inf and subnormal numbers, or with bits of
// numbers only.
func random(params []axis.Param, numbers bool) *held {
	h := &held{params: params, data: map[string][]byte{}}
	r := rand.New(rand.NewPCG(3, 4))
	for _, p := range params {
		var b []byte
		for range p.Elements() {
			v := r.Uint32()
			for numbers && v&0x7f000000 == 0x7f000000 {
				v = r.Uint32()
			}
			b = binary.LittleEndian.AppendUint32(b, v)
		}
		h.data[p.Path] = b
	}
	return h
}

func (h *held) Read(q axis.Piece, dst []byte) error {
	h.mu.Lock()
	h.left--
	h.largest = max(h.largest, q.Elements())
	failed := h.fails != nil && h.left < 0
	h.mu.Unlock()
	if failed {
		return h.fails
	}
	for _, p := range h.params {
		if p.Path == q.Path {
			if err := q.Check(p); err != nil {
				return err
			}
			copy(dst, box(h.data[p.Path], p, q))
			return nil
		}
	}
	return errors.New("no weight " + q.Path)
}

// box picks a box out of a whole weight, one element of four bytes at a time.
func box(whole []byte, p axis.Param, q axis.Piece) []byte {
	b := make([]byte, 0, 4*q.Elements())
	for i := range q.Elements() {
		at, rest, step := 0, i, 1
		for k := len(p.Dims) - 1; k >= 0; k-- {
			at += (q.Offset[k] + rest%q.Size[k]) * step
			rest /= q.Size[k]
			step *= p.Dims[k]
		}
		b = append(b, whole[4*at:4*at+4]...)
	}
	return b
}

func TestRewritingAGoldenGivesTheSameFile(t *testing.T) {
	for dir, layout := range map[string]string{"a_tiny_f32/checkpoint": Hub, "c_odd/checkpoint": Hub,
		"d_layouts/checkpoint_hubcfg": Hub, "d_layouts/checkpoint_fused": Fused} {
		c, params := open(t, filepath.Join(golden, dir))
		to := filepath.Join(t.TempDir(), "a", "b")
		require.NoError(t, WriteHF(to, params, c, WriteOptions{Layout: layout}))
		require.Equal(t, map[string]string{singleFile: files(t, filepath.Join(golden, dir))[singleFile]}, map[string]string(files(t, to)), dir)
	}
}

// byName is every tensor of a folder: its type, shape and bytes.
func byName(t *testing.T, dir string) map[string]any {
	paths, err := filepath.Glob(dir + "/*.safetensors")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	all := map[string]any{}
	for _, path := range paths {
		f, err := OpenFile(path)
		require.NoError(t, err)
		for _, name := range f.Names() {
			info, err := f.Info(name)
			require.NoError(t, err)
			b, err := f.Bytes(name)
			require.NoError(t, err)
			require.NotContains(t, all, name)
			all[name] = []any{info.Format, info.Shape, b}
		}
		require.NoError(t, f.Close())
	}
	return all
}

func TestRewritingAShardedGoldenGivesTheSameTensors(t *testing.T) {
	const most = 100_000
	from := filepath.Join(golden, "b_bf16_sharded/checkpoint")
	c, params := open(t, from)
	to := t.TempDir() // a folder that is there
	var sums []Sum
	require.NoError(t, WriteHF(to, params, c, WriteOptions{DType: dtypes.BFloat16, ShardBytes: most, Written: func(s Sum) { sums = append(sums, s) }}))
	require.Equal(t, byName(t, from), byName(t, to))
	var want, got struct {
		Metadata map[string]int64
		Files    map[string]string `json:"weight_map"`
	}
	require.NoError(t, json.Unmarshal([]byte(files(t, from)[indexFile]), &want))
	require.NoError(t, json.Unmarshal([]byte(files(t, to)[indexFile]), &got))
	require.Equal(t, want.Metadata, got.Metadata)
	require.Len(t, got.Files, len(want.Files))
	require.Len(t, sums, len(files(t, to)), "told of each file")
	require.Equal(t, indexFile, sums[len(sums)-1].Name, "the index is last")
	for _, s := range sums {
		b := []byte(files(t, to)[s.Name])
		require.Equal(t, Sum{s.Name, int64(len(b)), CRCOf(b)}, s)
		if s.Name == indexFile {
			continue
		}
		f, err := OpenFile(filepath.Join(to, s.Name))
		require.NoError(t, err)
		bytes := int64(0)
		for _, name := range f.Names() {
			info, _ := f.Info(name)
			bytes += info.Bytes
			require.Equal(t, s.Name, got.Files[name])
		}
		require.LessOrEqual(t, bytes, int64(most))
		require.NoError(t, f.Close())
	}
	require.Regexp(t, `^model-00001-of-0000\d\.safetensors$`, got.Files["model.embed_tokens.weight"])
}

func TestWhatIsWrittenIsReadBitForBit(t *testing.T) {
	for _, tied := range []bool{false, true} {
		params := weights(tiny, tied)
		for _, layout := range []string{Hub, Fused, Plain, ""} {
			for _, shard := range []int64{0, 1, 200, 1500} {
				h := random(params, false)
				dir := filepath.Join(t.TempDir(), "x")
				require.NoError(t, WriteHF(dir, params, h, WriteOptions{Layout: layout, ShardBytes: shard}))
				o := Options{}
				if layout == Plain {
					o.Layout = Plain
				}
				c, err := Open(dir, params, o)
				require.NoError(t, err)
				for _, p := range params {
					q := axis.Whole(p, dtypes.Float32)
					require.Equal(t, h.data[p.Path], read(t, c, q), "%s %s", layout, p.Path)
					for r := rand.New(rand.NewPCG(5, 6)); q.Size[0] > 0; q.Size[0]-- {
						require.Equal(t, box(h.data[p.Path], p, q), read(t, c, reshaped(q)))
						b := randomBox(r, p, dtypes.Float32)
						require.Equal(t, box(h.data[p.Path], p, b), read(t, c, b))
					}
				}
				if layout != "" {
					require.Equal(t, layout, c.Layout())
				} else {
					require.Equal(t, Hub, c.Layout())
				}
				require.Empty(t, c.Ignored())
				require.NoError(t, c.Close())
			}
		}
	}
}

func reshaped(q axis.Piece) axis.Piece {
	q.Shape = q.Size
	return q
}

func TestWritingRoundsToNearestEven(t *testing.T) {
	params := weights(tiny, false)
	h := random(params, true)
	copy(h.data["final_norm"], []byte{0, 0x80, 0x80, 0x3f, 0, 0x80, 0x81, 0x3f, 1, 0x80, 0x80, 0x3f}) // two ties and just above one
	for dtype, width := range map[dtypes.DType]int{dtypes.BFloat16: 2, dtypes.Float16: 2, dtypes.Float32: 4} {
		dir := filepath.Join(t.TempDir(), "x")
		require.NoError(t, WriteHF(dir, params, h, WriteOptions{DType: dtype}))
		c, err := Open(dir, params, Options{})
		require.NoError(t, err)
		require.Equal(t, dtype, c.DType())
		for _, p := range params {
			want := make([]byte, width*p.Elements())
			kernels[dtypes.Float32][dtype](want, h.data[p.Path])
			got := read(t, c, axis.Whole(p, dtype))
			require.Equal(t, want, got, "%s %s", dtype, p.Path)
			if dtype == dtypes.BFloat16 && p.Path == "final_norm" {
				require.Equal(t, []byte{0x80, 0x3f, 0x82, 0x3f, 0x81, 0x3f}, got)
			}
		}
		require.NoError(t, c.Close())
	}
}

func TestWindowsCoverABoxInOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, p := range append(weights(tiny, false), axis.Param{Path: "scalar"}) {
		h := random([]axis.Param{p}, false)
		for range 30 {
			q := randomBox(r, p, dtypes.Float32)
			most := 1 + r.IntN(2*q.Elements())
			var got []byte
			for w := range windows(q, most) {
				require.NoError(t, w.Check(p))
				require.LessOrEqual(t, w.Elements(), most)
				got = append(got, box(h.data[p.Path], p, w)...)
			}
			require.Equal(t, box(h.data[p.Path], p, q), got, "%v in windows of %d", q, most)
		}
	}
}

func TestWritingHoldsAWindow(t *testing.T) {
	p := axis.Param{Path: "big", Axes: []axis.Logical{"a", "b"}, Dims: []int{3, window/2 + 7}}
	h := &held{params: []axis.Param{p}, data: map[string][]byte{p.Path: bytes.Repeat([]byte{1, 2, 3, 4}, p.Elements())}}
	dir := filepath.Join(t.TempDir(), "x")
	require.NoError(t, WriteHF(dir, h.params, zeros{h}, WriteOptions{Layout: Plain, DType: dtypes.BFloat16}))
	require.LessOrEqual(t, h.largest, window)
	st, err := os.Stat(filepath.Join(dir, singleFile))
	require.NoError(t, err)
	require.Greater(t, st.Size(), int64(2*p.Elements()))
}

// zeros notes what is asked for and gives zeros.
type zeros struct{ h *held }

func (z zeros) Read(q axis.Piece, dst []byte) error {
	z.h.largest = max(z.h.largest, q.Elements())
	clear(dst)
	return nil
}

// paths lists all that is below a folder.
func paths(t *testing.T, dir string) (list []string) {
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if path != dir {
			list = append(list, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	}))
	return list
}

func TestAFailedWriteLeavesNothing(t *testing.T) {
	params := weights(tiny, false)
	broken := errors.New("device lost")
	for at := 0; at < 35; at += 6 { // of 35 tensors
		h := random(params, true)
		h.left, h.fails = at, broken
		parent := t.TempDir()
		err := WriteHF(filepath.Join(parent, "new"), params, h, WriteOptions{ShardBytes: 300})
		require.ErrorIs(t, err, broken)
		require.ErrorContains(t, err, `.safetensors: tensor "`)
		require.NotContains(t, err.Error(), "\n")
		require.Empty(t, paths(t, parent))

		require.NoError(t, os.WriteFile(filepath.Join(parent, "mine"), nil, 0o600))
		h.left = at
		require.ErrorIs(t, WriteHF(parent, params, h, WriteOptions{ShardBytes: 300}), broken)
		require.Equal(t, []string{"mine"}, paths(t, parent))
	}
}

func TestWriteHFRefuses(t *testing.T) {
	params := weights(tiny, false)
	without := func(path string) (list []axis.Param) {
		for _, p := range params {
			if p.Path != path {
				list = append(list, p)
			}
		}
		return list
	}
	with := func(path string, dims ...int) []axis.Param {
		return append(without(""), axis.Param{Path: path, Axes: make([]axis.Logical, len(dims)), Dims: dims})
	}
	used := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(used, "model-00001-of-00001.safetensors"), nil, 0o600))
	tests := []struct {
		name   string
		dir    string
		params []axis.Param
		o      WriteOptions
		want   string
	}{
		{"another layout", "x", params, WriteOptions{Layout: "gguf"}, `layout "gguf", want hub, fused or plain`},
		{"another dtype", "x", params, WriteOptions{DType: dtypes.Float64}, "dtype Float64, want Float32, BFloat16 or Float16"},
		{"negative shards", "x", params, WriteOptions{ShardBytes: -1}, "shards of -1 bytes, want at least 1"},
		{"a file elsewhere", "x", params, WriteOptions{Files: map[string][]byte{"../config.json": nil}}, `file "../config.json", want the name of a file`},
		{"a file that is weights", "x", params, WriteOptions{Files: map[string][]byte{"model.safetensors": nil}}, `file "model.safetensors", want`},
		{"no weights", "x", nil, WriteOptions{}, "no weights"},
		{"a weight twice", "x", append(without(""), params[0]), WriteOptions{}, "weight embed is there twice"},
		{"a weight without a name there", "x", with("layers/bias", 3), WriteOptions{}, "no tensor of a Hugging Face Mixtral holds weight layers/bias"},
		{"an empty weight", "x", with("y", 3, 0), WriteOptions{Layout: Plain}, "weight y: shape [3 0], want sizes of at least 1"},
		{"a negative weight", "x", with("y", -3), WriteOptions{Layout: Plain}, "weight y: shape [-3], want sizes of at least 1"},
		{"a weight beyond all bounds", "x", with("y", 1<<40, 1<<40), WriteOptions{Layout: Plain}, "weight y: shape [1099511627776 1099511627776], want"},
		{"names that fall together", "x", append(with("y/z", 3), axis.Param{Path: "y.z", Axes: make([]axis.Logical, 1), Dims: []int{1}}), WriteOptions{Layout: Plain},
			`weights y/z and y.z would both be tensor "y.z"`},
		{"half of a fused tensor", "x", without("layers/moe/up"), WriteOptions{Layout: Fused}, "weight layers/moe/gate without layers/moe/up"},
		{"axes without sizes", "x", append(without(""), axis.Param{Path: "y", Dims: []int{1}}), WriteOptions{}, "weight y: 0 axes and 1 dimensions"},
		{"a file for a folder", "/dev/null", params, WriteOptions{}, "a file is there, want a folder or none"},
		{"a file above it", "/dev/null/x", params, WriteOptions{}, "/dev/null"},
		{"a folder with weights", used, params, WriteOptions{}, "model-00001-of-00001.safetensors is there, want a folder without weights"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := tt.dir
			if dir == "x" {
				dir = filepath.Join(t.TempDir(), "x")
			}
			err := WriteHF(dir, tt.params, random(nil, true), tt.o)
			require.ErrorContains(t, err, tt.want)
			require.NotContains(t, err.Error(), "\n")
			if tt.dir == "x" {
				require.NoDirExists(t, dir)
			}
		})
	}
}

func TestAPartOfTheCatalogueCanBeWritten(t *testing.T) {
	var part []axis.Param
	for _, p := range weights(tiny, false) {
		if strings.Contains(p.Path, "/attn") || p.Path == "head" {
			part = append(part, p)
		}
	}
	h := random(part, true)
	dir := filepath.Join(t.TempDir(), "x")
	require.NoError(t, WriteHF(dir, part, h, WriteOptions{Files: map[string][]byte{"config.json": []byte("{}")}}))
	c, err := Open(dir, part, Options{})
	require.NoError(t, err)
	defer c.Close()
	for _, p := range part {
		require.Equal(t, h.data[p.Path], read(t, c, axis.Whole(p, dtypes.Float32)))
	}
	require.Equal(t, "{}", files(t, dir)["config.json"])
}

func TestPlainCheckpointsThatDoNotFit(t *testing.T) {
	params := []axis.Param{{Path: "a/lora_a", Axes: []axis.Logical{"r", "d"}, Dims: []int{2, 3}}, {Path: "b", Axes: []axis.Logical{"d"}, Dims: []int{3}}}
	tests := []struct {
		name   string
		change func(m map[string]Tensor)
		is     error
		want   string
	}{
		{"a tensor is missing", func(m map[string]Tensor) { delete(m, "a.lora_a") }, ErrMissing, `missing tensor "a.lora_a"`},
		{"a tensor of no weight", func(m map[string]Tensor) { set(m, "c", dtypes.Float32, 1) }, ErrExtra, `unexpected tensor "c": there is no such weight`},
		{"a transposed matrix", func(m map[string]Tensor) { set(m, "a.lora_a", dtypes.Float32, 3, 2) }, ErrShape, `tensor "a.lora_a" is [3 2], want [2 3]`},
		{"integers", func(m map[string]Tensor) { set(m, "b", dtypes.Int8, 3) }, ErrDType, `tensor "b" is I8, want F32, BF16 or F16`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := map[string]Tensor{}
			set(m, "a.lora_a", dtypes.Float32, 2, 3)
			set(m, "b", dtypes.Float32, 3)
			tt.change(m)
			dir := t.TempDir()
			save(t, filepath.Join(dir, singleFile), m)
			_, err := Open(dir, params, Options{Layout: Plain})
			require.ErrorIs(t, err, tt.is)
			require.ErrorContains(t, err, tt.want)
		})
	}
	dir := t.TempDir()
	save(t, filepath.Join(dir, singleFile), tensors(Hub))
	_, err := Open(dir, weights(tiny, false), Options{Layout: "tf"})
	require.ErrorContains(t, err, `layout "tf", want plain or none`)
}
