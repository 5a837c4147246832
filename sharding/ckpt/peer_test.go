package ckpt_test

import (
	"testing"

	"github.com/gomlx/compute"
	_ "github.com/gomlx/compute/gobackend"
	"github.com/gomlx/go-huggingface/hub"
	"github.com/gomlx/go-huggingface/models/safetensors"
	"github.com/janpfeifer/must"
	"github.com/stretchr/testify/require"

	"mix/sharding/ckpt"
)

// TestReadsWhatGoHuggingfaceReads holds the container's reader to another one, byte for byte: one file, and
// several behind an index.
func TestReadsWhatGoHuggingfaceReads(t *testing.T) {
	const golden = "../../internal/golden/testdata/"
	be := must.M1(compute.NewWithConfig("go:ops_sequential"))
	for dir, files := range map[string][]string{
		golden + "c_odd/checkpoint": {"model.safetensors"},
		golden + "b_bf16_sharded/checkpoint": {"model-00001-of-00004.safetensors", "model-00002-of-00004.safetensors",
			"model-00003-of-00004.safetensors", "model-00004-of-00004.safetensors"},
	} {
		peer := must.M1(safetensors.New(hub.NewLocal(dir)))
		seen := 0
		for _, name := range files {
			f := must.M1(ckpt.OpenFile(dir + "/" + name))
			defer f.Close()
			r := must.M1(peer.NewTensorReader(name))
			defer r.Close()
			for _, tensor := range f.Names() {
				want := must.M1(r.ReadTensor(be, tensor))
				info := must.M1(f.Info(tensor))
				require.Equal(t, want.Shape().DType, info.DType, tensor)
				require.Equal(t, want.Shape().Dimensions, info.Shape, tensor)
				must.M(want.ConstBytes(func(b []byte) { require.Equal(t, b, must.M1(f.Bytes(tensor)), tensor) }))
				seen++
			}
			require.Len(t, r.Header.Tensors, len(f.Names()), name)
		}
		require.NotZero(t, seen)
	}
}
