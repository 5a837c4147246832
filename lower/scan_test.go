package lower_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"unsafe"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/graph/composite"
	"mix/internal/golden"
	"mix/internal/oracle"
	"mix/lower"
	"mix/sharding/ckpt"
)

// cpu is a CPU backend without a cache that ends with the test.
func cpu(t testing.TB) *lower.Backend {
	t.Helper()
	b, err := lower.New(t.Context(), lower.Options{NoCache: true, Verify: true, Progress: os.Stderr})
	if err != nil {
		t.Fatalf("no CPU plugin, and none can be installed: %v", err)
	}
	t.Cleanup(b.Finalize)
	return b
}

// tryRun evaluates f over args on b.
func tryRun(t testing.TB, b *lower.Backend, args []any, f func(in []*gx.Node) []*gx.Node) ([]*tensors.Tensor, error) {
	t.Helper()
	exec, err := gx.NewExec(b, f)
	require.NoError(t, err)
	defer exec.Finalize()
	return exec.Call(args...)
}

func run(t testing.TB, b *lower.Backend, args []any, f func(in []*gx.Node) []*gx.Node) []*tensors.Tensor {
	t.Helper()
	outs, err := tryRun(t, b, args, f)
	require.NoError(t, err)
	return outs
}

func values[T float32 | int32](t testing.TB, x *tensors.Tensor) []T {
	t.Helper()
	v, err := tensors.CopyFlatData[T](x)
	require.NoError(t, err)
	return v
}

func random(seed uint64, dims ...int) *tensors.Tensor {
	n := 1
	for _, d := range dims {
		n *= d
	}
	r := rand.New(rand.NewPCG(seed, 3))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64()) / 2
	}
	return tensors.FromFlatDataAndDimensions(x, dims...)
}

// looped is a small recurrence with everything that a scan can carry: carries in float32, int32 and
// a narrow float, shared floats and integers, stacked weights in both floats and stacked integers.
type looped struct {
	narrow                 dtypes.DType
	carry, shared, stacked []*gx.Node
}

const loopWidth = 3

// loopArgs are the arguments of a looped of so many layers.
func loopArgs(layers int) []any {
	ids := make([]int32, layers)
	for i := range ids {
		ids[i] = int32(i*i%5) - 1
	}
	return []any{random(1, 2, loopWidth), int32(3), random(2, 2, loopWidth), // carry
		random(3, loopWidth), []int32{1, 2, 0}, random(8, loopWidth, loopWidth), // shared, the last with a gradient
		random(4, layers, loopWidth, loopWidth), random(5, layers, loopWidth), tensors.FromFlatDataAndDimensions(ids, layers), // stacked
		random(6, layers, loopWidth)} // frozen
}

func loopOf(in []*gx.Node, narrow dtypes.DType) looped {
	return looped{narrow, []*gx.Node{in[0], in[1], gx.ConvertDType(in[2], narrow)}, in[3:6], []*gx.Node{in[6], gx.ConvertDType(in[7], narrow), in[8], in[9]}}
}

func full(x *gx.Node) *gx.Node { return gx.ConvertDType(x, dtypes.Float32) }

// scanned is the scan's inputs; weights is one more, whose gradient is a sum over layers.
func (s looped) scanned() composite.Scanned {
	return composite.Scanned{Carry: s.carry, Shared: s.shared[:2], Weights: s.shared[2:], Stacked: s.stacked[:3], Frozen: s.stacked[3:]}
}

// layer is one step; its outputs are shaped as outs says.
func (s looped) layer(in composite.Scanned) (next, outs []*gx.Node) {
	carry, shared, slices := in.Carry, in.Shared, in.Stacked
	x, n, h := carry[0], carry[1], carry[2]
	w, b, id := slices[0], slices[1], slices[2]
	turned := gx.Gather(w, gx.InsertAxes(shared[1], -1))                           // [W, W] rows by the shared integers
	y := gx.Add(gx.Einsum("bi,oi->bo", x, turned), full(h))                        // [2, W]
	y = gx.Add(y, gx.ExpandLeftToRank(gx.Mul(shared[0], in.Frozen[0]), 2))         // [2, W]
	y = gx.Add(gx.Einsum("bi,oi->bo", y, in.Weights[0]), y)                        // [2, W]
	y = gx.Tanh(gx.Mul(y, gx.MulScalar(full(gx.Add(id, n)), 0.125)))               // [2, W]
	h = gx.Mul(gx.Add(h, gx.ConvertDType(y, s.narrow)), gx.ExpandLeftToRank(b, 2)) // [2, W]
	return []*gx.Node{y, gx.Add(n, id), h}, []*gx.Node{gx.Mul(y, y), gx.Add(n, n), gx.Mul(h, gx.ConvertDType(x, s.narrow))}
}

func (s looped) outs() []shapes.Shape {
	wide := shapes.Make(dtypes.Float32, 2, loopWidth)
	return []shapes.Shape{wide, shapes.Make(dtypes.Int32), shapes.Make(s.narrow, 2, loopWidth)}
}

// unrolled is what a scan means.
func (s looped) unrolled() (last, all []*gx.Node) {
	layers := s.stacked[0].Shape().Dim(0)
	collected := make([][]*gx.Node, 3)
	last = s.carry
	for l := range layers {
		var slices, outs []*gx.Node
		for _, x := range s.stacked {
			slices = append(slices, gx.Squeeze(gx.SliceAxis(x, 0, gx.AxisRange(l, l+1)), 0))
		}
		last, outs = s.layer(composite.Scanned{Carry: last, Shared: s.shared[:2], Weights: s.shared[2:], Stacked: slices[:3], Frozen: slices[3:]})
		for i, o := range outs {
			collected[i] = append(collected[i], gx.InsertAxes(o, 0))
		}
	}
	for _, each := range collected {
		all = append(all, gx.Concatenate(each, 0))
	}
	return last, all
}

// shown converts bfloat16 to what tests read.
func shown(nodes ...[]*gx.Node) (out []*gx.Node) {
	for _, ns := range nodes {
		for _, n := range ns {
			if n.DType() == dtypes.BFloat16 {
				n = full(n)
			}
			out = append(out, n)
		}
	}
	return out
}

// compare holds floats to a relative L2 norm and integers to equality.
func compare(t *testing.T, names []string, got, want []*tensors.Tensor, tolerance float64) {
	t.Helper()
	require.Len(t, got, len(names))
	require.Len(t, want, len(names))
	for i, name := range names {
		if want[i].DType() == dtypes.Int32 {
			require.Equal(t, values[int32](t, want[i]), values[int32](t, got[i]), name)
			continue
		}
		require.NotZero(t, oracle.RelL2(make([]float32, want[i].Size()), values[float32](t, want[i])), "%s is all zeros", name)
		require.LessOrEqual(t, oracle.RelL2(values[float32](t, got[i]), values[float32](t, want[i])), tolerance, name)
	}
}

// scanTolerance is by the narrow dtype: scan and loop do the same operations, but XLA fuses them
// differently, and keeps more bits of a bfloat16 inside a fusion; 2^-8 is one rounding.
var scanTolerance = map[dtypes.DType]float64{dtypes.Float32: 1e-6, dtypes.BFloat16: 1.0 / 64}

func TestScanIsTheUnrolledLoop(t *testing.T) {
	b := cpu(t)
	type scanner func(in composite.Scanned, outs []shapes.Shape, l composite.Layer) (last, all []*gx.Node)
	for name, scan := range map[string]scanner{"scan": composite.Scan, "scan for gradient": composite.ScanForGradient, "stored scan": composite.ScanStored} {
		for narrow, tolerance := range scanTolerance {
			for _, layers := range []int{1, 5} {
				t.Run(fmt.Sprintf("%s of %d in %s", name, layers, narrow), func(t *testing.T) {
					out := run(t, b, loopArgs(layers), func(in []*gx.Node) []*gx.Node {
						s := loopOf(in, narrow)
						last, all := scan(s.scanned(), s.outs(), s.layer)
						wantLast, wantAll := s.unrolled()
						return shown(last, all, wantLast, wantAll)
					})
					names := []string{"carry", "integer carry", "narrow carry", "outputs", "integer outputs", "narrow outputs"}
					compare(t, names, out[:6], out[6:], tolerance)
				})
			}
		}
	}
}

func TestScanGradientIsTheUnrolledLoops(t *testing.T) {
	b := cpu(t)
	weigh := func(x *gx.Node, seed uint64) *gx.Node {
		c := gx.Const(x.Graph(), values[float32](t, random(seed, x.Shape().Size())))
		return gx.ReduceAllSum(gx.Mul(gx.Reshape(full(x), -1), c))
	}
	losses := map[string]func(last, all []*gx.Node) *gx.Node{
		"of everything": func(last, all []*gx.Node) *gx.Node {
			sum := gx.Add(weigh(last[0], 11), weigh(last[2], 12))
			return gx.Add(sum, gx.Add(weigh(all[0], 13), weigh(all[2], 14)))
		},
		"of the last carry":   func(last, _ []*gx.Node) *gx.Node { return weigh(last[0], 15) },
		"of the narrow carry": func(last, _ []*gx.Node) *gx.Node { return weigh(last[2], 16) },
		"of an output":        func(_, all []*gx.Node) *gx.Node { return weigh(all[2], 17) },
	}
	for name, loss := range losses {
		for narrow, tolerance := range scanTolerance {
			if testing.Short() && name != "of everything" {
				continue
			}
			t.Run(fmt.Sprintf("%s in %s", name, narrow), func(t *testing.T) {
				out := run(t, b, loopArgs(4), func(in []*gx.Node) []*gx.Node {
					s := loopOf(in, narrow)
					wrt := []*gx.Node{in[0], in[2], in[5], in[6], in[7]}
					last, all := composite.ScanForGradient(s.scanned(), s.outs(), s.layer)
					got := gx.Gradient(loss(last, all), wrt...)
					last, all = composite.ScanStored(s.scanned(), s.outs(), s.layer)
					stored := gx.Gradient(loss(last, all), wrt...)
					last, all = s.unrolled()
					return shown(got, stored, gx.Gradient(loss(last, all), wrt...))
				})
				names := []string{"carry", "narrow carry", "weights", "stacked", "narrow stacked"}
				compare(t, names, out[:5], out[10:], tolerance)
				compare(t, names, out[5:10], out[10:], tolerance)
			})
		}
	}
}

// TestStoredScanMultipliesOnce counts products: a layer has two, and each two more in the gradient.
func TestStoredScanMultipliesOnce(t *testing.T) {
	l, err := lower.NewLowerer(lower.Options{Verify: true})
	require.NoError(t, err)
	for _, tt := range []struct {
		name string
		scan func(in composite.Scanned, outs []shapes.Shape, l composite.Layer) (last, all []*gx.Node)
		want int
	}{{"computed again", composite.ScanForGradient, 2 + 2 + 4}, {"stored", composite.ScanStored, 2 + 4}} {
		g := gx.NewGraph(l, "scan")
		var in []*gx.Node
		for i, x := range loopArgs(4) {
			x, ok := x.(*tensors.Tensor)
			shape := shapes.Make(dtypes.Int32)
			switch {
			case ok:
				shape = x.Shape()
			case i == 4:
				shape = shapes.Make(dtypes.Int32, loopWidth)
			}
			in = append(in, gx.Parameter(g, fmt.Sprint("p", i), shape))
		}
		s := loopOf(in, dtypes.Float32)
		last, all := tt.scan(s.scanned(), s.outs(), s.layer)
		loss := gx.Add(gx.ReduceAllSum(last[0]), gx.ReduceAllSum(all[2]))
		require.NoError(t, g.Compile(gx.Gradient(loss, in[0], in[5], in[6])...))
		listing, err := lower.ListingOf(g.Executable())
		require.NoError(t, err)
		require.Equal(t, tt.want, strings.Count(listing.Text, "stablehlo.dot_general"), tt.name)
	}
}

func TestScanRefuses(t *testing.T) {
	b := cpu(t)
	same := func(in composite.Scanned) (next, outs []*gx.Node) { return in.Carry, nil }
	of := func(x *gx.Node, stacked ...*gx.Node) composite.Scanned {
		return composite.Scanned{Carry: []*gx.Node{x}, Stacked: stacked}
	}
	tests := []struct {
		name string
		fn   func(x, w *gx.Node) *gx.Node
		want string
	}{
		{"a gradient that was not asked for", func(x, w *gx.Node) *gx.Node {
			last, _ := composite.Scan(of(x, w), nil, same)
			return gx.Gradient(gx.ReduceAllSum(last[0]), x)[0]
		}, "scan: gradient of a Scan, want ScanForGradient"},
		{"nothing stacked", func(x, _ *gx.Node) *gx.Node {
			last, _ := composite.Scan(of(x), nil, same)
			return last[0]
		}, "scan: 1 carried and 0 stacked values, want at least one of each"},
		{"other numbers of layers", func(x, w *gx.Node) *gx.Node {
			last, _ := composite.Scan(of(x, w, gx.Slice(w, gx.AxisRange(0, 1))), nil, same)
			return last[0]
		}, "scan: stacked value 1 is (Float32)[1, 2], want [2] layers"},
		{"an output that was not declared", func(x, w *gx.Node) *gx.Node {
			last, _ := composite.Scan(of(x, w), nil, func(in composite.Scanned) (next, outs []*gx.Node) { return in.Carry, in.Stacked })
			return last[0]
		}, "scan: the layer gave 1 carried and 1 outputs, want 1 and 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tryRun(t, b, []any{random(1, 2), random(2, 2, 2)}, func(in []*gx.Node) []*gx.Node { return []*gx.Node{tt.fn(in[0], in[1])} })
			require.ErrorContains(t, err, tt.want)
		})
	}
}

// weightsOf reads a checkpoint in the pieces of a layout.
func weightsOf(t *testing.T, dir string, l graph.Layout) (c graph.Config, weights []any) {
	t.Helper()
	c, err := graph.LoadConfig(dir)
	require.NoError(t, err)
	ck, err := ckpt.Open(dir, graph.Params(c), ckpt.Options{})
	require.NoError(t, err)
	defer ck.Close()
	for _, q := range graph.Pieces(c, l, dtypes.Float32) {
		v := make([]float32, q.Elements())
		require.NoError(t, ck.Read(q, unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), 4*len(v))))
		weights = append(weights, tensors.FromFlatDataAndDimensions(v, q.Shape...))
	}
	return c, weights
}

// TestGoldenCases runs the recorded cases through the compiler in both layouts: forward, traces, losses and
// gradients, and the layouts against each other. Tolerances are those of the tests of package graph.
func TestGoldenCases(t *testing.T) {
	b := cpu(t)
	for _, name := range oracle.Names() {
		o := oracle.Open(t, name)
		var logits [][]float32 // by layout
		for _, l := range []graph.Layout{graph.Stacked, graph.PerMatrix, graph.PerLayer} {
			if l == graph.PerLayer && (name != oracle.Names()[0] && !golden.Long() || testing.Short()) {
				continue
			}
			t.Run(name+"/"+l.String(), func(t *testing.T) {
				c, args := weightsOf(t, o.Checkpoints[0], l)
				n := len(args)
				for _, input := range []string{"input_ids", "labels"} {
					v, dims := o.Ints(t, input)
					args = append(args, tensors.FromFlatDataAndDimensions(v, dims...))
				}
				out := run(t, b, args, func(in []*gx.Node) []*gx.Node {
					w := graph.WeightsOf(c, l, dtypes.Float32, in[:n])
					r := graph.Run(c, w, graph.Inputs{Tokens: in[n]}, nil, graph.KeepAll)
					kept := []*gx.Node{graph.Logits(c, w, r.Hidden), r.Layers, r.AttnOut, r.MoEOut, r.RouterLogits, r.RouterWeights, r.RouterChosen}
					r = graph.RunForGradient(c, w, graph.Inputs{Tokens: in[n]}, graph.KeepRouter, graph.RecomputeNothing)
					ce, _ := graph.CrossEntropy(graph.Logits(c, w, r.Hidden), graph.NextTokens(in[n+1]))
					aux := graph.LoadBalance(r.RouterLogits, r.RouterChosen, nil)
					loss := gx.Add(ce, gx.MulScalar(aux, c.AuxCoef))
					return append(append(kept, ce, aux, loss), gx.Gradient(loss, in[:n]...)...)
				})
				logits = append(logits, values[float32](t, out[0]))
				require.LessOrEqual(t, oracle.MaxDiff(values[float32](t, out[0]), o.Floats(t, "logits")), 2e-4, "logits")
				for layer := range c.Layers {
					for i, what := range []string{"hidden", "attn_out", "moe_out", "router.logits", "router.weights"} {
						all := values[float32](t, out[1+i])
						k := len(all) / c.Layers
						require.LessOrEqual(t, oracle.MaxDiff(all[layer*k:(layer+1)*k], o.Floats(t, fmt.Sprintf("%s.layer%d", what, layer))), 2e-4, "%s of layer %d", what, layer)
					}
					all := values[int32](t, out[6])
					k := len(all) / c.Layers
					want, _ := o.Ints(t, fmt.Sprintf("router.experts.layer%d", layer))
					require.Equal(t, want, all[layer*k:(layer+1)*k], "router choices of layer %d", layer)
				}
				for i, want := range []float64{o.Meta.Loss.CE, o.Meta.Loss.Aux, o.Meta.Loss.Total} {
					require.InEpsilon(t, want, values[float32](t, out[7+i])[0], 1e-5)
				}
				var grads [][]float32
				for _, x := range out[10:] {
					grads = append(grads, values[float32](t, x))
				}
				o.CheckGradients(t, graph.Pieces(c, l, dtypes.Float32), grads, 1e-4)
			})
		}
		for _, other := range logits[1:] {
			require.LessOrEqual(t, oracle.MaxDiff(logits[0], other), 2e-5, "%s: stacked and split", name)
		}
	}
}

// TestStackedProgramsDoNotGrowWithDepth compares what is given to XLA for 4 and for 32 layers.
func TestStackedProgramsDoNotGrowWithDepth(t *testing.T) {
	b, err := lower.NewLowerer(lower.Options{Verify: true})
	require.NoError(t, err)
	programs := map[string]func(c graph.Config, g *gx.Graph, w graph.Weights, tokens *gx.Node) []*gx.Node{
		"forward": func(c graph.Config, _ *gx.Graph, w graph.Weights, tokens *gx.Node) []*gx.Node {
			r := graph.Run(c, w, graph.Inputs{Tokens: tokens}, nil, graph.KeepAll)
			return []*gx.Node{graph.Logits(c, w, r.Hidden), r.Layers}
		},
		"step with a cache": func(c graph.Config, g *gx.Graph, w graph.Weights, tokens *gx.Node) []*gx.Node {
			cache := graph.DeclareCache(g, graph.CachePieces(c, graph.Stacked, dtypes.Float32, 1, 8))
			start := gx.Parameter(g, "start", shapes.Make(dtypes.Int32))
			r := graph.Run(c, w, graph.Inputs{Tokens: tokens, Start: start}, cache, graph.KeepNothing)
			return append(r.Cache.Nodes(), graph.Logits(c, w, r.Hidden))
		},
		"gradient": func(c graph.Config, g *gx.Graph, w graph.Weights, tokens *gx.Node) []*gx.Node {
			r := graph.RunForGradient(c, w, graph.Inputs{Tokens: tokens}, graph.KeepRouter, graph.RecomputeNothing)
			loss, _ := graph.CrossEntropy(graph.Logits(c, w, r.Hidden), graph.NextTokens(tokens))
			return gx.Gradient(loss, g.GetParameterByName("embed"), g.GetParameterByName("layers/moe/gate"), g.GetParameterByName("layers/attn/key"))
		},
	}
	for name, program := range programs {
		t.Run(name, func(t *testing.T) {
			ops := func(layers int) int {
				c := graph.Config{Vocab: 16, Width: 8, Hidden: 8, Layers: layers, Heads: 2, KVHeads: 1, HeadDim: 4, Experts: 3, TopK: 2,
					Context: 8, RopeTheta: 1e4, NormEps: 1e-5, DType: "float32"}
				g := gx.NewGraph(b, name)
				w := graph.Declare(g, c, graph.Stacked, dtypes.Float32)
				require.NoError(t, g.Compile(program(c, g, w, gx.Parameter(g, "tokens", shapes.Make(dtypes.Int32, 1, 4)))...))
				l, err := lower.ListingOf(g.Executable())
				require.NoError(t, err)
				return strings.Count(l.Text, "\n")
			}
			four := ops(4)
			require.Greater(t, four, 100)
			require.Equal(t, four, ops(32))
		})
	}
}

// TestCacheIsTheFullForward computes sequences in pieces, with a cache that is longer than they are: two
// chunks, then token by token.
func TestCacheIsTheFullForward(t *testing.T) {
	if testing.Short() {
		t.Skip("needs half a minute of compiling: run without -short")
	}
	b := cpu(t)
	o := oracle.Open(t, "c_odd")
	ids, dims := o.Ints(t, "input_ids")
	batch, seq := dims[0], dims[1]
	chunk := func(from, to int) *tensors.Tensor {
		var part []int32
		for i := range batch {
			part = append(part, ids[i*seq+from:i*seq+to]...)
		}
		return tensors.FromFlatDataAndDimensions(part, batch, to-from)
	}
	for _, l := range []graph.Layout{graph.Stacked, graph.PerMatrix, graph.PerLayer} {
		for _, window := range []int{0, 4} {
			t.Run(fmt.Sprintf("%s, window %d", l, window), func(t *testing.T) {
				c, weights := weightsOf(t, o.Checkpoints[0], l)
				c.Window = window
				n := len(weights)
				want := values[float32](t, run(t, b, append(weights[:n:n], chunk(0, seq)), func(in []*gx.Node) []*gx.Node {
					w := graph.WeightsOf(c, l, dtypes.Float32, in[:n])
					return []*gx.Node{graph.Logits(c, w, graph.Run(c, w, graph.Inputs{Tokens: in[n]}, nil, graph.KeepNothing).Hidden)}
				})[0])
				step, err := gx.NewExec(b, func(in []*gx.Node) []*gx.Node {
					w, kv := graph.WeightsOf(c, l, dtypes.Float32, in[:n]), in[n+2:]
					cache := &graph.Cache{K: kv[:len(kv)/2], V: kv[len(kv)/2:]}
					r := graph.Run(c, w, graph.Inputs{Tokens: in[n], Start: in[n+1]}, cache, graph.KeepNothing)
					return append([]*gx.Node{graph.Logits(c, w, r.Hidden)}, r.Cache.Nodes()...)
				})
				require.NoError(t, err)
				defer step.Finalize()
				var cache []any
				for _, q := range graph.CachePieces(c, l, dtypes.Float32, batch, seq+3) {
					s := shapes.Make(q.DType, q.Shape...)
					cache = append(cache, tensors.FromShape(s))
				}
				ends := []int{5, 8}
				for end := 9; end <= seq; end++ {
					ends = append(ends, end)
				}
				from := 0
				for _, to := range ends {
					out, err := step.Call(append(append(weights[:n:n], chunk(from, to), int32(from)), cache...)...)
					require.NoError(t, err)
					got, v := values[float32](t, out[0]), c.Vocab
					for i := range batch {
						require.LessOrEqual(t, oracle.MaxDiff(got[i*(to-from)*v:(i+1)*(to-from)*v], want[(i*seq+from)*v:(i*seq+to)*v]), 2e-5, "sequence %d, positions %d to %d", i, from, to)
					}
					for i := range cache {
						cache[i] = out[1+i]
					}
					from = to
				}
				if window == 0 {
					require.LessOrEqual(t, oracle.MaxDiff(want, o.Floats(t, "logits")), 2e-4)
				}
			})
		}
	}
}
