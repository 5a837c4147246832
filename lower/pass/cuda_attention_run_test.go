package pass

import (
	"math/rand/v2"
	"strconv"
	"testing"

	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"

	declared "mix/graph/composite"
	"mix/internal/purego"
	"mix/lower/ir"
	"mix/lower/triton"
)

// TestKernelsAreTheGradientOfAttention holds attention and its gradient, as kernels, to what autodiff makes of the composite.
func TestKernelsAreTheGradientOfAttention(t *testing.T) {
	const b, heads, groups, width = 2, 4, 2, 16
	for _, test := range []struct {
		name                  string
		queries, keys, window int
		segments              bool
		shuffled              bool // positions of keys, which the program is told
		apart                 bool // the result does not come from a kernel beside the gradient
	}{
		{name: "sequences", queries: 40, keys: 40},
		{name: "a window", queries: 40, keys: 40, window: 7},
		{name: "segments and places", queries: 33, keys: 33, segments: true, shuffled: true},
		{name: "more keys than queries, apart", queries: 20, keys: 48, apart: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(3, 9))
			s, c := test.queries, test.keys
			qt, kt := ir.Tensor("f32", b, heads, s, width), ir.Tensor("f32", b, groups, c, width)
			places := [4]tensor{{typ: ir.Tensor("i32", b, s)}, {typ: ir.Tensor("i32", b, c)}, {typ: ir.Tensor("i32", b, s)}, {typ: ir.Tensor("i32", b, c)}}
			for range b {
				order := r.Perm(c)
				for i := range s {
					at := i + c - s
					places[0].data, places[2].data = append(places[0].data, float32(at)), append(places[2].data, float32(at/11))
				}
				for i := range c {
					if test.shuffled {
						i = order[i]
					}
					places[1].data, places[3].data = append(places[1].data, float32(i)), append(places[3].data, float32(i/11))
				}
			}
			args := []tensor{random(r, qt, 1), random(r, kt, 1), random(r, kt, 1), places[0], places[1]}
			if test.segments {
				args = append(args, places[2], places[3])
			}
			n := len(args)
			args = append(args, random(r, qt, 1))
			var types []ir.Type
			for _, a := range args {
				types = append(types, a.typ)
			}
			main := ir.NewRegion(types...)
			in := append([]*ir.Value{}, main.Args[:n]...)
			if !test.shuffled {
				in[keyPositions] = ir.At(main).Iota(1, "i32", b, c)
			}
			window := ir.Dictionary(ir.Attrs{"window": ir.String(strconv.Itoa(test.window))})
			y := composed(main, attentionName, in, qt)[0]
			y.Def.Attrs["composite_attributes"] = window
			from := y
			if test.apart {
				from = ir.At(main).Add(y, ir.At(main).Const(qt, "0.0"))
			}
			results := composed(main, attentionGradientName, append(in, from, main.Args[n]), qt, kt, kt)
			results[0].Def.Attrs["composite_attributes"] = window
			out := append([]*ir.Value{y}, results...)
			main.Emit("func.return", out, nil)
			f := &ir.Func{Name: "main", Body: main, Results: ir.Types(out)}
			_, err := attention(&ir.Module{Funcs: []*ir.Func{f}}, Context{Platform: "cuda"})
			require.NoError(t, err)

			k := machine{kernels: map[ir.Attr]triton.Call{}}
			x := triton.Flash{Sequences: b, Heads: heads, KeyHeads: groups, Width: width, Queries: s, Keys: c, Window: test.window, InOrder: !test.shuffled,
				Segments: test.segments, Elem: triton.F32}
			know := func(name string, call func(triton.Tile) (triton.Call, error)) {
				tile, err := tiles().Choose(name, triton.F32, s)
				require.NoError(t, err)
				c, err := call(tile)
				require.NoError(t, err)
				k.know(c)
			}
			know("flash", x.Call)
			x.LSE = true
			know("flash", x.Call)
			know("flash_dq", triton.FlashGradient(x).OfQueries)
			know("flash_dkv", triton.FlashGradient(x).OfKeys)
			runs := 0
			ir.Walk(main, func(op *ir.Op) {
				if op.Name == "stablehlo.custom_call" {
					runs++
				}
			})
			require.Equal(t, map[bool]int{false: 3, true: 4}[test.apart], runs, "kernels")

			got := k.run(t, f, args)
			integers := []int{3, 4, 5, 6}[:n-3]
			want := purego.Eval(t, inputs(args, integers...), func(in []*gx.Node) []*gx.Node {
				at := declared.Places{Query: in[3], Key: in[4], Window: test.window}
				if test.segments {
					at.QuerySegments, at.KeySegments = in[5], in[6]
				}
				y := declared.Attention(in[0], in[1], in[2], at)
				return append([]*gx.Node{y}, gx.Gradient(gx.ReduceAllSum(gx.Mul(y, in[n])), in[:3]...)...)
			})
			for i, name := range []string{"y", "dq", "dk", "dv"} {
				diff, scale := apart(got[i].data, purego.Flat[float32](t, want[i]))
				require.Positive(t, scale, name)
				require.LessOrEqual(t, diff, 1e-5*scale, name)
			}
		})
	}
}
