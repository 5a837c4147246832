package graph_test

import (
	"testing"

	"github.com/gomlx/compute/dtypes"
	gx "github.com/gomlx/gomlx/core/graph"

	"mix/graph"
	"mix/internal/purego"
	"mix/internal/ref"
)

// TestRotary turns heads in both precisions at early and late positions. Float32 angles of position p are
// off by up to p·2^-24; angles in bfloat16 would be off by whole turns.
func TestRotary(t *testing.T) {
	const heads, width = 3, 10
	tests := []struct {
		name      string
		dtype     dtypes.DType
		theta     float64
		positions []int32
		tolerance float64
	}{
		{"early", dtypes.Float32, 1e4, []int32{0, 1, 2, 5}, 1e-6},
		{"to the end of 8x22B", dtypes.Float32, 1e6, []int32{4095, 32767, 50001, 65535}, 2e-2},
		{"early in bfloat16", dtypes.BFloat16, 1e4, []int32{0, 1, 2, 5}, 2e-2},
		{"to the end of 8x22B in bfloat16", dtypes.BFloat16, 1e6, []int32{4097, 32767, 50001, 65535}, 3e-2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := len(tt.positions)
			x := normals(6, heads*n*width)
			out := purego.Eval(t, []any{purego.Tensor(x, 1, heads, n, width), purego.Tensor(tt.positions, 1, n)}, func(in []*gx.Node) []*gx.Node {
				y := graph.RotaryAngles(in[1], width, tt.theta).Apply(gx.ConvertDType(in[0], tt.dtype))
				return []*gx.Node{gx.ConvertDType(y, dtypes.Float32)}
			})
			var want ref.Vector
			for i, row := range rows(x, width) {
				want = append(want, ref.Rotary(row, int(tt.positions[i%n]), tt.theta)...)
			}
			purego.Near(t, want, purego.Flat[float32](t, out[0]), tt.tolerance, "rotated")
		})
	}
}
