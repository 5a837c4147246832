package pass

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"mix/lower/ir"
	"mix/lower/triton"
)

// Attention by cuDNN is two custom calls that XLA gives to the library. The table of tiles chooses it, for the gradient with
// what comes before it: both have the same operands, so that byCuDNN answers alike.
const (
	cudnnForward  = "__cudnn$fmhaSoftmax"
	cudnnBackward = "__cudnn$fmhaSoftmaxBackward"
)

func isCuDNN(op *ir.Op) bool { return op.Attrs["call_target_name"] == ir.String(cudnnForward) }

// CallsCuDNN tells whether the text of a program has such calls. XLA plans them with the GPU at hand: what it compiles without
// one has neither their plans nor the memory they work in, and ends the process that runs it.
func CallsCuDNN(text string) bool { return strings.Contains(text, "\"__cudnn$") }

// CuDNNServes tells whether cuDNN has that attention, where queries stand in order from position 0, as keys do: query i
// then sees keys 0 to i, or i-Window+1 to i.
func CuDNNServes(f triton.Flash) bool {
	return (f.Elem == triton.BF16 || f.Elem == triton.F16) && min(f.Sequences, f.Heads, f.KeyHeads, f.Width, f.Queries) > 0 && f.Heads%f.KeyHeads == 0 &&
		f.Width <= 128 && f.Width%8 == 0 && f.Queries == f.Keys && f.InOrder && !f.Segments && f.Window >= 0
}

// wantsCuDNN tells whether the table has cuDNN for attention of op's elements and number of queries.
func wantsCuDNN(op *ir.Op) bool {
	elem, q, err := matrix(op.Operands[0], 4)
	return err == nil && tiles().Library("flash", kernelElems[elem], q[2]) == triton.CuDNN
}

// byCuDNN tells whether op, mix.attention or its gradient, is cuDNN's: the table wants it, and it serves.
func byCuDNN(op *ir.Op) bool {
	if len(op.Operands) <= keyPositions || !wantsCuDNN(op) || !counts(op.Operands[queryPositions]) {
		return false
	}
	if composite(op) == attentionGradientName && len(op.Results) == 3 {
		forward, err := attentionOf(op)
		if err != nil {
			return false
		}
		op = forward
	}
	f, operands, err := readFlash(op)
	return err == nil && operands != nil && CuDNNServes(f)
}

// cudnnGradient is that of forward, from dy and the sums that cuDNN gave beside y, nil where they are not known: y is then
// computed again with them.
func cudnnGradient(b ir.Builder, forward *ir.Op, dy, sums *ir.Value) ([]*ir.Value, error) {
	f, in, err := readFlash(forward)
	if err != nil || in == nil {
		return nil, err
	}
	f.LSE = true
	y := forward.Results[0]
	if sums == nil {
		sums = sumsOf(y, true)
	}
	if sums == nil {
		again, err := EmitCuDNN(b, f, in[0], in[1], in[2])
		if err != nil {
			return nil, err
		}
		y, sums = again[0], again[1]
	}
	return EmitCuDNNGradient(b, f, in[0], in[1], in[2], sums, dy, y)
}

// EmitCuDNN emits attention by cuDNN and returns y and, with f.LSE, its statistics [B, H, S] f32, which only
// EmitCuDNNGradient reads: natural logarithms of the sums that the softmax divides by, where those of Flash are to base 2.
// Queries, keys and values are those of Flash. It refuses what CuDNNServes does not answer for.
func EmitCuDNN(b ir.Builder, f triton.Flash, q, k, v *ir.Value) ([]*ir.Value, error) {
	results := []ir.Type{q.Type}
	if f.LSE {
		results = append(results, ir.Tensor("f32", f.Sequences, f.Heads, f.Queries))
	}
	return emitCuDNN(b, f, cudnnForward, []*ir.Value{q, k, v}, results, map[string]any{
		"bmm1_dot_dimension_numbers": cudnnDot(3, 3), // scores, of q and k
		"bmm2_dot_dimension_numbers": cudnnDot(3, 2), // y, of powers and v
	})
}

// EmitCuDNNGradient emits the gradient by cuDNN, dq, dk and dv, from what EmitCuDNN gave and dy. The library adds dq up in
// no fixed order.
func EmitCuDNNGradient(b ir.Builder, f triton.Flash, q, k, v, sums, dy, y *ir.Value) ([]*ir.Value, error) {
	if want := ir.Tensor("f32", f.Sequences, f.Heads, f.Queries); sums.Type != want || dy.Type != q.Type || y.Type != q.Type {
		return nil, fmt.Errorf("cudnn: sums %s, dy %s and y %s, wanted %s and twice the type of q, %s", sums.Type, dy.Type, y.Type, want, q.Type)
	}
	return emitCuDNN(b, f, cudnnBackward, []*ir.Value{q, k, v, sums, dy, y}, ir.Types([]*ir.Value{q, k, v}), map[string]any{
		"bmm1_grad_gemm1_dot_dimension_numbers": cudnnDot(2, 2), // dk, of the scores' gradient and q
		"bmm1_grad_gemm2_dot_dimension_numbers": cudnnDot(3, 2), // dq, of it and k
		"bmm2_grad_gemm1_dot_dimension_numbers": cudnnDot(2, 2), // dv, of powers and dy
		"bmm2_grad_gemm2_dot_dimension_numbers": cudnnDot(3, 3), // the powers' gradient, of dy and v
	})
}

// emitCuDNN emits a call. Behind the results that it returns stands one more, the memory that the library works in, whose
// size XLA fills in.
func emitCuDNN(b ir.Builder, f triton.Flash, target string, operands []*ir.Value, results []ir.Type, dots map[string]any) ([]*ir.Value, error) {
	if !CuDNNServes(f) {
		return nil, fmt.Errorf("cudnn: attention %+v, wanted f16 or bf16, heads of 8 to 128 in steps of 8, as many keys as queries, in order, and no segments", f)
	}
	elem := f.Elem.String()
	key := ir.Tensor(elem, f.Sequences, f.KeyHeads, f.Keys, f.Width)
	want := []ir.Type{ir.Tensor(elem, f.Sequences, f.Heads, f.Queries, f.Width), key, key}
	if got := ir.Types(operands[:3]); !slices.Equal(got, want) {
		return nil, fmt.Errorf("cudnn: operands %v, wanted %v", got, want)
	}
	config, err := json.Marshal(cudnnConfig(f, dots))
	if err != nil {
		return nil, err
	}
	results = append(slices.Clone(results), ir.Tensor("ui8", 0))
	attrs := ir.Attrs{"api_version": ir.I32(2), "call_target_name": ir.String(target), "backend_config": ir.String(string(config)),
		"operand_layouts": rowMajor(ir.Types(operands)), "result_layouts": rowMajor(results)}
	out := b.Region.Emit("stablehlo.custom_call", operands, attrs, results...).Results
	return out[:len(out)-1], nil
}

// cudnnConfig is what XLA reads of a call, its message GpuBackendConfig as JSON.
//
// Source of the names, and of the order of operands: JAX, jax/_src/cudnn/fused_attention_stablehlo.py.
func cudnnConfig(f triton.Flash, dots map[string]any) map[string]any {
	window := f.Window
	if window >= f.Keys {
		window = 0 // all are near
	}
	fmha := map[string]any{
		"algorithm": map[string]any{"algo_id": "0", "math_type": "TENSOR_OP_MATH", "tuning_knobs": map[string]string{"17": "1", "24": "0"},
			"is_cudnn_frontend": true, "workspace_size": "0"},
		"fmha_scale": 1 / math.Sqrt(float64(f.Width)), "dropout_rate": 0, "seed": 42,
		"is_flash_attention": true, "mask_type": "CAUSAL", "sliding_window_length": window,
		"intermediate_tensor_shape": map[string]any{ // scores, which are nowhere whole
			"element_type": strings.ToUpper(f.Elem.String()), "dimensions": texts(f.Sequences, f.Heads, f.Queries, f.Keys), "tuple_shapes": []string{},
			"layout": map[string]any{"minor_to_major": texts(3, 2, 1, 0)}, "is_dynamic_dimension": make([]bool, 4)},
	}
	for name, d := range dots {
		fmha[name] = d
	}
	return map[string]any{"cudnn_fmha_backend_config": fmha}
}

// cudnnDot contracts axes of two tensors of sequences and heads.
func cudnnDot(left, right int) map[string][]string {
	return map[string][]string{"lhs_contracting_dimensions": texts(left), "rhs_contracting_dimensions": texts(right),
		"lhs_batch_dimensions": texts(0, 1), "rhs_batch_dimensions": texts(0, 1)}
}

// rowMajor are the layouts of tensors whose last axis lies closest.
func rowMajor(types []ir.Type) ir.Attr {
	var all [][]int
	for _, t := range types {
		_, dims, _ := t.Split()
		axes := numbered(len(dims))
		slices.Reverse(axes)
		all = append(all, axes)
	}
	return layoutsOf(all)
}
