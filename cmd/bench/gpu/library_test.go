package gpu

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/ir"
	"mix/lower/pass"
	"mix/lower/triton"
)

// TestLibraryCasesBuild makes the programs that hold cuDNN's attention to a plain one. Only a GPU runs them.
func TestLibraryCasesBuild(t *testing.T) {
	cases := append(append(libraryCases(true), libraryCases(false)...), libraryCase(libraryShape(false)))
	for _, c := range cases {
		m, pairs, err := caseModule(c, triton.Default(), pass.EmitCall)
		require.NoError(t, err, c.shape)
		require.NoError(t, ir.Verify(m))
		var what []string
		for _, p := range pairs {
			require.Equal(t, p.want.Dims(), p.got.Dims(), p.what)
			what = append(what, p.what)
		}
		require.Equal(t, []string{"y alone", "y", "dq", "dk", "dv"}, what)
		require.Equal(t, 3, strings.Count(m.String(), `"__cudnn$`), "one forward for itself, and one with its gradient")
	}
	f := libraryShape(true)
	f.Width = 60
	_, _, err := caseModule(libraryCase(f), triton.Default(), pass.EmitCall)
	require.ErrorContains(t, err, "cudnn: attention")
}

// TestLibraryFormsBuild makes the two programs between which tuning chooses: all results are read.
func TestLibraryFormsBuild(t *testing.T) {
	f := libraryShape(false)
	q, k := ir.Tensor("bf16", 1, 32, 4096, 128), ir.Tensor("bf16", 1, 8, 4096, 128)
	for _, form := range []struct {
		build func(k *kit, f triton.Flash, x attended, dy *ir.Value) []*ir.Value
		calls int
	}{{(*kit).byKernels, 3}, {(*kit).byCuDNN, 2}} {
		m, err := programOf([]ir.Type{q, k, k, q}, triton.Default(), libraryForm(f, form.build))
		require.NoError(t, err)
		ir.RemoveDead(m)
		require.NoError(t, ir.Verify(m))
		require.Equal(t, []ir.Type{"tensor<4xf32>"}, m.Func("main").Results)
		require.Equal(t, form.calls, strings.Count(m.String(), "call_target_name"))
	}
}

// TestTunedIsWritten reads the file that tuning leaves.
func TestTunedIsWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tiles.json")
	s := &Session{o: Options{Tune: file, Out: io.Discard}, table: triton.Default()}
	tile, err := s.table.Choose("flash", triton.BF16, 4096)
	require.NoError(t, err)
	row := Tuned{Kernel: "flash and gradient", Was: tile, Is: tile, Library: triton.CuDNN}
	require.NoError(t, s.tuned(row, triton.Choice{Kernel: "flash", Tile: tile, Library: triton.CuDNN}))
	require.Contains(t, row.String(), "\tcudnn\t")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	table, err := triton.ParseTable(text)
	require.NoError(t, err)
	require.Equal(t, triton.CuDNN, table.Library("flash", triton.BF16, 4096))
	require.Empty(t, table.Library("flash", triton.F32, 4096))
	require.Equal(t, []Tuned{row}, s.report.Tiles)
	kernels := attentionClasses(false)
	at := -1
	for i, c := range kernels {
		if strings.HasPrefix(c.kernel, "flash") {
			at = i
		}
	}
	require.Equal(t, lastOfFlash, kernels[at].kernel)
}
