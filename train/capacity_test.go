package train

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/graph/composite"
	"mix/sharding/axis"
	"mix/train/lora"
)

// capacityOptions are steps of samples of one sequence each, whose rows are a group of their own.
func capacityOptions(global int) Options {
	c := meshModel
	c.Layers = 2
	o := options(c, global, 1, 16)
	o.Capacity = composite.Capacity{Factor: 1, Drop: composite.DropProbs}
	return o
}

// TestCapacityCounts holds what a step of one group says to have dropped to the rows of each expert, which it says too.
func TestCapacityCounts(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles for seconds")
	}
	o := capacityOptions(1)
	o.Recompute = RecomputeFull
	x := newBench(t, meshBackend(t, "", ""), modelOf(t, o), Fresh(o.Model, 7))
	v := x.step(t, randomBatch(o, 3), 1e-3)
	rows, most, dropped := float64(o.Seq*o.Model.TopK), float64(axis.Capacity(1, o.Seq, o.Model.TopK, o.Model.Experts)), 0.0
	for _, share := range v[metricLoad:] {
		dropped += max(0, math.Round(float64(share)*rows)-most)
	}
	require.NotZero(t, dropped)
	require.InDelta(t, dropped/rows/float64(o.Model.Layers), float64(v[metricDropped]), 1e-7)
}

// TestCapacityOnAMesh holds steps of stages and experts on devices of their own to the same on one: where a device has one
// sequence at a time, groups are the same.
func TestCapacityOnAMesh(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles for a minute")
	}
	var want [][]float32
	for _, mesh := range []string{"", "pipe=2 expert=2"} {
		o := capacityOptions(8)
		x := newBench(t, meshBackend(t, mesh, ""), modelOf(t, o), Fresh(o.Model, 7))
		for i := range 2 {
			got := x.step(t, randomBatch(o, uint64(i)), 1e-3)
			if mesh == "" {
				want = append(want, got)
				require.NotZero(t, got[metricDropped])
				continue
			}
			require.Equal(t, want[i][metricDropped], got[metricDropped], "step %d", i)
			require.InEpsilon(t, want[i][metricLoss], got[metricLoss], 1e-5, "step %d", i)
			require.InEpsilon(t, want[i][metricNorm], got[metricNorm], 1e-4, "step %d", i)
		}
	}
}

func TestCapacityIsChecked(t *testing.T) {
	o := capacityOptions(1)
	require.NoError(t, o.Validate())
	o.Capacity.Factor = -1
	require.ErrorContains(t, o.Validate(), "capacity factor of experts is -1, want a number above 0")
	o.Capacity.Factor = 1.5
	adapters := lora.Default()
	o.LoRA = &adapters
	require.ErrorContains(t, o.Validate(), "capacity factor of experts is 1.5 with adapters, want none")
}
