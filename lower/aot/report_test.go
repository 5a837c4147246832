package aot

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/internal/golden"
	"mix/lower/pjrt"
	"mix/lower/target"
)

func TestReport(t *testing.T) {
	golden.Run(t, "testdata/report/*.txtar", func(t *testing.T, in map[string]string) string {
		m, err := ParseHLO(in["hlo"])
		require.NoError(t, err)
		c, err := target.LookupChip(strings.TrimSpace(in["target"]))
		require.NoError(t, err)
		x := &Result{Executable: make([]byte, 1234567), Memory: pjrt.MemoryStats{Argument: 70e9, Output: 60e9, Alias: 60e9, Temp: 12e9, Code: 5},
			Seconds: 12.5, Module: m}
		if c.Platform == target.CUDA {
			x.Kernels = parseLaunches(in["launches"])
			for i := range x.Kernels {
				k := &x.Kernels[i]
				k.Registers, k.Assembled, k.Ours, k.WGMMA = 200+i, k.Name != "unknown", strings.HasPrefix(k.Name, "moe"), 8*i
				k.Spilled = strings.Count(k.Name, "spill") * 12
			}
		}
		r := &Report{Program: "train_step", Settings: "--batch 1", Devices: m.Devices, Mesh: "data=2 expert=4", Cached: "a.program", Seconds: Seconds{Trace: 0.5, Passes: 0.25}}
		r.Fill(c, x)
		var b strings.Builder
		require.NoError(t, r.Print(&b))
		j, err := json.Marshal(r)
		require.NoError(t, err)
		return b.String() + string(j) + "\n"
	})
}
