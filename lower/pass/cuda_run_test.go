package pass

import (
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"

	declared "mix/graph/composite"
	"mix/internal/purego"
	"mix/lower/ir"
	"mix/lower/triton"
	"mix/lower/triton/interp"
)

// machine executes what the rules for CUDA emit: kernels by the interpreter, everything else, an operation at a time, on the
// CPU.
type machine struct {
	kernels map[ir.Attr]triton.Call // by backend_config
	values  map[*ir.Value]tensor
}

// know adds kernels that the module may call.
func (m *machine) know(calls ...triton.Call) {
	for _, c := range calls {
		m.kernels[ir.Attr(c.Config())] = c
	}
}

func (m *machine) plan(t *testing.T, p triton.Plan, err error) {
	require.NoError(t, err)
	for _, s := range p.Steps {
		m.know(s.Call)
	}
}

// run executes main and gives its results.
func (m *machine) run(t *testing.T, main *ir.Func, args []tensor) (results []tensor) {
	m.values = map[*ir.Value]tensor{}
	for i, a := range args {
		m.values[main.Params()[i]] = a
	}
	for _, op := range main.Body.Ops {
		switch op.Name {
		case "func.return":
			for _, v := range op.Operands {
				results = append(results, m.values[v])
			}
		case "stablehlo.custom_call":
			m.kernel(t, op)
		default:
			m.operation(t, op)
		}
	}
	return results
}

func (m *machine) kernel(t *testing.T, op *ir.Op) {
	call, known := m.kernels[op.Attrs["backend_config"]]
	require.True(t, known, "a kernel that the test does not know")
	var in []*interp.Array
	for i, v := range op.Operands {
		a := &interp.Array{Array: call.Operands[i], Floats: m.values[v].data}
		if !a.Elem.Float() {
			a.Floats = nil
			for _, x := range m.values[v].data {
				a.Ints = append(a.Ints, int64(x))
			}
		}
		in = append(in, a)
	}
	out, err := interp.RunPartial(call, in...)
	require.NoError(t, err)
	for i, a := range out {
		data := a.Floats
		for _, x := range a.Ints {
			data = append(data, float32(x))
		}
		m.values[op.Results[i]] = tensor{op.Results[i].Type, data}
	}
}

func (m *machine) operation(t *testing.T, op *ir.Op) {
	body := ir.NewRegion(ir.Types(op.Operands)...)
	by, args := map[*ir.Value]*ir.Value{}, []tensor{}
	for i, v := range op.Operands {
		by[v] = body.Args[i]
		args = append(args, m.values[v])
	}
	own := body.Add(op.Clone(by))
	end := body.Emit("func.return", nil, nil)
	for i, v := range op.Results {
		end.Operands = own.Results[i : i+1]
		single := &ir.Module{Name: "single", Funcs: []*ir.Func{{Name: "main", Results: ir.Types(end.Operands), Body: body}}}
		m.values[v] = tensor{v.Type, asInts(t, compile(t, single), args)}
	}
}

// asInts runs a program; integers of results, which run reads as floats, become numbers.
func asInts(t *testing.T, p *program, args []tensor) []float32 {
	got := p.run(t, args)
	if elem, _, _ := p.out.Split(); elem == "i32" {
		for i, v := range got {
			got[i] = float32(int32(math.Float32bits(v)))
		}
	}
	return got
}

// TestKernelsAreRoutedExperts runs a step of training of one layer of experts, value and gradient, as kernels, and holds it to
// what autodiff makes of the composite on the pure-Go backend.
func TestKernelsAreRoutedExperts(t *testing.T) {
	l := layer{"f32", 9, 2, 24, 4, 40, true}
	r := rand.New(rand.NewPCG(7, 7))
	args := append(l.args(r, uniform), random(r, ir.Tensor("f32", l.t, l.d), 1))
	var types []ir.Type
	for _, a := range args {
		types = append(types, a.typ)
	}
	main := ir.NewRegion(types...)
	x, err := readExperts(&ir.Op{Operands: main.Args[:6], Results: main.Args[:1]})
	require.NoError(t, err)
	forward := composed(main, routedName, main.Args[:6], append(types[:1:1], x.keptTypes()...)...)
	in := append(append([]*ir.Value{}, main.Args...), forward[1:]...)
	gradient := composed(main, routedGradientName, in, append([]ir.Type{types[0], types[2]}, types[3:6]...)...)
	f := &ir.Func{Name: "main", Body: main, Results: append(types[:1:1], ir.Types(gradient)...)}
	main.Emit("func.return", append(forward[:1:1], gradient...), nil)
	m := &ir.Module{Funcs: []*ir.Func{f}}
	_, err = routedExperts(m, Context{Platform: "cuda"})
	require.NoError(t, err)
	require.NoError(t, ir.Verify(m))

	k := machine{kernels: map[ir.Attr]triton.Call{}}
	p, err := triton.Experts{Tokens: l.t, Choices: l.k, Experts: l.e, Width: l.d, Hidden: l.f, Elem: triton.F32, Keep: true}.Forward(tiles())
	k.plan(t, p, err)
	g, err := newGradientKernels(x)
	for _, p := range []triton.Plan{g.hidden, g.wide, g.in, g.out} {
		k.plan(t, p, err)
	}
	k.know(g.combine)
	got := k.run(t, f, args)
	want := l.autodiff(t, args)
	require.Len(t, got, len(want))
	for i, name := range []string{"y", "dx", "dweights", "dgate", "dup", "ddown"} {
		diff, scale := apart(got[i].data, want[i])
		require.Positive(t, scale, name)
		require.LessOrEqual(t, diff, 1e-5*scale, name)
	}

	l.t = 3 // few tokens, without a gradient
	m = l.module()
	_, err = routedExperts(m, Context{Platform: "cuda"})
	require.NoError(t, err)
	p, err = triton.Experts{Tokens: l.t, Choices: l.k, Experts: l.e, Width: l.d, Hidden: l.f, Elem: triton.F32}.Forward(tiles())
	k.plan(t, p, err)
	args = l.args(r, ragged)
	diff, scale := apart(k.run(t, m.Func("main"), args)[0].data, compile(t, l.module()).run(t, args))
	require.LessOrEqual(t, diff, 1e-5*scale)
}

// composed emits a composite whose body is not asked for.
func composed(r *ir.Region, name string, operands []*ir.Value, results ...ir.Type) []*ir.Value {
	as := ir.Attrs{"name": ir.String(name), "decomposition": ir.Symbol("body"), "version": ir.I32(0)}
	return r.Emit("stablehlo.composite", operands, as, results...).Results
}

// autodiff is y of the first arguments of the layer, and for the last, dy, the gradients of x, weights, gate, up and down.
func (l layer) autodiff(t *testing.T, args []tensor) (all [][]float32) {
	out := purego.Eval(t, inputs(args, 1), func(in []*gx.Node) []*gx.Node {
		y := declared.RoutedExperts(in[0], in[1], in[2], declared.Experts{Gate: in[3:4], Up: in[4:5], Down: in[5:6]})
		sum := gx.ReduceAllSum(gx.Mul(y, in[6]))
		return append([]*gx.Node{y}, gx.Gradient(sum, in[0], in[2], in[3], in[4], in[5])...)
	})
	for _, x := range out {
		all = append(all, purego.Flat[float32](t, x))
	}
	return all
}

// TestKernelsAreAttention holds the kernels of attention, over sequences and over a pool, to what the composites mean.
func TestKernelsAreAttention(t *testing.T) {
	const heads, groups, width, pool, keys = 4, 2, 16, 64, 24
	f32 := func(dims ...int) ir.Type { return ir.Tensor("f32", dims...) }
	for _, test := range []struct {
		name                       string
		paged                      bool
		sequences, queries, window int
	}{
		{"sequences", false, 2, 20, 0}, {"sequences with a window", false, 2, 20, 7}, {"pool", true, 3, 1, 0}, {"pool with a window", true, 3, 1, 5},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(8, 9))
			b, s := test.sequences, test.queries
			ints := func(dims []int, most int) tensor {
				a := tensor{ir.Tensor("i32", dims...), nil}
				for range dims[0] * dims[1] {
					a.data = append(a.data, float32(r.IntN(most)))
				}
				return a
			}
			shape := f32(b, groups, keys, width)
			if test.paged {
				shape = f32(pool, groups, width)
			}
			args := []tensor{random(r, f32(b, heads, s, width), 1), random(r, shape, 1), random(r, shape, 1), ints([]int{b, s}, keys), ints([]int{b, keys}, pool)}
			name := pagedAttentionName
			if !test.paged {
				name = attentionName
				for i := range args[4].data {
					args[4].data[i] = float32(i % keys)
				}
			}
			var types []ir.Type
			for _, a := range args {
				types = append(types, a.typ)
			}
			main := ir.NewRegion(types...)
			y := composed(main, name, main.Args, types[0])
			y[0].Def.Attrs["composite_attributes"] = ir.Dictionary(ir.Attrs{"window": ir.String(strconv.Itoa(test.window))})
			main.Emit("func.return", y, nil)
			f := &ir.Func{Name: "main", Body: main, Results: types[:1]}
			changed, err := attention(&ir.Module{Funcs: []*ir.Func{f}}, Context{Platform: "cuda"})
			require.NoError(t, err)
			require.True(t, changed)

			k := machine{kernels: map[ir.Attr]triton.Call{}}
			if test.paged {
				tile, err := tiles().Choose("paged", triton.F32, b)
				require.NoError(t, err)
				p, err := triton.Paged{Sequences: b, Heads: heads, KeyHeads: groups, Width: width, Positions: pool, Context: keys, Page: 1, Window: test.window, Elem: triton.F32}.Call(tile)
				require.NoError(t, err)
				end, err := triton.PagedCombine{Sequences: b, Heads: heads, Width: width, Splits: tile.Split, Elem: triton.F32}.Call()
				require.NoError(t, err)
				k.know(p, end)
			} else {
				tile, err := tiles().Choose("flash", triton.F32, s)
				require.NoError(t, err)
				p, err := triton.Flash{Sequences: b, Heads: heads, KeyHeads: groups, Width: width, Queries: s, Keys: keys, Window: test.window, Elem: triton.F32}.Call(tile)
				require.NoError(t, err)
				k.know(p)
			}
			got := k.run(t, f, args)[0].data
			want := purego.Eval(t, inputs(args, 3, 4), func(in []*gx.Node) []*gx.Node {
				if test.paged {
					return []*gx.Node{declared.PagedAttention(in[0], in[1], in[2], in[3], in[4], test.window)}
				}
				return []*gx.Node{declared.Attention(in[0], in[1], in[2], declared.Places{Query: in[3], Key: in[4], Window: test.window})}
			})
			diff, scale := apart(got, purego.Flat[float32](t, want[0]))
			require.Positive(t, scale)
			require.LessOrEqual(t, diff, 1e-5*scale)
		})
	}
}

// inputs are arguments for the pure-Go backend, some of them integers.
func inputs(args []tensor, integers ...int) (in []any) {
	for i, a := range args {
		_, dims, _ := a.typ.Split()
		if !slices.Contains(integers, i) {
			in = append(in, purego.Tensor(a.data, dims...))
			continue
		}
		var ints []int32
		for _, x := range a.data {
			ints = append(ints, int32(x))
		}
		in = append(in, purego.Tensor(ints, dims...))
	}
	return in
}
