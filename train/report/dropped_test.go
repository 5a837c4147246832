package report

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPageShowsDropsWhereThereAreAny has the curve of dropped rows for experts with a capacity only.
func TestPageShowsDropsWhereThereAreAny(t *testing.T) {
	var h history
	h.step(Step{Step: 1, Loss: 3, Good: true})
	require.Nil(t, charts(&h).Dropped)
	h.step(Step{Step: 2, Loss: 3, Good: true, Dropped: 0.25})
	require.Equal(t, numbers{0, 0.25}, charts(&h).Dropped)
}
