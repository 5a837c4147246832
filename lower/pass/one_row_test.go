package pass

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/ir"
)

// TestOneRowTurnedAround holds the turned product to the plain one, with and without a batch.
func TestOneRowTurnedAround(t *testing.T) {
	for _, tt := range []struct {
		name        string
		left, right ir.Type
		numbers     string
		out         ir.Type
	}{
		{"a matrix", ir.Tensor("bf16", 1, 96), ir.Tensor("bf16", 40, 96),
			"lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]", ir.Tensor("f32", 1, 40)},
		{"rows last", ir.Tensor("bf16", 96, 1), ir.Tensor("bf16", 96, 40),
			"lhs_contracting_dimensions = [0], rhs_contracting_dimensions = [0]", ir.Tensor("f32", 1, 40)},
		{"a matrix with two free axes", ir.Tensor("bf16", 1, 96), ir.Tensor("bf16", 5, 8, 96),
			"lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [2]", ir.Tensor("f32", 1, 5, 8)},
		{"a batch", ir.Tensor("bf16", 3, 1, 1, 16), ir.Tensor("bf16", 3, 5, 16),
			"lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [3], rhs_contracting_dimensions = [2]", ir.Tensor("f32", 3, 1, 1, 5)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body := ir.NewRegion(tt.left, tt.right)
			op := body.Emit("stablehlo.dot_general", body.Args, ir.Attrs{"dot_dimension_numbers": ir.Attr("#stablehlo.dot<" + tt.numbers + ">")}, tt.out)
			body.Emit("func.return", op.Results, nil)
			m := &ir.Module{Name: "m", Funcs: []*ir.Func{{Name: "main", Results: []ir.Type{tt.out}, Body: body}}}
			r := rand.New(rand.NewPCG(1, 2))
			args := []tensor{random(r, tt.left, 1), random(r, tt.right, 1)}
			want := compile(t, m).run(t, args)
			changed, err := Run(m, Context{Platform: "cpu"}, All(), Hooks{Verify: true})
			require.NoError(t, err)
			require.Equal(t, []string{"one_row"}, changed)
			require.InDeltaSlice(t, want, compile(t, m).run(t, args), 1e-5, "float32 sums of %s in another order", tt.left)
		})
	}
}
