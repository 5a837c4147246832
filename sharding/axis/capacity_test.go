package axis

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCapacity(t *testing.T) {
	for _, tt := range []struct {
		name                     string
		factor                   float64
		tokens, choices, experts int
		want                     int
	}{
		{"half of the mean is rounded up", 0.5, 12, 2, 8, 2},
		{"the mean", 1, 12, 2, 8, 3},
		{"never less than a row", 1e-9, 12, 2, 8, 1},
		{"never more than all tokens", 4.5, 12, 2, 8, 12},
		{"nor without an end", math.Inf(1), 12, 2, 8, 12},
		{"one token", 1, 1, 2, 8, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.Equal(t, tt.want, Capacity(tt.factor, tt.tokens, tt.choices, tt.experts))
		})
	}
}
