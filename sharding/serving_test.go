package sharding_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/sharding"
)

func TestServingMeetsTheTable(t *testing.T) {
	h100, err := sharding.ChipNamed("H100-80G")
	require.NoError(t, err)
	for _, tt := range []struct {
		c               graph.Config
		tensor, width   int
		weights, tokens float64 // GB a GPU, and tokens of keys and values
	}{
		{graph.Mixtral8x7B, 2, 2, 46.7, 0.38e6},
		{graph.Mixtral8x7B, 4, 2, 23.4, 1.47e6},
		{graph.Mixtral8x7B, 1, 1, 46.7, 0.38e6},
		{graph.Mixtral8x22B, 4, 2, 70.3, 22e3},
		{graph.Mixtral8x22B, 8, 2, 35.2, 1.27e6},
	} {
		t.Run(fmt.Sprintf("%d layers, TP%d, %d bytes", tt.c.Layers, tt.tensor, tt.width), func(t *testing.T) {
			j := sharding.Serving{Model: model(tt.c), Chip: h100, Devices: tt.tensor, Concurrent: 1, Context: 2048, Prompt: 1024, Weight: tt.width, KV: tt.width}
			s, err := j.Estimate(mesh(t, fmt.Sprintf("tensor=%d", tt.tensor)), false)
			require.NoError(t, err)
			t.Logf("%.0f tokens", s.Capacity)
			require.InEpsilon(t, tt.weights, s.Memory.Weights/1e9, 5e-3)
			require.InEpsilon(t, tt.tokens, s.Capacity, 0.05)
		})
	}
}

func serving(t *testing.T, devices int) sharding.Serving {
	h100, err := sharding.ChipNamed("H100-80G")
	require.NoError(t, err)
	return sharding.Serving{Model: model(graph.Mixtral8x7B), Chip: h100, Devices: devices, Concurrent: 64, Context: 4096, Prompt: 1024, Weight: 2, KV: 2}
}

func TestServingRank(t *testing.T) {
	j := serving(t, 8)
	r, err := j.Rank(nil)
	require.NoError(t, err)
	require.Equal(t, 20+10, len(r.Fits)+len(r.Refused))
	for i, s := range r.Fits {
		require.LessOrEqual(t, s.Memory.Total(), j.Chip.Memory)
		require.GreaterOrEqual(t, s.Capacity, float64(j.Concurrent*j.Context))
		require.LessOrEqual(t, s.Roofline, 0.70+1e-9)
		if i > 0 {
			require.LessOrEqual(t, s.Rate, r.Fits[i-1].Rate)
		}
	}
	var why string
	for _, f := range r.Refused {
		if f.Mesh.String() == "data=8" {
			why = f.Reason
		}
	}
	require.Contains(t, why, "H100-80G has 80: weights 93.4, keys and values 4.3, room for 0 tokens")
}

// One request alone reads the weights of k experts of E.
func TestDecodeReadsTheChosenExperts(t *testing.T) {
	one, all := serving(t, 4), serving(t, 4)
	one.Concurrent, all.Concurrent = 1, 512
	m := mesh(t, "tensor=4")
	a, err := one.Estimate(m, false)
	require.NoError(t, err)
	b, err := all.Estimate(m, false)
	require.NoError(t, err)
	_, active := one.Model.Parameters()
	floor := 2 * active / 4 / (one.Chip.HBM * 0.70)
	require.Greater(t, a.Step, floor*0.97) // less the table of which one row is read
	require.Less(t, a.Step, 2*floor)       // collectives
	require.Greater(t, b.Rate, 20*a.Rate)
}

func TestServingRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(j *sharding.Serving)
		mesh   string
		want   string
	}{
		{"requests that do not divide", func(j *sharding.Serving) { j.Concurrent = 12 }, "expert=8", `KV cache: axis "batch" of 12 does not divide over 8 shards [expert]`},
		{"another number of devices", func(j *sharding.Serving) {}, "tensor=4", "mesh tensor=4 has 4 devices, want 8"},
		{"no requests", func(j *sharding.Serving) { j.Concurrent = 0 }, "tensor=8", "0 requests of 4096 tokens on 8 devices, want 1 to"},
		{"prompts that are longer than requests", func(j *sharding.Serving) { j.Prompt = 5000 }, "tensor=8", "prompts of 5000 tokens, want 1 to 4096"},
		{"wide elements", func(j *sharding.Serving) { j.KV = 8 }, "tensor=8", "elements of 2 and 8 bytes, want 1 to 4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j := serving(t, 8)
			tt.change(&j)
			_, err := j.Estimate(mesh(t, tt.mesh), false)
			require.ErrorContains(t, err, tt.want)
		})
	}
}
