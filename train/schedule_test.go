package train

import (
	"encoding/json"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestScheduleAgainstMegatron(t *testing.T) {
	b, err := os.ReadFile("testdata/lr_schedule.json")
	require.NoError(t, err)
	var golden struct {
		LR map[string]struct{ LR float64 }
	}
	require.NoError(t, json.Unmarshal(b, &golden))
	require.NotEmpty(t, golden.LR)
	s := Schedule{Peak: 1e-4, Floor: 1e-5, Decay: Cosine, Warmup: 500, End: 320000}
	require.NoError(t, s.Validate())
	for step, want := range golden.LR {
		n, err := strconv.Atoi(step)
		require.NoError(t, err)
		require.InDelta(t, want.LR, s.At(n), 1e-18, "after %d steps", n)
	}
}

func TestSchedules(t *testing.T) {
	for _, tt := range []struct {
		s    Schedule
		n    int
		want float64
	}{
		{Schedule{Peak: 2, Decay: Constant}, 0, 2},
		{Schedule{Peak: 2, Decay: Constant, Warmup: 4}, 1, 0.5},
		{Schedule{Peak: 2, Decay: Constant, Warmup: 4}, 400, 2},
		{Schedule{Peak: 2, Floor: 1, Decay: Linear, End: 10}, 5, 1.5},
		{Schedule{Peak: 2, Floor: 1, Decay: Linear, End: 10}, 99, 1},
		{Schedule{Peak: 2, Floor: 1, Decay: WSD, Warmup: 2, End: 10, Tail: 4}, 6, 2},
		{Schedule{Peak: 2, Floor: 1, Decay: WSD, Warmup: 2, End: 10, Tail: 4}, 8, 1.5},
		{Schedule{Peak: 2, Floor: 1, Decay: WSD, Warmup: 2, End: 10, Tail: 4}, 10, 1},
	} {
		require.NoError(t, tt.s.Validate())
		require.InDelta(t, tt.want, tt.s.At(tt.n), 1e-15, "%+v after %d", tt.s, tt.n)
	}
	for _, bad := range []Schedule{
		{Decay: Constant},
		{Peak: 1, Floor: 2, Decay: Constant},
		{Peak: 1, Decay: "cubic"},
		{Peak: 1, Decay: Cosine, Warmup: 10, End: 10},
		{Peak: 1, Decay: WSD, End: 10, Tail: 11},
		{Peak: 1, Decay: Constant, Warmup: -1},
	} {
		require.Error(t, bad.Validate(), "%+v", bad)
	}
}
