package flags

import (
	"errors"
	"io"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/stretchr/testify/require"

	"mix/sharding"
	"mix/sharding/axis"
)

func TestTensorsOnTheMeshOfAFlag(t *testing.T) {
	be, err := Device{Device: "cpu", Mesh: "data=2 tensor=2"}.Open(t.Context(), io.Discard)
	require.NoError(t, err)
	defer be.Finalize()
	spec := sharding.Spec{{axis.Data}, {axis.Tensor}}
	numbers := func(box sharding.Box, dst []byte) error {
		for i := range dst {
			dst[i] = byte(6*(box.Offset[0]+i/box.Size[1]) + box.Offset[1] + i%box.Size[1])
		}
		return nil
	}
	x, err := be.MakeSharded("x", shapes.Make(dtypes.Int8, 4, 6), spec, numbers)
	require.NoError(t, err)
	require.NoError(t, x.Wait())
	got := make([]byte, 24)
	require.NoError(t, x.ReadInto(got))
	for i, b := range got {
		require.EqualValues(t, i, b)
	}
	require.NoError(t, x.Finalize())
	require.ErrorContains(t, x.Wait(), "finalized")
	require.ErrorContains(t, x.ReadInto(got), "finalized")

	for _, dims := range [][]int{{0, 6}, {4, 0}} {
		x, err := be.MakeSharded("nothing", shapes.Make(dtypes.Float32, dims...), spec, nil)
		require.NoError(t, err)
		require.NoError(t, x.ReadInto(nil))
		x, err = be.Upload(shapes.Make(dtypes.Float32, dims...), []float32{})
		require.NoError(t, err)
		require.NoError(t, x.Wait())
	}

	failed := errors.New("failed")
	_, err = be.MakeSharded("x", shapes.Make(dtypes.Int8, 4, 6), spec, func(box sharding.Box, _ []byte) error {
		if box.Offset[0] > 0 {
			return failed
		}
		return nil
	})
	require.ErrorIs(t, err, failed)
	for _, tt := range []struct {
		dtype dtypes.DType
		spec  sharding.Spec
		want  string
	}{
		{dtypes.Int8, sharding.Spec{{axis.Data}}, "x: sharding: spec [data] has 1 entries for 2 dimensions [4 6]"},
		{dtypes.Int8, sharding.Spec{{axis.Data, axis.Tensor}, {axis.Data}}, "has mesh axis data twice"},
		{dtypes.Int8, sharding.Spec{nil, {axis.Data, axis.Tensor}}, "dimension 1 of 6 does not divide over 4 shards"},
		{dtypes.Int4, spec, "elements under 8 bits cannot be made on a mesh"},
	} {
		_, err := be.MakeSharded("x", shapes.Make(tt.dtype, 4, 6), tt.spec, nil)
		require.ErrorContains(t, err, tt.want)
	}
}
