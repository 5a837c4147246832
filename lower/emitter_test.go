package lower

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"

	"mix/lower/plugin"
)

// twice makes a program that doubles its argument in place.
func twice(be *Backend) (*Program, error) {
	g := graph.NewGraph(be.With(ProgramOptions{Donate: map[string]int{"x": 0}}), "twice")
	x := graph.Parameter(g, "x", shapes.Make(dtypes.Float32, 4))
	if err := g.Compile(graph.Add(x, x)); err != nil {
		return nil, err
	}
	return ProgramOf(g.Executable())
}

func TestEmitter(t *testing.T) {
	for _, platform := range []string{"cpu", "cuda"} {
		t.Run(platform, func(t *testing.T) {
			var all []Emitted
			be, err := NewEmitter(Options{Platform: platform}, func(e Emitted) error { all = append(all, e); return nil })
			require.NoError(t, err)
			defer be.Finalize()
			p, err := twice(be)
			require.NoError(t, err)
			require.Len(t, all, 1)
			require.Equal(t, "twice", all[0].Name)
			require.Contains(t, all[0].Text, "tf.aliasing_output")
			require.Equal(t, platform, be.Platform())
			require.Equal(t, platform == "cuda", bytes.Contains(all[0].Options, []byte("xla_gpu_enable_triton_gemm")), "the target's options")

			b, err := be.Make("a tensor", shapes.Make(dtypes.Float32, 4), func([]byte) error { return errors.New("nothing is filled") })
			require.NoError(t, err)
			_, err = p.Run(b)
			require.ErrorIs(t, err, ErrHollow)
			require.ErrorIs(t, b.ToFlatData(make([]float32, 4)), ErrHollow)
			_, err = p.MemoryStats()
			require.ErrorIs(t, err, ErrHollow)
			require.NoError(t, b.Finalize())
			p.Finalize()
		})
	}
	want := errors.New("enough")
	be, err := NewEmitter(Options{}, func(Emitted) error { return want })
	require.NoError(t, err)
	_, err = twice(be)
	require.ErrorIs(t, err, want)
	_, err = NewEmitter(Options{Platform: "tpu"}, nil)
	require.ErrorContains(t, err, `platform "tpu"`)
}

// TestKeep puts what one backend emitted and another compiled where that other finds it.
func TestKeep(t *testing.T) {
	o := Options{CacheDir: t.TempDir()}
	var e Emitted
	emitter, err := NewEmitter(o, func(x Emitted) error { e = x; return nil })
	require.NoError(t, err)
	_, err = twice(emitter)
	require.NoError(t, err)
	be, err := New(t.Context(), Options{NoCache: true})
	require.NoError(t, err)
	defer be.Finalize()
	compiled, err := twice(be)
	require.NoError(t, err)
	program, err := compiled.e.l.Exec.Serialize()
	require.NoError(t, err)
	path, err := plugin.Ensure(t.Context(), plugin.Options{})
	require.NoError(t, err)
	fingerprint, err := plugin.Fingerprint(path)
	require.NoError(t, err)
	file, err := Keep(o, fingerprint, "cpu", e, program)
	require.NoError(t, err)
	require.FileExists(t, file)
	other, err := New(t.Context(), o)
	require.NoError(t, err)
	defer other.Finalize()
	again, err := twice(other)
	require.NoError(t, err)
	require.True(t, again.Stats().FromCache)

	e.Text += `"__cudnn$fmhaSoftmax"` // whose plan is made on the device
	o.CacheDir = filepath.Join(t.TempDir(), "none")
	file, err = Keep(o, fingerprint, "cuda", e, program)
	require.NoError(t, err)
	require.Empty(t, file)
	require.NoDirExists(t, o.CacheDir)
}
