package train

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/lower"
	"mix/sharding"
	"mix/train/data"
)

// meshModel divides over eight devices in every way.
var meshModel = graph.Config{Vocab: 64, Width: 32, Hidden: 48, Layers: 4, Heads: 8, KVHeads: 2, HeadDim: 8, Experts: 8, TopK: 2,
	Context: 64, RopeTheta: 1e4, NormEps: 1e-5, AuxCoef: 0.02, DType: "float32"}

// meshBackend is a backend of as many CPU devices as the mesh has.
func meshBackend(t testing.TB, mesh, preset string) *lower.Backend {
	m, err := sharding.ParseMesh(mesh)
	require.NoError(t, err)
	rules, err := sharding.For(preset, m)
	require.NoError(t, err)
	be, err := lower.New(t.Context(), lower.Options{NoCache: true, Mesh: m, Rules: rules, Verify: true})
	require.NoError(t, err)
	t.Cleanup(be.Finalize)
	return be
}

// threeSteps trains on a mesh and returns the metrics of each step and the state after them.
func threeSteps(t *testing.T, o Options, mesh, preset string) (metrics [][]float32, after *host) {
	be := meshBackend(t, mesh, preset)
	o.Micro /= max(be.Mesh().Size(be.ShardingRules().Table(sharding.Activations).Split["batch"]...), 1)
	x := newBench(t, be, modelOf(t, o), Fresh(o.Model, 7))
	for i := range 3 {
		metrics = append(metrics, x.step(t, randomBatch(o, uint64(i)), 1e-3))
	}
	after, err := x.dev.copyTo(nil)
	require.NoError(t, err)
	return metrics, after
}

// TestMeshes holds three steps on every kind of mesh to the same steps on one device: losses, norms of gradients, routing,
// weights and moments.
func TestMeshes(t *testing.T) {
	o := options(meshModel, 4, 8, 8)
	want, state := threeSteps(t, o, "", "")
	for _, tt := range []struct{ mesh, preset string }{
		{"data=2", "fsdp1"}, {"data=2 expert=2 tensor=2", "fsdp1+ep+tp"}, {"pipe=2 expert=2 tensor=2", ""},
		{"data=4", "fsdp3"}, {"expert=8", ""}, {"tensor=8", ""}, {"pipe=4 expert=2", ""}, {"data=2 expert=4", ""}, {"data=2 tensor=2", "dp+tp+sp"},
		{"expert=2 tensor=2", "ep+tp+etp1"}, {"data=4", "fsdp2"},
	} {
		t.Run(strings.ReplaceAll(fmt.Sprintf("%s %s", tt.mesh, tt.preset), " ", "_"), func(t *testing.T) {
			if testing.Short() && tt.mesh != "pipe=2 expert=2 tensor=2" {
				t.Skip("compiles for a minute")
			}
			got, after := threeSteps(t, o, tt.mesh, tt.preset)
			same(t, want, got, state, after)
		})
	}
}

// randomBatch is a batch of the sizes of o.
func randomBatch(o Options, seed uint64) data.Batch {
	r := rand.New(rand.NewPCG(seed, 1))
	ids := make([]int32, o.Global*o.Seq)
	for i := range ids {
		ids[i] = int32(r.IntN(o.Model.Vocab))
	}
	return text(ids, o.Seq)
}

func same(t *testing.T, want, got [][]float32, state, after *host) {
	for i := range want {
		for k := range want[i] {
			tolerance := 1e-5
			if k == metricNorm {
				tolerance = 1e-4
			}
			require.InDelta(t, want[i][k], got[i][k], tolerance*math.Max(math.Abs(float64(want[i][k])), 1e-2), "step %d, metric %d", i, k)
		}
	}
	for _, name := range groups {
		a, b := state.joined(t, name), after.joined(t, name)
		for path, x := range a {
			require.Less(t, distance(x, b[path]), 1e-3, "%s %s", name, path)
		}
	}
}

// joined are the elements of each weight of a group, whatever the pieces.
func (h *host) joined(t *testing.T, name string) map[string][]float32 {
	all := map[string][]float32{}
	for i, q := range h.pieces {
		x := make([]float32, q.Elements())
		for k := range x {
			u := h.data[name][i][4*k:]
			x[k] = math.Float32frombits(uint32(u[0]) | uint32(u[1])<<8 | uint32(u[2])<<16 | uint32(u[3])<<24)
		}
		all[q.Path] = append(all[q.Path], x...)
	}
	return all
}

func distance(a, b []float32) float64 {
	if len(a) != len(b) {
		return math.Inf(1)
	}
	var d, n float64
	for i := range a {
		d += float64(a[i]-b[i]) * float64(a[i]-b[i])
		n += float64(a[i]) * float64(a[i])
	}
	return math.Sqrt(d / math.Max(n, 1e-12))
}
