package pass

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/ir"
	"mix/sharding/axis"
)

// bounded gives the experts of a gradientModule a capacity, and main the number of dropped rows as its last result.
func bounded(m *ir.Module, factor float64, drop string) *ir.Module {
	main := m.Func("main")
	end := main.Body.Terminator()
	dropped := false
	for _, op := range main.Body.Ops {
		if !isRouted(op) {
			continue
		}
		as := ir.Attrs{"capacity": ir.String(fmt.Sprint(factor)), "drop": ir.String(drop)}
		for _, name := range []string{"experts", "form", "keep", "frozen"} {
			if v, ok := op.Attrs["composite_attributes"].Entry(name); ok {
				as[name] = v
			}
		}
		op.Attrs["composite_attributes"] = ir.Dictionary(as)
		if composite(op) != routedName {
			continue
		}
		op.Results = slices.Insert(op.Results, 1, &ir.Value{Type: "tensor<f32>", Def: op})
		f := m.Func(callee(op))
		f.Results = ir.Types(op.Results)
		body := f.Body.Terminator()
		f.Body.Ops = f.Body.Ops[:len(f.Body.Ops)-1]
		body.Operands = slices.Insert(body.Operands, 1, ir.At(f.Body).Const("tensor<f32>", "0.0"))
		f.Body.Add(body)
		if !dropped {
			end.Operands, dropped = append(end.Operands, op.Results[1]), true
		}
	}
	main.Results = ir.Types(end.Operands)
	return m
}

// drops tells which rows find no room: of each group's rows those of an expert after the first room, in the order of the
// policy.
func drops(chosen, weights []float32, groups, room int, drop string) []bool {
	dropped := make([]bool, len(chosen))
	share := len(chosen) / groups
	for g := range groups {
		rows := make([]int, share)
		for i := range rows {
			rows[i] = g*share + i
		}
		if drop == "probs" {
			slices.SortStableFunc(rows, func(a, b int) int { return cmp.Compare(weights[b], weights[a]) })
		}
		seen := map[float32]int{}
		for _, r := range rows {
			dropped[r] = seen[chosen[r]] >= room
			seen[chosen[r]]++
		}
	}
	return dropped
}

// TestCapacityDrops holds a layer with a capacity to one that drops nothing and is given weight zero for the rows that are
// to be dropped: result and gradients are equal, but that dropped rows' weights have gradient zero. One that is large enough
// changes no bit.
func TestCapacityDrops(t *testing.T) {
	type limit struct {
		factor float64
		drop   string
	}
	for _, place := range []struct {
		name, mesh     string
		tokens, groups int
		limits         []limit
	}{
		{"rows travel", "expert=2", 24, 2, []limit{{0.75, "probs"}, {0.01, "position"}, {1.8, "probs"}}},
		{"tokens that do not divide stay", "expert=2", 23, 1, []limit{{0.75, "position"}}},
		{"all experts are there", "data=2", 24, 2, []limit{{0.75, "probs"}}},
	} {
		t.Run(place.name, func(t *testing.T) {
			if testing.Short() && place.groups == 1 {
				t.Skip("compiles for seconds")
			}
			l, ctx := layer{"f32", place.tokens, 2, 8, 4, 6, true}, on(t, place.mesh, "")
			dropless := onTwo(t, l.gradientModule(false), ctx)
			for _, c := range place.limits {
				if testing.Short() && c.factor != 0.75 {
					continue
				}
				program := onTwo(t, bounded(l.gradientModule(false), c.factor, c.drop), ctx)
				for name, route := range map[string]routing{"even": uniform, "ragged": ragged} {
					t.Run(fmt.Sprint(name, " ", c.factor, " ", c.drop), func(t *testing.T) {
						r := rand.New(rand.NewPCG(3, 4))
						args := append(l.args(r, route), random(r, l.types()[0], 1))
						weights := args[2].data
						for i, w := range weights { // some are equal
							weights[i] = float32(math.Round(math.Abs(float64(w))*16) / 16)
						}
						got := program(args)
						room := axis.Capacity(c.factor, place.tokens/place.groups, l.k, l.e)
						count, dropped := 0, drops(args[1].data, weights, place.groups, room, c.drop)
						for i, d := range dropped {
							if d {
								weights[i] = 0
								count++
							}
						}
						require.Equal(t, []float32{float32(count)}, got[len(got)-1])
						want := dropless(args)
						if c.factor == 1.8 && name == "even" {
							require.Zero(t, count)
							require.Equal(t, want, got[:len(want)])
							return
						}
						require.NotZero(t, count, "the test drops rows")
						for i, d := range dropped {
							if d {
								want[2][i] = 0
							}
						}
						for i := range want {
							diff, scale := apart(got[i], want[i])
							require.LessOrEqual(t, diff, 1e-6*scale, "result %d", i)
						}
					})
				}
			}
		})
	}
}

// TestCapacityCollectives holds what is sent with a capacity to room for each expert, where this is less than all rows.
func TestCapacityCollectives(t *testing.T) {
	const pairs = "[[0, 1]]"
	l := layer{"bf16", 16, 1, 8, 4, 6, true}
	for _, test := range []struct {
		name   string
		factor float64
		want   []string
	}{
		{"the mean halves what is sent", 1, []string{"reduce f32 " + pairs, "to_all 2x4xi32 " + pairs, "to_all 2x4x8xbf16 " + pairs,
			"to_all 2x4x8xbf16 " + pairs, "to_all 2x4x8xbf16 " + pairs, "to_all 2x4x8xbf16 " + pairs}},
		{"all rows are less than three times the mean", 3, []string{"reduce f32 " + pairs, "to_all 2x8xi32 " + pairs, "to_all 2x8x8xbf16 " + pairs,
			"to_all 2x8x8xbf16 " + pairs, "to_all 2x8x8xbf16 " + pairs, "to_all 2x8x8xbf16 " + pairs}},
		{"one that holds all drops nothing and counts nothing", 4, []string{"to_all 2x8xi32 " + pairs, "to_all 2x8x8xbf16 " + pairs,
			"to_all 2x8x8xbf16 " + pairs, "to_all 2x8x8xbf16 " + pairs, "to_all 2x8x8xbf16 " + pairs}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := bounded(l.gradientModule(true), test.factor, "probs")
			p, err := Named("expert")
			require.NoError(t, err)
			_, err = Run(m, on(t, "expert=2", ""), p, Hooks{Verify: true})
			require.NoError(t, err)
			got := collectives(m)
			slices.Sort(got)
			slices.Sort(test.want)
			require.Equal(t, test.want, got)
		})
	}
}
