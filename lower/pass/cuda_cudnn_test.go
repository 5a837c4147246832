package pass

import (
	"encoding/json"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/ir"
	"mix/lower/triton"
)

// attendBy gives the table of tiles a library for attention, for this test.
func attendBy(t *testing.T, library string) {
	table := tiles()
	for i, c := range table {
		if c.Kernel == "flash" {
			c.Library = library
			table = table.With(c)
			require.Equal(t, c, table[i])
		}
	}
	before := tiles
	tiles = func() triton.Table { return table }
	t.Cleanup(func() { tiles = before })
}

// TestCuDNNReadsItsConfig checks what XLA reads of a call and that the text of the attribute is that JSON.
func TestCuDNNReadsItsConfig(t *testing.T) {
	f := triton.Flash{Sequences: 2, Heads: 8, KeyHeads: 4, Width: 64, Queries: 96, Keys: 96, Window: 33, InOrder: true, LSE: true, Elem: triton.BF16}
	r := ir.NewRegion(ir.Tensor("bf16", 2, 8, 96, 64), ir.Tensor("bf16", 2, 4, 96, 64), ir.Tensor("bf16", 2, 4, 96, 64))
	for window, want := range map[int]float64{0: 0, 33: 33, 96: 0} { // of all keys, none
		f.Window = window
		out, err := EmitCuDNN(ir.At(r), f, r.Args[0], r.Args[1], r.Args[2])
		require.NoError(t, err)
		require.Equal(t, []ir.Type{r.Args[0].Type, "tensor<2x8x96xf32>"}, ir.Types(out))
		text, ok := out[0].Def.Attrs["backend_config"].Text()
		require.True(t, ok)
		var config struct {
			FMHA struct {
				Scale   float64 `json:"fmha_scale"`
				Mask    string  `json:"mask_type"`
				Dropout float64 `json:"dropout_rate"`
				Window  float64 `json:"sliding_window_length"`
				Scores  struct {
					Elem string   `json:"element_type"`
					Dims []string `json:"dimensions"`
				} `json:"intermediate_tensor_shape"`
			} `json:"cudnn_fmha_backend_config"`
		}
		require.NoError(t, json.Unmarshal([]byte(text), &config))
		got := config.FMHA
		require.Equal(t, []any{0.125, "CAUSAL", 0.0, want, "BF16"}, []any{got.Scale, got.Mask, got.Dropout, got.Window, got.Scores.Elem})
		require.Equal(t, []string{"2", "8", "96", "96"}, got.Scores.Dims)
	}
}

func TestCuDNNRefuses(t *testing.T) {
	good := triton.Flash{Sequences: 2, Heads: 8, KeyHeads: 4, Width: 64, Queries: 96, Keys: 96, InOrder: true, Elem: triton.BF16}
	require.True(t, CuDNNServes(good))
	for name, spoil := range map[string]func(f *triton.Flash){
		"f32": func(f *triton.Flash) { f.Elem = triton.F32 }, "wide heads": func(f *triton.Flash) { f.Width = 136 },
		"odd heads": func(f *triton.Flash) { f.Width = 60 }, "more keys": func(f *triton.Flash) { f.Keys = 97 },
		"any order": func(f *triton.Flash) { f.InOrder = false }, "segments": func(f *triton.Flash) { f.Segments = true },
		"key heads": func(f *triton.Flash) { f.KeyHeads = 3 }, "no key heads": func(f *triton.Flash) { f.KeyHeads = 0 },
		"a window below 0": func(f *triton.Flash) { f.Window = -1 },
	} {
		f := good
		spoil(&f)
		require.False(t, CuDNNServes(f), name)
		r := ir.NewRegion(ir.Tensor("bf16", 2, 8, 96, 64))
		_, err := EmitCuDNN(ir.At(r), f, r.Args[0], r.Args[0], r.Args[0])
		require.ErrorContains(t, err, "cudnn: attention", name)
	}
	r := ir.NewRegion(ir.Tensor("bf16", 2, 8, 96, 64), ir.Tensor("bf16", 2, 4, 96, 64), ir.Tensor("f32", 2, 8, 95))
	_, err := EmitCuDNN(ir.At(r), good, r.Args[0], r.Args[0], r.Args[1])
	require.ErrorContains(t, err, "cudnn: operands")
	_, err = EmitCuDNNGradient(ir.At(r), good, r.Args[0], r.Args[1], r.Args[1], r.Args[2], r.Args[0], r.Args[0])
	require.ErrorContains(t, err, "cudnn: sums tensor<2x8x95xf32>")
}

// attendedModule is attention with its gradient, queries and keys in order.
func attendedModule(elem string, b, h, g, s, a, window int) *ir.Module {
	q, k := ir.Tensor(elem, b, h, s, a), ir.Tensor(elem, b, g, s, a)
	main := ir.NewRegion(q, k, k, q)
	at := ir.At(main).Iota(1, "i32", b, s)
	in := append(append([]*ir.Value{}, main.Args[:3]...), at, at)
	y := composed(main, attentionName, in, q)
	gradient := composed(main, attentionGradientName, append(in, y[0], main.Args[3]), q, k, k)
	for _, v := range []*ir.Value{y[0], gradient[0]} {
		v.Def.Attrs["composite_attributes"] = ir.Dictionary(ir.Attrs{"window": ir.String(strconv.Itoa(window))})
	}
	out := append(y, gradient...)
	main.Emit("func.return", out, nil)
	return &ir.Module{Name: "attention", Funcs: []*ir.Func{{Name: "main", Body: main, Results: ir.Types(out)}}}
}

// TestCuDNNCompiles compiles cuDNN's attention with its gradient, of 8x7B and with a window, and in regions. It shows that XLA
// reads the calls; whether cuDNN has a plan for them only a GPU tells.
func TestCuDNNCompiles(t *testing.T) {
	for _, test := range []struct {
		name, mesh, elem string
		b, a, window     int
	}{
		{"8x7B", "", "bf16", 1, 128, 0}, {"a window", "", "f16", 2, 64, 1000}, {"a mesh", "data=2 tensor=2", "bf16", 2, 128, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			attendBy(t, triton.CuDNN)
			x := ahead(t, attendedModule(test.elem, test.b, 32, 8, 4096, test.a, test.window), test.mesh)
			calls := map[string]int64{}
			for _, c := range x.Module.CustomCalls() {
				calls[c.Target] += c.Count
			}
			t.Logf("%v, memory %+v", calls, x.Memory)
			require.Equal(t, map[string]int64{cudnnForward: 1, cudnnBackward: 1}, calls)
			require.Empty(t, x.Kernels, "of ours")
			require.Zero(t, x.Module.Cost().FLOPs, "XLA's own products")
		})
	}
}
