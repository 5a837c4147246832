package lora

import (
	"math"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/sharding/axis"
	"mix/sharding/ckpt"
)

// odd is a model whose sizes are all different.
var odd = graph.Config{Vocab: 199, Width: 36, Hidden: 44, Layers: 2, Heads: 6, KVHeads: 2, HeadDim: 10, Experts: 5, TopK: 3, Context: 256,
	RopeTheta: 1e6, NormEps: 1e-6, InitStd: 0.02, BOS: 1, DType: "float32"}

func every(rank int) Options {
	return Options{Rank: rank, Alpha: 12, Targets: []string{AllLinear}, Seed: 5}
}

// values is a model or its adapters in memory, float32, by path.
type values map[string][]float32

// reader reads values as any floating-point type.
type reader struct {
	params []axis.Param
	values values
}

func (r reader) Read(q axis.Piece, dst []byte) error {
	for _, p := range r.params {
		if p.Path == q.Path {
			if err := check(q, p, dst); err != nil {
				return err
			}
			ckpt.PutFloat32(dst, q.DType, cut(r.values[p.Path], p.Dims, q.Offset, q.Size))
			return nil
		}
	}
	return axis.Piece{Path: q.Path}.Check(axis.Param{Path: "a weight of this model"})
}

// model makes weights of a model, adaptersOf adapters with B far from zero.
func model(t *testing.T, c graph.Config, seed uint64) reader {
	r := reader{graph.Params(c), values{}}
	for _, p := range r.params {
		r.values[p.Path] = make([]float32, p.Elements())
		require.NoError(t, graph.Init(c, axis.Whole(p, dtypes.Float32), seed, r.values[p.Path]))
	}
	return r
}

func adaptersOf(t *testing.T, c graph.Config, o Options) reader {
	ps, err := Params(c, o)
	require.NoError(t, err)
	r := reader{ps, values{}}
	for i, p := range ps {
		v := make([]float32, p.Elements())
		require.NoError(t, Init(c, o, axis.Whole(p, dtypes.Float32), v))
		if strings.HasSuffix(p.Path, "/b") {
			for j := range v {
				v[j] = float32(math.Sin(float64(31*i+j))) / 8
			}
		}
		r.values[p.Path] = v
	}
	return r
}

// read reads a float32 piece.
func read(t *testing.T, from Reader, q axis.Piece) []float32 {
	t.Helper()
	v, err := floats(from, q)
	require.NoError(t, err)
	return v
}

// boxes lists pieces of p that cut every axis: the whole, a first and a last part of each axis, an inner box,
// and each slice of a layer.
func boxes(p axis.Param, dtype dtypes.DType) []axis.Piece {
	list := []axis.Piece{axis.Whole(p, dtype)}
	inner := axis.Whole(p, dtype)
	for i, d := range p.Dims {
		first, last := axis.Whole(p, dtype), axis.Whole(p, dtype)
		first.Size[i] = (d + 1) / 2
		last.Offset[i], last.Size[i] = d/2, d-d/2
		if d > 2 {
			inner.Offset[i], inner.Size[i] = 1, d-2
		}
		first.Shape, last.Shape = first.Size, last.Size
		list = append(list, first, last)
	}
	inner.Shape = inner.Size
	for l := range p.Dims[0] {
		list = append(list, axis.Slice(p, dtype, l))
	}
	return append(list, inner)
}

func TestValidateNamesWhatIsWrong(t *testing.T) {
	tests := []struct {
		name   string
		change func(o *Options)
		want   string // part of the error, "" for none
	}{
		{"the default is good", func(o *Options) {}, ""},
		{"the router too", func(o *Options) { o.Targets = append(o.Targets, "gate") }, ""},
		{"all of them", func(o *Options) { o.Targets = []string{AllLinear} }, ""},
		{"no rank", func(o *Options) { o.Rank = 0 }, "rank is 0, want 1 to 4096"},
		{"a huge rank", func(o *Options) { o.Rank = 4097 }, "rank is 4097"},
		{"no alpha", func(o *Options) { o.Alpha = 0 }, "alpha is 0, want a positive number"},
		{"alpha is not a number", func(o *Options) { o.Alpha = math.NaN() }, "alpha is NaN"},
		{"alpha is infinite", func(o *Options) { o.Alpha = math.Inf(1) }, "alpha is +Inf"},
		{"no targets", func(o *Options) { o.Targets = nil }, "no targets, want some of q_proj k_proj v_proj o_proj gate w1 w3 w2, or all-linear"},
		{"a name of another model", func(o *Options) { o.Targets = []string{"q_proj", "up_proj"} }, `unknown target "up_proj"`},
		{"a name twice", func(o *Options) { o.Targets = []string{"w1", "w1"} }, `target "w1" is there twice`},
		{"all and one", func(o *Options) { o.Targets = []string{"w1", AllLinear} }, "want all-linear alone"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := Default()
			tt.change(&o)
			if tt.want == "" {
				require.NoError(t, o.Validate())
			} else {
				require.ErrorContains(t, o.Validate(), tt.want)
			}
		})
	}
	require.Equal(t, 2.0, Default().Scale())
	require.Equal(t, 8.0, Options{Rank: 16, Alpha: 32, RsLoRA: true}.Scale())
}

func TestPortableKnowsWhatPEFTFuses(t *testing.T) {
	tests := []struct {
		targets string
		rs      bool
		want    string // part of the error, "" for none
	}{
		{"q_proj k_proj v_proj o_proj w1 w2 w3", false, ""},
		{"all-linear", false, ""},
		{"q_proj gate w2", true, ""},
		{"w1 w2", false, "refuses w1 without w3"},
		{"w3", false, "w3 without w1"},
		{"w1 w3", false, "ignores w1 and w3 without w2"},
		{"all-linear", true, "by √2 too much"},
	}
	for _, tt := range tests {
		o := Options{Rank: 1, Alpha: 1, Targets: strings.Fields(tt.targets), RsLoRA: tt.rs}
		require.NoError(t, o.Validate())
		if tt.want == "" {
			require.NoError(t, o.Portable(), tt.targets)
		} else {
			require.ErrorContains(t, o.Portable(), tt.want)
		}
	}
}

func TestParamsAreStackedAsTheBase(t *testing.T) {
	ps, err := Params(odd, every(3))
	require.NoError(t, err)
	const l, r, d, h, g, a, e, f = axis.Layers, axis.Rank, axis.Embed, axis.Heads, axis.KVHeads, axis.HeadDim, axis.Experts, axis.FFN
	require.Equal(t, []axis.Param{
		{Path: "lora/layers/attn/query/a", Axes: []axis.Logical{l, r, d}, Dims: []int{2, 3, 36}},
		{Path: "lora/layers/attn/query/b", Axes: []axis.Logical{l, h, a, r}, Dims: []int{2, 6, 10, 3}},
		{Path: "lora/layers/attn/key/a", Axes: []axis.Logical{l, r, d}, Dims: []int{2, 3, 36}},
		{Path: "lora/layers/attn/key/b", Axes: []axis.Logical{l, g, a, r}, Dims: []int{2, 2, 10, 3}},
		{Path: "lora/layers/attn/value/a", Axes: []axis.Logical{l, r, d}, Dims: []int{2, 3, 36}},
		{Path: "lora/layers/attn/value/b", Axes: []axis.Logical{l, g, a, r}, Dims: []int{2, 2, 10, 3}},
		{Path: "lora/layers/attn/out/a", Axes: []axis.Logical{l, r, h, a}, Dims: []int{2, 3, 6, 10}},
		{Path: "lora/layers/attn/out/b", Axes: []axis.Logical{l, d, r}, Dims: []int{2, 36, 3}},
		{Path: "lora/layers/moe/router/a", Axes: []axis.Logical{l, r, d}, Dims: []int{2, 3, 36}},
		{Path: "lora/layers/moe/router/b", Axes: []axis.Logical{l, e, r}, Dims: []int{2, 5, 3}},
		{Path: "lora/layers/moe/gate/a", Axes: []axis.Logical{l, e, r, d}, Dims: []int{2, 5, 3, 36}},
		{Path: "lora/layers/moe/gate/b", Axes: []axis.Logical{l, e, f, r}, Dims: []int{2, 5, 44, 3}},
		{Path: "lora/layers/moe/up/a", Axes: []axis.Logical{l, e, r, d}, Dims: []int{2, 5, 3, 36}},
		{Path: "lora/layers/moe/up/b", Axes: []axis.Logical{l, e, f, r}, Dims: []int{2, 5, 44, 3}},
		{Path: "lora/layers/moe/down/a", Axes: []axis.Logical{l, e, r, f}, Dims: []int{2, 5, 3, 44}},
		{Path: "lora/layers/moe/down/b", Axes: []axis.Logical{l, e, d, r}, Dims: []int{2, 5, 36, 3}},
	}, ps)

	few := Options{Rank: 3, Alpha: 1, Targets: []string{"w2", "q_proj"}}
	fewer, err := Params(odd, few)
	require.NoError(t, err)
	require.Equal(t, append(ps[:2:2], ps[14:]...), fewer, "in the order of use, whatever order they are asked for in")
	require.True(t, few.Adapts("layers/moe/down"))
	require.False(t, few.Adapts("layers/moe/up"))

	_, err = Params(graph.Config{}, few)
	require.ErrorIs(t, err, graph.ErrConfig)
	_, err = Params(odd, Options{})
	require.ErrorContains(t, err, "rank is 0")
}

func TestInitDependsOnSeedAndPositionAlone(t *testing.T) {
	o := every(8)
	ps, err := Params(odd, o)
	require.NoError(t, err)
	for _, p := range ps {
		whole := make([]float32, p.Elements())
		require.NoError(t, Init(odd, o, axis.Whole(p, dtypes.Float32), whole))
		for _, q := range boxes(p, dtypes.Float32) {
			part := make([]float32, q.Elements())
			require.NoError(t, Init(odd, o, q, part))
			require.Equal(t, cut(whole, p.Dims, q.Offset, q.Size), part, q.Name)
		}
		if strings.HasSuffix(p.Path, "/b") {
			require.Equal(t, make([]float32, len(whole)), whole, p.Path)
			continue
		}
		in := 36 // of q, k, v, router, gate and up
		switch p.Path {
		case "lora/layers/attn/out/a":
			in = 60
		case "lora/layers/moe/down/a":
			in = 44
		}
		var sum, squares, most float64
		for _, v := range whole {
			sum, squares, most = sum+float64(v), squares+float64(v)*float64(v), max(most, math.Abs(float64(v)))
		}
		n, bound := float64(len(whole)), 1/math.Sqrt(float64(in))
		require.LessOrEqual(t, most, bound, p.Path)
		require.Greater(t, most, 0.98*bound, p.Path)
		// Five standard errors of the mean and of the mean square of a uniform variate.
		require.Less(t, math.Abs(sum/n), 5*bound/math.Sqrt(3*n), p.Path)
		require.InDelta(t, bound*bound/3, squares/n, 5*bound*bound*math.Sqrt(4.0/45/n), p.Path)
	}
	other := o
	other.Seed++
	a, b := make([]float32, ps[0].Elements()), make([]float32, ps[0].Elements())
	require.NoError(t, Init(odd, o, axis.Whole(ps[0], dtypes.Float32), a))
	require.NoError(t, Init(odd, other, axis.Whole(ps[0], dtypes.Float32), b))
	require.NotEqual(t, a, b)
	require.NoError(t, Init(odd, o, axis.Whole(ps[2], dtypes.Float32), b))
	require.NotEqual(t, a, b, "weights of one shape differ")
}

func TestInitRefuses(t *testing.T) {
	o := every(2)
	ps, err := Params(odd, o)
	require.NoError(t, err)
	q := axis.Whole(ps[0], dtypes.Float32)
	require.ErrorContains(t, Init(odd, o, q, make([]float32, 3)), "takes 144 values, got room for 3")
	q.Offset[0] = 1
	require.ErrorContains(t, Init(odd, o, q, make([]float32, 144)), "outside of")
	q.Path = "embed"
	require.ErrorContains(t, Init(odd, o, q, make([]float32, 144)), `no adapter "embed"`)
}
