package ckpt

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"
)

func TestDescribe(t *testing.T) {
	dir := golden + "/b_bf16_sharded/checkpoint"
	params := catalogue(t, dir)
	r, err := Describe(dir, params)
	require.NoError(t, err)
	require.Empty(t, r.Problems)
	require.Equal(t, Hub, r.Layout)
	require.Len(t, r.Files, 4)
	require.Len(t, r.Tensors, 65)
	require.EqualValues(t, 2*r.Parameters, r.Bytes)
	c, err := Open(dir, params, Options{})
	require.NoError(t, err)
	defer c.Close()
	require.Equal(t, c.Bytes(), r.Bytes)
	without, err := Describe(dir, nil)
	require.NoError(t, err)
	require.Equal(t, r, without)
	for _, x := range r.Tensors {
		require.NotEmpty(t, x.Holds, x.Name)
	}
	var again Report
	b, err := json.Marshal(r)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &again))
	require.Equal(t, *r, again)
}

func TestPrint(t *testing.T) {
	dir := t.TempDir()
	m := map[string]Tensor{}
	set(m, "model.layers.1.mlp.experts.gate_up_proj", dtypes.Float32, 3, 14, 3)
	set(m, "model.rotary_emb.inv_freq", dtypes.Float32, 2)
	set(m, "odd\nname", dtypes.Int8, 1)
	save(t, filepath.Join(dir, singleFile), m)
	r, err := Describe(dir, nil)
	require.NoError(t, err)
	var out strings.Builder
	require.NoError(t, r.Print(&out))
	require.Equal(t, `model.layers.1.mlp.experts.gate_up_proj  F32  [3 14 3]  504  model.safetensors  layers/moe/gate[1] + layers/moe/up[1]
model.rotary_emb.inv_freq                F32  [2]       8    model.safetensors  ignored: the rotary frequencies follow from rope_theta
"odd\nname"                              I8   [1]       1    model.safetensors  
3 tensors in 1 files, 129 parameters, 513 bytes, fused layout
problem: model.safetensors: unexpected tensor "odd\nname": Mixtral has none of that name
`, out.String())
}

func TestDescribeGoesOnPastABrokenFile(t *testing.T) {
	dir := t.TempDir()
	save(t, filepath.Join(dir, singleFile), tensors(Hub))
	cut(t, filepath.Join(dir, singleFile), 1)
	r, err := Describe(dir, weights(tiny, false))
	require.NoError(t, err)
	require.Len(t, r.Problems, 1)
	require.Contains(t, r.Problems[0], "truncated safetensors")
	require.Len(t, r.Tensors, 2+1+2*(7+3*3))
	require.NoError(t, os.WriteFile(filepath.Join(dir, singleFile), nil, 0o600))
	r, err = Describe(dir, weights(tiny, false))
	require.NoError(t, err)
	require.Equal(t, []string{"model.safetensors: truncated safetensors: file of 0 bytes has no header"}, r.Problems)
	_, err = Describe(filepath.Join(dir, singleFile), nil)
	require.ErrorContains(t, err, "not a folder")
}
