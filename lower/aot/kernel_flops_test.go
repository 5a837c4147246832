package aot

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWorkOfKernels counts kernels by their operands: for each multiply-add of every product two.
func TestWorkOfKernels(t *testing.T) {
	for _, tt := range []struct {
		name, results string
		operands      []string
		want          int64
	}{
		{"experts_up", "bf16[8,6]", []string{"bf16[4,5]", "s32[8]", "bf16[3,6,5]", "bf16[3,6,5]", "s32[2,4]", "s32[4]"}, 2 * 2 * 8 * 6 * 5},
		{"decode_up", "(f32[2,8,6], f32[2,8,6])", []string{"bf16[4,5]", "s32[8]"}, 2 * 2 * 8 * 6 * 5},
		{"decode_down", "f32[4,8,5]", []string{"bf16[8,6]", "bf16[3,5,6]"}, 2 * 8 * 5 * 6},
		{"experts_down", "bf16[8,5]", []string{"bf16[8,6]", "bf16[3,5,6]"}, 2 * 8 * 5 * 6},
		{"grouped_gemm_transposed", "bf16[8,5]", []string{"bf16[8,6]", "bf16[3,6,5]", "s32[2,4]", "s32[4]"}, 2 * 8 * 5 * 6},
		{"grouped_gemm_transposed", "bf16[8,5]", []string{"bf16[8,6]", "bf16[3,6,5]", "bf16[8,6]", "bf16[3,6,5]", "s32[2,4]", "s32[4]"}, 2 * 2 * 8 * 5 * 6},
		{"grouped_outer", "f32[3,6,5]", []string{"bf16[8,6]", "bf16[8,5]", "s32[4]"}, 2 * 8 * 6 * 5},
		{"linear", "(bf16[2,7], bf16[2,3])", []string{"bf16[2,5]", "bf16[7,5]", "bf16[3,5]"}, 2 * 2 * 5 * (7 + 3)},
		{"flash_attention", "bf16[2,4,6,8]", []string{"bf16[2,4,6,8]", "bf16[2,2,5,8]"}, 2 * 2 * 2 * 4 * 6 * 5 * 8},
		{"flash_dq", "bf16[2,4,6,8]", []string{"bf16[2,4,6,8]", "bf16[2,2,5,8]"}, 2 * 3 * 2 * 4 * 6 * 5 * 8},
		{"flash_dkv", "(bf16[2,2,5,8], bf16[2,2,5,8])", []string{"bf16[2,4,6,8]", "bf16[2,2,5,8]"}, 2 * 4 * 2 * 4 * 6 * 5 * 8},
		{"paged_attention", "bf16[3,4,8]", []string{"bf16[3,4,8]", "bf16[64,2,8]", "bf16[64,2,8]", "s32[3,16]", "s32[3]"}, 2 * 2 * 3 * 4 * 8 * 16},
		{"experts_combine", "bf16[4,5]", []string{"bf16[8,5]"}, 0},
		{"linear", "bf16[2,7]", nil, 0},
	} {
		var params, given []string
		for i, typ := range tt.operands {
			params = append(params, fmt.Sprintf("  %%p.%d = %s parameter(%d)\n", i, typ, i))
			given = append(given, fmt.Sprintf("%%p.%d", i))
		}
		m, err := ParseHLO("HloModule m\n\nENTRY %main () -> " + tt.results + " {\n" + strings.Join(params, "") +
			fmt.Sprintf("  ROOT %%k = %s custom-call(%s), custom_call_target=\"__gpu$xla.gpu.triton\", backend_config={debug = false, name = \"%s\"}\n}\n", tt.results, strings.Join(given, ", "), tt.name))
		require.NoError(t, err, tt.name)
		c := m.Cost()
		require.Zero(t, c.FLOPs)
		require.Equal(t, tt.want, c.Ours, tt.name)
	}
}
