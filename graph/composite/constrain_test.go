package composite_test

import (
	"testing"

	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"

	"mix/graph/composite"
	"mix/internal/purego"
	"mix/internal/ref"
	"mix/sharding/axis"
)

func TestConstrainIsTheIdentity(t *testing.T) {
	checkGradient(t, []argument{random(1, "x", 2, 3)}, func(in []*gx.Node) *gx.Node {
		return composite.Constrain(gx.Mul(in[0], in[0]), axis.Batch, axis.Embed)
	}, func(a []argument) ref.Vector {
		y := ref.Vec(a[0].flat)
		for i := range y {
			y[i] *= y[i]
		}
		return y
	})
}

func TestConstrainRefusesOtherRanks(t *testing.T) {
	_, err := purego.TryEval(t, []any{purego.Tensor(normals(1, 6), 2, 3)}, func(in []*gx.Node) []*gx.Node {
		return []*gx.Node{composite.Constrain(in[0], axis.Batch)}
	})
	require.ErrorContains(t, err, "constrain: 1 axes [batch] for a tensor of shape (Float32)[2, 3]")
}
