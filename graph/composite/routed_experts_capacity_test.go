package composite_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"

	"mix/graph/composite"
	"mix/internal/purego"
	"mix/internal/ref"
	"mix/sharding/axis"
)

// roomFor tells which rows find room, by plain loops.
func roomFor(chosen [][]int32, weights []float32, c composite.Capacity, experts int) []bool {
	k := len(chosen[0])
	most := axis.Capacity(c.Factor, len(chosen), k, experts)
	flat := flatChoices(chosen)
	fits := make([]bool, len(flat))
	for e := range experts {
		var rows []int
		for r, own := range flat {
			if int(own) == e {
				rows = append(rows, r)
			}
		}
		if c.Drop == composite.DropProbs {
			slices.SortStableFunc(rows, func(a, b int) int {
				switch {
				case weights[a] > weights[b]:
					return -1
				case weights[a] < weights[b]:
					return 1
				}
				return 0
			})
		}
		for _, r := range rows[:min(most, len(rows))] {
			fits[r] = true
		}
	}
	return fits
}

// TestCapacityGradient holds value, gradient and count of drops to plain loops that leave rows out.
func TestCapacityGradient(t *testing.T) {
	const width, hidden, experts = 3, 4, 4
	crowded := [][]int32{{2, 0}, {2, 1}, {3, 2}, {0, 2}, {2, 3}, {1, 2}}
	for _, c := range []composite.Capacity{{Factor: 1, Drop: composite.DropProbs}, {Factor: 1, Drop: composite.DropPosition},
		{Factor: 0.1, Drop: composite.DropProbs}, {Factor: 3, Drop: composite.DropProbs}} {
		for _, form := range []string{"stacked", "split"} {
			t.Run(fmt.Sprint(c.Factor, c.Drop, form), func(t *testing.T) {
				weights := argument{"weights", []float32{.5, .25, .75, .5, .5, .5, .125, .875, .0625, .25, 1, .75}, []int{6, 2}}
				fits := roomFor(crowded, weights.flat, c, experts)
				args := []argument{random(3, "x", len(crowded), width), weights}
				if form == "stacked" {
					args = append(args, random(5, "gate", experts, hidden, width), random(6, "up", experts, hidden, width), random(7, "down", experts, width, hidden))
				} else {
					for i, dims := range [][]int{{hidden, width}, {hidden, width}, {width, hidden}} {
						for e := range experts {
							args = append(args, random(uint64(10+10*i+e), fmt.Sprint("matrix ", i, e), dims...))
						}
					}
				}
				checkGradient(t, args, func(in []*gx.Node) *gx.Node {
					n := (len(in) - 2) / 3
					y, dropped := composite.RoutedExpertsWithin(in[0], gx.Const(in[0].Graph(), crowded), in[1],
						composite.Experts{Gate: in[2 : 2+n], Up: in[2+n : 2+2*n], Down: in[2+2*n:]}, c)
					count := gx.BroadcastToDims(dropped, 1, width)
					return gx.Concatenate([]*gx.Node{y, count}, 0)
				}, func(a []argument) (y ref.Vector) {
					var m []ref.Matrix
					for _, w := range a[2:] {
						m = append(m, w.matrices()...)
					}
					all := make([]ref.Expert, experts)
					for e := range all {
						all[e] = ref.Expert{Gate: m[e], Up: m[experts+e], Down: m[2*experts+e]}
					}
					dropped := 0.0
					for i, row := range a[0].matrices()[0] {
						w, chosen := make(ref.Vector, 2), make([]int, 2)
						for j := range w {
							chosen[j] = int(crowded[i][j])
							if fits[2*i+j] {
								w[j] = float64(a[1].flat[2*i+j])
							} else {
								dropped++
							}
						}
						y = append(y, ref.RoutedExperts(row, all, w, chosen)...)
					}
					return append(y, dropped, dropped, dropped)
				})
			})
		}
	}
}

// TestCapacityAsMegatron drops what Megatron-LM drops. A capacity that drops nothing gives what experts without one give, bit
// for bit.
func TestCapacityAsMegatron(t *testing.T) {
	text, err := os.ReadFile("testdata/drops.json")
	require.NoError(t, err)
	var cases struct {
		Logits [][]float32 `json:"logits"`
		Drop   map[string]struct {
			Capacity int     `json:"capacity"`
			Map      [][]int `json:"map"`
		} `json:"drop"`
	}
	require.NoError(t, json.Unmarshal(text, &cases))
	chosen, weights := topTwo(cases.Logits)
	tokens, experts := len(cases.Logits), len(cases.Logits[0])
	require.Len(t, cases.Drop, 6)
	for name, want := range cases.Drop {
		t.Run(name, func(t *testing.T) {
			policy, factor, _ := strings.Cut(name, "_")
			c := composite.Capacity{Drop: composite.Drop(policy)}
			fmt.Sscan(factor, &c.Factor)
			require.Equal(t, want.Capacity, axis.Capacity(c.Factor, tokens, 2, experts))
			// An expert gives each token the row of one number, so that y tells which experts a token found room at.
			one := make([]float32, experts)
			for e := range one {
				one[e] = float32(int(1) << e)
			}
			args := []any{purego.Tensor(slices.Repeat([]float32{1}, tokens), tokens, 1), purego.Tensor(chosen, tokens, 2), purego.Tensor(weights, tokens, 2),
				purego.Tensor(slices.Repeat([]float32{40}, experts), experts, 1, 1), purego.Tensor(slices.Repeat([]float32{1. / 40}, experts), experts, 1, 1), purego.Tensor(one, experts, 1, 1)}
			out := purego.Eval(t, args, func(in []*gx.Node) []*gx.Node {
				w := composite.Experts{Gate: in[3:4], Up: in[4:5], Down: in[5:6]}
				y, dropped := composite.RoutedExpertsWithin(in[0], in[1], in[2], w, c)
				return []*gx.Node{y, dropped, composite.RoutedExperts(in[0], in[1], in[2], w)}
			})
			kept := 0
			for _, row := range want.Map {
				for _, x := range row {
					kept += x
				}
			}
			require.Equal(t, float32(2*tokens-kept), purego.Flat[float32](t, out[1])[0])
			if kept == 2*tokens {
				require.Equal(t, purego.Flat[float32](t, out[2]), purego.Flat[float32](t, out[0]), "bit for bit")
			}
			if policy == "position" { // the fixture's ties are in no order, see its README
				return
			}
			y := make([]float32, tokens)
			for i, row := range want.Map {
				for j := range 2 {
					e := chosen[2*i+j]
					y[i] += float32(row[e]) * weights[2*i+j] * one[e]
				}
			}
			require.InDeltaSlice(t, y, purego.Flat[float32](t, out[0]), 1e-4)
		})
	}
}

// topTwo picks two experts a token, and their softmax.
func topTwo(logits [][]float32) (chosen []int32, weights []float32) {
	for _, row := range logits {
		order := make([]int32, len(row))
		for e := range order {
			order[e] = int32(e)
		}
		slices.SortStableFunc(order, func(a, b int32) int {
			switch {
			case row[a] > row[b]:
				return -1
			case row[a] < row[b]:
				return 1
			}
			return 0
		})
		first := 1 / (1 + math.Exp(float64(row[order[1]]-row[order[0]])))
		chosen, weights = append(chosen, order[:2]...), append(weights, float32(first), float32(1-first))
	}
	return chosen, weights
}

func TestCapacityRefuses(t *testing.T) {
	for _, tt := range []struct {
		c    composite.Capacity
		want string
	}{
		{composite.Capacity{Factor: -1, Drop: composite.DropProbs}, "capacity factor of experts is -1, want a number above 0"},
		{composite.Capacity{Factor: math.NaN(), Drop: composite.DropProbs}, "capacity factor of experts is NaN, want a number above 0"},
		{composite.Capacity{Factor: math.Inf(1), Drop: composite.DropProbs}, "capacity factor of experts is +Inf, want a number above 0"},
		{composite.Capacity{Factor: 1, Drop: "best"}, `policy of dropped rows is "best", want probs or position`},
	} {
		require.EqualError(t, tt.c.Validate(), tt.want)
	}
	require.NoError(t, composite.Capacity{}.Validate())
}
