package lower_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/internal/golden"
	"mix/internal/optimized"
	"mix/lower"
	"mix/lower/aot"
	"mix/sharding"
	"mix/sharding/axis"
)

// served is a small model with a pool of pages on a mesh, as a server has it: prompts of two sequences, then a token of
// each of eight.
type served struct {
	be            *lower.Backend
	layout        graph.Layout
	rules         sharding.Rules
	weights, pool []tensor
}

// Positions of the pool: each of the sequences has so many, one after the other.
const servedRows, servedContext = 8, 4

func serveOn(t *testing.T, mesh, preset string) served {
	s := served{be: onMesh(t, mesh, preset), layout: graph.PerLayer}
	place, err := sharding.Place(s.be.Mesh(), s.be.ShardingRules(), meshModel.Layers, 1)
	require.NoError(t, err)
	if place.Circle != nil {
		s.layout = graph.Stacked
	}
	s.rules, err = s.be.ShardingRules().Whole()
	require.NoError(t, err)
	const n = servedRows * servedContext
	s.weights = tensorsOf(t, place, graph.Params(meshModel), graph.Pieces(meshModel, s.layout, dtypes.Float32))
	s.pool = tensorsOf(t, place, []axis.Param{graph.PagesParam(meshModel, "pages/key", n), graph.PagesParam(meshModel, "pages/value", n)},
		graph.PagesPieces(meshModel, s.layout, dtypes.Float32, n))
	return s
}

// compile makes the program of rows of so many tokens. It gives logits of the last of each, and the pool.
func (s served) compile(t *testing.T, name string, rows, tokens int) (*lower.Program, *aot.Module) {
	dir := t.TempDir()
	o := lower.ProgramOptions{Shard: shard(append(s.weights[:len(s.weights):len(s.weights)], s.pool...)...), Rules: &s.rules, Donate: map[string]int{}, Overrides: optimized.Into(dir)}
	for i, x := range s.pool {
		o.Donate[x.piece.Name] = 1 + i
	}
	g := gx.NewGraph(s.be.With(o), name)
	nodes, pieces := declare(g, s.weights)
	w := graph.NewWeights(s.layout, dtypes.Float32, pieces, nodes)
	if s.layout == graph.Stacked {
		w = w.Staged()
	}
	ints := func(name string, dims ...int) *gx.Node {
		return gx.Parameter(g, name, shapes.Make(dtypes.Int32, dims...))
	}
	in := graph.Paged{Tokens: ints("tokens", rows, tokens), Positions: ints("positions", rows, tokens), Write: ints("write", rows, tokens),
		Read: ints("read", rows, servedContext)}
	var pool []axis.Piece
	for _, x := range s.pool {
		pool = append(pool, x.piece)
	}
	r, after := graph.RunPaged(meshModel, w, in, graph.DeclarePages(g, pool), graph.KeepNothing)
	last := gx.Squeeze(gx.SliceAxis(r.Hidden, 1, gx.AxisRange(tokens-1, tokens)), 1) // [B, D]
	require.NoError(t, g.Compile(append([]*gx.Node{graph.Logits(meshModel, w, last)}, after.Nodes()...)...))
	p, err := lower.ProgramOf(g.Executable())
	require.NoError(t, err)
	return p, optimized.Read(t, dir)
}

// run runs a program on tokens that begin at a position of each row.
func (s served) run(t *testing.T, p *lower.Program, rows, tokens, start int, weights, pool []*lower.Buffer) (logits []float32, after []*lower.Buffer) {
	var ids, at, write, see []int32
	for row := range rows {
		for i := range tokens {
			ids = append(ids, int32((row*7+start+i)*11%meshModel.Vocab))
			at = append(at, int32(start+i))
			write = append(write, int32(row*servedContext+start+i))
		}
		for i := range servedContext {
			see = append(see, int32(row*servedContext+i))
		}
	}
	args := append([]*lower.Buffer{}, weights...)
	for _, x := range [][]int32{ids, at, write} {
		b, err := s.be.Upload(shapes.Make(dtypes.Int32, rows, tokens), x)
		require.NoError(t, err)
		args = append(args, b)
	}
	b, err := s.be.Upload(shapes.Make(dtypes.Int32, rows, servedContext), see)
	require.NoError(t, err)
	outs, err := p.Run(append(append(args, b), pool...)...)
	require.NoError(t, err)
	return read(t, outs[0]), outs[1:]
}

// answers are what both programs give: logits of both, and the pool afterwards by layers.
func (s served) answers(t *testing.T, prefill, decode *lower.Program) (all [][]float32) {
	var weights, pool []*lower.Buffer
	for _, x := range s.weights {
		weights = append(weights, x.initial(t, s.be))
	}
	for _, x := range s.pool {
		b, err := s.be.MakeSharded(x.piece.Name, shapes.Make(x.piece.DType, x.piece.Shape...), x.spec, nil)
		require.NoError(t, err)
		pool = append(pool, b)
	}
	first, pool := s.run(t, prefill, 2, 3, 0, weights, pool)
	second, pool := s.run(t, decode, servedRows, 1, 3, weights, pool)
	var pages []float32
	for _, x := range pool {
		pages = append(pages, read(t, x)...)
	}
	return [][]float32{first, second, pages}
}

// arguments are the bytes of a program's arguments on a device, by the sharding rules: those of weights from their
// report.
func (s served) arguments(t *testing.T, rows, tokens int) int64 {
	report, err := sharding.Describe(graph.Params(meshModel), func(axis.Param) sharding.Width { return sharding.Width{Weight: 4} },
		s.be.ShardingRules(), s.be.Mesh())
	require.NoError(t, err)
	n := report.Bytes[sharding.Weights] + 4*rows*(3*tokens+servedContext)
	for _, x := range s.pool {
		local, err := x.spec.Local(s.be.Mesh(), x.piece.Shape)
		require.NoError(t, err)
		n += 4 * axis.Count(local)
	}
	return int64(n)
}

// TestServingOnMeshes holds logits and pages on meshes to those of one device, and XLA's size of the arguments to that of the
// sharding rules. Its goldens are what devices exchange, in the programs that XLA has optimized.
func TestServingOnMeshes(t *testing.T) {
	one := serveOn(t, "", "")
	prefill, _ := one.compile(t, "prefill", 2, 3)
	decode, _ := one.compile(t, "decode", servedRows, 1)
	want := one.answers(t, prefill, decode)
	golden.Run(t, "testdata/serving/*.txtar", func(t *testing.T, in map[string]string) string {
		mesh, preset, _ := strings.Cut(strings.TrimSpace(in["mesh"]), "\n")
		if testing.Short() && mesh != "pipe=2 expert=2 tensor=2" {
			t.Skip("compiles for seconds")
		}
		if !golden.Long() && !slices.Contains([]string{"pipe=2 expert=2 tensor=2", "tensor=8", "pipe=4 expert=2", "data=2 expert=4"}, mesh) {
			t.Skip("compiles for seconds: runs where TEST_LONG is set")
		}
		s := serveOn(t, mesh, preset)
		prefill, first := s.compile(t, "prefill", 2, 3)
		decode, second := s.compile(t, "decode", servedRows, 1)
		for i, got := range s.answers(t, prefill, decode) {
			require.Less(t, near(want[i], got), 1e-5, "logits of prefill and decode, pages: %d", i)
		}
		for _, x := range []struct {
			p            *lower.Program
			rows, tokens int
		}{{prefill, 2, 3}, {decode, servedRows, 1}} {
			m, err := x.p.MemoryStats()
			require.NoError(t, err)
			require.Equal(t, s.arguments(t, x.rows, x.tokens), m.Argument, "%s: bytes of arguments", x.p.Name())
		}
		return fmt.Sprintf("prefill of 2 sequences of 3 tokens\n%s\ndecode of %d sequences\n%s", optimized.Exchanges(first, s.be.Mesh()), servedRows,
			optimized.Exchanges(second, s.be.Mesh()))
	})
}
