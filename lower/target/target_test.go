package target

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLookup(t *testing.T) {
	require.Equal(t, []string{CPU, CUDA}, Platforms())
	for _, p := range Platforms() {
		got, err := Lookup(p)
		require.NoError(t, err)
		require.Equal(t, p, got.Platform)
		require.NotEmpty(t, got.WeightLayout)
		require.Positive(t, got.Chunk)
	}
	for context, want := range map[int]int{4096: 1024, 100: 112} {
		n, err := PromptChunk(CUDA, context, 16)
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
	_, err := Lookup("host")
	require.EqualError(t, err, `platform "host" is unknown, want one of cpu, cuda`)
}
