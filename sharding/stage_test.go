package sharding

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/internal/golden"
)

func TestScheduleGolden(t *testing.T) {
	golden.Run(t, "testdata/schedule*.txtar", func(t *testing.T, in map[string]string) string {
		var s Schedule
		_, err := fmt.Sscanf(in["schedule"], "stages=%d rounds=%d microbatches=%d", &s.Stages, &s.Rounds, &s.Microbatches)
		require.NoError(t, err)
		if err := s.Validate(); err != nil {
			return "error: " + err.Error() + "\n"
		}
		return s.String()
	})
}

// TestScheduleCarriesEveryMicrobatch follows the activations: each comes from the stage before, one tick ago,
// or after the wait, one round ago.
func TestScheduleCarriesEveryMicrobatch(t *testing.T) {
	for stages := 1; stages <= 5; stages++ {
		for rounds := 1; rounds <= 4; rounds++ {
			for micro := 1; micro <= 9; micro++ {
				s := Schedule{stages, rounds, micro}
				require.NoError(t, s.Validate())
				useful := 0
				done := map[[3]int]int{} // stage, round, microbatch to its tick
				for tick := range s.Ticks() {
					for stage := range stages {
						r, m, ok := s.At(tick, stage)
						if !ok {
							continue
						}
						useful++
						_, twice := done[[3]int{stage, r, m}]
						require.False(t, twice)
						done[[3]int{stage, r, m}] = tick
						if stage > 0 {
							require.Equal(t, tick-1, done[[3]int{stage - 1, r, m}])
						} else if r > 0 {
							require.Equal(t, tick-1-s.Waiting(), done[[3]int{stages - 1, r - 1, m}])
						}
					}
				}
				require.Equal(t, stages*rounds*micro, useful)
				require.InDelta(t, 1-float64(useful)/float64(stages*s.Ticks()), s.Bubble(), 1e-12)
				for _, tick := range []int{-1, s.Ticks() + stages} {
					_, _, ok := s.At(tick, 0)
					require.False(t, ok)
				}
			}
		}
	}
}

// The two shapes that the design rests on.
func TestBubbleOfTheExamples(t *testing.T) {
	require.InDelta(t, 0.086, Schedule{4, 8, 4}.Bubble(), 5e-4)
	require.InDelta(t, 0.111, Schedule{8, 7, 8}.Bubble(), 5e-4)
}

func TestCircle(t *testing.T) {
	c, err := NewCircle(32, 4, 2)
	require.NoError(t, err)
	require.Equal(t, Circle{4, 2, 4}, c)
	for layer := range 32 {
		r, s, d := c.Home(layer)
		require.Equal(t, layer, c.Layer(r, s, d))
	}
	require.Equal(t, 17, c.Layer(1, 0, 1))

	p := param("layers/attn_norm", "layers embed", 32, 6)
	v, err := c.View(p)
	require.NoError(t, err)
	require.Equal(t, param("layers/attn_norm", "rounds layers depth embed", 2, 4, 4, 6), v)
	top := param("embed", "vocab embed", 10, 6)
	v, err = c.View(top)
	require.NoError(t, err)
	require.Equal(t, top, v)

	r, err := Preset("pp")
	require.NoError(t, err)
	l, err := c.Layout(r, Weights, p, mesh(t, "pipe=4"))
	require.NoError(t, err)
	require.Len(t, l.Boxes, 8)
	require.Equal(t, Box{Holder: 3, Offset: []int{28, 0}, Size: []int{4, 6}}, l.Boxes[7])
	l, err = c.Layout(r, Weights, top, mesh(t, "pipe=4"))
	require.NoError(t, err)
	require.Equal(t, Box{Holder: 3, Replica: 3, Offset: []int{0, 0}, Size: []int{10, 6}}, l.Boxes[3])

	_, err = c.View(param("w", "layers", 31))
	require.ErrorContains(t, err, "w [layers] of [31], want 32 layers first")
	_, err = c.View(param("w", "embed layers", 6, 32))
	require.ErrorContains(t, err, "want 32 layers first")
	for _, bad := range [][3]int{{32, 5, 1}, {32, 4, 3}, {0, 1, 1}, {32, 0, 1}, {32, 1, 0}, {4, 8, 1}} {
		_, err := NewCircle(bad[0], bad[1], bad[2])
		require.ErrorIs(t, err, ErrRules)
		require.ErrorContains(t, err, fmt.Sprintf("%d layers do not divide over %d stages in %d rounds", bad[0], bad[1], bad[2]))
	}
}
