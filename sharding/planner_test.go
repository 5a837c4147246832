package sharding_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/sharding"
	"mix/sharding/axis"
)

// training is the example's job for 8x7B.
func training(t *testing.T, devices int) sharding.Training {
	h100, err := sharding.ChipNamed("h100")
	require.NoError(t, err)
	return sharding.Training{Model: model(graph.Mixtral8x7B), Chip: h100, Seq: 4096, Batch: 256, Devices: devices}
}

// TestRankNamesEveryMesh counts the meshes of 32 devices: 56 ways to write 2^5 as four factors, and again
// with folded experts where tensor is more than 1.
func TestRankNamesEveryMesh(t *testing.T) {
	j := training(t, 32)
	r, err := j.Rank(sharding.Only{})
	require.NoError(t, err)
	require.Equal(t, 56+35, len(r.Fits)+len(r.Refused))
	require.True(t, slices.IsSortedFunc(r.Fits, func(a, b sharding.Estimate) int {
		if a.Step <= b.Step {
			return -1
		}
		return 1
	}))
	for _, e := range r.Fits {
		require.LessOrEqual(t, e.Memory.Total(), j.Chip.Memory)
		again, err := j.Estimate(e.Mapping)
		require.NoError(t, err)
		require.Equal(t, e, again)
		require.Positive(t, e.MFU)
		require.Less(t, e.MFU, 0.585)
	}
	reasons := map[string]string{}
	for _, f := range r.Refused {
		if !f.Folded {
			reasons[f.Mesh.String()] = f.Reason
		}
	}
	require.Contains(t, reasons["expert=16 tensor=2"], `layers/moe/gate: axis "experts" of 8 does not divide over 16 shards [expert]`)

	r, err = training(t, 8).Rank(sharding.Only{})
	require.NoError(t, err)
	require.Empty(t, r.Fits, "weights, gradients and moments are 841 GB")
	for _, f := range r.Refused {
		require.Contains(t, f.Reason, " GB at least (micro-batch 1, recompute full, ZeRO ")
		require.Contains(t, f.Reason, "H100-80G has 80")
	}
	_, err = training(t, 1<<17).Rank(sharding.Only{})
	require.ErrorContains(t, err, "131072 devices, want at most 65536")
}

func TestRankKeepsToWhatIsAsked(t *testing.T) {
	j := training(t, 64)
	r, err := j.Rank(sharding.Only{Mesh: func(m sharding.Mesh) bool { return m.Size(axis.Pipe) == 4 && m.Size(axis.Tensor) == 1 },
		MicroBatch: 2, Recompute: sharding.Full, Zero: []int{2}})
	require.NoError(t, err)
	require.NotEmpty(t, r.Fits)
	for _, e := range r.Fits {
		require.Equal(t, 4, e.Mesh.Size(axis.Pipe))
		require.Equal(t, 2, e.MicroBatch)
		require.Equal(t, sharding.Full, e.Recompute)
		require.Equal(t, 2, e.Zero)
	}
	r, err = j.Rank(sharding.Only{MicroBatch: 3})
	require.NoError(t, err)
	require.Empty(t, r.Fits)
	require.Contains(t, r.Refused[len(r.Refused)-2].Reason, "sequences of a replica do not divide into microbatches of 3")
}

// TestOneProgramKeepsRoomForAllRows: buffers of fixed sizes hold all rows that could come.
func TestOneProgramKeepsRoomForAllRows(t *testing.T) {
	kept := func(mesh string, interleaved bool, r sharding.Recompute) float64 {
		j := training(t, 8)
		j.Interleaved = interleaved
		m, err := sharding.ParseMesh(mesh)
		require.NoError(t, err)
		e, err := j.Estimate(sharding.Mapping{Mesh: m, Rounds: 1, MicroBatch: 1, Group: 1, Recompute: r})
		require.NoError(t, err)
		return e.Memory.Activations
	}
	require.Equal(t, kept("data=8", true, sharding.KeepAll), kept("data=8", false, sharding.KeepAll))
	// 8x7B: 4 times k(4h + 6f) instead of once, in 258 kB a token and layer.
	require.InEpsilon(t, (258048+3*2*(4*4096+6*14336))/258048.0, kept("expert=8", false, sharding.KeepAll)/kept("expert=8", true, sharding.KeepAll), 0.01)
	require.InEpsilon(t, (258048+2*(4*4096+6*14336))/258048.0, kept("data=4 expert=2", false, sharding.KeepAll)/kept("data=4 expert=2", true, sharding.KeepAll), 0.01)

	r, err := training(t, 64).Rank(sharding.Only{Recompute: sharding.Selective})
	require.NoError(t, err)
	for _, e := range r.Fits {
		require.Equal(t, 1, e.Mesh.Size(axis.Pipe))
	}
	refused := 0
	for _, x := range r.Refused {
		if strings.Contains(x.Reason, "recompute selective in a pipeline, which computes every layer again: want full") {
			refused++
		}
	}
	require.Positive(t, refused)
}

// What each choice is for: it saves one thing and costs another.
func TestChoicesTradeMemoryForTime(t *testing.T) {
	j := training(t, 64)
	at := func(change func(a *sharding.Mapping)) sharding.Estimate {
		a := sharding.Mapping{Mesh: mesh(t, "pipe=4 data=2 expert=8"), Zero: 1, Rounds: 8, MicroBatch: 1, Group: 4, Recompute: sharding.KeepAll}
		change(&a)
		e, err := j.Estimate(a)
		require.NoError(t, err)
		return e
	}
	plain := at(func(a *sharding.Mapping) {})
	for _, tt := range []struct {
		name   string
		change func(a *sharding.Mapping)
		saves  func(e sharding.Estimate) float64
		costs  func(e sharding.Estimate) float64
	}{
		{"recomputing saves activations and costs time", func(a *sharding.Mapping) { a.Recompute = sharding.Selective },
			func(e sharding.Estimate) float64 { return e.Memory.Activations }, func(e sharding.Estimate) float64 { return e.Step }},
		{"ZeRO-2 saves gradients and costs traffic", func(a *sharding.Mapping) { a.Zero = 2 },
			func(e sharding.Estimate) float64 { return e.Memory.Gradients }, func(e sharding.Estimate) float64 { return e.Traffic.Data }},
		{"ZeRO-3 saves weights and costs traffic", func(a *sharding.Mapping) { a.Zero = 3 },
			func(e sharding.Estimate) float64 { return e.Memory.Weights }, func(e sharding.Estimate) float64 { return e.Traffic.Data }},
		{"more microbatches at once shrink the bubble and cost activations", func(a *sharding.Mapping) { a.Group = 8 },
			func(e sharding.Estimate) float64 { return e.Bubble }, func(e sharding.Estimate) float64 { return e.Memory.Activations }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := at(tt.change)
			require.Less(t, tt.saves(e), tt.saves(plain))
			require.Greater(t, tt.costs(e), tt.costs(plain))
		})
	}
	require.Equal(t, plain.Memory.Weights, plain.Memory.Gathered, "masters are gathered in f32")
	require.Zero(t, at(func(a *sharding.Mapping) { a.Zero = 0 }).Memory.Gathered)
	require.Positive(t, at(func(a *sharding.Mapping) { a.Zero = 3 }).Memory.Gathered)
	require.Less(t, plain.Memory.Optimizer, at(func(a *sharding.Mapping) { a.Zero = 0 }).Memory.Optimizer)
	require.Greater(t, at(func(a *sharding.Mapping) { a.Rounds = 1 }).Bubble, plain.Bubble)
	require.InDelta(t, 0.086, plain.Bubble, 5e-4)
	require.Equal(t, "TP1 EP8 ETP1 PP4 VP8 DP16", plain.String())
}

// The rows that the planner adds up are those that Describe shows.
func TestStaticMemoryIsTheReports(t *testing.T) {
	j := training(t, 64)
	a := sharding.Mapping{Mesh: mesh(t, "pipe=4 data=2 expert=4 tensor=2"), Folded: true, Zero: 1, Rounds: 8, MicroBatch: 1, Group: 4, Recompute: sharding.KeepAll}
	r, err := a.Rules()
	require.NoError(t, err)
	require.Equal(t, "pp+fsdp1+ep+tp+etp1+sp", r.String())
	report, err := sharding.Describe(j.Model.Params, width, r, a.Mesh)
	require.NoError(t, err)
	e, err := j.Estimate(a)
	require.NoError(t, err)
	require.Equal(t, [3]int{int(e.Memory.Weights), int(e.Memory.Gradients), int(e.Memory.Optimizer)}, report.Bytes)
}

func TestEstimateRefuses(t *testing.T) {
	good := sharding.Mapping{Mesh: mesh(t, "pipe=4 data=2 expert=8"), Zero: 1, Rounds: 8, MicroBatch: 1, Group: 4, Recompute: sharding.KeepAll}
	for _, tt := range []struct {
		name   string
		change func(j *sharding.Training, a *sharding.Mapping)
		want   string
	}{
		{"another number of devices", func(j *sharding.Training, a *sharding.Mapping) { j.Devices = 8 }, "mesh pipe=4 data=2 expert=8 has 64 devices, want 8"},
		{"rounds", func(j *sharding.Training, a *sharding.Mapping) { a.Rounds = 3 }, "8 layers of a stage do not divide over 3 rounds"},
		{"microbatches", func(j *sharding.Training, a *sharding.Mapping) { a.MicroBatch = 5 }, "16 sequences of a replica do not divide into microbatches of 5"},
		{"groups", func(j *sharding.Training, a *sharding.Mapping) { a.Group = 3 }, "16 microbatches do not divide into groups of 3"},
		{"batch", func(j *sharding.Training, a *sharding.Mapping) { j.Batch = 24 }, `activations: axis "batch" of 24 does not divide over 16 shards [data expert]`},
		{"ZeRO", func(j *sharding.Training, a *sharding.Mapping) { a.Zero = 4 }, "ZeRO stage 4, want 0 to 3"},
		{"recompute", func(j *sharding.Training, a *sharding.Mapping) { a.Recompute = "some" }, `recompute "some", want none, selective, moe, full`},
		{"no tokens", func(j *sharding.Training, a *sharding.Mapping) { j.Seq = 0 }, "256 sequences of 0 tokens on 64 devices, want 1 to"},
		{"too many devices", func(j *sharding.Training, a *sharding.Mapping) { j.Devices = 1 << 40 }, "want 1 to 16777216"},
		{"no layers", func(j *sharding.Training, a *sharding.Mapping) { j.Model.Layers = 0 }, "model with layers 0, want at least 1"},
		{"no weights", func(j *sharding.Training, a *sharding.Mapping) { j.Model.Params = nil }, "without a catalogue"},
		{"positions", func(j *sharding.Training, a *sharding.Mapping) {
			j.Seq, a.Mesh = 4095, mesh(t, "pipe=4 expert=8 tensor=2")
		}, `axis "seq" of 4095 does not divide over 2 shards [tensor]`},
		{"heads", func(j *sharding.Training, a *sharding.Mapping) { a.Mesh = mesh(t, "tensor=64") }, "32 heads are fewer than tensor=64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j, a := training(t, 64), good
			tt.change(&j, &a)
			_, err := j.Estimate(a)
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestChips(t *testing.T) {
	c, err := sharding.ChipNamed("h200")
	require.NoError(t, err)
	require.Equal(t, "H200-141G", c.Name)
	_, err = sharding.ChipNamed("tpu")
	require.ErrorIs(t, err, sharding.ErrPlan)
	require.ErrorContains(t, err, `GPU "tpu", want A100-80G, H100-80G, H200-141G, B200-180G`)
}

func TestTablesEndWithTheReasons(t *testing.T) {
	r, err := training(t, 32).Rank(sharding.Only{})
	require.NoError(t, err)
	var b strings.Builder
	require.NoError(t, r.Write(&b, 1))
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	require.Len(t, lines, 2+1+2+len(r.Refused))
	require.Contains(t, lines[1], r.Fits[0].Mesh.String())
	require.Contains(t, lines[2], "more that fit")
	require.Equal(t, "these do not fit:", lines[4])
}
