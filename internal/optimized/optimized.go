// Package optimized shows what XLA made of a program: it takes options with which XLA writes the program down, and
// reads that back. It is for tests only.
package optimized

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/aot"
	"mix/sharding"
)

// Into are XLA's options for a program that it is to write into dir. It compiles in half the time; collectives are the
// same.
func Into(dir string) map[string]any {
	return map[string]any{"xla_dump_to": dir, "xla_dump_hlo_as_text": true, "xla_backend_optimization_level": int64(0)}
}

// Read reads the program in dir, which must have one of the CPU.
func Read(t testing.TB, dir string) *aot.Module {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.cpu_after_optimizations.txt"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	text, err := os.ReadFile(files[0])
	require.NoError(t, err)
	m, err := aot.ParseHLO(string(text))
	require.NoError(t, err)
	return m
}

// Exchanges is a table of what devices exchange in a program, for goldens.
func Exchanges(m *aot.Module, mesh sharding.Mesh) string {
	var b strings.Builder
	for _, c := range m.Collectives() {
		fmt.Fprintf(&b, "%-18s along %-20s %d in the text, %d in a run, %d bytes each: %s\n", c.Op, c.Along(mesh), c.Count, c.Runs, c.Bytes, c.Type)
	}
	return b.String()
}
