package pass

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/lower/aot"
	"mix/lower/ir"
	"mix/lower/trace"
	"mix/lower/triton"
)

// recorder is a backend that records one program and runs none.
type recorder struct {
	compute.Backend
	made *trace.Builder
}

func (r *recorder) Name() string                       { return "recorder" }
func (r *recorder) String() string                     { return "recorder" }
func (r *recorder) IsFinalized() bool                  { return false }
func (r *recorder) Capabilities() compute.Capabilities { return trace.Capabilities() }
func (r *recorder) Builder(name string) compute.Builder {
	r.made = trace.New(name, func(*trace.Builder) (compute.Executable, error) { return nil, nil })
	return r.made
}

// decodeStep is a server's step: the next token of each of rows sequences, of up to context tokens that lie in a pool.
func decodeStep(t *testing.T, c graph.Config, rows, context int) *ir.Module {
	t.Helper()
	r := &recorder{}
	g := gx.NewGraph(r, "decode")
	w := graph.Declare(g, c, graph.PerLayer, dtypes.BFloat16)
	ints := func(name string, n int) *gx.Node { return gx.Parameter(g, name, shapes.Make(dtypes.Int32, rows, n)) }
	in := graph.Paged{Tokens: ints("tokens", 1), Positions: ints("positions", 1), Write: ints("write", 1), Read: ints("read", context)}
	pages := graph.DeclarePages(g, graph.PagesPieces(c, graph.PerLayer, dtypes.BFloat16, rows*context))
	out, after := graph.RunPaged(c, w, in, pages, graph.KeepRouter)
	logits := gx.Reshape(graph.Logits(c, w, out.Hidden), -1, c.Vocab)
	require.NoError(t, g.Compile(append([]*gx.Node{logits, out.RouterChosen}, after.Nodes()...)...))
	return r.made.Module()
}

// TestDecodeStepIsTheSame runs a decode step as kernels, by the interpreter, and holds it to the same program on the CPU.
func TestDecodeStepIsTheSame(t *testing.T) {
	if testing.Short() {
		t.Skip("interprets kernels of two layers: not in short mode")
	}
	c := small()
	c.Layers = 2
	const context = 24
	for _, rows := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d rows", rows), func(t *testing.T) {
			r := rand.New(rand.NewPCG(3, uint64(rows)))
			var args []tensor
			plain, kernels := decodeStep(t, c, rows, context), decodeStep(t, c, rows, context)
			for i, v := range kernels.Func("main").Params() {
				_, dims, _ := v.Type.Split()
				a := random(r, v.Type, math.Sqrt(1/float64(dims[len(dims)-1])))
				if len(dims) == 1 { // scales of norms
					a = random(r, v.Type, 1)
				}
				if strings.HasSuffix(string(v.Type), "xi32>") {
					a.data = nil
					for row := range rows {
						switch at := 11 + 3*row; i - (len(kernels.Func("main").Params()) - 4 - 2*c.Layers) {
						case 0:
							a.data = append(a.data, float32(40+row)) // tokens
						case 1:
							a.data = append(a.data, float32(at)) // positions
						case 2:
							a.data = append(a.data, float32(row*context+at)) // write
						default:
							for p := range context {
								a.data = append(a.data, float32(row*context+p)) // read
							}
						}
					}
				}
				args = append(args, a)
			}
			_, err := Run(kernels, Context{Platform: "cuda"}, All(), Hooks{Verify: true})
			require.NoError(t, err)
			m := machine{kernels: map[ir.Attr]triton.Call{}}
			know(t, &m, c, rows, context)
			got := m.run(t, kernels.Func("main"), args)
			main := plain.Func("main")
			end := main.Body.Ops[len(main.Body.Ops)-1]
			results := end.Operands
			require.Len(t, got, len(results))
			for i, v := range results {
				end.Operands, main.Results = []*ir.Value{v}, []ir.Type{v.Type}
				text, err := ir.Parse(plain.String())
				require.NoError(t, err)
				_, err = Run(text, Context{Platform: "cpu"}, All(), Hooks{})
				require.NoError(t, err)
				want := asInts(t, compile(t, text), args)
				off, all := 0.0, 0.0
				for j, w := range want {
					off += math.Pow(float64(got[i].data[j]-w), 2)
					all += math.Pow(float64(w), 2)
				}
				// Two layers of bf16, of which CPU and kernels round other values. Choices of experts are the same.
				most := 0.02
				if v.Type == ir.Tensor("i32", c.Layers, rows, c.TopK) {
					most = 0
				}
				require.LessOrEqual(t, math.Sqrt(off/all), most, "result %d: distance from the CPU's, as a part of its length", i)
			}
		})
	}
}

// know adds the kernels of a decode step.
func know(t *testing.T, m *machine, c graph.Config, rows, context int) {
	call := func(c triton.Call, err error) {
		require.NoError(t, err)
		m.know(c)
	}
	const elem = triton.BF16
	linear := func(outs ...int) int {
		l := triton.Linear{Tokens: rows, Width: c.Width, Outs: outs, Elem: elem, Y: triton.F32}
		if len(outs) == 1 && outs[0] == c.Width {
			l.Width = c.Heads * c.HeadDim
		}
		tile, err := tiles().Choose("linear", elem, rows)
		require.NoError(t, err)
		tile = l.Fit(tile)
		call(l.Call(tile))
		return tile.Split
	}
	splits := linear(c.Heads*c.HeadDim, c.KVHeads*c.HeadDim, c.KVHeads*c.HeadDim)
	call(triton.Heads{Tokens: rows, Width: c.HeadDim, Heads: c.Heads, KeyHeads: c.KVHeads, Positions: rows * context, Splits: splits, Sums: triton.F32, Elem: elem}.Call())
	splits = linear(c.Width)
	linear(c.Vocab)
	x := triton.Experts{Tokens: rows, Choices: c.TopK, Experts: c.Experts, Width: c.Width, Hidden: c.Hidden, Elem: elem, Routed: true}
	route, err := x.Route(tiles())
	call(route, err)
	p, err := x.Forward(tiles())
	m.plan(t, p, err)
	n := triton.Norm{Tokens: rows, Width: c.Width, Eps: c.NormEps, Elem: elem}
	call(n.Call())
	n.Choices, n.Splits, n.Parts, n.Experts = 1, splits, triton.F32, c.Experts
	if rows == 1 {
		up, err := tiles().Choose("decode_up", elem, rows)
		require.NoError(t, err)
		n.Route = &triton.Route{Tokens: 1, Experts: c.Experts, Choices: c.TopK, Block: up.M}
	}
	call(n.Call())
	n.Route = nil
	down, err := tiles().Choose("decode_down", elem, rows)
	require.NoError(t, err)
	n.Choices, n.Splits, n.Weighted, n.Experts = c.TopK, down.Split, true, 0
	call(n.Call())
	paged, err := tiles().Choose("paged", elem, rows)
	require.NoError(t, err)
	call(triton.Paged{Sequences: rows, Heads: c.Heads, KeyHeads: c.KVHeads, Width: c.HeadDim, Positions: rows * context, Context: context, Page: 1, Elem: elem}.Call(paged))
	call(triton.PagedCombine{Sequences: rows, Heads: c.Heads, Width: c.HeadDim, Splits: paged.Split, Elem: elem}.Call())
}

// TestDecodeCompiles compiles decode steps of 8x7B's layers: every weight is read once and none is copied or converted, and a layer
// of a single row
// is nine launches.
func TestDecodeCompiles(t *testing.T) {
	c := graph.Mixtral8x7B
	c.Vocab = 2048
	step := func(t *testing.T, layers, rows int) *aot.Result {
		c.Layers = layers
		m := decodeStep(t, c, rows, 64)
		main := m.Func("main")
		pool := 2 * layers
		main.ParamAttrs = make([]ir.Attrs, len(main.Params()))
		for i := range pool { // as the server donates it
			main.ParamAttrs[len(main.Params())-pool+i] = ir.Attrs{"tf.aliasing_output": ir.I32(len(main.Results) - pool + i)}
		}
		return ahead(t, m, "")
	}
	for _, rows := range []int{1, 2, 16, 64} {
		t.Run(fmt.Sprintf("%d rows", rows), func(t *testing.T) {
			two := step(t, 2, rows)
			cost := two.Module.Cost()
			require.Zero(t, cost.FLOPs, "XLA's own products")
			for _, k := range two.Kernels {
				require.Zero(t, k.Spilled, k.Name)
			}
			if rows == 1 {
				three := step(t, 3, rows).Module.Cost()
				require.EqualValues(t, 9, three.Launches-cost.Launches, "launches of a layer")
				require.InEpsilon(t, two.Memory.Argument, cost.Bytes, 0.1, "bytes read and written beside those of arguments")
			}
			require.Less(t, two.Memory.Temp, int64(1<<20*(1+rows/4)), "temporary")
		})
	}
}

// small is a model whose weights are just large enough for kernels.
func small() graph.Config {
	c := graph.Mixtral8x7B
	c.Vocab, c.Width, c.Hidden, c.Layers, c.Heads, c.KVHeads, c.HeadDim, c.Experts = 320, 256, 96, 1, 8, 4, 64, 4
	return c
}

// TestFewRowsTakesWhatItKnows changes a step so that it means something else, and finds the kernels gone that it would need.
func TestFewRowsTakesWhatItKnows(t *testing.T) {
	text := decodeStep(t, small(), 1, 24).String()
	// Of one layer: its two norms and the last, the projections, the output and the head.
	all := map[string]int{"norm": 3, "linear": 3, "heads": 1}
	without := func(name string, n int) map[string]int {
		some := maps.Clone(all)
		some[name] -= n
		if some[name] == 0 {
			delete(some, name)
		}
		return some
	}
	for _, tt := range []struct {
		name, from, to string
		want           map[string]int
	}{
		{"as it is", `"stablehlo.sqrt"`, `"stablehlo.sqrt"`, all},
		{"no root", `"stablehlo.sqrt"`, `"stablehlo.exponential"`, without("norm", 1)},
		{"another mean", `dense<3.90625e-03>`, `dense<3.8e-03>`, without("norm", 3)}, // the constant is of all three
		{"no squares", `"stablehlo.multiply"(%11, %11)`, `"stablehlo.add"(%11, %11)`, without("norm", 1)},
		{"the greatest square", `"stablehlo.add"(%arg19, %arg20)`, `"stablehlo.maximum"(%arg19, %arg20)`, without("norm", 1)},
		{"another rotation", `"stablehlo.subtract"`, `"stablehlo.add"`, without("heads", 1)},
		{"halves exchanged", `"stablehlo.concatenate"(%60, %65)`, `"stablehlo.concatenate"(%65, %60)`, without("heads", 1)},
		{"keys turned by another angle", `%67 = "stablehlo.convert"(%6)`, `%67 = "stablehlo.convert"(%7)`, without("heads", 1)},
		{"values at other places", `%92 = "stablehlo.reshape"(%arg15)`, `%92 = "stablehlo.reshape"(%arg14)`, without("heads", 1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.Contains(t, text, tt.from)
			m, err := ir.Parse(strings.Replace(text, tt.from, tt.to, 1))
			require.NoError(t, err)
			_, err = Run(m, Context{Platform: "cuda"}, All(), Hooks{Verify: true})
			require.NoError(t, err)
			got := map[string]int{}
			for _, k := range regexp.MustCompile(`name = "([a-z_]+)", num_stages`).FindAllStringSubmatch(m.String(), -1) {
				if _, asked := all[k[1]]; asked {
					got[k[1]]++
				}
			}
			require.Equal(t, tt.want, got)
		})
	}
}
