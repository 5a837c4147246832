package sharding

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/sharding/axis"
)

func TestBoxes(t *testing.T) {
	m := mesh(t, "data=2 expert=2 tensor=2")
	boxes, err := Boxes(Spec{{axis.Expert, axis.Tensor}, nil}, m, []int{8, 3})
	require.NoError(t, err)
	require.Len(t, boxes, 8)
	require.Equal(t, Box{Holder: 1, Offset: []int{2, 0}, Size: []int{2, 3}}, boxes[1])
	require.Equal(t, Box{Holder: 2, Offset: []int{4, 0}, Size: []int{2, 3}}, boxes[2])
	require.Equal(t, Box{Holder: 5, Replica: 1, Offset: []int{2, 0}, Size: []int{2, 3}}, boxes[5])

	for want, spec := range map[string]Spec{
		"has 1 entries for 2 dimensions": {nil}, "mesh axis data twice": {{axis.Data}, {axis.Data}},
		`mesh axis "node"`: {{"node"}, nil}, "dimension 1 of 3 does not divide over 2 shards [data]": {nil, {axis.Data}},
	} {
		_, err := Boxes(spec, m, []int{8, 3})
		require.ErrorIs(t, err, ErrRules)
		require.ErrorContains(t, err, want)
	}
}

func TestPlanText(t *testing.T) {
	tp, err := Lay(Spec{{axis.Tensor}, nil}, mesh(t, "tensor=2"), []int{8, 4})
	require.NoError(t, err)
	ep, err := Lay(Spec{nil, {axis.Expert}}, mesh(t, "expert=2 data=2"), []int{8, 4})
	require.NoError(t, err)
	require.Equal(t, `0 → 0: [0:4, 0:2]
1 → 0: [4:8, 0:2]
0 → 1: [0:4, 2:4]
1 → 1: [4:8, 2:4]
0 → 2: [0:4, 0:2]
1 → 2: [4:8, 0:2]
0 → 3: [0:4, 2:4]
1 → 3: [4:8, 2:4]
`, text(t, tp, ep))
	require.Equal(t, `0 → 0: [0:4, 0:2]
1 → 0: [0:4, 2:4]
2 → 1: [4:8, 0:2]
1 → 1: [4:8, 2:4]
`, text(t, ep, tp), "the same holder is read first, replicas in turn")
}

func text(t *testing.T, from, to Layout) string {
	copies, err := Plan(from, to)
	require.NoError(t, err)
	var b strings.Builder
	for _, c := range copies {
		fmt.Fprintln(&b, c)
	}
	return b.String()
}

func TestPlanRefuses(t *testing.T) {
	whole := Layout{[]int{4}, []Box{{Offset: []int{0}, Size: []int{4}}}}
	for _, tt := range []struct {
		name     string
		from, to Layout
		want     string
	}{
		{"another shape", Layout{Dims: []int{5}}, whole, "a tensor of [5] becomes one of [4]"},
		{"a hole", Layout{[]int{4}, []Box{{Offset: []int{0}, Size: []int{3}}}}, whole, "1 of the 4 elements of box [0]+[4] of holder 0 have no source"},
		{"an overlap", Layout{[]int{4}, []Box{{Offset: []int{0}, Size: []int{3}}, {Offset: []int{2}, Size: []int{2}}}}, whole, "boxes [0]+[3] and [2]+[2] overlap"},
		{"a box outside", whole, Layout{[]int{4}, []Box{{Offset: []int{3}, Size: []int{2}}}}, "box [3]+[2] of holder 0 in a tensor of [4]"},
		{"a box of another rank", whole, Layout{[]int{4}, []Box{{}}}, "box []+[] of holder 0"},
		{"a holder below 0", whole, Layout{[]int{4}, []Box{{Holder: -1, Offset: []int{0}, Size: []int{4}}}}, "of holder -1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Plan(tt.from, tt.to)
			require.ErrorIs(t, err, ErrRules)
			require.ErrorContains(t, err, tt.want)
		})
	}
}

// TestPlanWritesEveryElementOnce runs plans between random layouts on numbered elements.
func TestPlanWritesEveryElementOnce(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		dims := []int{4 << rng.IntN(2), 8, 4 << rng.IntN(2)}
		from, to := randomLayout(t, rng, dims), randomLayout(t, rng, dims)
		copies, err := Plan(from, to)
		require.NoError(t, err)
		again, err := Plan(from, to)
		require.NoError(t, err)
		require.Equal(t, copies, again)
		written := map[string][]int{}
		for _, c := range copies {
			src, key := contents(c.From, dims), fmt.Sprint(c.To)
			if written[key] == nil {
				written[key] = slices.Repeat([]int{-1}, c.To.Elements())
			}
			runs := c.Runs()
			require.Equal(t, c.Elements(), runs.Count*runs.Length)
			for r := range runs.Count {
				s, d := runs.Run(r)
				for i := range runs.Length {
					require.Equal(t, -1, written[key][d+i], "written twice")
					written[key][d+i] = src[s+i]
				}
			}
		}
		for _, b := range to.Boxes {
			require.Equal(t, contents(b, dims), written[fmt.Sprint(b)])
		}
	}
}

// contents are the numbers, in the tensor, of the box's elements.
func contents(b Box, dims []int) []int {
	all := make([]int, b.Elements())
	for i := range all {
		n := 0
		for k, at := range axis.Unravel(i, b.Size) {
			n = n*dims[k] + b.Offset[k] + at
		}
		all[i] = n
	}
	return all
}

// randomLayout splits dims over a random mesh, half of the time as a pipeline of several rounds.
func randomLayout(t *testing.T, rng *rand.Rand, dims []int) Layout {
	m := mesh(t, fmt.Sprintf("pipe=%d data=%d expert=%d tensor=%d", 1+rng.IntN(2), 1+rng.IntN(2), 1<<rng.IntN(2), 1<<rng.IntN(3)))
	if rng.IntN(2) == 0 {
		c, err := NewCircle(dims[0], m.Size(axis.Pipe), 2)
		require.NoError(t, err)
		r, err := Preset("pp+ep+tp")
		require.NoError(t, err)
		p := axis.Param{Path: "w", Axes: []axis.Logical{axis.Layers, axis.Experts, axis.FFN}, Dims: dims}
		l, err := c.Layout(r, Weights, p, m)
		require.NoError(t, err)
		return l
	}
	spec := make(Spec, len(dims))
	for _, a := range axis.Meshes {
		if i := rng.IntN(len(dims) + 1); i < len(dims) && dims[i]%m.Size(append(spec[i], a)...) == 0 {
			spec[i] = append(spec[i], a)
		}
	}
	l, err := Lay(spec, m, dims)
	require.NoError(t, err)
	return l
}
