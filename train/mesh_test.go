package train

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/internal/golden"
	"mix/internal/optimized"
	"mix/lower"
	"mix/lower/aot"
	"mix/sharding"
	"mix/sharding/axis"
	"mix/train/data"
)

// meshModel divides over eight devices in every way. Pipelines of four stages have as many layers.
var meshModel = graph.Config{Vocab: 80, Width: 32, Hidden: 48, Layers: 2, Heads: 8, KVHeads: 2, HeadDim: 8, Experts: 8, TopK: 2,
	Context: 64, RopeTheta: 1e4, NormEps: 1e-5, AuxCoef: 0.02, InitStd: 0.2, DType: "float32"}

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

// meshOptions are four microbatches of eight sequences, over all replicas together.
func meshOptions(be *lower.Backend) Options {
	c := meshModel
	c.Layers = max(c.Layers, be.Mesh().Size(axis.Pipe))
	o := options(c, 4, 8, 8)
	o.Micro /= be.Mesh().Size(be.ShardingRules().Table(sharding.Activations).Split[axis.Batch]...)
	return o
}

// trained is what steps gave: their metrics, and the state after the first and after the last.
type trained struct {
	metrics     [][]float32
	first, last *host
}

// steps runs steps from weights.
func (x *bench) steps(t *testing.T, n int) (r trained) {
	o := x.m.Options
	for i := range n {
		r.metrics = append(r.metrics, x.step(t, randomBatch(o, uint64(i)), 1e-3))
		var err error
		r.last, err = x.dev.copyTo(nil)
		require.NoError(t, err)
		if i == 0 {
			r.first = r.last
		}
	}
	return r
}

// onOne are the same steps on one device, by layers and whether routing is ragged.
var onOne = struct {
	sync.Mutex
	all map[string]trained
}{all: map[string]trained{}}

func reference(t *testing.T, layers int, ragged bool) trained {
	onOne.Lock()
	defer onOne.Unlock()
	key := fmt.Sprint(layers, ragged)
	if _, ok := onOne.all[key]; !ok {
		be := meshBackend(t, "", "")
		o := meshOptions(be)
		o.Model.Layers, o.Recompute = layers, RecomputeFull // compiles one of the layers
		x := layOut(t, be, modelOf(t, o), Fresh(o.Model, 7))
		x.p, _ = x.compile(t)
		onOne.all[fmt.Sprint(layers, false)] = x.steps(t, 3)
		onOne.all[fmt.Sprint(layers, true)] = x.again(t, rigged{Fresh(o.Model, 7)}).steps(t, 1)
	}
	return onOne.all[key]
}

// again is the bench with the same program and other weights.
func (x *bench) again(t *testing.T, base Reader) *bench {
	y := layOut(t, x.run.Backend, modelOf(t, x.m.Options), base)
	y.p = x.p
	return y
}

// Experts of rigged weights.
const (
	chosenByAll  = 3
	chosenByNone = 5
)

// rigged makes every token choose one expert and none choose another: the first element of the residual stream is
// large and positive, and the router looks at it.
type rigged struct{ Reader }

func (r rigged) Read(q axis.Piece, dst []byte) error {
	if err := r.Reader.Read(q, dst); err != nil {
		return err
	}
	n := len(q.Size)
	for i := range len(dst) / 4 {
		column := q.Offset[n-1] + i%q.Size[n-1]
		set := func(x float32) { binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(x)) }
		switch {
		case column != 0:
		case q.Path == "embed":
			set(20)
		case strings.HasSuffix(q.Path, "/router"):
			switch q.Offset[n-2] + i/q.Size[n-1]%q.Size[n-2] {
			case chosenByAll:
				set(4)
			case chosenByNone:
				set(-4)
			}
		}
	}
	return nil
}

// TestMeshes holds steps on every kind of mesh to the same steps on one device, also where all tokens choose one expert and
// none another: losses, norms of gradients, routing, gradients as the first moments have them, weights and moments. Its
// goldens are what devices exchange in a step, of the program that XLA has optimized.
func TestMeshes(t *testing.T) {
	golden.Run(t, "testdata/meshes/*.txtar", func(t *testing.T, in map[string]string) string {
		mesh, preset, _ := strings.Cut(strings.TrimSpace(in["mesh"]), "\n")
		if testing.Short() && mesh != "pipe=2 expert=2 tensor=2" {
			t.Skip("compiles for seconds")
		}
		if !golden.Long() && !slices.Contains([]string{"pipe=2 expert=2 tensor=2", "expert=8", "data=2 expert=2 tensor=2"}, mesh) {
			t.Skip("compiles for seconds: runs where TEST_LONG is set")
		}
		be := meshBackend(t, mesh, preset)
		o := meshOptions(be)
		x := layOut(t, be, modelOf(t, o), Fresh(o.Model, 7))
		var module *aot.Module
		x.p, module = x.compile(t)
		same(t, reference(t, o.Model.Layers, false), x.steps(t, 3))
		ragged := x.again(t, rigged{Fresh(o.Model, 7)}).steps(t, 1)
		for l := range o.Model.Layers {
			load := ragged.metrics[0][metricLoad+l*o.Model.Experts:]
			require.InDelta(t, 0.5, load[chosenByAll], 1e-6, "share of the choices of layer %d", l)
			require.Zero(t, load[chosenByNone])
		}
		same(t, reference(t, o.Model.Layers, true), ragged)
		x.sizes(t)
		x.claims(t, module.Collectives())
		return optimized.Exchanges(module, be.Mesh())
	})
}

// TestLoopsOnMeshes is TestMeshes for steps that are a loop over layers and keep what is costly, as on GPUs.
func TestLoopsOnMeshes(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles for seconds")
	}
	for _, mesh := range []string{"data=2 expert=2 tensor=2", "expert=4"} {
		if mesh != "expert=4" && !golden.Long() {
			continue
		}
		t.Run(mesh, func(t *testing.T) {
			be := meshBackend(t, mesh, "")
			o := meshOptions(be)
			m := modelOf(t, o)
			m.layout = graph.Stacked
			require.NoError(t, m.list())
			x := newBench(t, be, m, Fresh(o.Model, 7))
			same(t, reference(t, o.Model.Layers, false), x.steps(t, 3))
		})
	}
}

// sizes holds XLA's size of the step's arguments to that of the sharding rules: weights and moments from their report, batch,
// count of updates and learning rate whole on every device.
func (x *bench) sizes(t *testing.T) {
	report, err := sharding.Describe(x.m.params, func(axis.Param) sharding.Width { return sharding.Width{Moment: 12} }, x.m.place.Rules, x.m.place.Mesh)
	require.NoError(t, err)
	o := x.m.Options
	stats, err := x.p.MemoryStats()
	require.NoError(t, err)
	require.EqualValues(t, report.Bytes[sharding.Moments]+4*o.Global*(2*o.Seq+1)+4+4, stats.Argument, "bytes of arguments")
}

// claims are what exchanges keep to on any mesh: logits stay where they are, experts' matrices too unless ZeRO splits
// them, weights that moments are split for are gathered once, and each tick of a pipeline sends one carry.
func (x *bench) claims(t *testing.T, all []aot.Collective) {
	c, mesh, rules := x.m.Model, x.m.place.Mesh, x.m.place.Rules
	var weights, carries int64
	for _, e := range all {
		for _, split := range []int{1, mesh.Size(axis.Tensor)} {
			require.NotContains(t, e.Type, fmt.Sprintf(",%d]", c.Vocab/split), "%s of logits along %s", e.Op, e.Along(mesh))
		}
		switch e.Op {
		case "all-gather":
			if e.Along(mesh) == "data" {
				weights += e.Runs * e.Bytes
			}
			if !rules.Has("fsdp1") && !rules.Has("fsdp2") && !rules.Has("fsdp3") {
				require.NotContains(t, e.Type, fmt.Sprint(c.Hidden), "gather of experts")
			}
		case "collective-permute":
			if e.Along(mesh) == "pipe" && e.Runs > 1 {
				carries += e.Runs
			}
		}
	}
	if rules.Has("fsdp1") && mesh.Size(axis.Data) == mesh.Devices() {
		report, err := sharding.Describe(x.m.params, func(axis.Param) sharding.Width { return sharding.Width{Moment: 4} }, rules, mesh)
		require.NoError(t, err)
		require.EqualValues(t, report.Bytes[sharding.Moments], weights, "bytes of weights that a device gives")
	}
	if pipe := x.m.place.Circle; pipe != nil {
		s := sharding.Schedule{Stages: pipe.Stages, Rounds: pipe.Rounds, Microbatches: x.m.microbatches()}
		require.EqualValues(t, 2*s.Ticks(), carries, "carries handed on, forward and backward")
	}
}

// compile compiles the step and reads what XLA made of it.
func (x *bench) compile(t *testing.T) (*lower.Program, *aot.Module) {
	dir := t.TempDir()
	p := programs{be: x.run.Backend, m: x.m}
	o := lower.ProgramOptions{Donate: map[string]int{}, Overrides: optimized.Into(dir)}
	for i, name := range x.m.stateNames() {
		o.Donate[name] = 1 + i
	}
	var err error
	o.Shard, err = x.m.shard("first/", "second/")
	require.NoError(t, err)
	step, err := p.compile("train_step", o, p.buildStep)
	require.NoError(t, err)
	t.Cleanup(step.Finalize)
	return step, optimized.Read(t, dir)
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

func same(t *testing.T, want, got trained) {
	for i := range want.metrics {
		for k, x := range want.metrics[i] {
			tolerance := 1e-5
			if k == metricNorm {
				tolerance = 1e-4
			}
			require.InDelta(t, x, got.metrics[i][k], tolerance*math.Max(math.Abs(float64(x)), 1e-2), "step %d, metric %d", i, k)
		}
	}
	for path, x := range want.first.joined(t, groupFirst) {
		require.Less(t, distance(x, got.first.joined(t, groupFirst)[path]), 1e-4, "gradient of %s", path)
	}
	for _, name := range groups {
		after := got.last.joined(t, name)
		for path, x := range want.last.joined(t, name) {
			require.Less(t, distance(x, after[path]), 1e-3, "%s %s", name, path)
		}
	}
}

// joined are the elements of each weight of a group, whatever the pieces.
func (h *host) joined(t *testing.T, name string) map[string][]float32 {
	all := map[string][]float32{}
	for i, q := range h.pieces {
		x := make([]float32, q.Elements())
		for k := range x {
			x[k] = math.Float32frombits(binary.LittleEndian.Uint32(h.data[name][i][4*k:]))
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
