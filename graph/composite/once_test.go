package composite_test

import (
	"testing"

	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"

	"mix/graph/composite"
	"mix/internal/purego"
)

func TestOnceIsWhatItIsGiven(t *testing.T) {
	x, y := normals(1, 6), normals(2, 4)
	out := purego.Eval(t, []any{purego.Tensor(x, 2, 3), purego.Tensor(y, 4)}, func(in []*gx.Node) []*gx.Node {
		return composite.Once(gx.Neg(in[0]), in[1])
	})
	for i := range x {
		x[i] = -x[i]
	}
	require.Equal(t, x, purego.Flat[float32](t, out[0]))
	require.Equal(t, y, purego.Flat[float32](t, out[1]))
}
