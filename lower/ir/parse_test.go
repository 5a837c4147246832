package ir

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParsePrintsBackExactly(t *testing.T) {
	text, err := os.ReadFile("testdata/module.mlir")
	require.NoError(t, err)
	m, err := Parse(string(text))
	require.NoError(t, err)
	require.NoError(t, Verify(m))
	require.Equal(t, string(text), m.String())
}

func TestParseForgives(t *testing.T) {
	m, err := Parse(`#loc1 = loc("x.go":1:2)
// a comment
"builtin.module"() <{sym_name = "m"}> ({
  "func.func"() <{function_type = (tensor<f32>) -> tensor<f32>,   // why
      sym_name = "main"}> ({
  ^entry(%x: tensor<f32> loc("x")):
    %sum = "stablehlo.add"(%x, %x) {note = [1,
       2]} : (tensor<f32>, tensor<f32>) -> tensor<f32> loc(#loc1)
    "func.return"(%sum) : (tensor<f32>) -> ()
  }) {a.b = "q"} : () -> ()
}) : () -> ()`)
	require.NoError(t, err)
	require.Equal(t, `"builtin.module"() ({
  "func.func"() ({
  ^bb0(%arg0: tensor<f32>):
    %0 = "stablehlo.add"(%arg0, %arg0) {note = [1, 2]} : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "func.return"(%0) : (tensor<f32>) -> ()
  }) {a.b = "q", function_type = (tensor<f32>) -> (tensor<f32>), sym_name = "main"} : () -> ()
}) {sym_name = "m"} : () -> ()
`, m.String())
}

func TestParseRefuses(t *testing.T) {
	body := func(ops string) string {
		return "\"builtin.module\"() ({\n\"func.func\"() ({\n^bb0(%x: tensor<f32>):\n" + ops +
			"\n}) {function_type = (tensor<f32>) -> (), sym_name = \"main\"} : () -> ()\n}) : () -> ()"
	}
	tests := []struct{ name, text, want string }{
		{"nothing", "", "line 1: wanted a string, found the end"},
		{"the pretty form", "module @m {}", "generic form"},
		{"a second module", body(`"func.return"() : () -> ()`) + ` "x"`, `wanted the end, found "\"x\""`},
		{"a value never defined", body(`"a"(%y) : (tensor<f32>) -> ()`), "line 4: %y is used before"},
		{"a value defined twice", body(`%x = "a"() : () -> tensor<f32>`), "%x is defined twice"},
		{"a value of a closed region", body("\"a\"() ({\n%i = \"c\"() : () -> f32\n}) : () -> ()\n\"b\"(%i) : (f32) -> ()"),
			"line 7: %i is used before"},
		{"an operand of another type", body(`"a"(%x) : (tensor<f64>) -> ()`), "operand 0 of a is tensor<f64>, its definition says tensor<f32>"},
		{"too few types", body(`"a"(%x) : () -> ()`), "1 operands and 0 types"},
		{"a result without a name", body(`"a"() : () -> tensor<f32>`), "1 results and 0 names"},
		{"an unclosed bracket", body(`"a"() {b = [1} : () -> ()`), `has a '}' that nothing opened`},
		{"an unclosed string", body(`"a"() {b = "1} : () -> ()`), "is not closed"},
		{"an unclosed region", `"builtin.module"() ({ "a"() ({`, "a region is not closed"},
		{"an attribute twice", body(`"a"() {b, b} : () -> ()`), "attribute b is given twice"},
		{"successors", body(`"a"()[^bb1] : () -> ()`), "successors"},
		{"a second block", body("\"a\"() : () -> ()\n^bb1:"), "several blocks"},
		{"a pretty operation", body(`%0 = stablehlo.add %x, %x : tensor<f32>`), "line 4: wanted an operation in generic form"},
		{"a function without a body", "\"builtin.module\"() ({\n\"func.func\"() ({}) {sym_name = \"f\"} : () -> ()\n}) : () -> ()", "@f: wanted one body"},
		{"a function type that disagrees", strings.Replace(body(`"func.return"() : () -> ()`), "(tensor<f32>) ->", "(f32) ->", 1),
			"its body takes (tensor<f32>), its type says (f32)"},
		{"attributes for a parameter that is not", strings.Replace(body(`"func.return"() : () -> ()`), "{function", "{arg_attrs = [{}, {}], function", 1),
			"2 entries of arg_attrs for 1 parameters"},
		{"regions without end", strings.Repeat(`"builtin.module"() ({`, 1) + strings.Repeat(`"a"() ({`, 1e5), "regions nest deeper than 200"},
		{"brackets without end", body(`"a"() {b = ` + strings.Repeat("[", 1e5)), "nests deeper than 200 brackets"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse(test.text)
			require.ErrorContains(t, err, test.want)
			require.ErrorContains(t, err, "ir: line ")
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

// FuzzParse holds Parse to three things: it does not panic, what it accepts prints as something it
// accepts, and printing is stable from then on.
func FuzzParse(f *testing.F) {
	text, err := os.ReadFile("testdata/module.mlir")
	require.NoError(f, err)
	f.Add(string(text))
	f.Add(`"builtin.module"() ({ %a:2 = "x"() {b = "\0A", c} : () -> (f32, (i1) -> i1) loc(#loc) }) : () -> ()`)
	f.Fuzz(func(t *testing.T, text string) {
		m, err := Parse(text)
		if err != nil {
			return
		}
		_ = Verify(m)
		printed := m.String()
		again, err := Parse(printed)
		require.NoError(t, err, printed)
		require.Equal(t, printed, again.String())
	})
}
