package pass

import (
	"errors"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/internal/golden"
	"mix/lower/ir"
	"mix/sharding"
)

// contextOf reads the sections that say for what a golden is compiled: "context" holds platform and number of devices,
// "mesh", if there is one, a mesh, and on a second line a preset of rules. With a section "library", which names one, the
// table of tiles has that for attention.
func contextOf(t *testing.T, in map[string]string) (ctx Context) {
	words := strings.Fields(in["context"])
	require.Len(t, words, 2, "context")
	devices, err := strconv.Atoi(words[1])
	require.NoError(t, err)
	ctx = Context{Platform: words[0], Devices: devices}
	mesh, preset, _ := strings.Cut(in["mesh"], "\n")
	ctx.Mesh, err = sharding.ParseMesh(mesh)
	require.NoError(t, err)
	ctx.Rules, err = sharding.For(strings.TrimSpace(preset), ctx.Mesh)
	require.NoError(t, err)
	if name := strings.TrimSpace(in["library"]); name != "" {
		attendBy(t, name)
	}
	return ctx
}

// kernelText is the text of a kernel, of which package triton has goldens.
var kernelText = regexp.MustCompile(`ir = "module [^"]*"`)

// TestPasses runs every pass on the goldens of its name.
func TestPasses(t *testing.T) {
	for _, p := range All() {
		t.Run(p.Name, func(t *testing.T) {
			golden.Run(t, "testdata/"+p.Name+"*.txtar", func(t *testing.T, in map[string]string) string {
				ctx := contextOf(t, in)
				m, err := ir.Parse(in["in"])
				require.NoError(t, err)
				changed, err := Run(m, ctx, []Pass{p}, Hooks{Verify: true})
				switch {
				case err != nil:
					return "error: " + err.Error() + "\n"
				case len(changed) == 0:
					require.Equal(t, in["in"], m.String(), "the pass says that it changed nothing")
					return "unchanged\n"
				}
				again, err := Run(m, ctx, []Pass{p}, Hooks{})
				require.NoError(t, err)
				require.Empty(t, again, "the pass finds work in what it left")
				return kernelText.ReplaceAllString(m.String(), `ir = "..."`)
			})
		})
	}
}

func TestOrderIsChecked(t *testing.T) {
	require.NoError(t, ordered(list))
	for _, p := range list {
		require.NotEmpty(t, p.Does, p.Name)
		for _, a := range p.After {
			require.NotEmpty(t, a.Why, "%s after %s", p.Name, a.Pass)
		}
	}
	require.ErrorContains(t, ordered([]Pass{{Name: "a", After: []After{{"b", "b makes what a reads"}}}, {Name: "b"}}),
		"a must come after b: b makes what a reads")
	require.ErrorContains(t, ordered([]Pass{{Name: "a"}, {Name: "a"}}), "a is in the list twice")
}

func TestRunReportsAndNames(t *testing.T) {
	module := func() *ir.Module {
		body := ir.NewRegion("tensor<f32>")
		body.Emit("func.return", body.Args, nil)
		return &ir.Module{Funcs: []*ir.Func{{Name: "main", Results: []ir.Type{"tensor<f32>"}, Body: body}}}
	}
	spoil := Pass{Name: "spoil", Run: func(m *ir.Module, _ Context) (bool, error) {
		m.Funcs[0].Results = nil
		return true, nil
	}}
	nothing := Pass{Name: "nothing", Run: func(*ir.Module, Context) (bool, error) { return false, nil }}
	broken := Pass{Name: "broken", Run: func(*ir.Module, Context) (bool, error) { return false, errors.New("no") }}
	var told []string
	hook := func(name string, m *ir.Module) (string, error) {
		told = append(told, name)
		return "dump.mlir", nil
	}
	ctx := Context{Platform: "cpu"}

	changed, err := Run(module(), ctx, []Pass{nothing, spoil}, Hooks{Verify: true, Changed: hook})
	require.ErrorContains(t, err, "pass spoil left an invalid module, see dump.mlir: ir: @main: returns (tensor<f32>), its type says ()")
	require.Equal(t, []string{"spoil"}, changed)
	require.Equal(t, []string{"spoil"}, told)

	_, err = Run(module(), ctx, []Pass{broken}, Hooks{})
	require.EqualError(t, err, "pass broken: no")
	_, err = Run(module(), Context{Platform: "tpu"}, nil, Hooks{})
	require.EqualError(t, err, `pass: platform "tpu" is unknown, want one of cpu, cuda`)
	_, err = Run(module(), Context{Platform: "cpu", Skip: []string{"attentoin"}}, nil, Hooks{})
	require.ErrorContains(t, err, `skip: pass: no pass "attentoin", known are constrain, pipeline, expert, choose_experts, routed_experts, grouped_gemm, attention, store, once, few_rows, put_rows, add_rows, one_row, inline, dots, dce`)

	m := layer{"f32", 1, 1, 2, 2, 3, false}.module()
	ctx.Skip = []string{"routed_experts"}
	changed, err = Run(m, ctx, All(), Hooks{Verify: true})
	require.NoError(t, err)
	require.Empty(t, changed, "the composite keeps its body")
}

func TestRoutedExpertsRefuses(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(op *ir.Op)
		want  string
	}{
		{"too few operands", func(op *ir.Op) { op.Operands = op.Operands[:5] }, "5 operands and 1 results"},
		{"one matrix too many", func(op *ir.Op) { op.Operands = append(op.Operands, op.Operands[3]) }, "7 expert operands"},
		{"float choices", func(op *ir.Op) { op.Operands[1] = op.Operands[2] }, "wanted [T, D] and [T, K] of i32"},
		{"weights of another size", func(op *ir.Op) { op.Operands[2] = op.Operands[3] }, "weights tensor<3x2xf32>, wanted the sizes of chosen"},
		{"down for up", func(op *ir.Op) { op.Operands[5] = op.Operands[7] }, "up of expert 0 is tensor<2x3xf32>, wanted [3 2]"},
		{"a wrong number of experts", func(op *ir.Op) { op.Attrs["composite_attributes"] = `{experts = "3"}` }, `attribute experts is "3", the operands hold 2`},
		{"integers for x", func(op *ir.Op) { op.Operands[0] = op.Operands[1] }, "operand tensor<1x1xi32>, wanted a tensor of floats"},
		{"no tokens", func(op *ir.Op) {
			for i, typ := range []ir.Type{"tensor<0x2xf32>", "tensor<0x1xi32>", "tensor<0x1xf32>"} {
				op.Operands[i] = &ir.Value{Type: typ}
			}
			op.Results[0].Type = "tensor<0x2xf32>"
		}, "size 0, wanted 1 to"},
		{"more rows than i32 counts", func(op *ir.Op) {
			for i, typ := range []ir.Type{"tensor<9000000000000000000x2xf32>", "tensor<9000000000000000000x1xi32>", "tensor<9000000000000000000x1xf32>"} {
				op.Operands[i] = &ir.Value{Type: typ}
			}
			op.Results[0].Type = "tensor<9000000000000000000x2xf32>"
		}, "size 9000000000000000000, wanted 1 to"},
		{"another result", func(op *ir.Op) { op.Results[0].Type = "tensor<1x2xbf16>" }, "result tensor<1x2xbf16>, wanted the type of x"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := layer{"f32", 1, 1, 2, 2, 3, false}.module()
			test.spoil(m.Func("main").Body.Ops[0])
			_, err := routedExperts(m, Context{Platform: "cpu"})
			require.ErrorContains(t, err, "@main: mix.routed_experts: ")
			require.ErrorContains(t, err, test.want)
		})
	}
}
