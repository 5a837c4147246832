package serve

import (
	"math"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/internal/demo"
	"mix/lower"
	"mix/sharding"
	"mix/sharding/ckpt"
)

// meshEngine is the demo model on a mesh of CPU devices, as commands open it.
func meshEngine(t testing.TB, mesh string) *Engine {
	m, err := sharding.ParseMesh(mesh)
	require.NoError(t, err)
	rules, err := sharding.Derive(m).Whole()
	require.NoError(t, err)
	be, err := lower.New(t.Context(), lower.Options{Mesh: m, Rules: rules, NoCache: true})
	require.NoError(t, err)
	t.Cleanup(be.Finalize)
	c, err := graph.ParseConfig(demo.Config())
	require.NoError(t, err)
	w, err := ckpt.OpenFS(demo.Files(), graph.Params(c), ckpt.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { w.Close() })
	e, err := New(t.Context(), be, c, w, Options{DType: dtypes.Float32})
	require.NoError(t, err)
	t.Cleanup(e.Close)
	return e
}

// TestMeshesAnswerAlike asks batchers and a session on meshes what one device was asked: the tokens are the same, and
// the log probabilities to the accuracy of float32 sums.
func TestMeshesAnswerAlike(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles eight programs for each of three meshes")
	}
	o := BatchOptions{Slots: 4, Chunk: 32, Block: 16, Context: 160}
	requests := mixed(8)
	one := atOnce(t, batcher(t, demoEngine(t, dtypes.Float32), o), requests)
	for _, mesh := range []string{"tensor=2", "pipe=2", "expert=2"} {
		t.Run(strings.ReplaceAll(mesh, " ", "_"), func(t *testing.T) {
			e := meshEngine(t, mesh)
			got := atOnce(t, batcher(t, e, o), requests)
			for i, want := range one {
				require.Equal(t, want.tokens, got[i].tokens, "tokens of request %d", i)
				require.Equal(t, want.used, got[i].used, "experts of request %d", i)
				require.Equal(t, len(want.places), len(got[i].places))
				for k, p := range want.places {
					require.Equal(t, p.Chosen.ID, got[i].places[k].Chosen.ID)
					require.Less(t, math.Abs(float64(p.Chosen.LogProb-got[i].places[k].Chosen.LogProb)), 1e-4, "request %d, token %d", i, k)
				}
			}
		})
	}
}
