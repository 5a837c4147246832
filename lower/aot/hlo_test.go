package aot

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/internal/golden"
)

func TestModules(t *testing.T) {
	golden.Run(t, "testdata/*.txtar", func(t *testing.T, in map[string]string) string {
		m, err := ParseHLO(in["hlo"])
		require.NoError(t, err)
		var b strings.Builder
		fmt.Fprintf(&b, "%s on %d devices\n", m.Name, m.Devices)
		c := m.Cost()
		fmt.Fprintf(&b, "%d FLOP, %d in kernels, %d bytes, %d launches, %d loops of unknown length\n", c.FLOPs, c.Ours, c.Bytes, c.Launches, c.UnknownLoops)
		for _, x := range m.Collectives() {
			fmt.Fprintf(&b, "%s of %s among %d, %d in the text, %d in a run: %d bytes each, %d sent, %d beside work\n", x.Op, x.Type, x.Group, x.Count, x.Runs, x.Bytes, x.Sent, x.Beside)
		}
		for _, x := range m.CustomCalls() {
			fmt.Fprintf(&b, "custom call %s %q, %d in the text, %d in a run\n", x.Target, x.Kernel, x.Count, x.Runs)
		}
		return b.String()
	})
}

func TestInstructions(t *testing.T) {
	for _, tt := range []struct {
		line, want string // name, op, shape, operands; or "error: " and a part of the message
	}{
		{"  %x.1 = f32[2,3]{1,0} parameter(0)", "x.1 parameter [f32[2,3]] []"},
		{"  ROOT %y = bf16[] add(%a, f32[] %b), metadata={op_name=\"x(y)\"}", "y add [bf16[]] [{a -1} {b -1}]"},
		{"  %t = (s32[], (f32[4]{0:T(128)}, pred[2]{0})) fusion(%w#12), calls=%f", "t fusion [s32[] f32[4] pred[2]] [{w 12}]"},
		{"  %d = f32[<=8]{0} copy(%a)", "d copy [f32[8]] [{a -1}]"},
		{"  %x = f32[9999999999999999999]{0} copy(%a)", "error: type"},
		{"  %x = f32[2]{0}", "error: without a type"},
		{"  %x = (f32[2]{0} copy(%a)", "error: without a type"},
		{"  %x = f32[2]{0} copy", "error: without operands"},
		{"  %x = f32[2]{0} copy(%a", "error: without an end"},
	} {
		in, _, err := parseInstr(tt.line)
		if err != nil {
			require.ErrorContains(t, err, strings.TrimPrefix(tt.want, "error: "), tt.line)
			continue
		}
		require.Equal(t, tt.want, fmt.Sprint(in.name, " ", in.op, " ", in.shape, " ", in.operands), tt.line)
	}
}

func TestBytes(t *testing.T) {
	for _, tt := range []struct {
		dtype string
		want  int64 // of three elements
	}{{"f32", 12}, {"bf16", 6}, {"f8e4m3fn", 3}, {"s4", 2}, {"pred", 3}, {"u64", 24}, {"c64", 24}, {"c128", 48}, {"token", 0}} {
		require.Equal(t, tt.want, array{tt.dtype, []int64{3}}.bytes(), tt.dtype)
	}
}

func TestGroups(t *testing.T) {
	for _, tt := range []struct {
		attrs string
		want  int
	}{
		{", replica_groups={{0,1},{2,3}}, dimensions={0}", 2},
		{", replica_groups=[4,4]<=[16], dimensions={0}", 4},
		{", replica_groups=[8,2]<=[2,8]T(1,0)", 2},
		{", replica_groups={}", 16},
		{"", 16},
	} {
		m := &Module{Devices: 16}
		require.Equal(t, tt.want, m.group(&instr{op: "all-reduce", attrs: tt.attrs}), tt.attrs)
	}
	require.Equal(t, 2, (&Module{Devices: 16}).group(&instr{op: "collective-permute"}))
}

// FuzzParseHLO looks for text that ends the process: a report must not.
func FuzzParseHLO(f *testing.F) {
	f.Add("HloModule m, num_partitions=2\n\nENTRY %e (a: f32[2]) -> f32[2] {\n  %a = f32[2]{0} parameter(0)\n  ROOT %w = f32[2]{0} while(%a), condition=%e, body=%e\n}\n")
	f.Add("ENTRY %e () -> () {\n  %f = f32[2,2]{1,0} fusion(%f#3), calls=%e\n  ROOT %d = f32[] dot(%f, %f), lhs_contracting_dims={7}\n}\n")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 2000 { // each computation may call the one before twice
			return
		}
		m, err := ParseHLO(text)
		if err != nil {
			return
		}
		m.Cost()
		m.Collectives()
		m.CustomCalls()
	})
}
