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
	cuda, err := Lookup(CUDA)
	require.NoError(t, err)
	require.Equal(t, 1024, cuda.PromptChunk(4096, 16))
	require.Equal(t, 112, cuda.PromptChunk(100, 16))
	_, err = Lookup("host")
	require.EqualError(t, err, `platform "host" is unknown, want one of cpu, cuda`)
}
