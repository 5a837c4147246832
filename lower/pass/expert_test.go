package pass

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/tools/txtar"

	"mix/lower/ir"
	"mix/sharding"
)

// on is a context of a mesh.
func on(t testing.TB, mesh, preset string) Context {
	m, err := sharding.ParseMesh(mesh)
	require.NoError(t, err)
	rules, err := sharding.For(preset, m)
	require.NoError(t, err)
	return Context{Platform: "cpu", Mesh: m, Rules: rules}
}

// gradientModule has a main of x, chosen, weights, gate, up, down and dy that gives y and the gradients by all of them but
// chosen. Bodies are missing what they mean.
func (l layer) gradientModule(frozen bool) *ir.Module {
	in := l.types()
	x, r := in[0], l.t*l.k
	kept := []ir.Type{ir.Tensor(l.elem, r, l.d), ir.Tensor("i32", r), ir.Tensor("i32", l.e),
		ir.Tensor(l.elem, r, l.f), ir.Tensor(l.elem, r, l.f), ir.Tensor(l.elem, r, l.d)}
	m := &ir.Module{Name: "gradient"}
	main := ir.NewRegion(append(in[:len(in):len(in)], x)...)
	call := func(name, kind string, operands []*ir.Value, results ...ir.Type) []*ir.Value {
		body := ir.NewRegion(ir.Types(operands)...)
		var zeros []*ir.Value
		for _, t := range results {
			zero := "0.0"
			if elem, _, _ := t.Split(); elem == "i32" {
				zero = "0"
			}
			zeros = append(zeros, ir.At(body).Const(t, zero))
		}
		body.Emit("func.return", zeros, nil)
		f := fmt.Sprint("body.", len(m.Funcs))
		m.Funcs = append(m.Funcs, &ir.Func{Name: f, Private: true, Results: results, Body: body})
		as := ir.Attrs{"experts": ir.String(fmt.Sprint(l.e)), "form": ir.String("stacked")}
		if kind != "" {
			as[kind] = ir.String("true")
		}
		return main.Emit("stablehlo.composite", operands, ir.Attrs{"name": ir.String(name), "decomposition": ir.Symbol(f),
			"version": ir.I32(0), "composite_attributes": ir.Dictionary(as)}, results...).Results
	}
	args := main.Args[:len(in)]
	y := call("mix.routed_experts", "", args, x)
	keep := call("mix.routed_experts", "keep", args, append([]ir.Type{x}, kept...)...)
	kind, results := "", []ir.Type{x, in[2], in[3], in[4], in[5]}
	if frozen {
		kind, results = "frozen", results[:2]
	}
	operands := append(append(args[:len(args):len(args)], main.Args[len(in)]), keep[1:]...)
	outs := append(y, call("mix.routed_experts_gradient", kind, operands, results...)...)
	main.Emit("func.return", outs, nil)
	m.Funcs = append(m.Funcs, &ir.Func{Name: "main", Results: ir.Types(outs), Body: main})
	return m
}

// collectives lists those of a module: what is sent and between which devices.
func collectives(m *ir.Module) (all []string) {
	channels := map[ir.Attr]bool{}
	ir.Walk(m.Func("main").Body, func(op *ir.Op) {
		name, found := strings.CutPrefix(op.Name, "stablehlo.all_")
		if !found {
			return
		}
		groups, _, _ := strings.Cut(strings.TrimPrefix(string(op.Attrs["replica_groups"]), "dense<"), ">")
		if channels[op.Attrs["channel_handle"]] {
			groups += " on a channel used before"
		}
		channels[op.Attrs["channel_handle"]] = true
		all = append(all, fmt.Sprintf("%s %s %s", name, strings.TrimSuffix(strings.TrimPrefix(string(op.Operands[0].Type), "tensor<"), ">"), groups))
	})
	return all
}

// TestExpertCollectives holds forward pass and gradient to exactly what must be sent.
func TestExpertCollectives(t *testing.T) {
	const pairs, across = "[[0, 1]]", "[[0, 2], [1, 3], [4, 6], [5, 7]]"
	const tensor, data = "[[0, 1], [2, 3], [4, 5], [6, 7]]", "[[0, 4], [1, 5], [2, 6], [3, 7]]"
	const fours = "[[0, 1, 2, 3], [4, 5, 6, 7]]"
	tests := []struct {
		name, mesh, preset string
		l                  layer
		frozen             bool
		want               []string
	}{
		{"rows of two tokens travel, with the ids of their experts", "expert=2", "", layer{"bf16", 4, 1, 8, 4, 6, true}, false, []string{
			"to_all 2x2xi32 " + pairs, "to_all 2x2x8xbf16 " + pairs, "to_all 2x2x8xbf16 " + pairs,
			"to_all 2x2x8xbf16 " + pairs, "to_all 2x2x8xbf16 " + pairs}},
		{"tokens that do not divide stay, and results are added", "expert=2", "", layer{"bf16", 3, 2, 8, 4, 6, true}, false, []string{
			"reduce 6x8xbf16 " + pairs, "reduce 6x8xbf16 " + pairs}},
		{"a split hidden width adds y, dx and the weights' gradient", "tensor=2", "", layer{"bf16", 4, 2, 8, 4, 6, true}, false, []string{
			"reduce 4x8xf32 " + pairs, "reduce 4x8xf32 " + pairs, "reduce 4x2xf32 " + pairs}},
		{"data adds the matrices' gradients", "data=2", "", layer{"bf16", 4, 2, 8, 4, 6, true}, false, []string{
			"reduce 4x6x8xbf16 " + pairs, "reduce 4x6x8xbf16 " + pairs, "reduce 4x8x6xbf16 " + pairs}},
		{"and nothing if they are frozen", "data=2", "", layer{"bf16", 4, 2, 8, 4, 6, true}, true, nil},
		{"all three", "data=2 expert=2 tensor=2", "", layer{"f32", 8, 2, 8, 4, 6, true}, false, []string{
			"to_all 2x4xi32 " + across, "to_all 2x4x8xf32 " + across, "to_all 2x4x8xf32 " + across, "reduce 2x8xf32 " + tensor,
			"to_all 2x4x8xf32 " + across, "to_all 2x4x8xf32 " + across, "reduce 2x8xf32 " + tensor, "reduce 2x2xf32 " + tensor,
			"reduce 2x3x8xf32 " + data, "reduce 2x3x8xf32 " + data, "reduce 2x8x3xf32 " + data}},
		{"experts over expert and tensor send among four", "data=2 expert=2 tensor=2", "dp+ep+tp+etp1", layer{"f32", 8, 2, 8, 4, 6, true}, true, []string{
			"to_all 4x1xi32 " + fours, "to_all 4x1x8xf32 " + fours, "to_all 4x1x8xf32 " + fours,
			"to_all 4x1x8xf32 " + fours, "to_all 4x1x8xf32 " + fours}},
		{"tokens that divide over data alone are split over it", "data=2 expert=2 tensor=2", "", layer{"f32", 6, 1, 8, 4, 6, true}, true, []string{
			"reduce 3x8xf32 " + across, "reduce 3x8xf32 " + tensor, "reduce 3x8xf32 " + across, "reduce 3x8xf32 " + tensor, "reduce 3x1xf32 " + tensor}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m, ctx := test.l.gradientModule(test.frozen), on(t, test.mesh, test.preset)
			p, err := Named("expert")
			require.NoError(t, err)
			_, err = Run(m, ctx, p, Hooks{Verify: true})
			require.NoError(t, err)
			require.Equal(t, test.want, collectives(m))
		})
	}
}

func TestExpertRefuses(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(ctx *Context, forward, gradient *ir.Op)
		want  string
	}{
		{"float choices", func(_ *Context, f, _ *ir.Op) { f.Operands[1] = f.Operands[2] }, "@main: mix.routed_experts: "},
		{"a gradient without what was kept", func(_ *Context, _, g *ir.Op) { g.Operands = g.Operands[:7] }, "mix.routed_experts_gradient: 7 operands and 5 results, wanted at least 13 and 2"},
		{"a gradient that lacks a matrix", func(_ *Context, _, g *ir.Op) { g.Results = g.Results[:4] }, "4 results, wanted those of x, weights and 3 matrices"},
		{"dy of another size", func(_ *Context, _, g *ir.Op) { g.Operands[6] = g.Operands[2] }, "dy tensor<4x2xf32>, wanted the type of x, tensor<4x8xf32>"},
		{"a gradient of integers", func(_ *Context, _, g *ir.Op) { g.Results[1].Type = "tensor<4x2xi32>" }, "result tensor<4x2xi32>, wanted a tensor of floats"},
		{"a gradient of another size", func(_ *Context, _, g *ir.Op) { g.Results[2].Type = "tensor<4x6x9xf32>" }, "result 2 is tensor<4x6x9xf32>, wanted tensor<4x6x8xf32>"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m, ctx := layer{"f32", 4, 2, 8, 4, 6, true}.gradientModule(false), on(t, "expert=2", "")
			ops := m.Func("main").Body.Ops
			test.spoil(&ctx, ops[1], ops[2])
			_, err := expert(m, ctx)
			require.ErrorContains(t, err, test.want)
		})
	}
}

// TestExpertKeptElsewhere reads what is kept in other ways than the gradient beside it.
func TestExpertKeptElsewhere(t *testing.T) {
	l := layer{"f32", 4, 2, 8, 4, 6, true}
	m := l.gradientModule(false)
	main := m.Func("main")
	end := main.Body.Terminator()
	end.Operands = append(end.Operands, main.Body.Ops[1].Results[3])
	main.Results = ir.Types(end.Operands)
	p, err := Named("expert")
	require.NoError(t, err)
	_, err = Run(m, on(t, "expert=2", ""), p, Hooks{Verify: true})
	require.NoError(t, err)
	text := main.String()
	require.Equal(t, 1, strings.Count(text, "mix.routed_experts"+`"`), "sizes of all rows are those of the body")
	require.Equal(t, 1, strings.Count(text, "sdy.manual_computation"), "the gradient computes them again")

	// A loop with the gradient, whose forward pass stands before it.
	m = l.gradientModule(false)
	body := m.Func("main").Body
	forward, gradient, end := body.Ops[0], body.Ops[2], body.Terminator()
	keep := body.Ops[1]
	body.Ops = []*ir.Op{forward, keep}
	loop := ir.At(body).While([]*ir.Value{body.Args[6], ir.At(body).Index(0)},
		func(b ir.Builder, vs []*ir.Value) *ir.Value { return b.Compare("LT", vs[1], b.Index(2)) },
		func(b ir.Builder, vs []*ir.Value) []*ir.Value {
			gradient.Operands[6] = vs[0]
			b.Region.Add(gradient)
			return []*ir.Value{gradient.Results[0], b.Add(vs[1], b.Index(1))}
		})
	end.Operands = []*ir.Value{forward.Results[0], loop[0]}
	body.Add(end)
	m.Func("main").Results = ir.Types(end.Operands)
	_, err = Run(m, on(t, "expert=2", ""), p, Hooks{Verify: true})
	require.NoError(t, err)
	text = m.Func("main").String()
	require.Zero(t, strings.Count(text, "mix.routed_experts"))
	require.Equal(t, 2, strings.Count(text, "sdy.manual_computation"))
}

// TestUnsoundExpertsNeverPanic spoils modules for meshes.
func TestUnsoundExpertsNeverPanic(t *testing.T) {
	r, refused := rand.New(rand.NewPCG(7, 8)), 0
	meshes := []Context{on(t, "expert=2", ""), on(t, "data=2 expert=2 tensor=2", ""), on(t, "expert=2 tensor=2", "ep+tp+etp1")}
	var texts []string
	for _, name := range []string{"expert", "expert_gradient", "expert_etp1", "expert_capacity"} {
		a, err := txtar.ParseFile("testdata/" + name + ".txtar")
		require.NoError(t, err)
		for _, s := range a.Files {
			if s.Name == "in" {
				texts = append(texts, string(s.Data))
			}
		}
	}
	size := regexp.MustCompile(`\b[468]\b`)
	for i := range 3000 {
		text := unsound(r, texts[i%len(texts)])
		if i%2 == 0 { // all sizes of one value
			old := fmt.Sprint([]int{4, 6, 8}[r.IntN(3)])
			text = size.ReplaceAllStringFunc(texts[i%len(texts)], func(n string) string {
				if n == old {
					return fmt.Sprint([]int{0, 1, 7, 1 << 29, 1 << 40}[i/2%5])
				}
				return n
			})
		}
		require.NotPanics(t, func() {
			m, err := ir.Parse(text)
			if err != nil {
				return
			}
			if _, err := Run(m, meshes[i%len(meshes)], All(), Hooks{}); err != nil {
				refused++
			}
		}, text)
	}
	require.Greater(t, refused, 500)
}
