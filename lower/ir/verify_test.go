package ir

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// example parses testdata/module.mlir.
func example(t *testing.T) *Module {
	text, err := os.ReadFile("testdata/module.mlir")
	require.NoError(t, err)
	m, err := Parse(string(text))
	require.NoError(t, err)
	return m
}

func TestVerifyNamesWhatIsBroken(t *testing.T) {
	main := func(m *Module) *Region { return m.Func("main").Body }
	tests := []struct {
		name  string
		spoil func(m *Module)
		want  string
	}{
		{"no main", func(m *Module) { m.Func("main").Name = "other" }, "has no function @main"},
		{"two functions of one name", func(m *Module) { m.Funcs[1].Name = "main" }, "function @main is defined twice"},
		{"a callee that is not there", func(m *Module) { m.Funcs = m.Funcs[:1] }, "@main op 9 stablehlo.composite: @mix.double(x=1).0 is not in the module"},
		{"a callee of another type", func(m *Module) { m.Funcs[1].Results[0] = "tensor<2xf32>" }, "wants (tensor<4xf32>) of @mix.double(x=1).0, it returns (tensor<2xf32>)"},
		{"a return of another type", func(m *Module) { m.Func("main").Results[1] = "tensor<4xf32>" }, "@main: returns (tensor<4xf32>, tensor<4xi32>), its type says"},
		{"a use before its definition", func(m *Module) {
			ops := main(m).Ops
			ops[0], ops[1] = ops[1], ops[0]
		}, "@main op 0 stablehlo.while: operand 0 (tensor<i32>, result of stablehlo.constant) is used before it is defined"},
		{"a value of a closed region", func(m *Module) {
			inner := main(m).Ops[1].Regions[1].Ops[0]
			main(m).Ops[2].Operands[0] = inner.Results[0]
		}, "operand 0 (tensor<4xf32>) belongs to another function or a closed region"},
		{"a value of another function", func(m *Module) {
			m.Funcs[1].Body.Ops[0].Operands[0] = main(m).Args[0]
		}, "@mix.double(x=1).0 op 0 stablehlo.add: operand 0 (tensor<4xf32>) belongs to another function"},
		{"an argument of no region", func(m *Module) { main(m).Ops[2].Operands[0] = &Value{Type: "tensor<4xf32>"} }, "is an argument of no enclosing region"},
		{"a nil operand", func(m *Module) { main(m).Ops[2].Operands[0] = nil }, "operand 0 is nil"},
		{"a result that forgot its operation", func(m *Module) { main(m).Ops[0].Results[0].Def = nil }, "result 0 is nil or does not name"},
		{"an operation in two places", func(m *Module) { main(m).InsertAfter(main(m).Ops[0], main(m).Ops[0]) }, "is defined twice"},
		{"a region without an end", func(m *Module) { body := main(m).Ops[1].Regions[1]; body.Ops = body.Ops[:3] }, "op 7 stablehlo.add: is no terminator and ends a region"},
		{"a region without anything", func(m *Module) { main(m).Ops[1].Regions[0].Ops = nil }, "a region has no operations"},
		{"a terminator in the middle", func(m *Module) { main(m).InsertBefore(main(m).Ops[0], NewOp("func.return", nil, nil)) }, "op 0 func.return: is a terminator inside a region"},
		{"the wrong terminator", func(m *Module) { main(m).Ops[1].Regions[1].Ops[3].Name = "func.return" }, "ends the wrong kind of region"},
		{"a region in two places", func(m *Module) { w := main(m).Ops[1]; w.Regions[0] = w.Regions[1] }, "one region stands in two places"},
		{"a loop that changes a type", func(m *Module) { main(m).Ops[1].Regions[1].Args[1].Type = "tensor<8xf32>" }, "region 1 takes (tensor<i32>, tensor<8xf32>), the loop carries (tensor<i32>, tensor<4xf32>)"},
		{"unequal types added", func(m *Module) { m.Funcs[1].Body.Ops[0].Results[0].Type = "tensor<4xbf16>" }, "operand 0 is tensor<4xf32>, the result tensor<4xbf16>"},
		{"a function that calls itself", func(m *Module) {
			b := m.Funcs[1].Body
			b.InsertBefore(b.Ops[0], NewOp("func.call", b.Args, Attrs{"callee": Symbol(m.Funcs[1].Name)}, "tensor<4xf32>"))
		}, "@mix.double(x=1).0 calls itself"},
		{"an attribute with a field of its own", func(m *Module) { m.Funcs[1].Attrs = Attrs{"sym_name": `"x"`} }, "has a field of its own"},
		{"too few parameter attributes", func(m *Module) { m.Funcs[1].ParamAttrs = []Attrs{} }, "0 ParamAttrs for 1 parameters"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := example(t)
			test.spoil(m)
			require.ErrorContains(t, Verify(m), test.want)
		})
	}
}

func TestRulesNameWhatIsBroken(t *testing.T) {
	// The types of operands and results, and attributes; "" wanted: the operation is sound.
	tests := []struct {
		name, op string
		in       []Type
		out      Type
		attrs    Attrs
		want     string
	}{
		{"select by a scalar", "select", []Type{"tensor<i1>", "tensor<2xf32>", "tensor<2xf32>"}, "tensor<2xf32>", nil, ""},
		{"select by another shape", "select", []Type{"tensor<3xi1>", "tensor<2xf32>", "tensor<2xf32>"}, "tensor<2xf32>", nil, "chooses by tensor<3xi1>"},
		{"select of two types", "select", []Type{"tensor<i1>", "tensor<2xf32>", "tensor<3xf32>"}, "tensor<2xf32>", nil, "chooses between"},
		{"compare", "compare", []Type{"tensor<2xf32>", "tensor<2xf32>"}, "tensor<2xi1>", nil, ""},
		{"compare to a number", "compare", []Type{"tensor<2xf32>", "tensor<2xf32>"}, "tensor<2xf32>", nil, "of tensor<2xf32> gives tensor<2xf32>"},
		{"compare of two types", "compare", []Type{"tensor<2xf32>", "tensor<2xf16>"}, "tensor<2xi1>", nil, "compares tensor<2xf32> with tensor<2xf16>"},
		{"convert", "convert", []Type{"tensor<2xf32>"}, "tensor<2xbf16>", nil, ""},
		{"convert of a shape", "convert", []Type{"tensor<2xf32>"}, "tensor<3xbf16>", nil, "of tensor<2xf32> gives tensor<3xbf16>"},
		{"reshape", "reshape", []Type{"tensor<2x3xf32>"}, "tensor<6xf32>", nil, ""},
		{"reshape of another size", "reshape", []Type{"tensor<2x3xf32>"}, "tensor<5xf32>", nil, "gives tensor<5xf32>"},
		{"constant without value", "constant", nil, "tensor<f32>", nil, "has no value"},
		{"broadcast", "broadcast_in_dim", []Type{"tensor<1x3xf32>"}, "tensor<2x3xf32>", Attrs{"broadcast_dimensions": Ints(0, 1)}, ""},
		{"broadcast of a wrong axis", "broadcast_in_dim", []Type{"tensor<3xf32>"}, "tensor<3x2xf32>", Attrs{"broadcast_dimensions": Ints(1)}, "along [1] gives"},
		{"transpose", "transpose", []Type{"tensor<2x3xf32>"}, "tensor<3x2xf32>", Attrs{"permutation": Ints(1, 0)}, ""},
		{"transpose of a wrong order", "transpose", []Type{"tensor<2x3xf32>"}, "tensor<3x2xf32>", Attrs{"permutation": Ints(0, 1)}, "by [0 1] gives"},
		{"slice", "dynamic_slice", []Type{"tensor<4xf32>", "tensor<i32>"}, "tensor<2xf32>", nil, ""},
		{"slice without a start", "dynamic_slice", []Type{"tensor<4xf32>"}, "tensor<2xf32>", nil, "with 0 starts"},
		{"slice beyond its source", "dynamic_slice", []Type{"tensor<4xf32>", "tensor<i32>"}, "tensor<5xf32>", nil, "gives tensor<5xf32>"},
		{"update", "dynamic_update_slice", []Type{"tensor<4xf32>", "tensor<2xf32>", "tensor<i32>"}, "tensor<4xf32>", nil, ""},
		{"update with too much", "dynamic_update_slice", []Type{"tensor<4xf32>", "tensor<5xf32>", "tensor<i32>"}, "tensor<4xf32>", nil, "takes tensor<5xf32>"},
		{"dot of one operand", "dot_general", []Type{"tensor<4xf32>"}, "tensor<f32>", nil, "has 1 operands"},
		{"dot", "dot_general", []Type{"tensor<2x4xf32>", "tensor<3x4xf32>"}, "tensor<2x3xf32>", Attrs{"dot_dimension_numbers": "#stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>"}, ""},
		{"dot of a batch", "dot_general", []Type{"tensor<2x4x5xf32>", "tensor<2x4x6xf32>"}, "tensor<2x5x6xf32>", Attrs{"dot_dimension_numbers": "#stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>"}, ""},
		{"dot with empty lists", "dot_general", []Type{"tensor<2xf32>", "tensor<3xf32>"}, "tensor<2x3xf32>", Attrs{"dot_dimension_numbers": "#stablehlo.dot<lhs_batching_dimensions = [], rhs_batching_dimensions = []>"}, ""},
		{"dot of sizes that are not static", "dot_general", []Type{"tensor<?x4xf32>", "tensor<3x4xf32>"}, "tensor<?x3xf32>", Attrs{"dot_dimension_numbers": "#stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>"}, ""},
		{"dot without numbers", "dot_general", []Type{"tensor<2x4xf32>", "tensor<3x4xf32>"}, "tensor<2x3xf32>", nil, "dot_dimension_numbers is"},
		{"dot of an axis out of range", "dot_general", []Type{"tensor<2x4xf32>", "tensor<3x4xf32>"}, "tensor<2x3xf32>", Attrs{"dot_dimension_numbers": "#stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [7]>"}, "axis 7, wanted 0 to 1"},
		{"dot of a batch axis out of range", "dot_general", []Type{"tensor<2x4xf32>", "tensor<3x4xf32>"}, "tensor<2x3xf32>", Attrs{"dot_dimension_numbers": "#stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [9]>"}, "axis 9, wanted 0 to 1"},
		{"dot of an axis twice", "dot_general", []Type{"tensor<2x4xf32>", "tensor<3x4xf32>"}, "tensor<3xf32>", Attrs{"dot_dimension_numbers": "#stablehlo.dot<lhs_batching_dimensions = [1], rhs_batching_dimensions = [1], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>"}, "axis 1 is named twice"},
		{"dot of axes that are no numbers", "dot_general", []Type{"tensor<2x4xf32>", "tensor<3x4xf32>"}, "tensor<2x3xf32>", Attrs{"dot_dimension_numbers": "#stablehlo.dot<lhs_contracting_dimensions = [x]>"}, "wanted a list of axes as lhs_contracting_dimensions"},
		{"dot of unequal sizes", "dot_general", []Type{"tensor<2x4xf32>", "tensor<3x5xf32>"}, "tensor<2x3xf32>", Attrs{"dot_dimension_numbers": "#stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>"}, "the contracted axes disagree"},
		{"dot of unequal batches", "dot_general", []Type{"tensor<2x4x5xf32>", "tensor<3x4x6xf32>"}, "tensor<2x5x6xf32>", Attrs{"dot_dimension_numbers": "#stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>"}, "the batch axes disagree"},
		{"dot of one axis less", "dot_general", []Type{"tensor<2x4xf32>", "tensor<3x4xf32>"}, "tensor<2x3xf32>", Attrs{"dot_dimension_numbers": "#stablehlo.dot<lhs_contracting_dimensions = [1]>"}, "the contracted axes disagree"},
		{"dot with another result", "dot_general", []Type{"tensor<2x4xf32>", "tensor<3x4xf32>"}, "tensor<3x2xf32>", Attrs{"dot_dimension_numbers": "#stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>"}, "the sizes left over are [2 3]"},
		{"case by a float", "case", []Type{"tensor<f32>"}, "tensor<f32>", nil, "has 0 branches"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			body := NewRegion(test.in...)
			op := body.Emit("stablehlo."+test.op, body.Args, test.attrs, test.out)
			body.Emit("func.return", op.Results, nil)
			err := Verify(&Module{Funcs: []*Func{{Name: "main", Results: []Type{test.out}, Body: body}}})
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, "@main op 0 stablehlo."+test.op+": ")
			require.ErrorContains(t, err, test.want)
		})
	}
}
