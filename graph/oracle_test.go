package graph_test

import (
	"fmt"
	"testing"
	"unsafe"

	"github.com/gomlx/compute/dtypes"
	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/internal/oracle"
	"mix/internal/purego"
	"mix/sharding/ckpt"
)

// program is a graph over a checkpoint's weights, on GoMLX's pure-Go backend.
type program struct {
	cfg     graph.Config
	weights []any
}

func open(t *testing.T, dir string, l graph.Layout) program {
	t.Helper()
	cfg, err := graph.LoadConfig(dir)
	require.NoError(t, err)
	ck, err := ckpt.Open(dir, graph.Params(cfg), ckpt.Options{})
	require.NoError(t, err)
	defer ck.Close()
	p := program{cfg: cfg}
	for _, q := range graph.Pieces(cfg, l, dtypes.Float32) {
		values := make([]float32, q.Elements())
		require.NoError(t, ck.Read(q, unsafe.Slice((*byte)(unsafe.Pointer(&values[0])), 4*len(values))))
		p.weights = append(p.weights, tensors.FromFlatDataAndDimensions(values, q.Shape...))
	}
	return p
}

// run evaluates f over the weights and further arguments.
func (p program) run(t *testing.T, l graph.Layout, args []any, f func(w graph.Weights, weights, args []*gx.Node) []*gx.Node) []*tensors.Tensor {
	t.Helper()
	return purego.Eval(t, append(append([]any{}, p.weights...), args...), func(in []*gx.Node) []*gx.Node {
		n := len(p.weights)
		return f(graph.WeightsOf(p.cfg, l, dtypes.Float32, in[:n]), in[:n], in[n:])
	})
}

func ints(c *oracle.Case, t *testing.T, name string) *tensors.Tensor {
	v, dims := c.Ints(t, name)
	return tensors.FromFlatDataAndDimensions(v, dims...)
}

// The tolerances of the golden tests are the issue's: docs/numerics.md has what was measured.
const (
	logitsTolerance   = 2e-4 // absolute
	lossTolerance     = 1e-5 // relative
	gradientTolerance = 1e-4 // relative L2 of a tensor
)

func TestForwardAgainstReference(t *testing.T) {
	for _, name := range oracle.Cases {
		c := oracle.Open(t, name)
		for _, dir := range c.Checkpoints {
			t.Run(name, func(t *testing.T) {
				p := open(t, dir, graph.PerMatrix)
				out := p.run(t, graph.PerMatrix, []any{ints(c, t, "input_ids"), ints(c, t, "labels")}, func(w graph.Weights, _, args []*gx.Node) []*gx.Node {
					r := graph.Run(p.cfg, w, graph.Inputs{Tokens: args[0]}, nil, graph.KeepAll)
					logits := graph.Logits(p.cfg, w, r.Hidden)
					ce, _ := graph.CrossEntropy(logits, graph.NextTokens(args[1]))
					aux := graph.LoadBalance(r.RouterLogits, r.RouterChosen, nil)
					return []*gx.Node{logits, ce, aux, r.Embedded, r.Hidden, r.Layers, r.AttnOut, r.MoEOut, r.RouterLogits, r.RouterWeights, r.RouterChosen}
				})
				near := func(want string, got []float32) {
					t.Helper()
					require.LessOrEqual(t, oracle.MaxDiff(got, c.Floats(t, want)), logitsTolerance, want)
				}
				near("logits", purego.Flat[float32](t, out[0]))
				near("hidden.embed", purego.Flat[float32](t, out[3]))
				near("hidden.final_norm", purego.Flat[float32](t, out[4]))
				for l := range p.cfg.Layers {
					for i, want := range []string{"hidden", "attn_out", "moe_out", "router.logits", "router.weights"} {
						all := purego.Flat[float32](t, out[5+i])
						n := len(all) / p.cfg.Layers
						near(fmt.Sprintf("%s.layer%d", want, l), all[l*n:(l+1)*n])
					}
					chosen, err := tensors.CopyFlatData[int32](out[10])
					require.NoError(t, err)
					n := len(chosen) / p.cfg.Layers
					want, _ := c.Ints(t, fmt.Sprintf("router.experts.layer%d", l))
					require.Equal(t, want, chosen[l*n:(l+1)*n], "router choices of layer %d", l)
				}
				require.InEpsilon(t, c.Meta.Loss.CE, purego.Flat[float32](t, out[1])[0], lossTolerance)
				require.InEpsilon(t, c.Meta.Loss.Aux, purego.Flat[float32](t, out[2])[0], lossTolerance)
			})
		}
	}
}

func TestPaddingAgainstReference(t *testing.T) {
	for _, name := range oracle.Cases {
		c := oracle.Open(t, name)
		for side, want := range c.Meta.Pad {
			t.Run(name+"/"+side, func(t *testing.T) {
				p := open(t, c.Checkpoints[0], graph.PerMatrix)
				key := "pad." + side + "."
				args := []any{ints(c, t, key+"input_ids"), ints(c, t, key+"labels"), ints(c, t, key+"attention_mask")}
				out := p.run(t, graph.PerMatrix, args, func(w graph.Weights, _, args []*gx.Node) []*gx.Node {
					r := graph.Run(p.cfg, w, graph.Inputs{Tokens: args[0], Segments: args[2]}, nil, graph.KeepRouter)
					logits := graph.Logits(p.cfg, w, r.Hidden)
					ce, _ := graph.CrossEntropy(logits, graph.NextTokens(args[1]))
					mask := gx.ConvertDType(gx.Reshape(args[2], -1), dtypes.Float32)
					shown := gx.Mul(logits, gx.ConvertDType(gx.InsertAxes(args[2], -1), dtypes.Float32))
					return []*gx.Node{shown, ce, graph.LoadBalance(r.RouterLogits, r.RouterChosen, mask)}
				})
				require.LessOrEqual(t, oracle.MaxDiff(purego.Flat[float32](t, out[0]), c.Floats(t, key+"logits")), logitsTolerance)
				require.InEpsilon(t, want.CE, purego.Flat[float32](t, out[1])[0], lossTolerance)
				require.InEpsilon(t, want.Aux, purego.Flat[float32](t, out[2])[0], lossTolerance)
			})
		}
	}
}

func TestShapesOfWeights(t *testing.T) {
	for name, c := range graph.Presets {
		total := 0
		for _, p := range graph.Params(c) {
			total += p.Elements()
		}
		for _, l := range []graph.Layout{graph.Stacked, graph.PerMatrix} {
			sum := 0
			for _, q := range graph.Pieces(c, l, dtypes.BFloat16) {
				sum += q.Elements()
			}
			require.Equal(t, total, sum, "%s %s: the pieces hold every weight once", name, l)
		}
		want := map[string]int{"mixtral-8x7b": 46702792704, "mixtral-8x22b": 140620634112}[name]
		require.Equal(t, want, total, name)
	}
}

func TestGradientAgainstReference(t *testing.T) {
	for _, name := range oracle.Cases {
		t.Run(name, func(t *testing.T) {
			c := oracle.Open(t, name)
			p := open(t, c.Checkpoints[0], graph.PerMatrix)
			out := p.run(t, graph.PerMatrix, []any{ints(c, t, "input_ids"), ints(c, t, "labels")}, func(w graph.Weights, weights, args []*gx.Node) []*gx.Node {
				r := graph.RunForGradient(p.cfg, w, graph.Inputs{Tokens: args[0]}, graph.KeepRouter, graph.RecomputeNothing)
				loss, _ := graph.CrossEntropy(graph.Logits(p.cfg, w, r.Hidden), graph.NextTokens(args[1]))
				aux := graph.LoadBalance(r.RouterLogits, r.RouterChosen, nil)
				loss = gx.Add(loss, gx.MulScalar(aux, p.cfg.AuxCoef))
				return append([]*gx.Node{loss}, gx.Gradient(loss, weights...)...)
			})
			require.InEpsilon(t, c.Meta.Loss.Total, purego.Flat[float32](t, out[0])[0], lossTolerance)
			var grads [][]float32
			for _, x := range out[1:] {
				grads = append(grads, purego.Flat[float32](t, x))
			}
			c.CheckGradients(t, graph.Pieces(p.cfg, graph.PerMatrix, dtypes.Float32), grads, gradientTolerance)
		})
	}
}
