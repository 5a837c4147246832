package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/sharding/axis"
	"mix/sharding/ckpt"
)

// model is a small catalogue of a Mixtral.
func model() (list []axis.Param) {
	sizes := map[axis.Logical]int{axis.Layers: 2, axis.Embed: 12, axis.FFN: 7, axis.Heads: 4, axis.KVHeads: 2, axis.HeadDim: 6, axis.Experts: 3, axis.Vocab: 11}
	add := func(path string, axes ...axis.Logical) {
		p := axis.Param{Path: path, Axes: axes}
		for _, x := range axes {
			p.Dims = append(p.Dims, sizes[x])
		}
		list = append(list, p)
	}
	add("embed", axis.Vocab, axis.Embed)
	add("layers/attn_norm", axis.Layers, axis.Embed)
	add("layers/attn/query", axis.Layers, axis.Heads, axis.HeadDim, axis.Embed)
	add("layers/attn/key", axis.Layers, axis.KVHeads, axis.HeadDim, axis.Embed)
	add("layers/attn/value", axis.Layers, axis.KVHeads, axis.HeadDim, axis.Embed)
	add("layers/attn/out", axis.Layers, axis.Embed, axis.Heads, axis.HeadDim)
	add("layers/moe_norm", axis.Layers, axis.Embed)
	add("layers/moe/router", axis.Layers, axis.Experts, axis.Embed)
	add("layers/moe/gate", axis.Layers, axis.Experts, axis.FFN, axis.Embed)
	add("layers/moe/up", axis.Layers, axis.Experts, axis.FFN, axis.Embed)
	add("layers/moe/down", axis.Layers, axis.Experts, axis.Embed, axis.FFN)
	add("final_norm", axis.Embed)
	add("head", axis.Vocab, axis.Embed)
	return list
}

// values are weights that follow from a seed: any bits, among them NaN and subnormal numbers.
type values struct {
	params []axis.Param
	seed   uint32
}

func (v values) at(path string, i int) uint32 {
	h := v.seed*2654435761 + uint32(i)
	for _, c := range path {
		h = (h ^ uint32(c)) * 16777619
	}
	h ^= h >> 15
	return h * 2246822519
}

func (v values) Read(q axis.Piece, dst []byte) error {
	for _, p := range v.params {
		if p.Path != q.Path {
			continue
		}
		if err := q.Check(p); err != nil {
			return err
		}
		for i := range q.Elements() {
			at, rest, step := 0, i, 1
			for k := len(p.Dims) - 1; k >= 0; k-- {
				at += (q.Offset[k] + rest%q.Size[k]) * step
				rest /= q.Size[k]
				step *= p.Dims[k]
			}
			binary.LittleEndian.PutUint32(dst[4*i:], v.at(q.Path, at))
		}
		return nil
	}
	return errors.New("no weight " + q.Path)
}

// snapshot is what a run has after a step: all of it follows from the step.
func snapshot(step int) Snapshot {
	params := model()
	return Snapshot{Step: step, State: jsonOf(map[string]int{"step": step}), Score: math.NaN(), Groups: []Group{
		{From: values{params, uint32(step)}},
		{Name: "optimizer/first", From: values{params, uint32(step) + 1<<20}},
		{Name: "optimizer/second", From: values{params, uint32(step) + 2<<20}},
	}}
}

// consistent checks that a checkpoint holds what snapshot gave for its step, bit for bit.
func consistent(t *testing.T, c *Checkpoint) {
	step := c.Step()
	require.JSONEq(t, string(snapshot(step).State), string(c.State()))
	for _, g := range snapshot(step).Groups {
		r, err := c.Reader(g.Name)
		require.NoError(t, err)
		for _, p := range model() {
			q := axis.Whole(p, dtypes.Float32)
			want, got := make([]byte, q.Bytes()), make([]byte, q.Bytes())
			require.NoError(t, g.From.Read(q, want))
			require.NoError(t, r.Read(q, got))
			require.True(t, bytes.Equal(want, got), "step %d, group %q, %s", step, g.Name, p.Path)
		}
	}
}

func options() Options {
	return Options{Params: model(), ShardBytes: 4000, Files: map[string][]byte{"config.json": []byte(`{"model_type": "mixtral"}`), "tokenizer.model": {1, 2}}}
}

func open(t *testing.T, dir string, o Options) *Store {
	s, err := Open(dir, o)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func save(t *testing.T, s *Store, x Snapshot) {
	require.NoError(t, s.Save(x))
	require.NoError(t, s.Wait())
}

func latest(t *testing.T, s *Store) *Checkpoint {
	c, err := s.Latest()
	require.NoError(t, err)
	require.NotNil(t, c)
	t.Cleanup(func() { c.Close() })
	return c
}

// folders lists what a store's folder shows.
func folders(t *testing.T, dir string) (names []string) {
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range list {
		if e.Name() != lockFile {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestACheckpointIsReadBackAndIsAHuggingFaceFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "runs", "a")
	var mu sync.Mutex
	var saved []string
	o := options()
	o.Saved = func(step int, took time.Duration, dir string) {
		mu.Lock()
		defer mu.Unlock()
		require.Equal(t, 60, step)
		require.Positive(t, took)
		saved = append(saved, dir)
	}
	s := open(t, dir, o)
	c, err := s.Latest()
	require.NoError(t, err)
	require.Nil(t, c)
	done := 0
	x := snapshot(60)
	x.Done = func() { done++ }
	save(t, s, x)
	require.Equal(t, 1, done)
	require.Equal(t, []string{"step-00000060"}, folders(t, dir))
	require.Equal(t, []string{filepath.Join(dir, "step-00000060")}, saved)
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Close(), fs.ErrClosed)
	require.ErrorIs(t, s.Save(snapshot(61)), fs.ErrClosed)
	_, err = s.Latest()
	require.ErrorIs(t, err, fs.ErrClosed)

	s = open(t, dir, o)
	c = latest(t, s)
	require.Equal(t, 60, c.Step())
	require.Equal(t, []string{"", "optimizer/first", "optimizer/second"}, c.Groups())
	consistent(t, c)
	_, err = c.Reader("optimizer/third")
	require.ErrorContains(t, err, `no group "optimizer/third", it has ["" "optimizer/first" "optimizer/second"]`)

	plain, err := ckpt.Open(c.Dir(), model(), ckpt.Options{})
	require.NoError(t, err)
	require.Equal(t, ckpt.Hub, plain.Layout())
	require.NoError(t, plain.Close())
	require.FileExists(t, filepath.Join(c.Dir(), "model.safetensors.index.json"))
	require.FileExists(t, filepath.Join(c.Dir(), "optimizer/first/model.safetensors.index.json"))
	require.NoFileExists(t, filepath.Join(c.Dir(), "optimizer/first/config.json"))
	b, err := os.ReadFile(filepath.Join(c.Dir(), "config.json"))
	require.NoError(t, err)
	require.Equal(t, o.Files["config.json"], b)

	require.NoError(t, c.Close())
	_, err = c.Reader("")
	require.ErrorIs(t, err, fs.ErrClosed)
}

func TestGroupsOfOtherWeights(t *testing.T) {
	adapters := []axis.Param{{Path: "layers/attn/query/lora_a", Axes: []axis.Logical{axis.Layers, "rank", axis.Embed}, Dims: []int{2, 4, 12}},
		{Path: "scale", Axes: []axis.Logical{}, Dims: []int{}}}
	dir := t.TempDir()
	s := open(t, dir, Options{}) // no catalogue of its own
	x := Snapshot{Step: 3, Score: math.NaN(), Groups: []Group{
		{Name: "adapters", Params: adapters, Plain: true, From: values{adapters, 1}},
		{Name: "half", Params: adapters, Plain: true, DType: dtypes.BFloat16, From: values{adapters, 2}},
		{Name: "moments/first", Params: model()[:2], From: values{model(), 3}},
	}}
	save(t, s, x)
	require.NoError(t, s.Close())
	c := latest(t, open(t, dir, Options{}))
	require.Equal(t, adapters[0], c.Params("adapters")[0])
	require.Equal(t, "null", string(c.State()))
	r, err := c.Reader("adapters")
	require.NoError(t, err)
	for _, p := range adapters {
		q := axis.Whole(p, dtypes.Float32)
		want, got := make([]byte, q.Bytes()), make([]byte, q.Bytes())
		require.NoError(t, x.Groups[0].From.Read(q, want))
		require.NoError(t, r.Read(q, got))
		require.Equal(t, want, got)
	}
	f, err := ckpt.OpenFile(filepath.Join(c.Dir(), "half/model.safetensors"))
	require.NoError(t, err)
	defer f.Close()
	info, err := f.Info("layers.attn.query.lora_a")
	require.NoError(t, err)
	require.Equal(t, []any{"BF16", []int{2, 4, 12}}, []any{info.Format, info.Shape})
	_, err = c.Reader("moments/first")
	require.NoError(t, err)
}

func TestAnotherShapeIsRefusedByName(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, options())
	save(t, s, snapshot(1))
	require.NoError(t, s.Close())
	o := options()
	o.Params = model()
	o.Params[0].Dims, o.Params[12].Dims = []int{13, 12}, []int{13, 12}
	c := latest(t, open(t, dir, o))
	_, err := c.Reader("")
	require.ErrorIs(t, err, ckpt.ErrShape)
	require.ErrorContains(t, err, `tensor "model.embed_tokens.weight" is [11 12], want [13 12]`)
}

func TestPruningKeepsTheNewestAndTheBest(t *testing.T) {
	none := math.NaN()
	tests := []struct {
		name   string
		last   int
		best   bool
		scores []float64 // of steps 1, 2, …
		want   []string
	}{
		{"all", 0, true, []float64{3, 2, 1}, []string{"step-00000001", "step-00000002", "step-00000003"}},
		{"the last", 1, false, []float64{1, 2, 3}, []string{"step-00000003"}},
		{"the last two", 2, false, []float64{1, 2, 3, 4}, []string{"step-00000003", "step-00000004"}},
		{"the best too", 1, true, []float64{5, 1, 3, 4}, []string{"step-00000002", "step-00000004"}},
		{"the best is the last", 1, true, []float64{5, 3, 1}, []string{"step-00000003"}},
		{"the earlier of two", 1, true, []float64{5, 1, 1, 4}, []string{"step-00000002", "step-00000004"}},
		{"no score known", 1, true, []float64{none, none}, []string{"step-00000002"}},
		{"one score known", 1, true, []float64{7, none, none}, []string{"step-00000001", "step-00000003"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			o := options()
			o.KeepLast, o.KeepBest = tt.last, tt.best
			for i, score := range tt.scores {
				s := open(t, dir, o) // each time: what is best is known from the disk
				x := snapshot(i + 1)
				x.Score = score
				save(t, s, x)
				consistent(t, latest(t, s))
				require.NoError(t, s.Close())
			}
			require.Equal(t, tt.want, folders(t, dir))
		})
	}
}

func TestBest(t *testing.T) {
	s := open(t, t.TempDir(), options())
	_, _, ok := s.Best()
	require.False(t, ok)
	for step, score := range []float64{4, 2, 3} {
		x := snapshot(step)
		x.Score = score
		require.NoError(t, s.Save(x))
	}
	step, score, ok := s.Best()
	require.Equal(t, []any{1, 2.0, true}, []any{step, score, ok})
}

func TestADamagedCheckpointIsPassedOver(t *testing.T) {
	tests := []struct {
		name   string
		damage func(dir string) error
		want   string // part of the warning
	}{
		{"a torn shard", func(dir string) error { return os.Truncate(filepath.Join(dir, "model-00001-of-00005.safetensors"), 64) }, "model-00001-of-00005.safetensors: 64 bytes, want "},
		{"a changed byte", func(dir string) error {
			return flip(filepath.Join(dir, "optimizer/second/model-00002-of-00005.safetensors"))
		}, "model-00002-of-00005.safetensors: CRC-32C "},
		{"a lost file", func(dir string) error { return os.Remove(filepath.Join(dir, "tokenizer.model")) }, "tokenizer.model: no such file"},
		{"no manifest", func(dir string) error { return os.Remove(filepath.Join(dir, ckpt.ManifestFile)) }, "manifest.json: no such file"},
		{"a changed manifest", func(dir string) error { return flip(filepath.Join(dir, ckpt.ManifestFile)) }, "manifest.json: damaged checkpoint: "},
		{"an empty folder", func(dir string) error { return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)) }, "manifest.json: no such file"},
		{"another one's folder", func(dir string) error {
			return errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(filepath.Join(dir, "../step-00000001"))))
		}, "it is of step 1, its folder's name says 2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			o := options()
			o.KeepLast = 2
			s := open(t, dir, o)
			save(t, s, snapshot(1))
			save(t, s, snapshot(2))
			require.Equal(t, 2, latest(t, s).Step())
			require.NoError(t, s.Close())
			damaged := filepath.Join(dir, "step-00000002")
			require.NoError(t, tt.damage(damaged))

			var log bytes.Buffer
			o.Log = slog.New(slog.NewTextHandler(&log, nil))
			s = open(t, dir, o)
			c := latest(t, s)
			require.Equal(t, 1, c.Step())
			consistent(t, c)
			require.Contains(t, log.String(), tt.want)
			require.Contains(t, log.String(), damaged)

			// It is not counted as one that is kept, and is replaced when the run comes by again.
			save(t, s, snapshot(3))
			require.Equal(t, []string{"step-00000001", "step-00000002", "step-00000003"}, folders(t, dir))
			save(t, s, snapshot(2))
			require.Equal(t, []string{"step-00000002", "step-00000003"}, folders(t, dir))
			require.NoError(t, os.RemoveAll(filepath.Join(dir, "step-00000003")))
			require.NoError(t, s.Close())
			consistent(t, latest(t, open(t, dir, o)))
		})
	}
}

// flip changes the middle byte of a file.
func flip(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[len(b)/2] ^= 1
	return os.WriteFile(path, b, 0o600)
}

func TestOnlyDamagedCheckpointsAreAnError(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, options())
	save(t, s, snapshot(1))
	require.NoError(t, flip(filepath.Join(dir, "step-00000001/config.json")))
	_, err := s.Latest()
	require.ErrorIs(t, err, ckpt.ErrDamaged)
	require.ErrorContains(t, err, "its only checkpoint cannot be used")
	save(t, s, snapshot(2))
	require.NoError(t, os.Remove(filepath.Join(dir, "step-00000002/config.json")))
	_, err = s.Latest()
	require.ErrorIs(t, err, ckpt.ErrDamaged)
	require.ErrorContains(t, err, "none of its 2 checkpoints can be used, the newest because: ")
	require.ErrorContains(t, err, "step-00000002/config.json: no such file")
	require.NotContains(t, err.Error(), "\n")
}

func TestWhatAKilledProcessLeft(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, options())
	save(t, s, snapshot(1))
	save(t, s, snapshot(2))
	require.NoError(t, s.Close())
	at := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.CopyFS(at("step-00000003.tmp"), os.DirFS(at("step-00000002"))))
	require.NoError(t, os.CopyFS(at("step-00000002.old"), os.DirFS(at("step-00000001")))) // its successor is in place
	require.NoError(t, os.Rename(at("step-00000001"), at("step-00000001.old")))           // its successor is not
	require.NoError(t, os.WriteFile(at(".probe-1"), nil, 0o600))
	for _, name := range []string{"notes.tmp", "step-3.tmp", "step-0000000x.tmp"} { // not ours
		require.NoError(t, os.WriteFile(at(name), nil, 0o600))
	}
	s = open(t, dir, options())
	require.Equal(t, []string{"notes.tmp", "step-00000001", "step-00000002", "step-0000000x.tmp", "step-3.tmp"}, folders(t, dir))
	consistent(t, latest(t, s))
	require.NoError(t, os.RemoveAll(at("step-00000002")))
	require.NoError(t, s.Close())
	c := latest(t, open(t, dir, options()))
	require.Equal(t, 1, c.Step())
	consistent(t, c)
}

func TestSavingTheSameStepAgainReplacesIt(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, options())
	x := snapshot(5)
	x.State = json.RawMessage(`"first"`)
	save(t, s, x)
	save(t, s, snapshot(5))
	require.Equal(t, []string{"step-00000005"}, folders(t, dir))
	consistent(t, latest(t, s))
}

// gate is a reader that says when it is asked first, and waits.
type gate struct {
	Reader
	asked func()
	pass  chan struct{}
}

func (g gate) Read(q axis.Piece, dst []byte) error {
	g.asked()
	<-g.pass
	return g.Reader.Read(q, dst)
}

func TestSaveReturnsBeforeItIsDone(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, options())
	x := snapshot(1)
	pass := make(chan struct{})
	asked, done := make(chan struct{}), make(chan struct{})
	x.Groups[0].From = gate{x.Groups[0].From, sync.OnceFunc(func() { close(asked) }), pass}
	x.Done = func() { close(done) }
	require.NoError(t, s.Save(x))
	<-asked
	select {
	case <-done:
		t.Fatal("done before it was read")
	default:
	}
	names := folders(t, dir)
	close(pass)
	require.Equal(t, []string{"step-00000001.tmp"}, names, "not there until it is whole")
	<-done
	require.NoError(t, s.Save(snapshot(2)))
	require.Equal(t, 2, latest(t, s).Step(), "waits")
	require.NoError(t, s.Close())
	require.Equal(t, []string{"step-00000001", "step-00000002"}, folders(t, dir))
}
