package pass

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/ir"
)

// emulated puts what ragged exchanges of two devices mean in their place: each device gathers what both have and takes its own.
// It gives their number.
func emulated(t *testing.T, m *ir.Module) (exchanges int) {
	channel := 1000
	target := func(op *ir.Op) string {
		name, _ := op.Attrs["call_target_name"].Text()
		return name
	}
	_, err := rewriteOps(m, "ragged_all_to_all", func(op *ir.Op) bool { return target(op) == "ragged_all_to_all" }, func(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
		exchanges++
		gather := func(v *ir.Value) *ir.Value {
			elem, dims, _ := v.Type.Split()
			dims[0] *= 2
			channel++
			y := b.AllReduce(b.Const("tensor<f32>", "0.0"), [][]int{{0, 1}}, channel).Def // for its groups
			b.Region.Erase(y)
			attrs := ir.Attrs{"all_gather_dim": ir.Int(0), "replica_groups": y.Attrs["replica_groups"], "channel_handle": y.Attrs["channel_handle"], "use_global_device_ids": ir.Unit}
			return b.Emit("all_gather", attrs, ir.Tensor(elem, dims...), v)
		}
		rows, out := op.Operands[0], op.Operands[1]
		dims := out.Dims()
		n, w := dims[0], dims[1]
		one := func(v, at *ir.Value) *ir.Value {
			return b.Broadcast(b.Reshape(b.DynamicSlice(v, []*ir.Value{at}, 1)), []int{n})
		}
		number := b.Div(b.Reshape(b.Slice(op.Operands[4], []int{0}, []int{1})), b.Index(n/2)) // []: its part of each device's rows
		all := gather(rows)
		var runs [3]*ir.Value // from, send, to of both devices
		for i, v := range op.Operands[2:5] {
			runs[i] = gather(v)
		}
		for sender := range 2 {
			at := b.Add(number, b.Index(2*sender))
			from, send, to := one(runs[0], at), one(runs[1], at), one(runs[2], at)
			row := b.Binary("subtract", b.Iota(0, "i32", n), to)                                                // [N] of the run
			inside := b.Binary("and", b.Compare("GE", row, b.Const(row.Type, "0")), b.Compare("LT", row, send)) // [N]
			source := b.Add(b.Add(row, from), b.Const(row.Type, strconv.Itoa(sender*rows.Dims()[0])))           // [N]
			taken := b.Rows(all, b.Select(inside, source, b.Const(row.Type, "0")))                              // [N, W]
			out = b.Select(b.Broadcast(inside, []int{n, w}, 0), taken, out)
		}
		return []*ir.Value{out}, nil
	})
	require.NoError(t, err)
	return exchanges
}

// TestRaggedExchangesAreWhole holds experts whose rows alone travel, in parts of a device's tokens and in one, to those of whole exchanges:
// value and gradients, for any routing.
func TestRaggedExchangesAreWhole(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles for seconds")
	}
	for _, tokens := range []int{4096, 24} {
		l, ctx := layer{"f32", tokens, 2, 8, 4, 6, true}, on(t, "expert=2", "")
		whole := onTwo(t, l.gradientModule(false), ctx)
		cuda := ctx
		cuda.Platform = "cuda"
		m := l.gradientModule(false)
		p, err := Named("expert")
		require.NoError(t, err)
		_, err = Run(m, cuda, p, Hooks{Verify: true})
		require.NoError(t, err)
		parts := chunksOf(tokens/2, l.k)
		require.Equal(t, tokens == 4096, parts == 2)
		require.Equal(t, 4*parts, emulated(t, m), "exchanges: there and back, value and gradient")
		require.Zero(t, strings.Count(m.String(), "ragged_all_to_all"))
		alone := onTwo(t, m, ctx)
		for name, route := range map[string]func(r *rand.Rand, l layer) []float32{"even": uniform, "all but one token to two experts": ragged} {
			t.Run(name, func(t *testing.T) {
				r := rand.New(rand.NewPCG(5, 6))
				args := append(l.args(r, route), random(r, l.types()[0], 1))
				want, got := whole(args), alone(args)
				require.Len(t, got, len(want))
				for i := range want {
					diff, scale := apart(got[i], want[i])
					require.Positive(t, scale)
					require.LessOrEqual(t, diff, 2e-6*scale, "result %d", i)
				}
			})
		}
	}
}
