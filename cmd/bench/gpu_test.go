package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/cmd/bench/gpu"
	"mix/internal/cli"
)

func bench(t *testing.T, args ...string) (code int, out, log string) {
	var o, e bytes.Buffer
	code = cli.Run(t.Context(), new(command), "bench", "", args, cli.IO{Out: &o, Err: &e})
	return code, o.String(), e.String()
}

func TestGPURefuses(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"gpu --device tpu", `device "tpu", want cpu, cuda or cuda:n`},
		{"gpu --device cuda:x", `device "cuda:x"`},
		{"gpu --device cpu", "--device cpu without --small"},
		{"gpu --device cpu --small --seconds 0", "--seconds is 0"},
		{"gpu --device cpu --small --layers -1", "--layers is -1"},
		{"gpu --device cpu --small --only speed", `--only "speed", want parity, grouped, tune, serve, train`},
		{"gpu --device cpu --small --only tune", "--only tune without --tune"},
	} {
		code, out, log := bench(t, strings.Fields(tt.args)...)
		require.Equal(t, 2, code, tt.args)
		require.Empty(t, out)
		require.Contains(t, log, tt.want)
		require.Equal(t, 1, strings.Count(log, "\n"), tt.args)
	}
	code, _, log := bench(t, "gpu", "--device", "cpu", "--small", "--tiles", "missing.json")
	require.Equal(t, 1, code)
	require.Contains(t, log, "missing.json")
}

func TestGPUReports(t *testing.T) {
	code, out, log := bench(t, "gpu", "--device", "cpu", "--small", "--only", "grouped,parity", "--json")
	require.Zero(t, code, log)
	var r gpu.Report
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	require.Len(t, r.Rates, 8)
	require.Equal(t, []gpu.Skipped{{Part: "parity", Why: "kernels are for GPUs, this is cpu"}}, r.Skipped)
	require.Contains(t, log, "products", "rows go to stderr as they come")
	code, out, _ = bench(t, "gpu", "--device", "cpu", "--small", "--only", "grouped")
	require.Zero(t, code)
	require.Contains(t, out, "TFLOP/s")
}
