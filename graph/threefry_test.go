package graph

import (
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute"
	_ "github.com/gomlx/compute/gobackend"
	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/stretchr/testify/require"

	"mix/internal/ref"
)

// TestThreefry has the published vectors of Random123, and the specification at random keys and counters.
func TestThreefry(t *testing.T) {
	ones := ^uint32(0)
	keys := [][2]uint32{{}, {ones, ones}, {0x13198a2e, 0x03707344}}
	counters := [][2]uint32{{}, {ones, ones}, {0x243f6a88, 0x85a308d3}}
	want := [][2]uint32{{0x6b200159, 0x99ba4efe}, {0x1cb996fc, 0xbb002be7}, {0xc4923a9c, 0x483df7a0}}
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		k, c := [2]uint32{r.Uint32(), r.Uint32()}, [2]uint32{r.Uint32(), r.Uint32()}
		keys, counters, want = append(keys, k), append(counters, c), append(want, ref.Threefry(k, c))
	}
	column := func(xs [][2]uint32, i int) *tensors.Tensor {
		v := make([]uint32, len(xs))
		for k, x := range xs {
			v[k] = x[i]
		}
		return tensors.FromFlatDataAndDimensions(v, len(v))
	}
	be, err := compute.NewWithConfig("go:ops_sequential")
	require.NoError(t, err)
	exec, err := gx.NewExec(be, func(in []*gx.Node) []*gx.Node {
		a, b := threefry(in[0], in[1], in[2], in[3])
		return []*gx.Node{a, b}
	})
	require.NoError(t, err)
	out, err := exec.Call(column(keys, 0), column(keys, 1), column(counters, 0), column(counters, 1))
	require.NoError(t, err)
	for i := range 2 {
		got, err := tensors.CopyFlatData[uint32](out[i])
		require.NoError(t, err)
		for k := range want {
			require.Equal(t, want[k][i], got[k], "word %d of vector %d", i, k)
		}
	}
}
