package lower_test

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/stretchr/testify/require"

	"mix/graph/composite"
	"mix/internal/golden"
	"mix/lower"
)

const routedWidth, routedHidden, routedExperts = 12, 16, 8

// routings choose two distinct experts for a token.
var routings = map[string]func(i int32) [2]int32{
	"even":                    func(i int32) [2]int32 { return [2]int32{i * i % 7, (i*i%7 + 1 + i%5) % 8} },
	"one expert gets all":     func(i int32) [2]int32 { return [2]int32{6, 7 * (i % 2)} },
	"one expert gets nothing": func(i int32) [2]int32 { return [2]int32{i % 3, 4 + i%4} },
}

// routedCase is a layer of routed experts.
type routedCase struct {
	tokens int
	dtype  dtypes.DType
	frozen bool
}

// results are y and the gradients of Σ y²/2 by x, weights and, unless frozen, gate, up and down, by routing.
type results map[string][][]float32

// run gives the results on a backend.
func (c routedCase) run(t *testing.T, be *lower.Backend) results {
	t.Helper()
	g := gx.NewGraph(be, "experts")
	floats := [][]int{{c.tokens, routedWidth}, {c.tokens, 2}, {routedExperts, routedHidden, routedWidth},
		{routedExperts, routedHidden, routedWidth}, {routedExperts, routedWidth, routedHidden}}
	var in []*gx.Node
	var args []*lower.Buffer
	for i, dims := range floats {
		shape := shapes.Make(dtypes.Float32, dims...)
		in = append(in, gx.Parameter(g, fmt.Sprintf("p%d", i), shape))
		values, err := tensors.CopyFlatData[float32](noise(uint64(i+1), dims...))
		require.NoError(t, err)
		x, err := be.Upload(shape, values)
		require.NoError(t, err)
		args = append(args, x)
	}
	shape := shapes.Make(dtypes.Int32, c.tokens, 2)
	chosen := gx.Parameter(g, "chosen", shape)
	var ws []*gx.Node
	for _, w := range in[2:] {
		ws = append(ws, gx.ConvertDType(w, c.dtype))
	}
	w := composite.Experts{Gate: ws[:1], Up: ws[1:2], Down: ws[2:], Frozen: c.frozen}
	y := composite.RoutedExperts(gx.ConvertDType(in[0], c.dtype), chosen, in[1], w)
	y = gx.ConvertDType(y, dtypes.Float32)
	by := in
	if c.frozen {
		by = in[:2]
	}
	require.NoError(t, g.Compile(append([]*gx.Node{y}, gx.Gradient(gx.MulScalar(gx.ReduceAllSum(gx.Mul(y, y)), 0.5), by...)...)...))
	p, err := lower.ProgramOf(g.Executable())
	require.NoError(t, err)
	all := results{}
	for name, route := range routings {
		var ids []int32
		for i := range c.tokens {
			two := route(int32(i))
			ids = append(ids, two[:]...)
		}
		x, err := be.Upload(shape, ids)
		require.NoError(t, err)
		outs, err := p.Run(append(args[:len(args):len(args)], x)...)
		require.NoError(t, err)
		for _, out := range outs {
			all[name] = append(all[name], read(t, out))
		}
	}
	return all
}

// TestRoutedExpertsOnMeshes holds value and gradients on meshes of CPU devices to those of one device: a case each for tokens
// that divide over all devices, over data and over none, the first two on all meshes.
func TestRoutedExpertsOnMeshes(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles for seconds")
	}
	one, err := lower.New(context.Background(), lower.Options{NoCache: true, Verify: true})
	require.NoError(t, err)
	defer one.Finalize()
	cases := []routedCase{
		{16, dtypes.Float32, false},
		{6, dtypes.Float32, false},
		{1, dtypes.Float32, false},
		{16, dtypes.Float32, true},
		{16, dtypes.BFloat16, false},
	}
	want := make([]results, len(cases))
	for i, c := range cases {
		want[i] = c.run(t, one)
	}
	// Measured largest difference over the largest value: f32 3e-7; bf16 0 without data and tensor, else 0.005, of sums over
	// data and over parts of the hidden width, which are rounded once more.
	tolerance := map[dtypes.DType]float64{dtypes.Float32: 1e-6, dtypes.BFloat16: 0.02}
	for _, mesh := range []struct {
		axes, preset string
		cases        int
	}{
		{"data=2 expert=2 tensor=2", "", len(cases)}, {"expert=8", "", len(cases)}, {"expert=2", "", 1}, {"tensor=2", "", 2}, {"data=2 expert=4", "", 2},
		{"expert=2 tensor=2", "ep+tp+etp1", 2}, {"data=2 expert=2", "fsdp3+ep", 1}, {"expert=2", "ep+whole", 1},
	} {
		t.Run(mesh.axes+" "+mesh.preset, func(t *testing.T) {
			if testing.Short() {
				mesh.cases = 1
			}
			if !golden.Long() {
				mesh.cases = min(mesh.cases, 3)
				if mesh.axes == "data=2 expert=4" || mesh.axes == "expert=2" && mesh.preset == "" {
					t.Skip("compiles for seconds: runs where TEST_LONG is set")
				}
			}
			be := onMesh(t, mesh.axes, mesh.preset)
			for i, c := range cases[:mesh.cases] {
				for route, got := range c.run(t, be) {
					for j, w := range want[i][route] {
						diff, largest := 0.0, 0.0
						for k, v := range w {
							diff = math.Max(diff, math.Abs(float64(v-got[j][k])))
							largest = math.Max(largest, math.Abs(float64(v)))
						}
						require.LessOrEqual(t, diff, tolerance[c.dtype]*largest, "%+v, %s, result %d", c, route, j)
					}
				}
			}
		})
	}
}
