package sharding

import (
	"testing"

	"github.com/stretchr/testify/require"

	"mix/sharding/axis"
)

func mesh(t testing.TB, text string) Mesh {
	t.Helper()
	m, err := ParseMesh(text)
	require.NoError(t, err)
	return m
}

func TestParseMesh(t *testing.T) {
	for _, tt := range []struct{ name, text, want, err string }{
		{"canonical order, sizes of 1 left out", "data=2 pipe=2 expert=2 tensor=1", "pipe=2 data=2 expert=2", ""},
		{"commas", "tensor=4,expert=8, pipe=2", "pipe=2 expert=8 tensor=4", ""},
		{"nothing is one device", " ", "data=1", ""},
		{"an axis twice", "data=2 data=3", "", "axis data is there twice"},
		{"an axis of size 1 twice", "data=1 data=1", "", "axis data is there twice"},
		{"an unknown axis", "node=2", "", `axis "node", want pipe, data, expert, tensor`},
		{"no devices", "data=0", "", "data=0, want at least 1"},
		{"a negative size", "expert=-8", "", "expert=-8, want at least 1"},
		{"no size", "data", "", `"data", want axis=size`},
		{"no number", "data=two", "", `"data=two", want axis=size`},
		{"too many", "data=100000 pipe=100000", "", "more than 16777216 devices"},
		{"a size past all integers", "data=99999999999999999999", "", "want axis=size"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := ParseMesh(tt.text)
			if tt.err != "" {
				require.ErrorIs(t, err, ErrMesh)
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, m.String())
			require.Equal(t, m, mesh(t, m.String()))
		})
	}
}

func TestMeshNumbersDevices(t *testing.T) {
	m := mesh(t, "tensor=2 expert=2 pipe=3")
	require.Equal(t, 12, m.Devices())
	require.Equal(t, []Axis{{axis.Pipe, 3}, {axis.Expert, 2}, {axis.Tensor, 2}}, m.Axes())
	require.Equal(t, 1, m.Size(axis.Data))
	require.Equal(t, 1, m.Size("node"))
	require.Equal(t, 6, m.Size(axis.Tensor, axis.Pipe))
	require.Equal(t, map[axis.Mesh]int{axis.Pipe: 1, axis.Data: 0, axis.Expert: 1, axis.Tensor: 0}, m.Coords(6))
	require.Equal(t, 2, m.Coord(6, axis.Expert, axis.Tensor), "the first axis is the slowest")
	require.Equal(t, 1, m.Coord(6, axis.Tensor, axis.Expert))
	require.Equal(t, 1, Mesh{}.Devices())
	require.Equal(t, mesh(t, "data=1"), Mesh{})
}

func TestMeshOf(t *testing.T) {
	m, err := MeshOf(64, 1, 4, 8)
	require.NoError(t, err)
	require.Equal(t, mesh(t, "pipe=4 data=2 expert=8"), m)
	for want, bad := range map[string][4]int{
		"8 devices do not divide over tensor 1 × pipe 4 × expert 8": {8, 1, 4, 8},
		"0 devices do not divide":                                   {0, 1, 1, 1},
		"tensor=0, want at least 1":                                 {8, 0, 1, 1},
	} {
		_, err := MeshOf(bad[0], bad[1], bad[2], bad[3])
		require.ErrorIs(t, err, ErrMesh)
		require.ErrorContains(t, err, want)
	}
}

func TestGroupsDifferInTheirAxesAlone(t *testing.T) {
	m := mesh(t, "pipe=2 expert=2 tensor=2")
	require.Equal(t, [][]int{{0, 1}, {2, 3}, {4, 5}, {6, 7}}, m.Groups(axis.Tensor))
	require.Equal(t, [][]int{{0, 4}, {1, 5}, {2, 6}, {3, 7}}, m.Groups(axis.Pipe))
	require.Equal(t, [][]int{{0, 1, 2, 3}, {4, 5, 6, 7}}, m.Groups(axis.Expert, axis.Tensor))
	require.Equal(t, [][]int{{0, 2, 1, 3}, {4, 6, 5, 7}}, m.Groups(axis.Tensor, axis.Expert))
	require.Equal(t, [][]int{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}}, m.Groups(axis.Data))
}

func FuzzParseMesh(f *testing.F) {
	for _, s := range []string{"", "data=2 pipe=2", "a=b", "data==", "tensor=16777216", "data=4096 tensor=4096 expert=4096"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseMesh(text)
		if err != nil {
			require.ErrorIs(t, err, ErrMesh)
			return
		}
		again, err := ParseMesh(m.String())
		require.NoError(t, err)
		require.Equal(t, m, again)
		require.Positive(t, m.Devices())
		require.Less(t, m.Coord(m.Devices()-1, axis.Meshes...), m.Devices())
	})
}
