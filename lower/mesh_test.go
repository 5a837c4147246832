package lower_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/lower"
	"mix/sharding"
	"mix/sharding/axis"
)

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

// modelOnMesh runs loss and gradients of a small model on a mesh.
func modelOnMesh(t *testing.T, mesh, preset string, layout graph.Layout) (loss float32, grads map[string][]float32) {
	t.Helper()
	be := onMesh(t, mesh, preset)
	c := meshModel
	pieces := graph.Pieces(c, layout, dtypes.Float32)
	shard := map[string]sharding.Spec{}
	params := map[string]axis.Param{}
	for _, p := range graph.Params(c) {
		params[p.Path] = p
	}
	for _, q := range pieces {
		p := params[q.Path]
		if layout == graph.PerLayer && len(q.Shape) < len(p.Axes) {
			p.Axes, p.Dims = p.Axes[1:], p.Dims[1:]
		}
		spec, err := be.ShardingRules().Resolve(sharding.Weights, p, be.Mesh())
		require.NoError(t, err)
		shard[q.Name] = spec
	}
	g := gx.NewGraph(be.With(lower.ProgramOptions{Shard: shard}), "loss")
	var nodes []*gx.Node
	for _, q := range pieces {
		nodes = append(nodes, gx.Parameter(g, q.Name, shapes.Make(q.DType, q.Shape...)))
	}
	const b, s = 8, 12
	tokens := gx.Parameter(g, "tokens", shapes.Make(dtypes.Int32, b, s))
	w := graph.WeightsOf(c, layout, dtypes.Float32, nodes)
	r := graph.RunForGradient(c, w, graph.Inputs{Tokens: tokens}, graph.KeepRouter, graph.RecomputeNothing)
	ce, _ := graph.CrossEntropy(graph.Logits(c, w, r.Hidden), graph.NextTokens(tokens))
	total := gx.Add(ce, gx.MulScalar(graph.LoadBalance(r.RouterLogits, r.RouterChosen, nil), 0.02))
	require.NoError(t, g.Compile(append([]*gx.Node{total}, gx.Gradient(total, nodes...)...)...))
	p, err := lower.ProgramOf(g.Executable())
	require.NoError(t, err)
	var args []*lower.Buffer
	for _, q := range pieces {
		args = append(args, initial(t, be, q, shard[q.Name]))
	}
	x, err := be.Upload(shapes.Make(dtypes.Int32, b, s), meshTokens(b*s))
	require.NoError(t, err)
	outs, err := p.Run(append(args, x)...)
	require.NoError(t, err)
	one := make([]float32, 1)
	require.NoError(t, outs[0].ToFlatData(one))
	grads = map[string][]float32{}
	for i, q := range pieces {
		d := make([]float32, axis.Count(q.Shape))
		require.NoError(t, outs[1+i].ToFlatData(d))
		grads[q.Name] = d
	}
	return one[0], grads
}

// pipedOnMesh is modelOnMesh for the piped model, in rounds of the stages that the mesh has, at least two. Gradients are
// by path of the stacked weight.
func pipedOnMesh(t *testing.T, mesh, preset string, rounds, micro int, again graph.Recompute) (loss float32, grads map[string][]float32) {
	t.Helper()
	be := onMesh(t, mesh, preset)
	c := meshModel
	circle, err := sharding.NewCircle(c.Layers, max(be.Mesh().Size(axis.Pipe), 1), rounds)
	require.NoError(t, err)
	var pieces []axis.Piece
	shard := map[string]sharding.Spec{}
	for _, p := range graph.Params(c) {
		view, err := circle.View(p)
		require.NoError(t, err)
		q := axis.Whole(p, dtypes.Float32)
		q.Shape = view.Dims
		spec, err := be.ShardingRules().Resolve(sharding.Weights, view, be.Mesh())
		require.NoError(t, err)
		pieces, shard[q.Name] = append(pieces, q), spec
	}
	g := gx.NewGraph(be.With(lower.ProgramOptions{Shard: shard}), "loss")
	var nodes []*gx.Node
	for _, q := range pieces {
		nodes = append(nodes, gx.Parameter(g, q.Name, shapes.Make(q.DType, q.Shape...)))
	}
	const s = 12
	b := 8 / micro
	tokens := gx.Parameter(g, "tokens", shapes.Make(dtypes.Int32, micro, b, s))
	segments := gx.Parameter(g, "segments", shapes.Make(dtypes.Int32, micro, b, s))
	w := graph.NewWeights(graph.Stacked, dtypes.Float32, pieces, nodes).Staged()
	hidden, router := graph.RunPiped(c, w, graph.Inputs{Tokens: tokens, Segments: segments}, again)
	labels := gx.Reshape(graph.NextTokens(gx.Reshape(tokens, -1, s)), micro, b, s)
	ce, _ := graph.CrossEntropy(graph.Logits(c, w, hidden), labels)
	total := gx.Add(ce, gx.MulScalar(router.LoadBalance(), 0.02))
	require.NoError(t, g.Compile(append([]*gx.Node{total}, gx.Gradient(total, nodes...)...)...))
	p, err := lower.ProgramOf(g.Executable())
	require.NoError(t, err)
	var args []*lower.Buffer
	for _, q := range pieces {
		args = append(args, initial(t, be, q, shard[q.Name]))
	}
	x, err := be.Upload(shapes.Make(dtypes.Int32, micro, b, s), meshTokens(8*s))
	require.NoError(t, err)
	y, err := be.Upload(shapes.Make(dtypes.Int32, micro, b, s), make([]int32, 8*s))
	require.NoError(t, err)
	outs, err := p.Run(append(args, x, y)...)
	require.NoError(t, err)
	one := make([]float32, 1)
	require.NoError(t, outs[0].ToFlatData(one))
	grads = map[string][]float32{}
	for i, q := range pieces {
		d := make([]float32, axis.Count(q.Shape))
		require.NoError(t, outs[1+i].ToFlatData(d))
		grads[q.Name] = d
	}
	return one[0], grads
}

func meshTokens(n int) []int32 {
	ids := make([]int32, n)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range ids {
		ids[i] = int32(r.IntN(meshModel.Vocab))
	}
	return ids
}

// initial makes a weight on the mesh.
func initial(t testing.TB, be *lower.Backend, q axis.Piece, spec sharding.Spec) *lower.Buffer {
	t.Helper()
	whole := make([]float32, axis.Count(q.Shape))
	require.NoError(t, graph.Init(meshModel, q, 3, whole))
	x, err := be.MakeSharded(q.Name, shapes.Make(q.DType, q.Shape...), spec, func(box sharding.Box, dst []byte) error {
		at, _ := axis.Intersect(make([]int, len(q.Shape)), q.Shape, axis.Piece{Offset: box.Offset, Size: box.Size})
		for run := range at.Count {
			from, to := at.Run(run)
			for i := range at.Length {
				put32(dst[4*(to+i):], whole[from+i]*3)
			}
		}
		return nil
	})
	require.NoError(t, err)
	return x
}

// TestPipelines holds the piped model on meshes to itself on one device, and that to the plain model.
func TestPipelines(t *testing.T) {
	plain, _ := modelOnMesh(t, "", "", graph.PerLayer)
	loss, grads := pipedOnMesh(t, "", "", 1, 4, graph.RecomputeNothing)
	require.InDelta(t, plain, loss, 1e-5*math.Abs(float64(loss)))
	for _, tt := range []struct {
		mesh, preset  string
		rounds, micro int
	}{
		{"pipe=2", "", 1, 4}, {"pipe=2", "", 2, 4}, {"pipe=2", "", 2, 2}, {"pipe=4", "", 1, 8}, {"pipe=2 tensor=2", "", 1, 4},
		{"pipe=2 data=2", "", 1, 4}, {"pipe=2 expert=2 tensor=2", "", 2, 4}, {"pipe=4 expert=2", "", 1, 4},
	} {
		t.Run(fmt.Sprintf("%s rounds %d micro %d", tt.mesh, tt.rounds, tt.micro), func(t *testing.T) {
			got, g := pipedOnMesh(t, tt.mesh, tt.preset, tt.rounds, tt.micro, graph.RecomputeNothing)
			require.InDelta(t, loss, got, 1e-5*math.Abs(float64(loss)))
			for name, want := range grads {
				require.Less(t, near(want, g[name]), 1e-4, name)
			}
		})
	}
}

func put32(dst []byte, x float32) {
	u := math.Float32bits(x)
	dst[0], dst[1], dst[2], dst[3] = byte(u), byte(u>>8), byte(u>>16), byte(u>>24)
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

// TestMeshes holds loss and gradients on meshes to those on one device.
func TestMeshes(t *testing.T) {
	loss, grads := modelOnMesh(t, "", "", graph.PerLayer)
	for _, tt := range []struct{ mesh, preset string }{
		{"tensor=2", ""}, {"data=2", ""}, {"data=2 tensor=2", "dp+tp+sp"}, {"expert=2", ""},
	} {
		t.Run(tt.mesh+" "+tt.preset, func(t *testing.T) {
			got, g := modelOnMesh(t, tt.mesh, tt.preset, graph.PerLayer)
			require.InDelta(t, loss, got, 1e-5*math.Abs(float64(loss)))
			for name, want := range grads {
				require.Less(t, near(want, g[name]), 1e-4, name)
			}
		})
	}
}

// meshModel divides over eight devices any way.
var meshModel = graph.Config{Vocab: 64, Width: 32, Hidden: 48, Layers: 4, Heads: 8, KVHeads: 2, HeadDim: 8, Experts: 8, TopK: 2,
	Context: 64, RopeTheta: 1e4, NormEps: 1e-5}
