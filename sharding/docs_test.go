package sharding_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/sharding"
)

// TestDocsHoldTheNumbers keeps docs/planner.md in step with the tables that the code reads.
func TestDocsHoldTheNumbers(t *testing.T) {
	b, err := os.ReadFile("../docs/planner.md")
	require.NoError(t, err)
	says := func(text string) {
		require.True(t, strings.Contains(string(b), text), "docs/planner.md does not say %q", text)
	}
	for _, c := range sharding.Chips {
		require.Equal(t, 8, c.Node)
		says(fmt.Sprintf("| %s | %g | %g | %g | %g | %g |\n", c.Name, c.Memory/1e9, c.Peak/1e12, c.HBM/1e12, c.NVLink/1e9, c.Network/1e9))
	}
	run := func(c graph.Config, chip string, devices, batch, rounds int, at string, folded bool) sharding.Estimate {
		gpu, err := sharding.ChipNamed(chip)
		require.NoError(t, err)
		j := sharding.Training{Model: model(c), Chip: gpu, Seq: 4096, Batch: batch, Devices: devices, Interleaved: true}
		e, err := j.Estimate(sharding.Mapping{Mesh: mesh(t, at), Folded: folded, Zero: 1, Rounds: rounds, MicroBatch: 1, Group: 1, Recompute: sharding.KeepAll})
		require.NoError(t, err)
		return e
	}
	e := run(graph.Mixtral8x7B, "h100", 64, 256, 8, "pipe=4 data=2 expert=8", false)
	says(fmt.Sprintf("468 TFLOP/s | %.0f |\n", e.Full/1e12))
	e = run(graph.Mixtral8x22B, "h100", 128, 256, 7, "pipe=8 data=2 expert=4 tensor=2", true)
	says(fmt.Sprintf("465 with balanced experts | %.0f |\n", e.Full/1e12))
	e = run(graph.Mixtral8x22B, "h100", 128, 256, 7, "pipe=8 data=2 expert=2 tensor=4", false)
	says(fmt.Sprintf("49.3%% of the peak | %.1f%% |\n", 100*e.Full/989e12))
	e = run(graph.Mixtral8x7B, "h200", 256, 1024, 8, "pipe=4 data=8 expert=8", false)
	says(fmt.Sprintf("2.74 s a step | %.2f |\n", e.Step))
	for _, words := range sharding.Parts() {
		var word string
		_, err := fmt.Sscanf(words, "%s", &word)
		require.NoError(t, err)
		says("`" + word[:len(word)-1] + "`")
	}
}
