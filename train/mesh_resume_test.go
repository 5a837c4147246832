package train

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/internal/golden"
	"mix/lower"
	"mix/sharding"
	"mix/sharding/axis"
	"mix/train/lora"
)

// TestResumedOnAnotherMesh runs four steps on one device, goes on for two on a mesh of stages and experts, and for two
// more on one of tensors and replicas: weights and moments move from layout to layout, and losses are those of a run on one device.
func TestResumedOnAnotherMesh(t *testing.T) {
	const steps = 8
	job := func(be *lower.Backend, dir string, adapters bool) (Job, *heard) {
		j, h := jobOf(t, be, "", steps)
		j.Model, j.Micro, j.Global, j.EvalEvery, j.SaveEvery = meshModel, 2, 8, 0, 2
		j.Model.Vocab = tiny.Vocab
		j.Micro /= max(be.Mesh().Size(be.ShardingRules().Table(sharding.Activations).Split[axis.Batch]...), 1)
		if adapters {
			j.LoRA, j.Int8 = &lora.Options{Rank: 2, Alpha: 4, Targets: []string{"q_proj", "w1", "w2", "w3"}, Seed: 1}, true
		}
		j.Data = sets(t, j.Seq, steps*j.Global)
		if dir != "" {
			j.Store = open(t, dir, j)
		}
		return j, h
	}
	type leg struct {
		mesh, preset string
		until        int
	}
	for _, adapters := range []bool{false, true} {
		if adapters && !golden.Long() {
			continue
		}
		legs := []leg{{"", "", 4}, {"pipe=2 expert=2", "pp+fsdp1+ep", 6}, {"data=2 tensor=2", "fsdp1+tp", steps}}
		if adapters {
			legs = []leg{{"", "", 4}, {"pipe=2 expert=2", "", steps}}
		}
		if testing.Short() {
			t.Skip("compiles five steps")
		}
		one := meshBackend(t, "", "")
		whole, want := job(one, "", adapters)
		_, err := Run(t.Context(), whole)
		require.NoError(t, err)
		dir := filepath.Join(t.TempDir(), "run")
		var got []float64
		for _, leg := range legs {
			be := meshBackend(t, leg.mesh, leg.preset)
			j, h := job(be, dir, adapters)
			ctx, stop := context.WithCancel(t.Context())
			h.after = func(step int) {
				if step == leg.until-1 { // the next one is under way
					stop()
				}
			}
			res, err := Run(ctx, j)
			stop()
			require.NoError(t, err)
			require.NoError(t, j.Store.Close())
			require.GreaterOrEqual(t, res.Step, leg.until-1)
			got = append(got, h.losses()...)
		}
		require.Len(t, got, len(want.losses()))
		for i, x := range want.losses() {
			require.InEpsilon(t, x, got[i], 1e-4, "adapters %t: loss or norm %d", adapters, i)
		}
	}
}
