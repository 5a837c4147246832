package pass

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/ir"
)

// dotModule has a main that returns one dot_general of its two parameters.
func dotModule(left, right ir.Type, numbers string, out ir.Type) *ir.Module {
	body := ir.NewRegion(left, right)
	op := body.Emit("stablehlo.dot_general", body.Args, ir.Attrs{"dot_dimension_numbers": ir.Attr("#stablehlo.dot<" + numbers + ">")}, out)
	body.Emit("func.return", op.Results, nil)
	return &ir.Module{Name: "m", Funcs: []*ir.Func{{Name: "main", Results: []ir.Type{out}, Body: body}}}
}

func TestOneRowLeavesAlone(t *testing.T) {
	const rows = "lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]"
	for _, tt := range []struct {
		name        string
		left, right ir.Type
		numbers     string
		out         ir.Type
	}{
		{"one row and one column", ir.Tensor("bf16", 1, 8), ir.Tensor("bf16", 1, 8), rows, ir.Tensor("bf16", 1, 1)},
		{"no axis of rows", ir.Tensor("bf16", 8), ir.Tensor("bf16", 4, 8),
			"lhs_contracting_dimensions = [0], rhs_contracting_dimensions = [1]", ir.Tensor("bf16", 4)},
		{"two rows", ir.Tensor("bf16", 2, 8), ir.Tensor("bf16", 4, 8), rows, ir.Tensor("bf16", 2, 4)},
		{"one row of f32", ir.Tensor("f32", 1, 8), ir.Tensor("f32", 4, 8), rows, ir.Tensor("f32", 1, 4)},
		{"sizes that are not static", "tensor<1x?xbf16>", "tensor<4x?xbf16>", rows, ir.Tensor("bf16", 1, 4)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			changed, err := oneRow(dotModule(tt.left, tt.right, tt.numbers, tt.out), Context{Platform: "cpu"})
			require.NoError(t, err)
			require.False(t, changed)
		})
	}
}

// TestOneRowRefuses gives the pass what the verifier would refuse before it.
func TestOneRowRefuses(t *testing.T) {
	for _, tt := range []struct{ name, numbers, want string }{
		{"a batch axis out of range", "lhs_batching_dimensions = [0], rhs_batching_dimensions = [9]", "axis 9, wanted 0 to 1"},
		{"a contracted axis out of range", "lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [7]", "axis 7, wanted 0 to 1"},
		{"a negative axis", "lhs_contracting_dimensions = [-1], rhs_contracting_dimensions = [1]", "axis -1, wanted 0 to 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := oneRow(dotModule(ir.Tensor("bf16", 1, 8), ir.Tensor("bf16", 4, 8), tt.numbers, ir.Tensor("f32", 1, 4)), Context{Platform: "cpu"})
			require.ErrorContains(t, err, "@main: stablehlo.dot_general: ")
			require.ErrorContains(t, err, tt.want)
		})
	}
}

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
			m := dotModule(tt.left, tt.right, tt.numbers, tt.out)
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
