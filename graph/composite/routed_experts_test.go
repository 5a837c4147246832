package composite_test

import (
	"fmt"
	"testing"

	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"

	"mix/graph/composite"
	"mix/internal/purego"
	"mix/internal/ref"
)

// choices are ways to route tokens to four experts.
var choices = []struct {
	name   string
	chosen [][]int32 // [T][K]
	sizes  []int32
}{
	{"ragged", [][]int32{{2, 0}, {0, 2}, {3, 0}, {0, 1}}, []int32{4, 1, 2, 1}},
	{"all to one", [][]int32{{2}, {2}, {2}}, []int32{0, 0, 3, 0}},
	{"all to the last", [][]int32{{3}, {3}}, []int32{0, 0, 0, 2}},
	{"every expert of a token", [][]int32{{3, 2, 1, 0}, {0, 1, 2, 3}}, []int32{2, 2, 2, 2}},
	{"one token", [][]int32{{1, 3}}, []int32{0, 1, 0, 1}},
}

func flatChoices(chosen [][]int32) (flat []int32) {
	for _, row := range chosen {
		flat = append(flat, row...)
	}
	return flat
}

// TestDispatchAndCombine puts rows of one expert together in the order of tokens, and back.
func TestDispatchAndCombine(t *testing.T) {
	const width, experts = 3, 4
	for _, tt := range choices {
		t.Run(tt.name, func(t *testing.T) {
			tokens, k := len(tt.chosen), len(tt.chosen[0])
			x, weights := normals(1, tokens*width), normals(2, tokens*k)
			chosen := flatChoices(tt.chosen)
			args := []any{purego.Tensor(x, tokens, width), purego.Tensor(chosen, tokens, k), purego.Tensor(weights, tokens, k)}
			out := purego.Eval(t, args, func(in []*gx.Node) []*gx.Node {
				rows, place, sizes := composite.Dispatch(in[0], in[1], experts)
				return []*gx.Node{rows, place, sizes, composite.Combine(rows, place, in[2])}
			})
			rows, place := purego.Flat[float32](t, out[0]), purego.Flat[int32](t, out[1])
			require.Equal(t, tt.sizes, purego.Flat[int32](t, out[2]))
			var want []int32 // of a stable sort by expert
			for r, e := range chosen {
				at := int32(0)
				for s, f := range chosen {
					if f < e || f == e && s < r {
						at++
					}
				}
				want = append(want, at)
			}
			require.Equal(t, want, place)
			sum := make(ref.Vector, tokens*width)
			for r := range chosen {
				at := int(place[r])
				require.Equal(t, x[r/k*width:(r/k+1)*width], rows[at*width:(at+1)*width], "routed row %d", r)
				for d := range width {
					sum[r/k*width+d] += float64(weights[r]) * float64(x[r/k*width+d])
				}
			}
			purego.Near(t, sum, purego.Flat[float32](t, out[3]), 1e-6, "combined")
		})
	}
}

// TestRoutedExperts holds value and gradient to plain loops, with the experts' matrices in one tensor and
// in one each.
func TestRoutedExperts(t *testing.T) {
	const width, hidden, experts = 3, 4, 4
	for _, tt := range choices {
		tokens, k := len(tt.chosen), len(tt.chosen[0])
		args := []argument{random(3, "x", tokens, width), random(4, "weights", tokens, k)}
		route := func(in []*gx.Node, w composite.Experts) *gx.Node {
			return composite.RoutedExperts(in[0], gx.Const(in[0].Graph(), tt.chosen), in[1], w)
		}
		plain := func(x, weights ref.Matrix, gate, up, down []ref.Matrix) (y ref.Vector) {
			all := make([]ref.Expert, experts)
			for e := range all {
				all[e] = ref.Expert{Gate: gate[e], Up: up[e], Down: down[e]}
			}
			for i, row := range x {
				chosen := make([]int, k)
				for j, e := range tt.chosen[i] {
					chosen[j] = int(e)
				}
				y = append(y, ref.RoutedExperts(row, all, weights[i], chosen)...)
			}
			return y
		}
		t.Run(tt.name+"/stacked", func(t *testing.T) {
			args := append(args[:2:2], random(5, "gate", experts, hidden, width), random(6, "up", experts, hidden, width), random(7, "down", experts, width, hidden))
			checkGradient(t, args, func(in []*gx.Node) *gx.Node {
				return route(in, composite.Experts{Gate: in[2:3], Up: in[3:4], Down: in[4:5]})
			}, func(a []argument) ref.Vector {
				return plain(a[0].matrices()[0], a[1].matrices()[0], a[2].matrices(), a[3].matrices(), a[4].matrices())
			})
		})
		t.Run(tt.name+"/split", func(t *testing.T) {
			args := args[:2:2]
			for i, name := range []string{"gate", "up", "down"} {
				for e := range experts {
					dims := []int{hidden, width}
					if name == "down" {
						dims = []int{width, hidden}
					}
					args = append(args, random(uint64(10+10*i+e), fmt.Sprintf("%s[%d]", name, e), dims...))
				}
			}
			checkGradient(t, args, func(in []*gx.Node) *gx.Node {
				return route(in, composite.Experts{Gate: in[2:6], Up: in[6:10], Down: in[10:14]})
			}, func(a []argument) ref.Vector {
				var m []ref.Matrix
				for _, w := range a[2:] {
					m = append(m, w.matrices()...)
				}
				return plain(a[0].matrices()[0], a[1].matrices()[0], m[:4], m[4:8], m[8:])
			})
		})
	}
}

// TestRoutedExpertsOfOne has a single expert as a plain matrix: a split form of one.
func TestRoutedExpertsOfOne(t *testing.T) {
	args := []argument{random(1, "x", 2, 3), random(2, "weights", 2, 1), random(3, "gate", 4, 3), random(4, "up", 4, 3), random(5, "down", 3, 4)}
	checkGradient(t, args, func(in []*gx.Node) *gx.Node {
		return composite.RoutedExperts(in[0], gx.Const(in[0].Graph(), [][]int32{{0}, {0}}), in[1], composite.Experts{Gate: in[2:3], Up: in[3:4], Down: in[4:5]})
	}, func(a []argument) (y ref.Vector) {
		expert := []ref.Expert{{Gate: a[2].matrices()[0], Up: a[3].matrices()[0], Down: a[4].matrices()[0]}}
		weights := a[1].matrices()[0]
		for i, row := range a[0].matrices()[0] {
			y = append(y, ref.RoutedExperts(row, expert, weights[i], []int{0})...)
		}
		return y
	})
}

func TestRoutedExpertsRefuses(t *testing.T) {
	_, err := purego.TryEval(t, []any{purego.Tensor(normals(1, 4), 2, 2), purego.Tensor(normals(2, 4), 2, 2)}, func(in []*gx.Node) []*gx.Node {
		w := composite.Experts{Gate: in[1:2], Up: in[1:2]}
		return []*gx.Node{composite.RoutedExperts(in[0], gx.Const(in[0].Graph(), [][]int32{{0}, {0}}), gx.Const(in[0].Graph(), [][]float32{{1}, {1}}), w)}
	})
	require.ErrorContains(t, err, "routed experts: 1 gate, 1 up and 0 down matrices, want as many of each")
}
