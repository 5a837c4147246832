package pass

import (
	"fmt"
	"slices"

	"mix/lower/ir"
	"mix/lower/triton"
)

// attentionOf is the mix.attention whose gradient op is, its result being what op calls y.
func attentionOf(op *ir.Op) (*ir.Op, error) {
	n := len(op.Operands) - 2
	if n < 5 || len(op.Results) != 3 {
		return nil, fmt.Errorf("%d operands and %d results, wanted at least 7 and 3", len(op.Operands), len(op.Results))
	}
	q, y, dy := op.Operands[0].Type, op.Operands[n], op.Operands[n+1]
	if y.Type != q || dy.Type != q {
		return nil, fmt.Errorf("y %s and dy %s, wanted the type of q, %s", y.Type, dy.Type, q)
	}
	if got, want := ir.Types(op.Results), ir.Types(op.Operands[:3]); !slices.Equal(got, want) {
		return nil, fmt.Errorf("results %v, wanted the types of q, k and v, %v", got, want)
	}
	return &ir.Op{Name: op.Name, Operands: op.Operands[:n], Attrs: op.Attrs, Results: []*ir.Value{y}}, nil
}

// sumsOf is the second result of the kernel, or of the region with it, whose first is y: what Flash calls lse, or of cuDNN's
// attention its statistics. It is nil where y comes from elsewhere, or is not by cuDNN as asked: the two differ in base.
func sumsOf(y *ir.Value, byCuDNN bool) *ir.Value {
	from, dims := y.Def, y.Dims()
	if from == nil || len(dims) != 4 || len(from.Results) < 2 || from.Results[0] != y {
		return nil
	}
	call := from
	if from.Name == "sdy.manual_computation" && len(from.Regions) == 1 {
		if end := from.Regions[0].Terminator(); end != nil && len(end.Operands) == len(from.Results) {
			call = end.Operands[0].Def
		}
	}
	sums := from.Results[1]
	if call == nil || call.Name != "stablehlo.custom_call" || isCuDNN(call) != byCuDNN || sums.Type != ir.Tensor("f32", dims[:3]...) {
		return nil
	}
	return sums
}

// attentionGradientCUDA keeps no scores either. It reads what the kernel of attention gave beside y, or computes that again.
// In a region it is one operand more. What cuDNN's attention gave, cuDNN's gradient reads.
func attentionGradientCUDA(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
	var sums *ir.Value
	if n := len(op.Operands); n > 7 && n%2 == 0 {
		sums = op.Operands[n-1]
		op = &ir.Op{Name: op.Name, Operands: op.Operands[:n-1], Attrs: op.Attrs, Results: op.Results}
	}
	forward, err := attentionOf(op)
	if err != nil {
		return nil, err
	}
	if byCuDNN(forward) {
		return cudnnGradient(b, forward, op.Operands[len(op.Operands)-1], sums)
	}
	f, operands, err := readFlash(forward)
	if err != nil || operands == nil {
		return nil, err
	}
	var calls []triton.Call
	for _, kernel := range []struct {
		name string
		call func(triton.Tile) (triton.Call, error)
	}{{"flash_dq", triton.FlashGradient(f).OfQueries}, {"flash_dkv", triton.FlashGradient(f).OfKeys}} {
		tile, unfit := tiles().Choose(kernel.name, f.Elem, f.Queries)
		c, unfit2 := kernel.call(tile)
		if unfit != nil || unfit2 != nil {
			return nil, nil
		}
		calls = append(calls, c)
	}
	y, dy := op.Operands[len(op.Operands)-2], op.Operands[len(op.Operands)-1]
	if sums == nil {
		sums = sumsOf(y, false)
	}
	if sums == nil {
		again, err := flash(b, forward, true)
		if err != nil || again == nil {
			return nil, err
		}
		sums = again[1]
	}
	delta := b.Reduce("add", b.Mul(b.Convert(y, "f32"), b.Convert(dy, "f32")), "0.0", 3) // [B, H, S]
	operands = slices.Insert(operands, 3, dy, sums, delta)
	var results []*ir.Value
	for _, c := range calls {
		gradients, err := EmitCall(b, c, operands...)
		if err != nil {
			return nil, err
		}
		results = append(results, gradients...)
	}
	return results, nil
}
