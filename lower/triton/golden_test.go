package triton_test

import (
	"encoding/json"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/internal/golden"
	"mix/lower/triton"
)

// byName makes the call of a kernel from its sizes and tile in JSON.
func byName(name string, sizes, tile []byte) (triton.Call, error) {
	var t triton.Tile
	if len(tile) > 0 {
		if err := json.Unmarshal(tile, &t); err != nil {
			return triton.Call{}, err
		}
	}
	tiled := map[string]func() (triton.Call, error){
		"up":              func() (triton.Call, error) { return of[triton.Up](sizes).Call(t) },
		"grouped":         func() (triton.Call, error) { return of[triton.Grouped](sizes).Call(t) },
		"outer":           func() (triton.Call, error) { return of[triton.Outer](sizes).Call(t) },
		"decode_up":       func() (triton.Call, error) { return of[triton.Decode](sizes).Up(t) },
		"decode_down":     func() (triton.Call, error) { return of[triton.Decode](sizes).Down(t) },
		"linear":          func() (triton.Call, error) { return of[triton.Linear](sizes).Call(t) },
		"paged":           func() (triton.Call, error) { return of[triton.Paged](sizes).Call(t) },
		"flash":           func() (triton.Call, error) { return of[triton.Flash](sizes).Call(t) },
		"flash_dq":        func() (triton.Call, error) { return of[triton.FlashGradient](sizes).OfQueries(t) },
		"flash_dkv":       func() (triton.Call, error) { return of[triton.FlashGradient](sizes).OfKeys(t) },
		"fp8":             func() (triton.Call, error) { return of[triton.FP8](sizes).Call(t) },
		"norm":            func() (triton.Call, error) { return of[triton.Norm](sizes).Call() },
		"heads":           func() (triton.Call, error) { return of[triton.Heads](sizes).Call() },
		"combine":         func() (triton.Call, error) { return of[triton.Combine](sizes).Call() },
		"swiglu_gradient": func() (triton.Call, error) { return of[triton.SwiGLUGradient](sizes).Call() },
		"swiglu":          func() (triton.Call, error) { return of[triton.SwiGLU](sizes).Call() },
		"permute":         func() (triton.Call, error) { return of[triton.Permute](sizes).Call() },
		"route":           func() (triton.Call, error) { return of[triton.Route](sizes).Call() },
		"block_map":       func() (triton.Call, error) { return of[triton.BlockMap](sizes).Call() },
		"paged_join":      func() (triton.Call, error) { return of[triton.PagedCombine](sizes).Call() },
		"quantize":        func() (triton.Call, error) { return of[triton.Quantize](sizes).Call() },
	}
	return tiled[name]()
}

func of[T any](sizes []byte) (k T) {
	if err := json.Unmarshal(sizes, &k); err != nil {
		panic(err)
	}
	return k
}

// TestKernels prints each kernel for the sizes in its golden, refusals too.
func TestKernels(t *testing.T) {
	golden.Run(t, "testdata/*.txtar", func(t *testing.T, in map[string]string) string {
		c, err := byName(trim(in["kernel"]), []byte(in["sizes"]), []byte(in["tile"]))
		if err != nil {
			return "error: " + err.Error() + "\n"
		}
		return c.String()
	})
}

// TestAnySizesAreAKernelOrAnError draws sizes that make no sense.
func TestAnySizesAreAKernelOrAnError(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	odd := []int{-1 << 62, -1, 0, 1, 2, 3, 8, 16, 64, 100, 256, 1 << 20, 1 << 30, 1<<30 + 1, 1 << 40, 1 << 62}
	n := func() int { return odd[r.IntN(len(odd))] }
	usual := func() int { return odd[3+r.IntN(8)] }
	kernels := 0
	for range 800 {
		size := n
		if r.IntN(2) == 0 {
			size = usual
		}
		sizes := map[string]any{"Elem": []string{"f32", "bf16", "i32"}[r.IntN(3)], "Y": "f32", "Parts": "f32", "Sums": "bf16", "Weighted": r.IntN(2) == 0, "Pair": r.IntN(2) == 0, "BlockScales": r.IntN(2) == 0, "LSE": r.IntN(2) == 0, "Rows": size()}
		for _, f := range []string{"Experts", "Tokens", "Choices", "Width", "Hidden", "In", "Out", "N", "M", "Splits", "Block", "Sequences", "Heads",
			"KeyHeads", "Positions", "Context", "Page", "Window", "Queries", "Keys"} {
			sizes[f] = size()
		}
		sizes["Outs"] = []int{size(), size()}
		tile := triton.Tile{M: size(), N: size(), K: size(), Group: size(), Split: size(), Warps: 4, Stages: 2}
		names := []string{"up", "grouped", "outer", "decode_up", "decode_down", "linear", "norm", "heads", "paged", "flash", "flash_dq", "flash_dkv", "fp8", "combine", "swiglu", "swiglu_gradient", "permute", "route", "block_map", "paged_join", "quantize"}
		name := names[r.IntN(len(names))]
		if name == "combine" {
			sizes["Rows"] = "f32" // there it is an element type
		}
		text, err := json.Marshal(sizes)
		require.NoError(t, err)
		cut, err := json.Marshal(tile)
		require.NoError(t, err)
		if c, err := byName(name, text, cut); err == nil {
			kernels++
			require.NoError(t, triton.Verify(c.Func))
		}
	}
	require.Greater(t, kernels, 20)
}

func trim(s string) string {
	for len(s) > 0 && s[len(s)-1] == '\n' {
		s = s[:len(s)-1]
	}
	return s
}
