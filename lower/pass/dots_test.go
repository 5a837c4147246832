package pass

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/ir"
)

// TestDotsGiveTheSame runs products of widened values on the CPU before and after the pass.
func TestDotsGiveTheSame(t *testing.T) {
	const rows, sum, columns = 24, 96, 40
	for _, tt := range []struct {
		name  string
		x, y  ir.Type
		build func(b ir.Builder, x, y *ir.Value) *ir.Value
		apart float64 // of the largest value
	}{
		{"widened", ir.Tensor("bf16", rows, sum), ir.Tensor("bf16", sum, columns), func(b ir.Builder, x, y *ir.Value) *ir.Value {
			return b.Dot(b.Convert(x, "f32"), 1, b.Convert(y, "f32"), 0, "f32")
		}, 1e-6},
		{"widened and moved", ir.Tensor("bf16", sum, rows), ir.Tensor("bf16", 4, columns/4, sum), func(b ir.Builder, x, y *ir.Value) *ir.Value {
			x = b.Emit("transpose", ir.Attrs{"permutation": ir.Ints(1, 0)}, ir.Tensor("f32", rows, sum), b.Convert(x, "f32"))
			return b.Dot(x, 1, b.Reshape(b.Convert(y, "f32"), columns, sum), 1, "f32")
		}, 1e-6},
		{"one side widened", ir.Tensor("bf16", rows, sum), ir.Tensor("f32", sum, columns), func(b ir.Builder, x, y *ir.Value) *ir.Value {
			return b.Dot(b.Convert(x, "f32"), 1, y, 0, "f32")
		}, 0},
		{"rounded", ir.Tensor("bf16", rows, sum), ir.Tensor("bf16", sum, columns), func(b ir.Builder, x, y *ir.Value) *ir.Value {
			return b.Convert(b.Dot(b.Convert(x, "f32"), 1, b.Convert(y, "f32"), 0, "f32"), "bf16")
		}, 1.0 / 256},
	} {
		t.Run(tt.name, func(t *testing.T) {
			module := func() *ir.Module {
				main := ir.NewRegion(tt.x, tt.y)
				out := tt.build(ir.At(main), main.Args[0], main.Args[1])
				main.Emit("func.return", []*ir.Value{out}, nil)
				return &ir.Module{Name: "m", Funcs: []*ir.Func{{Name: "main", Results: []ir.Type{out.Type}, Body: main}}}
			}
			after := module()
			changed, err := dots(after, Context{Platform: "cuda"})
			require.NoError(t, err)
			require.True(t, changed)
			require.NoError(t, ir.Verify(after))
			r := rand.New(rand.NewPCG(5, 5))
			args := []tensor{random(r, tt.x, 1), random(r, tt.y, 1)}
			want := compile(t, module()).run(t, args)
			diff, scale := apart(compile(t, after).run(t, args), want)
			require.Positive(t, scale)
			require.LessOrEqual(t, diff, tt.apart*scale)
		})
	}
}
