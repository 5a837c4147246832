package serve

import (
	"context"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/internal/oracle"
	"mix/lower"
	"mix/sharding/ckpt"
)

// backend is one CPU backend for all tests of the package; its plugin is installed where it is missing.
func backend(t testing.TB) *lower.Backend {
	t.Helper()
	be, err := lower.New(lower.Options{Platform: "cpu", CacheDir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(be.Finalize)
	return be
}

func engine(t testing.TB, be *lower.Backend, dir string, o Options) *Engine {
	t.Helper()
	cfg, err := graph.LoadConfig(dir)
	require.NoError(t, err)
	ck, err := ckpt.Open(dir, graph.Params(cfg), ckpt.Options{})
	require.NoError(t, err)
	defer ck.Close()
	e, err := New(context.Background(), be, cfg, ck, o)
	require.NoError(t, err)
	t.Cleanup(e.Close)
	return e
}

func TestGreedyAgainstReference(t *testing.T) {
	be := backend(t)
	for _, name := range oracle.Cases {
		c := oracle.Open(t, name)
		for layout := range graph.Layouts {
			t.Run(name+"/"+layout, func(t *testing.T) {
				e := engine(t, be, c.Checkpoints[0], Options{DType: dtypes.Float32, Layout: layout})
				for i, prompt := range c.Meta.Gen.Prompts {
					want := c.Meta.Gen.Tokens[i]
					var got []int32
					_, _, err := e.Generate(context.Background(), prompt, len(want), Sampling{TopP: 1}, nil, func(id int32) bool {
						got = append(got, id)
						return true
					})
					require.NoError(t, err)
					require.Equal(t, want, got)
				}
			})
		}
	}
}
