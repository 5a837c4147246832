package lower_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/internal/golden"
	"mix/lower"
	"mix/sharding"
	"mix/sharding/axis"
)

// meshModel divides over eight devices any way.
var meshModel = graph.Config{Vocab: 64, Width: 32, Hidden: 48, Layers: 4, Heads: 8, KVHeads: 2, HeadDim: 8, Experts: 8, TopK: 2,
	Context: 64, RopeTheta: 1e4, NormEps: 1e-5}

// onMesh is a backend of eight or fewer CPU devices.
func onMesh(t testing.TB, mesh, preset string) *lower.Backend {
	t.Helper()
	m, err := sharding.ParseMesh(mesh)
	require.NoError(t, err)
	rules, err := sharding.For(preset, m)
	require.NoError(t, err)
	b, err := lower.New(context.Background(), lower.Options{Mesh: m, Rules: rules, NoCache: true, Verify: true})
	require.NoError(t, err)
	t.Cleanup(b.Finalize)
	return b
}

// quick makes XLA compile in half the time; collectives are the same.
var quick = map[string]any{"xla_backend_optimization_level": int64(0)}

// tensor is a parameter of a test's program: a piece of a weight and where it lies.
type tensor struct {
	piece axis.Piece
	spec  sharding.Spec
}

// tensors places pieces of catalogue entries on a backend's mesh.
func tensorsOf(t testing.TB, place sharding.Placement, params []axis.Param, pieces []axis.Piece) (all []tensor) {
	t.Helper()
	of := func(path string) (axis.Param, error) {
		for _, p := range params {
			if p.Path == path {
				return p, nil
			}
		}
		return axis.Param{}, fmt.Errorf("no %s", path)
	}
	pieces, err := place.Staged(pieces, of)
	require.NoError(t, err)
	for _, q := range pieces {
		p, err := of(q.Path)
		require.NoError(t, err)
		spec, err := place.Spec(sharding.Weights, q, p)
		require.NoError(t, err)
		all = append(all, tensor{q, spec})
	}
	return all
}

// shard is where tensors lie, by parameter.
func shard(all ...tensor) map[string]sharding.Spec {
	specs := map[string]sharding.Spec{}
	for _, x := range all {
		specs[x.piece.Name] = x.spec
	}
	return specs
}

// declare makes parameters of tensors.
func declare(g *gx.Graph, all []tensor) (nodes []*gx.Node, pieces []axis.Piece) {
	for _, x := range all {
		nodes = append(nodes, gx.Parameter(g, x.piece.Name, shapes.Make(x.piece.DType, x.piece.Shape...)))
		pieces = append(pieces, x.piece)
	}
	return nodes, pieces
}

// initial makes a weight on the mesh, three times as large as models begin with.
func (x tensor) initial(t testing.TB, be *lower.Backend) *lower.Buffer {
	t.Helper()
	q := x.piece
	whole := make([]float32, axis.Count(q.Shape))
	require.NoError(t, graph.Init(meshModel, q, 3, whole))
	b, err := be.MakeSharded(q.Name, shapes.Make(q.DType, q.Shape...), x.spec, func(box sharding.Box, dst []byte) error {
		at, _ := axis.Intersect(make([]int, len(q.Shape)), q.Shape, axis.Piece{Offset: box.Offset, Size: box.Size})
		for run := range at.Count {
			from, to := at.Run(run)
			for i := range at.Length {
				binary.LittleEndian.PutUint32(dst[4*(to+i):], math.Float32bits(whole[from+i]*3))
			}
		}
		return nil
	})
	require.NoError(t, err)
	return b
}

// pipedOnMesh runs loss and gradients of a small model in rounds of the stages that the mesh has. Gradients are by
// piece.
func pipedOnMesh(t *testing.T, mesh string, rounds, micro int, again graph.Recompute) (loss float32, grads map[string][]float32) {
	t.Helper()
	be := onMesh(t, mesh, "")
	c := meshModel
	place, err := sharding.Place(be.Mesh(), be.ShardingRules(), c.Layers, rounds)
	require.NoError(t, err)
	if place.Circle == nil {
		place.Circle = &sharding.Circle{Stages: 1, Rounds: 1, Depth: c.Layers}
	}
	weights := tensorsOf(t, place, graph.Params(c), graph.Pieces(c, graph.Stacked, dtypes.Float32))
	g := gx.NewGraph(be.With(lower.ProgramOptions{Shard: shard(weights...), Overrides: quick}), "loss")
	nodes, pieces := declare(g, weights)
	const s = 12
	batch := shapes.Make(dtypes.Int32, micro, 8/micro, s)
	tokens, segments := gx.Parameter(g, "tokens", batch), gx.Parameter(g, "segments", batch)
	w := graph.NewWeights(graph.Stacked, dtypes.Float32, pieces, nodes).Staged()
	hidden, router := graph.RunPiped(c, w, graph.Inputs{Tokens: tokens, Segments: segments}, again)
	labels := gx.Reshape(graph.NextTokens(gx.Reshape(tokens, -1, s)), batch.Dimensions...)
	ce, _ := graph.CrossEntropy(graph.Logits(c, w, hidden), labels)
	total := gx.Add(ce, gx.MulScalar(router.LoadBalance(), 0.02))
	require.NoError(t, g.Compile(append([]*gx.Node{total}, gx.Gradient(total, nodes...)...)...))
	p, err := lower.ProgramOf(g.Executable())
	require.NoError(t, err)
	var args []*lower.Buffer
	for _, x := range weights {
		args = append(args, x.initial(t, be))
	}
	x, err := be.Upload(batch, meshTokens(8*s))
	require.NoError(t, err)
	y, err := be.Upload(batch, make([]int32, 8*s))
	require.NoError(t, err)
	outs, err := p.Run(append(args, x, y)...)
	require.NoError(t, err)
	one := read(t, outs[0])
	grads = map[string][]float32{}
	for i, q := range pieces {
		grads[q.Name] = read(t, outs[1+i])
	}
	return one[0], grads
}

// read copies a float32 tensor to the host.
func read(t testing.TB, x *lower.Buffer) []float32 {
	t.Helper()
	shape, err := x.Shape()
	require.NoError(t, err)
	v := make([]float32, shape.Size())
	require.NoError(t, x.ToFlatData(v))
	return v
}

func meshTokens(n int) []int32 {
	ids := make([]int32, n)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range ids {
		ids[i] = int32(r.IntN(meshModel.Vocab))
	}
	return ids
}

// near is the relative distance of two vectors.
func near(a, b []float32) float64 {
	var d, n float64
	for i := range a {
		d += float64(a[i]-b[i]) * float64(a[i]-b[i])
		n += float64(a[i]) * float64(a[i])
	}
	return math.Sqrt(d / math.Max(n, 1e-30))
}

// TestPipelines holds loss and gradients of the piped model, in schedules of all forms, to those of one stage. Whole steps
// on meshes are tested in package train.
func TestPipelines(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles for seconds")
	}
	loss, grads := pipedOnMesh(t, "", 1, 4, graph.RecomputeNothing)
	for _, tt := range []struct {
		mesh          string
		rounds, micro int
		again         graph.Recompute
	}{
		{"pipe=2", 2, 4, graph.RecomputeNothing}, // microbatches wait for the next round
		{"pipe=2", 1, 2, graph.RecomputeAttention},
		{"pipe=4", 1, 8, graph.RecomputeNothing},
		{"pipe=2 data=2", 1, 4, graph.RecomputeNothing},
	} {
		t.Run(fmt.Sprintf("%s rounds %d micro %d", tt.mesh, tt.rounds, tt.micro), func(t *testing.T) {
			if !golden.Long() && tt.rounds == 1 && tt.mesh != "pipe=4" {
				t.Skip("compiles for seconds: runs where TEST_LONG is set")
			}
			got, g := pipedOnMesh(t, tt.mesh, tt.rounds, tt.micro, tt.again)
			require.InDelta(t, loss, got, 1e-5*math.Abs(float64(loss)))
			for name, want := range grads {
				require.Less(t, near(want, g[name]), 1e-4, name)
			}
		})
	}
}
