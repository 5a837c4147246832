package lower

import (
	"testing"

	"mix/lower/trace"

	"github.com/gomlx/compute"
	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"
)

// BenchmarkRun is the host's cost of starting a tiny program with one argument bound and one updated in
// place.
func BenchmarkRun(bb *testing.B) {
	b := testBackend(bb)
	p := compiled(bb, b, "bench", ProgramOptions{Donate: map[string]int{"x": 0}}, func(g *gx.Graph) []*gx.Node {
		return []*gx.Node{gx.Add(gx.Parameter(g, "x", f32(4)), gx.Parameter(g, "y", f32(4)))}
	})
	require.NoError(bb, p.Bind(1, upload(bb, b, []float32{1, 1, 1, 1}, 4)))
	x := upload(bb, b, []float32{0, 0, 0, 0}, 4)
	bb.ReportAllocs()
	for bb.Loop() {
		outs, err := p.Run(x)
		if err != nil {
			bb.Fatal(err)
		}
		x = outs[0]
	}
	require.NoError(bb, x.Wait())
}

// BenchmarkUploadRunRead is a step as a server makes it: one number up, a run, one number down.
func BenchmarkUploadRunRead(bb *testing.B) {
	b := testBackend(bb)
	p := compiled(bb, b, "step", ProgramOptions{}, func(g *gx.Graph) []*gx.Node {
		return []*gx.Node{gx.Neg(gx.Parameter(g, "x", f32(1)))}
	})
	in, out := []float32{1}, make([]float32, 1)
	bb.ReportAllocs()
	for bb.Loop() {
		x, err := b.Upload(f32(1), in)
		if err != nil {
			bb.Fatal(err)
		}
		outs, err := p.Run(x)
		if err != nil {
			bb.Fatal(err)
		}
		if err := outs[0].ToFlatData(out); err != nil {
			bb.Fatal(err)
		}
		_, _ = x.Finalize(), outs[0].Finalize()
	}
}

// BenchmarkLower traces, checks, rewrites and prints a program of ten thousand operations.
func BenchmarkLower(bb *testing.B) {
	b := testBackend(bb)
	for bb.Loop() {
		t := trace.New("ten thousand", nil)
		f := t.Main()
		x, err := f.Parameter("x", f32(8, 8), nil)
		require.NoError(bb, err)
		for range 5000 {
			if x, err = f.Mul(x, x); err == nil {
				x, err = f.DotGeneral(x, []int{1}, nil, x, []int{0}, nil, compute.DotGeneralConfig{})
			}
			require.NoError(bb, err)
		}
		require.NoError(bb, f.Return([]compute.Value{x}, nil))
		require.NoError(bb, b.passes(t, ProgramOptions{}, b.newDump("ten thousand")))
		text, err := emit(t, nil, 1, 1)
		require.NoError(bb, err)
		bb.SetBytes(int64(len(text)))
	}
}
