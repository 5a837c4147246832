package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/plugin"
)

// TestKernelsInPrograms compiles two layers of 8x7B: the experts and attention of every program are our kernels, products of
// many rows run on the matrix unit, registers suffice, and XLA multiplies nothing that is E times the work.
func TestKernelsInPrograms(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes: not in short mode")
	}
	if _, err := plugin.Find(plugin.CUDA); err != nil {
		t.Skip("needs the CUDA plugin, which the command installs: " + err.Error())
	}
	const (
		layers = 2
		expert = 2 * 3 * 4096 * 14336 // FLOP of one row in one expert
	)
	wide := []string{"experts_up", "grouped_gemm", "grouped_gemm_transposed", "grouped_outer", "flash_attention"}
	for _, tt := range []struct {
		args    string
		rows    int64 // tokens, each of which all 8 experts would multiply in a dense body
		kernels string
	}{
		{"--program decode", 16, "norm linear heads experts_route decode_up decode_down paged_attention paged_combine"},
		{"--program train", 4096, "experts_permute experts_up grouped_gemm experts_combine grouped_gemm_transposed grouped_outer group_blocks flash_attention"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			r := reported(t, append(strings.Fields(tt.args), "--layers", "2", "--target", "h200", "--no-keep")...)
			var found []string
			for _, c := range r.CustomCalls {
				if c.Kernel != "" {
					found = append(found, c.Kernel)
				}
			}
			require.Subset(t, found, strings.Fields(tt.kernels))
			for _, k := range r.Kernels {
				name, _, _ := strings.Cut(k.Name, "__")
				if !k.Ours {
					continue
				}
				require.True(t, k.Assembled, k.Name)
				require.Zero(t, k.Spilled, k.Name)
				if tt.rows > 64 && slices.Contains(wide, name) {
					require.Positive(t, k.WGMMA, k.Name)
				}
			}
			require.Less(t, r.Cost.FLOPs, layers*8*tt.rows*expert/2, "as in a dense body")
		})
	}
}

// TestDecodeOnMeshes compiles a step of a single row where kernels may not stand: XLA neither widens a weight nor brings a table
// together.
func TestDecodeOnMeshes(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute: not in short mode")
	}
	if _, err := plugin.Find(plugin.CUDA); err != nil {
		t.Skip("needs the CUDA plugin, which the command installs: " + err.Error())
	}
	for _, mesh := range []string{"tensor=2", "expert=2"} {
		t.Run(mesh, func(t *testing.T) {
			r := reported(t, "--program", "decode", "--batch", "1", "--mesh", mesh, "--layers", "1", "--target", "h200", "--no-keep")
			require.Less(t, r.Memory.Temporary, int64(32<<20))
			for _, c := range r.Collectives {
				require.Less(t, c.Bytes, int64(1<<20), c.Op)
			}
		})
	}
}
