package pass

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/ir"
	"mix/lower/triton"
)

// TestBlocksAddRows runs the sums by blocks, the kernel by the interpreter, beside the scatter that they replace: rows that come
// together, rows that are not in the table, and a table whose last block is cut.
func TestBlocksAddRows(t *testing.T) {
	const v, d, n = 300, 24, 50
	for _, elem := range []string{"f32", "bf16"} {
		t.Run(elem, func(t *testing.T) {
			at, rows := ir.Tensor("i32", 2, n/2, 1), ir.Tensor(elem, 2, n/2, d)
			module := func() (*ir.Module, *ir.Func) {
				main := ir.NewRegion(at, rows)
				b := ir.At(main)
				fold := ir.NewRegion("tensor<f32>", "tensor<f32>")
				in := ir.At(fold)
				in.Return(in.Add(fold.Args[0], fold.Args[1]))
				table := b.Broadcast(b.Const("tensor<f32>", "0.0"), []int{v, d})
				op := ir.NewOp("stablehlo.scatter", []*ir.Value{table, main.Args[0], b.Convert(main.Args[1], "f32")}, ir.Attrs{
					"scatter_dimension_numbers": "#stablehlo.scatter<update_window_dims = [2], inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 2>",
					"indices_are_sorted":        "false", "unique_indices": "false"}, table.Type)
				op.Regions = []*ir.Region{fold}
				main.Add(op)
				main.Emit("func.return", op.Results, nil)
				f := &ir.Func{Name: "main", Results: []ir.Type{table.Type}, Body: main}
				return &ir.Module{Name: "m", Funcs: []*ir.Func{f}}, f
			}
			r := rand.New(rand.NewPCG(3, 3))
			args := []tensor{{at, make([]float32, n)}, random(r, rows, 1)}
			for i := range args[0].data {
				args[0].data[i] = float32([]int{r.IntN(v), 130 + r.IntN(3), v - 1, v + r.IntN(200), -1 - r.IntN(9)}[i%5])
			}
			plain, _ := module()
			want := compile(t, plain).run(t, args)
			m, f := module()
			changed, err := addRows(m, Context{Platform: "cuda"})
			require.NoError(t, err)
			require.True(t, changed)
			ir.RemoveDead(m)
			require.NoError(t, ir.Verify(m))
			k := machine{kernels: map[ir.Attr]triton.Call{}}
			sum := triton.Outer{Groups: triton.Groups{Rows: n, Experts: 3}, N: blockRows, M: d, Elem: kernelElems[elem], Wide: true}
			tile, err := tiles().Choose("outer", sum.Elem, sum.Average())
			require.NoError(t, err)
			call, err := sum.Call(tile)
			require.NoError(t, err)
			k.know(call)
			diff, scale := apart(k.run(t, f, args)[0].data, want)
			require.Positive(t, scale)
			require.LessOrEqual(t, diff, 1e-6*scale)
		})
	}
}
