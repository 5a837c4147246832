package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDifferences(t *testing.T) {
	then, err := readLayer("then", []byte("lr: 0.001\nseed: 1\nlora-targets: [w1, w2]\nlr-wsd-decay-iters: 5\nsave: a\nnum-workers: 2\nbf16: true\n"))
	require.NoError(t, err)
	now, err := readLayer("now", []byte("lr: 0.002\nseed: 1\nlora-targets: [w1]\nsave: b\nnum-workers: 3\npack: true\nbf16: true\n"))
	require.NoError(t, err)
	var all []setting
	for _, s := range []setting{{group: "Training", name: "lr"}, {group: "Training", name: "seed"}, {group: "Adapters", name: "lora-targets"},
		{group: "Training", name: "lr-wsd-decay-iters"}, {group: "Run", name: "save"}, {group: "Data", name: "num-workers"}, {group: "Data", name: "pack"},
		{group: "Training", name: "bf16"}, {group: "Data", name: "data-path"}} {
		s.value = now.values[s.name]
		all = append(all, s)
	}
	require.Equal(t, []string{"lr 0.002, was 0.001", "lora-targets w1, was w1,w2", "lr-wsd-decay-iters unset, was 5", "pack true, was unset"}, differences(then, all))
	require.Empty(t, differences(now, all))
}
