package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/internal/cli"
)

const (
	dead = `"builtin.module"() ({
  "func.func"() ({
  ^bb0(%arg0: tensor<f32>):
    %0 = "stablehlo.negate"(%arg0) : (tensor<f32>) -> tensor<f32>
    "func.return"(%arg0) : (tensor<f32>) -> ()
  }) {function_type = (tensor<f32>) -> (tensor<f32>), sym_name = "main"} : () -> ()
}) : () -> ()
`
	swept = `"builtin.module"() ({
  "func.func"() ({
  ^bb0(%arg0: tensor<f32>):
    "func.return"(%arg0) : (tensor<f32>) -> ()
  }) {function_type = (tensor<f32>) -> (tensor<f32>), sym_name = "main"} : () -> ()
}) : () -> ()
`
)

func TestOpt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.mlir")
	require.NoError(t, os.WriteFile(file, []byte(dead), 0o644))
	unsound := strings.Replace(dead, `"main"`, `"other"`, 1)
	tests := []struct {
		name, args, in string
		code           int
		out, err       string // err is part of one line
	}{
		{"no pass prints what it read", "", "// note\n" + dead, 0, dead, ""},
		{"a pass by name", "--pass dce", dead, 0, swept, ""},
		{"two passes", "--pass constrain,dce", dead, 0, swept, ""},
		{"all passes, from a file", "--pass all --target cuda --mesh data=1 " + file, "", 0, swept, ""},
		{"an unsound module", "", unsound, 1, "", "the module is invalid before the first pass"},
		{"an unsound module, unchecked", "--no-verify", unsound, 0, unsound, ""},
		{"text that is no module", "", "func.func", 1, "", "opt: ir: line 1: "},
		{"an unknown pass", "--pass dec", dead, 2, "", `no pass "dec", known are constrain`},
		{"an unknown target", "--target tpu", dead, 2, "", "--target must be one of"},
		{"two devices", "--mesh data=2 --pass dce", dead, 0, swept, ""},
		{"no mesh", "--mesh data", dead, 2, "", "want axis=size"},
		{"rules that leave an axis unused", "--mesh data=2 --rules tp", dead, 2, "", "does not use data=2"},
		{"a file that is not there", file + "x", dead, 1, "", "no such file"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var out, err bytes.Buffer
			code := cli.Run(t.Context(), new(command), "opt", "", strings.Fields(test.args),
				cli.IO{In: strings.NewReader(test.in), Out: &out, Err: &err}, platforms)
			require.Equal(t, test.code, code, err.String())
			require.Equal(t, test.out, out.String())
			require.Contains(t, err.String(), test.err)
			require.LessOrEqual(t, strings.Count(err.String(), "\n"), 1)
		})
	}
}

func TestListNamesPassesAndReasons(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, list(&out))
	require.Contains(t, out.String(), "\ndce ")
	require.Contains(t, out.String(), "after routed_experts: ")
}
