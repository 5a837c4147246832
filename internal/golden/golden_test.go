package golden

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func shout(_ *testing.T, in map[string]string) string { return strings.ToUpper(in["in"]) }

func TestRunComparesAndRewrites(t *testing.T) {
	file := filepath.Join(t.TempDir(), "shout.txtar")
	require.NoError(t, os.WriteFile(file, []byte("Loud.\n-- in --\nquiet\n"), 0o644))

	require.NoError(t, flag.Set("update", "true"))
	require.True(t, Update())
	ok := t.Run("rewrite", func(t *testing.T) { Run(t, file, shout) })
	require.NoError(t, flag.Set("update", "false"))
	require.False(t, Update())
	require.True(t, ok)

	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "Loud.\n-- in --\nquiet\n-- out --\nQUIET\n", string(text))
	Run(t, file, shout)
}

func TestFirstDifference(t *testing.T) {
	require.Equal(t, "first difference in line 2 of out", firstDifference("a\nb\n", "a\nc\n"))
	require.Equal(t, "one is the beginning of the other", firstDifference("a\nb", "a"))
}
