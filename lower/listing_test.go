package lower_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/lower"
)

// lowering traces and lowers the forward pass of a model over tokens, and returns the StableHLO.
func lowering(t testing.TB, c graph.Config, layout graph.Layout, tokens int) string {
	t.Helper()
	be, err := lower.NewLowerer(lower.Options{})
	require.NoError(t, err)
	g := gx.NewGraph(be, "forward")
	w := graph.Declare(g, c, layout, dtypes.BFloat16)
	ids := gx.Parameter(g, "tokens", shapes.Make(dtypes.Int32, 1, tokens))
	r := graph.Run(c, w, graph.Inputs{Tokens: ids}, nil, graph.KeepNothing)
	require.NoError(t, g.Compile(graph.Logits(c, w, r.Hidden)))
	l, err := lower.ListingOf(g.Executable())
	require.NoError(t, err)
	return l.Text
}

func TestListingNeedsNoDevice(t *testing.T) {
	be, err := lower.NewLowerer(lower.Options{Verify: true})
	require.NoError(t, err)
	require.False(t, be.IsFinalized())
	g := gx.NewGraph(be, "double")
	x := gx.Parameter(g, "x", shapes.Make(dtypes.Float32, 3))
	require.NoError(t, g.Compile(gx.Add(x, x)))
	l, err := lower.ListingOf(g.Executable())
	require.NoError(t, err)
	require.Contains(t, l.Text, "stablehlo.add")
	names, inputs := l.Inputs()
	require.Equal(t, []string{"x"}, names)
	require.Equal(t, inputs, l.Outputs())
	_, err = l.Execute(nil, nil, 0)
	require.ErrorIs(t, err, lower.ErrListing)
	_, err = be.BufferFromFlatData(0, []float32{1}, shapes.Make(dtypes.Float32, 1))
	require.ErrorIs(t, err, lower.ErrListing)

	dir := t.TempDir()
	run, err := lower.New(t.Context(), lower.Options{NoCache: true, DumpDir: dir, Progress: os.Stderr})
	require.NoError(t, err)
	defer run.Finalize()
	h := gx.NewGraph(run, "double")
	x = gx.Parameter(h, "x", shapes.Make(dtypes.Float32, 3))
	require.NoError(t, h.Compile(gx.Add(x, x)))
	text, err := os.ReadFile(filepath.Join(dir, "double.01.emit.mlir"))
	require.NoError(t, err)
	require.Equal(t, string(text), l.Text, "a backend compiles the same text")
	_, err = lower.ListingOf(h.Executable())
	require.Error(t, err)
}

// BenchmarkLowerMixtral times trace, passes and emission of the published models' forward pass.
func BenchmarkLowerMixtral(b *testing.B) {
	for _, name := range []string{"mixtral-8x7b", "mixtral-8x22b"} {
		for _, layout := range []graph.Layout{graph.Stacked, graph.PerMatrix} {
			b.Run(fmt.Sprintf("%s/%s", name, layout), func(b *testing.B) {
				size := 0
				for b.Loop() {
					size = len(lowering(b, graph.Presets[name], layout, 4096))
				}
				b.ReportMetric(float64(size), "bytes")
			})
		}
	}
}
