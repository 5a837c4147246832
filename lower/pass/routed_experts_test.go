package pass

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/ir"
)

// layer is one mix.routed_experts of given sizes.
type layer struct {
	elem          string
	t, k, d, e, f int
	stacked       bool
}

func (l layer) String() string {
	form := "split"
	if l.stacked {
		form = "stacked"
	}
	return fmt.Sprintf("%s_%s_T%d_K%d_E%d", form, l.elem, l.t, l.k, l.e)
}

func (l layer) types() []ir.Type {
	ts := []ir.Type{ir.Tensor(l.elem, l.t, l.d), ir.Tensor("i32", l.t, l.k), ir.Tensor("f32", l.t, l.k)}
	if l.stacked {
		in, out := ir.Tensor(l.elem, l.e, l.f, l.d), ir.Tensor(l.elem, l.e, l.d, l.f)
		return append(ts, in, in, out)
	}
	for i := range 3 * l.e {
		if i < 2*l.e {
			ts = append(ts, ir.Tensor(l.elem, l.f, l.d))
		} else {
			ts = append(ts, ir.Tensor(l.elem, l.d, l.f))
		}
	}
	return ts
}

// module has a main that calls the composite, whose body runs every expert on every token and masks.
func (l layer) module() *ir.Module {
	types := l.types()
	result := types[0]
	main := ir.NewRegion(types...)
	form := "split"
	if l.stacked {
		form = "stacked"
	}
	call := main.Emit("stablehlo.composite", main.Args, ir.Attrs{
		"name": ir.String("mix.routed_experts"), "decomposition": ir.Symbol("mix.routed_experts.0"), "version": ir.I32(0),
		"composite_attributes": ir.Dictionary(ir.Attrs{"experts": ir.String(strconv.Itoa(l.e)), "form": ir.String(form)}),
	}, result)
	main.Emit("func.return", call.Results, nil)

	body := ir.NewRegion(types...)
	b := ir.At(body)
	x := experts{x: body.Args[0], elem: l.elem, t: l.t, k: l.k, d: l.d, e: l.e, f: l.f}
	chosen, weights := body.Args[1], body.Args[2]
	sum := b.Const(ir.Tensor("f32", l.t, l.d), "0.0")
	for e := range l.e {
		var w [3]*ir.Value
		for i := range w {
			if l.stacked {
				_, dims, _ := body.Args[3+i].Type.Split()
				s := b.Slice(body.Args[3+i], []int{e, 0, 0}, []int{e + 1, dims[1], dims[2]})
				w[i] = b.Reshape(s, dims[1:]...)
			} else {
				w[i] = body.Args[3+i*l.e+e]
			}
		}
		y := b.Convert(x.expert(b, x.x, w[0], w[1], w[2]), "f32")
		hit := b.Compare("EQ", chosen, b.Const(chosen.Type, strconv.Itoa(e)))
		share := b.Reduce("add", b.Mul(b.Convert(hit, "f32"), weights), "0.0", 1)
		sum = b.Add(sum, b.Mul(y, b.Broadcast(share, []int{l.t, l.d}, 0)))
	}
	out := b.Convert(sum, l.elem)
	body.Emit("func.return", []*ir.Value{out}, nil)
	return &ir.Module{Name: "layer", Funcs: []*ir.Func{
		{Name: "main", Results: []ir.Type{result}, Body: main},
		{Name: "mix.routed_experts.0", Private: true, Results: []ir.Type{result}, Body: body},
	}}
}

// routing says which experts the tokens of a test choose.
type routing func(r *rand.Rand, l layer) []float32

func uniform(r *rand.Rand, l layer) (chosen []float32) {
	for range l.t {
		for _, e := range r.Perm(l.e)[:l.k] {
			chosen = append(chosen, float32(e))
		}
	}
	return chosen
}

// ragged sends all tokens to the last K experts and the first token to the first K.
func ragged(_ *rand.Rand, l layer) (chosen []float32) {
	for t := range l.t {
		for i := range l.k {
			e := l.e - 1 - i
			if t == 0 {
				e = i
			}
			chosen = append(chosen, float32(e))
		}
	}
	return chosen
}

func (l layer) args(r *rand.Rand, route routing) []tensor {
	var args []tensor
	for i, typ := range l.types() {
		scale := 1 / math.Sqrt(float64(l.d))
		switch {
		case i == 0:
			scale = 1
		case i == 2:
			scale = 0.5
		case i == 5 && l.stacked, i >= 3+2*l.e:
			scale = 1 / math.Sqrt(float64(l.f))
		}
		a := random(r, typ, scale)
		if i == 1 {
			a.data = route(r, l)
		}
		args = append(args, a)
	}
	return args
}

// apart is the largest absolute difference, and the largest absolute value of want.
func apart(got, want []float32) (diff, scale float64) {
	for i := range want {
		diff = max(diff, math.Abs(float64(got[i]-want[i])))
		scale = max(scale, math.Abs(float64(want[i])))
		if math.IsNaN(float64(got[i])) {
			return math.NaN(), scale
		}
	}
	return diff, scale
}

// TestRoutedExpertsEqualTheirBody holds the CPU's form to the composite's body, which XLA inlines.
func TestRoutedExpertsEqualTheirBody(t *testing.T) {
	var layers []layer
	for _, elem := range []string{"f32", "bf16"} {
		counts := []int{1, 2, 3, 5, 8, 64, 200}
		if testing.Short() {
			counts = []int{1, 5, 200}
		}
		for _, n := range counts {
			layers = append(layers, layer{elem, n, 2, 64, 8, 96, false})
		}
		for _, n := range []int{1, 8, 200} {
			layers = append(layers, layer{elem, n, 2, 64, 8, 96, true})
		}
		for k := 1; k <= 3; k++ {
			layers = append(layers, layer{elem, 5, k, 32, 3, 48, false})
		}
		layers = append(layers, layer{elem, 5, 3, 32, 3, 48, true}, layer{elem, 2, 3, 32, 3, 48, false}, layer{elem, 7, 1, 16, 1, 24, true})
	}
	for _, l := range layers {
		t.Run(l.String(), func(t *testing.T) { equalsBody(t, l, l.module()) })
	}
}

// TestRoutedExpertsInsideALoop is the form that a scan over layers has.
func TestRoutedExpertsInsideALoop(t *testing.T) {
	for _, stacked := range []bool{false, true} {
		l := layer{"f32", 3, 2, 16, 4, 24, stacked}
		m := l.module()
		main := m.Func("main").Body
		call := main.Ops[0]
		main.Ops = nil
		b := ir.At(main)
		loop := b.While([]*ir.Value{b.Index(0), main.Args[0]},
			func(b ir.Builder, vs []*ir.Value) *ir.Value { return b.Compare("LT", vs[0], b.Index(3)) },
			func(b ir.Builder, vs []*ir.Value) []*ir.Value {
				call.Operands = append([]*ir.Value{vs[1]}, main.Args[1:]...)
				b.Region.Add(call)
				return []*ir.Value{b.Add(vs[0], b.Index(1)), call.Result()}
			})
		main.Emit("func.return", loop[1:], nil)
		t.Run(l.String(), func(t *testing.T) { equalsBody(t, l, m) })
	}
}

// equalsBody compares m as it is with m after all passes, under even and ragged routing.
func equalsBody(t *testing.T, l layer, m *ir.Module) {
	// Measured largest difference over the largest value: f32 4e-7, 9e-7 through a loop of three
	// layers, from products of another shape; bf16 0.0045, from sums rounded in another order.
	tolerance := map[string]float64{"f32": 2e-6, "bf16": 0.02}[l.elem]
	body := compile(t, m)
	changed, err := Run(m, Context{Platform: "cpu"}, All(), Hooks{Verify: true})
	require.NoError(t, err)
	require.Subset(t, changed, []string{"routed_experts", "dce"})
	require.Len(t, m.Funcs, 1, "the body has no caller left")
	rule := compile(t, m)
	for i, route := range []routing{uniform, ragged} {
		args := l.args(rand.New(rand.NewPCG(uint64(l.t), uint64(i))), route)
		want, got := body.run(t, args), rule.run(t, args)
		diff, scale := apart(got, want)
		t.Logf("largest difference %.2g of %.2g", diff, scale)
		require.LessOrEqual(t, diff, tolerance*scale)
		require.Equal(t, got, rule.run(t, args), "two runs differ")
	}
}

// BenchmarkRoutedExperts times rule and body of one layer of hidden 512, FFN 1792, 8 experts.
func BenchmarkRoutedExperts(b *testing.B) {
	for _, elem := range []string{"f32", "bf16"} {
		for _, stacked := range []bool{false, true} {
			for _, n := range []int{1, 8, 64, 512} {
				l := layer{elem, n, 2, 512, 8, 1792, stacked}
				body, rule := l.module(), l.module()
				_, err := Run(rule, Context{Platform: "cpu"}, All(), Hooks{})
				require.NoError(b, err)
				args := upload(b, l.args(rand.New(rand.NewPCG(1, 2)), uniform))
				for _, form := range []string{"rule", "body"} {
					m := map[string]*ir.Module{"rule": rule, "body": body}[form]
					b.Run(l.String()+"/"+form, func(b *testing.B) {
						p := compile(b, m)
						for b.Loop() {
							p.launch(b, args).Destroy()
						}
					})
				}
			}
		}
	}
}
