package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/cmd/internal/flags"
	"mix/internal/cli"
	"mix/sharding/ckpt"
)

const golden = "../../internal/golden/testdata/"

func TestListFindsNothingWrongWithGoodCheckpoints(t *testing.T) {
	for _, dir := range []string{"a_tiny_f32/checkpoint", "b_bf16_sharded/checkpoint", "c_odd/checkpoint",
		"d_layouts/checkpoint_hubcfg", "d_layouts/checkpoint_fused"} {
		var out strings.Builder
		require.NoError(t, (&list{Device: flags.Device{Device: "cpu"}, Dir: golden + dir, JSON: true}).Run(&cli.IO{Out: &out}), dir)
		var r ckpt.Report
		require.NoError(t, json.Unmarshal([]byte(out.String()), &r))
		require.NotEmpty(t, r.Tensors)
		require.Empty(t, r.Problems)
	}
}

func TestListSaysWhatIsWrong(t *testing.T) {
	var out strings.Builder
	err := (&list{Device: flags.Device{Device: "cpu"}, Dir: golden + "c_odd"}).Run(&cli.IO{Out: &out}) // the folder above the checkpoint
	require.EqualError(t, err, golden+"c_odd: problems: 2")
	require.Equal(t, 2, strings.Count(out.String(), "problem: "))
	require.Contains(t, out.String(), "neither model.safetensors nor model.safetensors.index.json is there")
	require.Contains(t, out.String(), "config.json")
	require.Error(t, (&list{Device: flags.Device{Device: "cpu"}, Dir: golden + "none"}).Run(&cli.IO{Out: &out}))
}
