package composite

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// attentionState is what the gradient of attention knows beside the inputs.
type attentionState struct {
	as     attrs
	window int
	y      *Node
}

// attentionVJP declares a composite for the gradient: the inputs of attention, then y and dy [B, H, S, A], give dq, dk and
// dv. Its body makes the scores again. It does not read y, from which a kernel has what the scores' gradient needs.
func attentionVJP(in, dys []*Node, state any) []*Node {
	st, n := state.(*attentionState), len(in)
	all := append(append([]*Node{}, in...), st.y, dys[0])
	out := make([]*Node, n)
	copy(out, call(AttentionGradientName, st.as, all, nil, func(all []*Node) []*Node {
		return attentionGradient(all[:n], all[n+1], st.window)
	}))
	return out
}

// attentionGradient is the gradient of attention, with all scores at once: dq, dk and dv of its inputs and dy. Types are
// those that differentiating the body would give: products in dy's, the softmax in float32.
func attentionGradient(in []*Node, dy *Node, window int) []*Node {
	q, k, v := in[0], in[1], in[2]
	rows, p := shares(in, window)                                            // [B, G, M·S, A], [B, G, M·S, C]
	dy = Reshape(dy, rows.Shape().Dimensions...)                             // [B, G, M·S, A]
	dv := Einsum("bgrc,bgra->bgca", ConvertDType(p, v.DType()), dy)          // [B, G, C, A]
	dp := ConvertDType(Einsum("bgra,bgca->bgrc", dy, v), dtypes.Float32)     // [B, G, M·S, C]
	ds := Mul(p, Sub(dp, ReduceAndKeep(Mul(p, dp), ReduceSum, -1)))          // [B, G, M·S, C]
	ds = Mul(ds, Const(q.Graph(), root(q.Shape().Dim(3))))                   // [B, G, M·S, C]
	ds = ConvertDType(ds, q.DType())                                         // [B, G, M·S, C]
	dq := Reshape(Einsum("bgrc,bgca->bgra", ds, k), q.Shape().Dimensions...) // [B, H, S, A]
	return []*Node{dq, Einsum("bgrc,bgra->bgca", ds, rows), dv}
}
