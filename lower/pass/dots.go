package pass

import (
	"maps"
	"slices"

	"mix/lower/ir"
	"mix/lower/target"
)

// dots says how CUDA multiplies f32. Without that a product of f32 rounds its operands to TF32, ten bits, and one whose
// operands were widened from bf16 or f16 reads twice the bytes at half the rate or less.
//
//	dot(convert(x), convert(y))  → dot(x, y)    x and y bf16, or both f16; sums and result stay f32
//	dot(x, y)                    → precision HIGHEST on both sides: products of f32 as they are
//
// A product of two bf16 or f16 numbers is exact in f32, so that the first gives the same but for the order of sums. Reshapes,
// transposes and broadcasts of what was widened are done on the narrow values instead. Gradients of products come in that
// form, as autodiff multiplies in the type of sums: cotangents have the type of the product's result, to which they are rounded.
//
// On one device a result that is only read rounded to the type of the operands is that of the product itself: the sum is
// f32 and rounded once in either case, unless cuBLAS cuts it into parts and adds those rounded, as it may for few rows; and half
// the bytes go through memory. What is widened again at once stays f32, as logits and gradients of weights do, for there XLA
// leaves the rounding out. On a mesh a product may be a part of a sum over devices, which is to be of f32.
//
// After: on cuda no dot_general of f32 has operands that were both widened from bf16 or both from f16, and all others of f32
// multiply f32 exactly. Those of other types are as they were.
func dots(m *ir.Module, ctx Context) (changed bool, err error) {
	if ctx.Platform != target.CUDA {
		return false, nil
	}
	changed, err = rewriteOps(m, "stablehlo.dot_general", wideProduct, narrowed)
	if err != nil || ctx.Mesh.Devices() > 1 || ctx.Devices > 1 {
		return changed, err
	}
	for _, f := range m.Funcs {
		changed = roundInPlace(f) || changed
	}
	return changed, nil
}

// wideProduct tells a product of two f32 that nobody has chosen a precision for.
func wideProduct(op *ir.Op) bool {
	if op.Name != "stablehlo.dot_general" || len(op.Operands) != 2 || len(op.Results) != 1 || op.Attrs["precision_config"] != "" || op.Attrs["algorithm"] != "" {
		return false
	}
	for _, v := range op.Operands {
		if elem, _, ok := v.Type.Split(); !ok || elem != "f32" {
			return false
		}
	}
	elem, _, ok := op.Results[0].Type.Split()
	return ok && elem == "f32"
}

func narrowed(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
	left, right := widenedFrom(op.Operands[0]), widenedFrom(op.Operands[1])
	attrs := maps.Clone(op.Attrs)
	if attrs == nil {
		attrs = ir.Attrs{}
	}
	operands := op.Operands
	if left != "" && left == right {
		operands = []*ir.Value{narrow(b, operands[0]), narrow(b, operands[1])}
	} else {
		highest := ir.Attr("#stablehlo<precision HIGHEST>")
		attrs["precision_config"] = ir.List(highest, highest)
	}
	return b.Region.Add(ir.NewOp(op.Name, operands, attrs, op.Results[0].Type)).Results, nil
}

// roundInPlace lets products whose results are only read rounded give them rounded.
func roundInPlace(f *ir.Func) (changed bool) {
	readers := map[*ir.Value][]*ir.Op{}
	ir.Walk(f.Body, func(op *ir.Op) {
		for _, v := range op.Operands {
			readers[v] = append(readers[v], op)
		}
	})
	by := map[*ir.Value]*ir.Value{}
	ir.Walk(f.Body, func(op *ir.Op) {
		if op.Name != "stablehlo.dot_general" || len(op.Operands) != 2 || len(op.Results) != 1 {
			return
		}
		elem, _, _ := op.Operands[0].Type.Split()
		right, _, _ := op.Operands[1].Type.Split()
		out, _, _ := op.Results[0].Type.Split()
		if out != "f32" || elem != right || elem != "bf16" && elem != "f16" {
			return
		}
		moved, round := alone(op, readers)
		if round == nil || round.Name != "stablehlo.convert" || len(round.Results) != 1 || widenedAgain(round, readers) {
			return
		}
		var types []ir.Type
		for _, m := range moved {
			_, dims, ok := m.Results[0].Type.Split()
			if !ok {
				return
			}
			types = append(types, ir.Tensor(elem, dims...))
		}
		if round.Results[0].Type != types[len(types)-1] {
			return
		}
		for i, m := range moved {
			m.Results[0].Type = types[i]
		}
		by[round.Results[0]] = round.Operands[0]
		changed = true
	})
	ir.ReplaceAll(f.Body, by)
	return changed
}

// alone follows op's result through moves that are its only readers: op with them, and what reads the last, nil for several.
func alone(op *ir.Op, readers map[*ir.Value][]*ir.Op) (moved []*ir.Op, reader *ir.Op) {
	for {
		moved = append(moved, op)
		next := readers[op.Results[0]]
		if len(next) != 1 {
			return moved, nil
		}
		if !moves[next[0].Name] || len(next[0].Results) != 1 {
			return moved, next[0]
		}
		op = next[0]
	}
}

// widenedAgain tells whether all that reads a rounded value, moved or not, is a convert to f32.
func widenedAgain(round *ir.Op, readers map[*ir.Value][]*ir.Op) bool {
	for _, op := range readers[round.Results[0]] {
		if len(op.Results) != 1 {
			return false
		}
		switch elem, _, _ := op.Results[0].Type.Split(); {
		case moves[op.Name] && widenedAgain(op, readers):
		case op.Name == "stablehlo.convert" && elem == "f32":
		default:
			return false
		}
	}
	return true
}

// moves are the operations that only move elements of their one operand.
var moves = map[string]bool{"stablehlo.reshape": true, "stablehlo.transpose": true, "stablehlo.broadcast_in_dim": true}

// widenedFrom is the type that x, of f32, was widened from before it was moved: bf16 or f16, "" for none.
func widenedFrom(x *ir.Value) string {
	for op := x.Def; op != nil && len(op.Operands) == 1; op = op.Operands[0].Def {
		elem, dims, ok := op.Operands[0].Type.Split()
		switch {
		case !ok:
			return ""
		case op.Name == "stablehlo.convert" && (elem == "bf16" || elem == "f16") && slices.Equal(dims, op.Results[0].Dims()):
			return elem
		case !moves[op.Name]:
			return ""
		}
	}
	return ""
}

// narrow is x before it was widened, moved as x was.
func narrow(b ir.Builder, x *ir.Value) *ir.Value {
	op := x.Def
	in := op.Operands[0]
	if op.Name == "stablehlo.convert" {
		return in
	}
	in = narrow(b, in)
	elem, _, _ := in.Type.Split()
	_, dims, _ := x.Type.Split()
	return b.Region.Add(ir.NewOp(op.Name, []*ir.Value{in}, maps.Clone(op.Attrs), ir.Tensor(elem, dims...))).Result()
}
