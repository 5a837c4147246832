package ir

import (
	"fmt"
	"slices"
)

// rules checks single operations. An operation without a row is XLA's to check.
var rules = func() map[string]func(*Op) error {
	t := map[string]func(*Op) error{
		"stablehlo.while":                whileRule,
		"stablehlo.if":                   branchRule,
		"stablehlo.case":                 branchRule,
		"stablehlo.select":               selectRule,
		"stablehlo.compare":              compareRule,
		"stablehlo.convert":              convertRule,
		"stablehlo.reshape":              reshapeRule,
		"stablehlo.constant":             constantRule,
		"stablehlo.dot_general":          dotRule,
		"stablehlo.broadcast_in_dim":     broadcastRule,
		"stablehlo.transpose":            transposeRule,
		"stablehlo.dynamic_slice":        dynamicSliceRule,
		"stablehlo.dynamic_update_slice": dynamicUpdateRule,
	}
	for _, n := range []string{"add", "subtract", "multiply", "divide", "maximum", "minimum", "power", "remainder",
		"and", "or", "xor", "atan2", "shift_left", "shift_right_logical", "shift_right_arithmetic"} {
		t["stablehlo."+n] = sameTypes(2)
	}
	for _, n := range []string{"negate", "exponential", "exponential_minus_one", "log", "log_plus_one", "logistic", "tanh",
		"sqrt", "rsqrt", "cbrt", "cosine", "sine", "tan", "sign", "floor", "ceil", "not", "popcnt", "round_nearest_even",
		"round_nearest_afz", "count_leading_zeros"} {
		t["stablehlo."+n] = sameTypes(1)
	}
	return t
}()

// arity checks the numbers of operands and results.
func arity(op *Op, operands, results int) error {
	if len(op.Operands) != operands || len(op.Results) != results {
		return fmt.Errorf("has %d operands and %d results, wanted %d and %d",
			len(op.Operands), len(op.Results), operands, results)
	}
	return nil
}

// sameTypes checks an elementwise operation of n operands and one result.
func sameTypes(n int) func(*Op) error {
	return func(op *Op) error {
		if err := arity(op, n, 1); err != nil {
			return err
		}
		for i, o := range op.Operands {
			if o.Type != op.Results[0].Type {
				return fmt.Errorf("operand %d is %s, the result %s", i, o.Type, op.Results[0].Type)
			}
		}
		return nil
	}
}

// yields is what the last operation of a region hands out.
func yields(r *Region) []*Value { return r.Ops[len(r.Ops)-1].Operands }

func whileRule(op *Op) error {
	if len(op.Regions) != 2 {
		return fmt.Errorf("has %d regions, wanted condition and body", len(op.Regions))
	}
	want := typeText(Types(op.Operands))
	if got := typeText(Types(op.Results)); got != want {
		return fmt.Errorf("takes (%s) and gives (%s)", want, got)
	}
	for i, r := range op.Regions {
		if got := typeText(Types(r.Args)); got != want {
			return fmt.Errorf("region %d takes (%s), the loop carries (%s)", i, got, want)
		}
	}
	if got := typeText(Types(yields(op.Regions[0]))); got != "tensor<i1>" {
		return fmt.Errorf("the condition returns (%s), wanted (tensor<i1>)", got)
	}
	if got := typeText(Types(yields(op.Regions[1]))); got != want {
		return fmt.Errorf("the body returns (%s), the loop carries (%s)", got, want)
	}
	return nil
}

// branchRule checks if, of two branches, and case, of one or more.
func branchRule(op *Op) error {
	index := Type("tensor<i32>")
	if op.Name == "stablehlo.if" {
		index = "tensor<i1>"
	}
	if n := len(op.Regions); n == 0 || index == "tensor<i1>" && n != 2 {
		return fmt.Errorf("has %d branches", n)
	}
	if len(op.Operands) != 1 || op.Operands[0].Type != index {
		return fmt.Errorf("chooses by (%s), wanted (%s)", typeText(Types(op.Operands)), index)
	}
	want := typeText(Types(op.Results))
	for i, r := range op.Regions {
		if len(r.Args) != 0 {
			return fmt.Errorf("branch %d takes arguments", i)
		}
		if got := typeText(Types(yields(r))); got != want {
			return fmt.Errorf("branch %d returns (%s), wanted (%s)", i, got, want)
		}
	}
	return nil
}

func selectRule(op *Op) error {
	if err := arity(op, 3, 1); err != nil {
		return err
	}
	if t := op.Results[0].Type; op.Operands[1].Type != t || op.Operands[2].Type != t {
		return fmt.Errorf("chooses between %s and %s, the result is %s", op.Operands[1].Type, op.Operands[2].Type, t)
	}
	elem, dims, ok := op.Operands[0].Type.Split()
	_, out, ok2 := op.Results[0].Type.Split()
	if ok && ok2 && (elem != "i1" || len(dims) != 0 && !slices.Equal(dims, out)) {
		return fmt.Errorf("chooses by %s for a result of %s", op.Operands[0].Type, op.Results[0].Type)
	}
	return nil
}

func compareRule(op *Op) error {
	if err := arity(op, 2, 1); err != nil {
		return err
	}
	if a, b := op.Operands[0].Type, op.Operands[1].Type; a != b {
		return fmt.Errorf("compares %s with %s", a, b)
	}
	elem, out, ok := op.Results[0].Type.Split()
	_, in, ok2 := op.Operands[0].Type.Split()
	if ok && ok2 && (elem != "i1" || !slices.Equal(in, out)) {
		return fmt.Errorf("of %s gives %s", op.Operands[0].Type, op.Results[0].Type)
	}
	return nil
}

func convertRule(op *Op) error {
	if err := arity(op, 1, 1); err != nil {
		return err
	}
	_, in, ok := op.Operands[0].Type.Split()
	_, out, ok2 := op.Results[0].Type.Split()
	if ok && ok2 && !slices.Equal(in, out) {
		return fmt.Errorf("of %s gives %s", op.Operands[0].Type, op.Results[0].Type)
	}
	return nil
}

func reshapeRule(op *Op) error {
	if err := arity(op, 1, 1); err != nil {
		return err
	}
	a, in, ok := op.Operands[0].Type.Split()
	b, out, ok2 := op.Results[0].Type.Split()
	if ok && ok2 && (a != b || size(in) != size(out)) {
		return fmt.Errorf("of %s gives %s", op.Operands[0].Type, op.Results[0].Type)
	}
	return nil
}

func constantRule(op *Op) error {
	if err := arity(op, 0, 1); err != nil {
		return err
	}
	if op.Attrs["value"] == "" {
		return fmt.Errorf("has no value")
	}
	return nil
}

func broadcastRule(op *Op) error {
	if err := arity(op, 1, 1); err != nil {
		return err
	}
	to, ok := op.Attrs["broadcast_dimensions"].Ints()
	a, in, ok2 := op.Operands[0].Type.Split()
	b, out, ok3 := op.Results[0].Type.Split()
	if !ok || !ok2 || !ok3 {
		return nil
	}
	if a != b || len(to) != len(in) {
		return fmt.Errorf("of %s along %v gives %s", op.Operands[0].Type, to, op.Results[0].Type)
	}
	for i, d := range to {
		if d < 0 || d >= len(out) || in[i] != 1 && in[i] != out[d] {
			return fmt.Errorf("of %s along %v gives %s", op.Operands[0].Type, to, op.Results[0].Type)
		}
	}
	return nil
}

func transposeRule(op *Op) error {
	if err := arity(op, 1, 1); err != nil {
		return err
	}
	order, ok := op.Attrs["permutation"].Ints()
	_, in, ok2 := op.Operands[0].Type.Split()
	_, out, ok3 := op.Results[0].Type.Split()
	if !ok || !ok2 || !ok3 {
		return nil
	}
	bad := len(order) != len(in) || len(out) != len(in)
	for i := 0; !bad && i < len(order); i++ {
		bad = order[i] < 0 || order[i] >= len(in) || out[i] != in[order[i]]
	}
	if bad {
		return fmt.Errorf("of %s by %v gives %s", op.Operands[0].Type, order, op.Results[0].Type)
	}
	return nil
}

func dynamicSliceRule(op *Op) error {
	if len(op.Operands) == 0 || len(op.Results) != 1 {
		return arity(op, 1, 1)
	}
	_, in, ok := op.Operands[0].Type.Split()
	_, out, ok2 := op.Results[0].Type.Split()
	if ok && ok2 && (len(op.Operands) != 1+len(in) || !fits(out, in)) {
		return fmt.Errorf("of %s with %d starts gives %s", op.Operands[0].Type, len(op.Operands)-1, op.Results[0].Type)
	}
	return nil
}

func dynamicUpdateRule(op *Op) error {
	if len(op.Operands) < 2 || len(op.Results) != 1 {
		return arity(op, 2, 1)
	}
	if a, b := op.Operands[0].Type, op.Results[0].Type; a != b {
		return fmt.Errorf("of %s gives %s", a, b)
	}
	_, in, ok := op.Operands[0].Type.Split()
	_, part, ok2 := op.Operands[1].Type.Split()
	if ok && ok2 && (len(op.Operands) != 2+len(in) || !fits(part, in)) {
		return fmt.Errorf("of %s takes %s and %d starts", op.Operands[0].Type, op.Operands[1].Type, len(op.Operands)-2)
	}
	return nil
}

// fits tells whether a box of sizes a lies in one of sizes b.
func fits(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] > b[i] {
			return false
		}
	}
	return true
}

func size(dims []int) int {
	n := 1
	for _, d := range dims {
		n *= d
	}
	return n
}
