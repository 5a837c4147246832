package sharding_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/internal/golden"
	"mix/sharding"
	"mix/sharding/axis"
)

// width is training in bfloat16 with float32 gradients, moments and masters; the router is float32.
func width(p axis.Param) sharding.Width {
	if strings.HasSuffix(p.Path, "/router") {
		return sharding.Width{Weight: 4, Gradient: 4, Moment: 8}
	}
	return sharding.Width{Weight: 2, Gradient: 4, Moment: 12}
}

func TestDescribeGolden(t *testing.T) {
	golden.Run(t, "testdata/describe*.txtar", func(t *testing.T, in map[string]string) string {
		config, ok := graph.Presets[strings.TrimSpace(in["model"])]
		require.True(t, ok)
		m, err := sharding.ParseMesh(in["mesh"])
		require.NoError(t, err)
		r, err := sharding.For(strings.TrimSpace(in["preset"]), m)
		require.NoError(t, err)
		report, err := sharding.Describe(graph.Params(config), width, r, m)
		if err != nil {
			return "error: " + err.Error() + "\n"
		}
		check(t, report)
		return report.String()
	})
}

// check adds up what all devices hold: at least one copy of everything, and replicas where the spec says so.
func check(t *testing.T, r sharding.Report) {
	m, err := sharding.ParseMesh(r.Mesh)
	require.NoError(t, err)
	var total [3]int
	for _, row := range r.Rows {
		for k, spec := range row.Specs {
			bytes := []int{2, 4, 12}[k] * axis.Count(row.Dims)
			if strings.HasSuffix(row.Path, "/router") {
				bytes = []int{4, 4, 8}[k] * axis.Count(row.Dims)
			}
			require.Equal(t, bytes*m.Devices()/m.Size(spec.Axes()...), row.Bytes[k]*m.Devices(), row.Path)
			total[k] += row.Bytes[k]
		}
	}
	require.Equal(t, total, r.Bytes)
}

func TestDescribeRefuses(t *testing.T) {
	m, err := sharding.ParseMesh("expert=16")
	require.NoError(t, err)
	_, err = sharding.Describe(graph.Params(graph.Mixtral8x7B), width, sharding.Derive(m), m)
	require.ErrorIs(t, err, sharding.ErrRules)
	require.ErrorContains(t, err, `layers/moe/gate: axis "experts" of 8 does not divide over 16 shards [expert]`)
}
