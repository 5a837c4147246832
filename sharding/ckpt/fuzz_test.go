package ckpt

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever the bytes, opening gives an error of one line, or a file whose tensors tile the data and that
// is equal to itself after it is written again.
func FuzzSafetensors(f *testing.F) {
	f.Add([]byte(container(`{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8)))
	f.Add([]byte(container(`{"__metadata__":{"a":"b"},"n":{"dtype":"BF16","shape":[0],"data_offsets":[0,0]}}`, 0)))
	f.Add([]byte(container(`{"x":{"dtype":"F4","shape":[2,1],"data_offsets":[0,1]}}`, 1)))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := newFile("x", memory(data))
		if err != nil {
			require.NotContains(t, err.Error(), "\n")
			return
		}
		var tensors []Tensor
		total := 0
		for _, name := range file.Names() {
			info, err := file.Info(name)
			require.NoError(t, err)
			b, err := file.Bytes(name)
			require.NoError(t, err)
			format, ok := formatNamed(info.Format)
			require.True(t, ok)
			want, err := format.bytes(info.Shape)
			require.NoError(t, err)
			require.EqualValues(t, want, len(b))
			total += len(b)
			_, _ = file.Float32s(name)
			_, _ = file.Ints(name)
			if _, ok := formatOf(info.DType); ok {
				tensors = append(tensors, RawTensor(name, info.DType, info.Shape, b))
			}
		}
		if len(tensors) < len(file.infos) {
			return
		}
		require.LessOrEqual(t, total, len(data))
		path := filepath.Join(t.TempDir(), "again")
		require.NoError(t, WriteFile(path, tensors, file.Metadata()))
		again, err := OpenFile(path)
		require.NoError(t, err)
		defer again.Close()
		require.ElementsMatch(t, file.Names(), again.Names())
		for _, name := range file.Names() {
			a, _ := file.Bytes(name)
			b, err := again.Bytes(name)
			require.NoError(t, err)
			require.Equal(t, a, b)
		}
	})
}

// Whatever the index, opening gives one-line problems or follows it to files of the folder itself.
func FuzzIndex(f *testing.F) {
	b, err := os.ReadFile(golden + "/b_bf16_sharded/checkpoint/" + indexFile)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"weight_map":{"x":"../x.safetensors"}}`))
	f.Add([]byte(`{"metadata":{"total_size":1},"weight_map":{"x":"a","y":"a"}}`))
	f.Fuzz(func(t *testing.T, index []byte) {
		m := MemFS{indexFile: string(index), "a": container(`{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1)}
		s := openSource("x", func(name string) (region, error) {
			require.False(t, strings.ContainsAny(name, `/\`) || name == ".." || name == "", "opened %q", name)
			return inFS(m)(name)
		})
		for _, p := range s.problems {
			require.NotContains(t, p.Error(), "\n")
		}
		require.NoError(t, s.close())
		if len(s.problems) == 0 {
			for _, file := range s.files {
				require.Equal(t, "a", file.name)
			}
		}
	})
}
