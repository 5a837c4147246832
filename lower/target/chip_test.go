package target

import (
	"fmt"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestChips(t *testing.T) {
	require.Equal(t, []string{"cpu", "h100", "h200"}, Chips())
	for _, name := range Chips() {
		c, err := LookupChip(name)
		require.NoError(t, err)
		require.Contains(t, Platforms(), c.Platform)
	}
	_, err := LookupChip("tpu")
	require.EqualError(t, err, `target "tpu" is unknown, want one of cpu, h100, h200`)
}

// TestChipConfig holds the numbers of the table to those that the compiler is told.
func TestChipConfig(t *testing.T) {
	for _, c := range chips {
		if c.Platform != CUDA {
			require.Empty(t, c.Config, c.Name)
			continue
		}
		number := func(field string) float64 {
			m := regexp.MustCompile(`(?m)^  ` + field + `: (\d+)$`).FindStringSubmatch(c.Config)
			require.NotNil(t, m, "%s: %s", c.Name, field)
			x, err := strconv.ParseFloat(m[1], 64)
			require.NoError(t, err)
			return x
		}
		require.Equal(t, c.Bandwidth, number("memory_bandwidth"), c.Name)
		require.Equal(t, 132.0, number("core_count"), c.Name)
		require.GreaterOrEqual(t, number("device_memory_size"), float64(c.Memory), c.Name)
		require.Contains(t, c.Config, fmt.Sprintf("%.0fB RAM", number("device_memory_size")))
		require.Contains(t, c.Config, "name: \""+c.Kind, "the device's name")
	}
}

func TestTopology(t *testing.T) {
	c, err := LookupChip("h200")
	require.NoError(t, err)
	for _, tt := range []struct {
		n    int
		want string // or "error: " and a part of the message
	}{
		{1, "1x1x1"}, {8, "1x1x8"}, {16, "1x2x8"}, {64, "1x8x8"},
		{12, "error: 12 devices of target h200, want up to 8 or a multiple of it"}, {0, "error: 0 devices of target h200"},
	} {
		got, err := c.Topology(tt.n)
		if err != nil {
			require.ErrorContains(t, err, tt.want[len("error: "):])
			continue
		}
		require.Equal(t, tt.want, got)
	}
	cpu, err := LookupChip("cpu")
	require.NoError(t, err)
	_, err = cpu.Topology(1)
	require.ErrorContains(t, err, "target cpu")
}
