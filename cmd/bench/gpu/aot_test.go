package gpu

import (
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/internal/golden"
	"mix/lower/aot"
	"mix/lower/ir"
	"mix/lower/pass"
	"mix/lower/pjrt"
	"mix/lower/plugin"
	"mix/lower/target"
	"mix/lower/triton"
)

// TestMain is also the worker of compilations.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "worker" {
		if err := aot.Work(os.Args[2]); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// forH200 compiles for a GPU that is not here.
func forH200(t *testing.T, m *ir.Module) *aot.Result {
	chip, err := target.LookupChip("h200")
	require.NoError(t, err)
	platform, err := target.Lookup(target.CUDA)
	require.NoError(t, err)
	options, err := pjrt.CompileOptions{Overrides: platform.Overrides}.Marshal()
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	r := aot.Request{Program: m.Name, Text: m.String(), Options: options, Chip: chip, Devices: 1, Command: []string{self, "worker"}}
	if r.Plugin, err = plugin.Find(target.CUDA); errors.Is(err, plugin.ErrNotFound) {
		t.Skip("needs the CUDA plugin, which cmd/compile installs: " + err.Error())
	}
	require.NoError(t, err)
	if r.Tools, err = plugin.EnsureTools(t.Context(), r.Plugin, plugin.Options{Platform: target.CUDA}); errors.Is(err, plugin.ErrDownload) {
		t.Skip("needs the tools of the CUDA plugin: " + err.Error())
	}
	require.NoError(t, err)
	x, err := aot.Compile(t.Context(), r)
	require.NoError(t, err)
	return x
}

// TestCasesCompileForAGPU compiles a case of every kernel as the GPU machine does.
func TestCasesCompileForAGPU(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute: not in short mode")
	}
	met := map[string]bool{}
	for _, c := range kernelCases(false) {
		if c.elem == triton.F16 || c.elem == triton.F32 && c.name != "route and permute" || met[c.name] {
			continue
		}
		met[c.name] = true
		if len(met) > 4 && !golden.Long() {
			break
		}
		t.Run(c.name, func(t *testing.T) {
			m, _, err := caseModule(c, triton.Default(), pass.EmitCall)
			require.NoError(t, err)
			ours := 0
			for _, k := range forH200(t, m).Kernels {
				if k.Ours {
					ours++
					require.Zero(t, k.Spilled, k.Name)
				}
			}
			require.Positive(t, ours)
		})
	}
}

// TestProductsCompileForAGPU compiles the products that are measured, and that the kernels use the matrix unit.
func TestProductsCompileForAGPU(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute: not in short mode")
	}
	e, _ := Options{}.sizes()
	for _, c := range contests(e, 4096, true) {
		for i, form := range c.forms {
			t.Run(c.what+" "+form, func(t *testing.T) {
				m, err := programOf(c.types, triton.Default(), c.builds[i])
				require.NoError(t, err)
				x := forH200(t, m)
				if form != "kernel" {
					require.InDelta(t, c.flops, float64(x.Module.Cost().FLOPs), 0.01*c.flops)
					return
				}
				matrix := 0
				for _, k := range x.Kernels {
					if k.Ours {
						require.Zero(t, k.Spilled, k.Name)
						matrix += k.WGMMA
					}
				}
				require.Positive(t, matrix)
			})
		}
	}
}
