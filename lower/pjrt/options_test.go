package pjrt

import (
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCompileOptions(t *testing.T) {
	tests := []struct {
		name string
		o    CompileOptions
		want string // hexadecimal, or "error: " and a part of the message
	}{
		{"one device is portable", CompileOptions{}, "1a0f08ffffffffffffffffff01200128012001"},
		{"zero and one are the same", CompileOptions{Replicas: 1, Partitions: 1}, "1a0f08ffffffffffffffffff01200128012001"},
		{"one device by name", CompileOptions{Devices: []int{5}}, "1a1a08ffffffffffffffffff01200128014a09080110011a030a0105"},
		{"two partitions by Shardy", CompileOptions{Partitions: 2, Shardy: true},
			"1a2408ffffffffffffffffff0120012802300198010" + "14a0e080110021a030a01001a030a0101"},
		{"replicas come before partitions", CompileOptions{Replicas: 2, Partitions: 2, Devices: []int{7, 6, 5, 4}},
			"1a2308ffffffffffffffffff01200228023001" + "4a10080210021a040a0207051a040a020604"},
		{"overrides are sorted", CompileOptions{Overrides: map[string]any{"b": true, "a": 3, "d": "x", "c": 0.5}},
			"1a0f08ffffffffffffffffff01200128012001" + "3a070a016112021803" + "3a070a016212021001" + "3a0e0a01631209" + "21000000000000e03f" + "3a080a016412030a0178"},
		{"negative", CompileOptions{Replicas: -1}, "error: -1 replicas"},
		{"wrong number of devices", CompileOptions{Replicas: 2, Devices: []int{1}}, "error: 1 devices, want 2 for 2 replicas x 1 partitions"},
		{"wrong type", CompileOptions{Overrides: map[string]any{"a": []int{1}}}, `error: override "a": type []int`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := tt.o.Marshal()
			if err != nil {
				require.Contains(t, "error: "+err.Error(), tt.want[len("error: "):])
				return
			}
			require.Equal(t, tt.want, hex.EncodeToString(b))
		})
	}
}

// XLA reads the overrides: what it is told twice differently shows in the program.
func TestOverridesReachXLA(t *testing.T) {
	c := client(t)
	for name, v := range map[string]any{"xla_cpu_enable_fast_math": true, "xla_backend_optimization_level": 1} {
		compile(t, c, addOne(4, false), CompileOptions{Overrides: map[string]any{name: v}})
	}
	_, err := c.Compile(addOne(4, false), options(t, CompileOptions{Overrides: map[string]any{"xla_backend_optimization_level": "high"}}))
	require.ErrorContains(t, err, "xla_backend_optimization_level", "a value of the wrong type is refused")
}
