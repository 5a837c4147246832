package lora

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/internal/oracle"
	"mix/internal/ref"
	"mix/sharding/axis"
	"mix/sharding/ckpt"
)

// adapted is Mixtral whose every linear layer is W·x + scale·B·(A·x), in plain loops over float64: what
// training computes, against which merging is held.
type adapted struct {
	c        graph.Config
	base     values
	adapters values
	o        Options
}

// linear applies matrix m of the weight at path, of out rows, counted over layers and experts.
func (a adapted) linear(path string, m, out int, x ref.Vector) ref.Vector {
	matrix := func(v []float32, rows, columns int) ref.Matrix {
		w := make(ref.Matrix, rows)
		for i := range w {
			w[i] = ref.Vec(v[(m*rows+i)*columns:][:columns])
		}
		return w
	}
	y := ref.Linear(matrix(a.base[path], out, len(x)), x)
	if !a.o.Adapts(path) {
		return y
	}
	pathA, pathB := graph.AdapterPaths(path)
	down := ref.Linear(matrix(a.adapters[pathA], a.o.Rank, len(x)), x)
	for i, v := range ref.Linear(matrix(a.adapters[pathB], out, a.o.Rank), down) {
		y[i] += a.o.Scale() * v
	}
	return y
}

// logits runs one sequence [S] from position 0 to [S][V].
func (a adapted) logits(tokens []int32) (logits ref.Matrix) {
	c := a.c
	row := func(path string, i, n int) ref.Vector { return ref.Vec(a.base[path][i*n:][:n]) }
	at := ref.Places{Window: c.Window}
	var x ref.Matrix // [S][D]
	for s, id := range tokens {
		x = append(x, row("embed", int(id), c.Width))
		at.Query = append(at.Query, s)
	}
	at.Key = at.Query
	heads := func(v ref.Vector) (list ref.Matrix) { // [H·A] to [H][A]
		for h := range len(v) / c.HeadDim {
			list = append(list, v[h*c.HeadDim:][:c.HeadDim])
		}
		return list
	}
	for l := range c.Layers {
		q, k, v := make([]ref.Matrix, c.Heads), make([]ref.Matrix, c.KVHeads), make([]ref.Matrix, c.KVHeads)
		for s := range x {
			normal := ref.RMSNorm(x[s], row("layers/attn_norm", l, c.Width), c.NormEps)
			for h, head := range heads(a.linear("layers/attn/query", l, c.Heads*c.HeadDim, normal)) {
				q[h] = append(q[h], ref.Rotary(head, s, c.RopeTheta))
			}
			for g, head := range heads(a.linear("layers/attn/key", l, c.KVHeads*c.HeadDim, normal)) {
				k[g] = append(k[g], ref.Rotary(head, s, c.RopeTheta))
			}
			for g, head := range heads(a.linear("layers/attn/value", l, c.KVHeads*c.HeadDim, normal)) {
				v[g] = append(v[g], head)
			}
		}
		attended := ref.Attention(q, k, v, at)
		for s := range x {
			var joined ref.Vector // [H·A]
			for h := range attended {
				joined = append(joined, attended[h][s]...)
			}
			add(x[s], 1, a.linear("layers/attn/out", l, c.Width, joined))
			normal := ref.RMSNorm(x[s], row("layers/moe_norm", l, c.Width), c.NormEps)
			scores := a.linear("layers/moe/router", l, c.Experts, normal)
			identity := make(ref.Matrix, c.Experts) // so that Route sees the adapted scores as they are
			for e := range identity {
				identity[e] = make(ref.Vector, c.Experts)
				identity[e][e] = 1
			}
			_, weights, chosen := ref.Route(scores, identity, c.TopK)
			for i, e := range chosen {
				m := l*c.Experts + e
				gate, up := a.linear("layers/moe/gate", m, c.Hidden, normal), a.linear("layers/moe/up", m, c.Hidden, normal)
				for f := range up {
					up[f] *= ref.SiLU(gate[f])
				}
				add(x[s], weights[i], a.linear("layers/moe/down", m, c.Width, up))
			}
		}
	}
	head := make(ref.Matrix, c.Vocab)
	for i := range head {
		head[i] = row("head", i, c.Width)
	}
	for s := range x {
		logits = append(logits, ref.Linear(head, ref.RMSNorm(x[s], ref.Vec(a.base["final_norm"]), c.NormEps)))
	}
	return logits
}

func add(x ref.Vector, weight float64, y ref.Vector) {
	for i := range x {
		x[i] += weight * y[i]
	}
}

// recorded is the odd recording's checkpoint, in memory.
func recorded(t *testing.T) (graph.Config, reader) {
	dir := oracle.Open(t, "c_odd").Checkpoints[0]
	c, err := graph.LoadConfig(dir)
	require.NoError(t, err)
	ck, err := ckpt.Open(dir, graph.Params(c), ckpt.Options{})
	require.NoError(t, err)
	defer ck.Close()
	r := reader{graph.Params(c), values{}}
	for _, p := range r.params {
		r.values[p.Path] = read(t, ck, axis.Whole(p, dtypes.Float32))
	}
	return c, r
}

// plain runs a model read from anywhere in plain loops.
func plain(t *testing.T, c graph.Config, from Reader, tokens []int32) ref.Matrix {
	w := values{}
	for _, p := range graph.Params(c) {
		w[p.Path] = read(t, from, axis.Whole(p, dtypes.Float32))
	}
	m := ref.New(ref.Sizes{Vocab: c.Vocab, Width: c.Width, Hidden: c.Hidden, Layers: c.Layers, Heads: c.Heads, KVHeads: c.KVHeads,
		HeadDim: c.HeadDim, Experts: c.Experts}, func(path string) []float32 { return w[path] })
	m.TopK, m.Window, m.Theta, m.Eps = c.TopK, c.Window, c.RopeTheta, c.NormEps
	logits, _ := m.Forward(tokens, 0, nil)
	return logits
}

func farthest(a, b ref.Matrix) (most float64) {
	for s := range a {
		for v := range a[s] {
			most = max(most, math.Abs(a[s][v]-b[s][v]))
		}
	}
	return most
}

func TestMergedModelIsTheAdaptedOne(t *testing.T) {
	c, base := recorded(t)
	tokens := []int32{1, 17, 198, 4, 4, 90, 33, 120, 7, 64, 2, 55}
	unadapted := plain(t, c, base, tokens)
	few := Options{Rank: 3, Alpha: 7, Targets: []string{"k_proj", "w3"}, RsLoRA: true}
	for name, o := range map[string]Options{"every target": every(5), "two targets": few, "the default": Default()} {
		t.Run(name, func(t *testing.T) {
			adapters := adaptersOf(t, c, o)
			merged, err := Merge(c, o, base, adapters)
			require.NoError(t, err)
			want := adapted{c, base.values, adapters.values, o}.logits(tokens)
			// Merged weights are rounded to float32: measured, up to 1.8e-6 where the adapters move logits by 11.
			require.LessOrEqual(t, farthest(plain(t, c, merged, tokens), want), 1e-5)
			require.Greater(t, farthest(unadapted, want), 1.0, "the adapters do something")
		})
	}
}

func TestFreshAdaptersChangeNothing(t *testing.T) {
	o := every(4)
	ps, err := Params(odd, o)
	require.NoError(t, err)
	fresh := reader{ps, values{}}
	for _, p := range ps {
		fresh.values[p.Path] = make([]float32, p.Elements())
		require.NoError(t, Init(odd, o, axis.Whole(p, dtypes.Float32), fresh.values[p.Path]))
	}
	base := model(t, odd, 3)
	merged, err := Merge(odd, o, base, fresh)
	require.NoError(t, err)
	for _, p := range base.params {
		require.Equal(t, base.values[p.Path], read(t, merged, axis.Whole(p, dtypes.Float32)), p.Path)
	}
}

func TestMergedBoxesAreSlicesOfTheWhole(t *testing.T) {
	base := model(t, odd, 3)
	for _, rank := range []int{1, 6} {
		o := every(rank)
		merged, err := Merge(odd, o, base, adaptersOf(t, odd, o))
		require.NoError(t, err)
		for _, p := range base.params {
			whole := read(t, merged, axis.Whole(p, dtypes.Float32))
			for _, q := range boxes(p, dtypes.Float32) {
				want := cut(whole, p.Dims, q.Offset, q.Size)
				require.Equal(t, want, read(t, merged, q), "%s %v %v", q.Name, q.Offset, q.Size)
				for _, narrow := range []dtypes.DType{dtypes.BFloat16, dtypes.Float16} {
					q.DType = narrow
					got, rounded := make([]byte, q.Bytes()), make([]byte, q.Bytes())
					require.NoError(t, merged.Read(q, got))
					ckpt.PutFloat32(rounded, narrow, want)
					require.Equal(t, rounded, got, "%s as %s", q.Name, narrow)
				}
			}
		}
	}
}

// TestMergeWorksInParts holds reads to the bound on what is in memory beside the piece: a weight larger
// than a chunk, of whose base no read may ask for more than a chunk.
func TestMergeWorksInParts(t *testing.T) {
	c := odd
	c.Width, c.Hidden, c.Layers, c.Experts, c.TopK = 1<<10, 1<<11, 1, 1, 1
	o := Options{Rank: 2, Alpha: 2, Targets: []string{"w1", "w2"}}
	base := &counting{reader: model(t, c, 1)}
	adapters := adaptersOf(t, c, o)
	merged, err := Merge(c, o, base, adapters)
	require.NoError(t, err)
	for _, path := range []string{"layers/moe/gate", "layers/moe/down"} {
		base.reads, base.most = 0, 0
		p := graph.Params(c)[8]
		if path != p.Path {
			p = graph.Params(c)[10]
		}
		require.Equal(t, path, p.Path)
		got := read(t, merged, axis.Whole(p, dtypes.Float32))
		require.Equal(t, 2, base.reads)
		require.Equal(t, chunkElements, base.most)
		a, b := graph.AdapterPaths(path)
		in := p.Dims[3]
		for _, i := range []int{0, len(got) / 2, len(got) - 1} {
			delta := float64(adapters.values[b][i/in*2])*float64(adapters.values[a][i%in]) + float64(adapters.values[b][i/in*2+1])*float64(adapters.values[a][in+i%in])
			require.InDelta(t, float64(base.values[path][i])+delta, got[i], 1e-7)
		}
	}
}

// counting notes the largest read.
type counting struct {
	reader
	reads, most int
}

func (c *counting) Read(q axis.Piece, dst []byte) error {
	c.reads, c.most = c.reads+1, max(c.most, q.Elements())
	return c.reader.Read(q, dst)
}

func TestMergeRefuses(t *testing.T) {
	o := every(2)
	base, adapters := model(t, odd, 1), adaptersOf(t, odd, o)
	merged, err := Merge(odd, o, base, adapters)
	require.NoError(t, err)
	query := base.params[2]
	q := axis.Whole(query, dtypes.Int8)
	require.ErrorContains(t, merged.Read(q, make([]byte, q.Bytes())), "dtype Int8, want Float32, BFloat16 or Float16")
	q = axis.Whole(query, dtypes.BFloat16)
	require.ErrorContains(t, merged.Read(q, nil), fmt.Sprintf("buffer of 0 bytes, want %d", q.Bytes()))
	q.Offset[0] = 1
	require.ErrorContains(t, merged.Read(q, make([]byte, q.Bytes())), "outside of")
	q = axis.Whole(query, dtypes.BFloat16)
	q.Path = "no/such"
	require.Error(t, merged.Read(q, make([]byte, q.Bytes())))
	for path, at := range map[string]int{"lora/layers/attn/query/a": 40, "lora/layers/attn/query/b": 3} {
		old := adapters.values[path][at]
		adapters.values[path][at] = float32(math.Inf(-1))
		q = axis.Whole(query, dtypes.Float32)
		require.ErrorContains(t, merged.Read(q, make([]byte, q.Bytes())), path+" has -Inf at")
		adapters.values[path][at] = old
	}
	_, err = Merge(odd, Options{}, base, adapters)
	require.ErrorContains(t, err, "rank is 0")
}

func TestReadersGiveLittleEndian(t *testing.T) {
	base := model(t, odd, 1)
	o := every(1)
	merged, err := Merge(odd, o, base, adaptersOf(t, odd, o))
	require.NoError(t, err)
	q := axis.Slice(base.params[2], dtypes.Float32, 0)
	b := make([]byte, q.Bytes())
	require.NoError(t, merged.Read(q, b))
	require.Equal(t, read(t, merged, q)[7], math.Float32frombits(binary.LittleEndian.Uint32(b[28:])))
}
