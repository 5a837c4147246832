package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"mix/graph/composite"
	"mix/internal/cli"
)

func TestCapacityOfExperts(t *testing.T) {
	for _, tt := range []struct {
		name, args string
		want       composite.Capacity
	}{
		{"none by default", "", composite.Capacity{}},
		{"the mean, the lowest weights go", "--moe-expert-capacity-factor 1", composite.Capacity{Factor: 1, Drop: composite.DropProbs}},
		{"by position, padded as always", "--moe-expert-capacity-factor 1.25 --moe-token-drop-policy position --moe-pad-expert-input-to-capacity",
			composite.Capacity{Factor: 1.25, Drop: composite.DropPosition}},
		{"Megatron's none", "--moe-expert-capacity-factor=-1", composite.Capacity{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, p, err := parsed(t, strings.Fields(tt.args)...)
			require.NoError(t, err)
			require.Equal(t, tt.want, p.Capacity)
		})
	}
}

func TestCapacityRefused(t *testing.T) {
	for _, tt := range []struct{ name, args, want string }{
		{"no number", "--moe-expert-capacity-factor NaN", "usage: --moe-expert-capacity-factor: capacity factor of experts is NaN, want a number above 0"},
		{"another policy", "--moe-token-drop-policy best", `usage: --moe-token-drop-policy is "best", want probs or position`},
		{"with adapters", "--moe-expert-capacity-factor 1 --lora-rank 4 --init " + demoFolder(t), "usage: --moe-expert-capacity-factor is 1 with --lora-rank 4, want none: experts with adapters drop nothing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			var o, e strings.Builder
			code := run(ctx, strings.Fields(tt.args), cli.IO{In: strings.NewReader(""), Out: &o, Err: &e})
			require.Equal(t, "train: "+tt.want+"\n", e.String())
			require.Equal(t, 2, code)
		})
	}
}
