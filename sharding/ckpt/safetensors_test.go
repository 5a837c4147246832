package ckpt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"
)

// container is the bytes of a file with the header text and data bytes after it.
func container(header string, data int) string {
	return string(binary.LittleEndian.AppendUint64(nil, uint64(len(header)))) + header + strings.Repeat("\x00", data)
}

// write puts a file into a folder of the test.
func write(t testing.TB, name, content string) string {
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func TestHostileFilesAreRefused(t *testing.T) {
	tensor := func(dtype, shape, offsets string) string {
		return fmt.Sprintf(`"x":{"dtype":%s,"shape":%s,"data_offsets":%s}`, dtype, shape, offsets)
	}
	x := tensor(`"F32"`, "[2]", "[0,8]")
	tests := []struct {
		name, file string
		is         error
		want       string
	}{
		{"an empty file", "", ErrTruncated, "file of 0 bytes has no header"},
		{"half a length", "\x01\x00", ErrTruncated, "file of 2 bytes has no header"},
		{"a header beyond the file", "\x10\x00\x00\x00\x00\x00\x00\x00{}", ErrTruncated, "header of 16 bytes in a file of 10"},
		{"a header above the limit", "\x01\xe1\xf5\x05\x00\x00\x00\x00{}", ErrFormat, "header of 100000001 bytes, want at most 100000000"},
		{"a header of 2^64-1 bytes", "\xff\xff\xff\xff\xff\xff\xff\xff{}", ErrFormat, "header of 18446744073709551615 bytes"},
		{"no object", container("[]", 0), ErrFormat, "does not begin with {"},
		{"a space first", container(" {}", 0), ErrFormat, "does not begin with {"},
		{"no text at all", container("", 0), ErrFormat, "does not begin with {"},
		{"half an object", container("{"+x, 8), ErrFormat, "not valid JSON"},
		{"two objects", container("{}{}", 0), ErrFormat, "not valid JSON"},
		{"a header that is not UTF-8", container("{\"\xff\":1}", 0), ErrFormat, "not UTF-8"},
		{"JSON nested a million deep", container("{\"x\":"+strings.Repeat("[", 1e6)+strings.Repeat("]", 1e6)+"}", 0), ErrFormat, "not valid JSON"},
		{"a tensor that is no object", container(`{"x":7}`, 0), ErrFormat, `"x": json.Number, want an object`},
		{"a name twice", container("{"+x+","+x+"}", 8), ErrFormat, `"x" is there twice`},
		{"a name twice by escape", container("{"+x+`,"\u0078":{}}`, 8), ErrFormat, `"x" is there twice`},
		{"a field twice", container(`{"x":{"dtype":"F32","dtype":"F32"}}`, 0), ErrFormat, `"dtype" is there twice`},
		{"an unknown field", container(`{"x":{"dtype":"F32","strides":[1]}}`, 0), ErrFormat, `unknown field "strides"`},
		{"an unknown dtype", container("{"+tensor(`"F31"`, "[2]", "[0,8]")+"}", 8), ErrFormat, `"x": dtype "F31" is not one of the format's`},
		{"a dtype that is no string", container("{"+tensor(`4`, "[2]", "[0,8]")+"}", 8), ErrFormat, `"dtype": 4, want a string`},
		{"no dtype", container(`{"x":{"shape":[2],"data_offsets":[0,8]}}`, 8), ErrFormat, `dtype ""`},
		{"no shape", container(`{"x":{"dtype":"F32","data_offsets":[0,8]}}`, 8), ErrFormat, "no shape"},
		{"no offsets", container(`{"x":{"dtype":"F32","shape":[2]}}`, 8), ErrFormat, "data_offsets of 0 numbers, want 2"},
		{"three offsets", container("{"+tensor(`"F32"`, "[2]", "[0,8,9]")+"}", 8), ErrFormat, "data_offsets of 3 numbers, want 2"},
		{"offsets that run backwards", container("{"+tensor(`"F32"`, "[2]", "[8,0]")+"}", 8), ErrFormat, "run backwards"},
		{"a negative dimension", container("{"+tensor(`"F32"`, "[-2]", "[0,8]")+"}", 8), ErrFormat, `"shape": "-2", want an integer from 0`},
		{"half a dimension", container("{"+tensor(`"F32"`, "[2.0]", "[0,8]")+"}", 8), ErrFormat, `"shape": "2.0", want an integer`},
		{"a dimension of 2^63", container("{"+tensor(`"F32"`, "[9223372036854775808]", "[0,8]")+"}", 8), ErrFormat, "want an integer from 0"},
		{"a shape inside a shape", container("{"+tensor(`"F32"`, "[[2]]", "[0,8]")+"}", 8), ErrFormat, "want an integer"},
		{"a product that overflows", container("{"+tensor(`"F32"`, "[4294967296,4294967296,4]", "[0,8]")+"}", 8), ErrFormat, "overflows"},
		{"bits that overflow", container("{"+tensor(`"F64"`, "[4611686018427387904]", "[0,8]")+"}", 8), ErrFormat, "overflows"},
		{"a size that disagrees", container("{"+tensor(`"F32"`, "[3]", "[0,8]")+"}", 8), ErrFormat, "hold 8 bytes, want 12 for F32 [3]"},
		{"four-bit elements that end inside a byte", container("{"+tensor(`"F4"`, "[3]", "[0,1]")+"}", 1), ErrFormat, "ends inside a byte"},
		{"offsets at the end of the numbers", container("{"+tensor(`"F32"`, "[0]", "[9223372036854775807,9223372036854775807]")+"}", 0), ErrFormat, "overflow"},
		{"a gap before the first tensor", container("{"+tensor(`"F32"`, "[2]", "[4,12]")+"}", 12), ErrFormat, `tensor "x" begins at 4, want 0`},
		{"a gap between tensors", container("{"+x+`,"y":{"dtype":"U8","shape":[1],"data_offsets":[9,10]}}`, 10), ErrFormat, `tensor "y" begins at 9, want 8`},
		{"an overlap", container("{"+x+`,"y":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}`, 8), ErrFormat, `tensor "y" begins at 4, inside the one before it, which ends at 8`},
		{"the same bytes twice", container("{"+x+`,"y":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8), ErrFormat, "inside the one before it"},
		{"bytes after the last tensor", container("{"+x+"}", 9), ErrFormat, "1 bytes after the last tensor"},
		{"bytes without a tensor", container("{}", 3), ErrFormat, "3 bytes after the last tensor"},
		{"metadata that is no text", container(`{"__metadata__":{"a":1}}`, 0), ErrFormat, `"__metadata__": "a": 1, want a string`},
		{"a tensor that is cut", container("{"+x+`,"y":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},"z":{"dtype":"F32","shape":[2],"data_offsets":[16,24]}}`, 12),
			ErrTruncated, `tensor "y" ends at byte`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := write(t, "model.safetensors", tt.file)
			_, err := OpenFile(path)
			require.ErrorIs(t, err, tt.is)
			require.ErrorContains(t, err, path+": ")
			require.ErrorContains(t, err, tt.want)
			require.NotContains(t, err.Error(), "\n")
			require.Less(t, len(err.Error()), 1000)
		})
	}
}

func TestFilesThatAreRight(t *testing.T) {
	tests := []struct {
		name, file string
		want       []string
	}{
		{"no tensors", container("{}", 0), nil},
		{"spaces after the text", container("{}      ", 0), nil},
		{"a scalar", container(`{"s":{"dtype":"F64","shape":[],"data_offsets":[0,8]}}`, 8), []string{"s"}},
		{"nothing in a tensor", container(`{"n":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]}}`, 0), []string{"n"}},
		{"out of order", container(`{"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 2), []string{"a", "b"}},
		{"an empty tensor between two", container(`{"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"n":{"dtype":"U8","shape":[0],"data_offsets":[1,1]}}`, 2),
			[]string{"a", "n", "b"}},
		{"types that we cannot compute with", container(`{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]},"b":{"dtype":"F8_E8M0","shape":[1],"data_offsets":[1,2]}}`, 2), []string{"a", "b"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := OpenFile(write(t, "x.safetensors", tt.file))
			require.NoError(t, err)
			defer f.Close()
			require.Equal(t, tt.want, append([]string(nil), f.Names()...))
		})
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	le := binary.LittleEndian
	floats := []float32{0, -1.5, math.MaxFloat32, float32(math.Inf(1)), 1e-45, 7}
	err := WriteFile(path, []Tensor{
		RawTensor("flags", dtypes.Bool, []int{3}, []byte{1, 0, 1}),
		Float32Tensor("floats", []int{2, 3}, floats),
		RawTensor("halves", dtypes.Float16, []int{2}, []byte{0x00, 0x3c, 0x00, 0xc0}),
		RawTensor("brains", dtypes.BFloat16, []int{1}, []byte{0x40, 0x40}),
		RawTensor("ids", dtypes.Int32, []int{2}, le.AppendUint32(le.AppendUint32(nil, 0xffffffff), 5)),
		RawTensor("labels", dtypes.Int64, []int{1}, le.AppendUint64(nil, math.MaxUint64-99)),
		RawTensor("double", dtypes.Float64, nil, le.AppendUint64(nil, math.Float64bits(0.1))),
		RawTensor(`a "name" <with> é`, dtypes.Uint8, []int{0}, nil),
	}, map[string]string{"format": "pt"})
	require.NoError(t, err)
	f, err := OpenFile(path)
	require.NoError(t, err)
	defer f.Close()
	require.Equal(t, []string{"labels", "double", "floats", "ids", "halves", "brains", "flags", `a "name" <with> é`}, f.Names())
	require.Equal(t, map[string]string{"format": "pt"}, f.Metadata())
	info, err := f.Info("floats")
	require.NoError(t, err)
	require.Equal(t, Info{"floats", "F32", dtypes.Float32, []int{2, 3}, info.Offset, 24}, info)
	for _, name := range f.Names() {
		info, _ := f.Info(name)
		require.Zero(t, info.Offset%max(int64(bytesOf(info.DType)), 1), name)
	}
	for name, want := range map[string][]float32{"floats": floats, "halves": {1, -2}, "brains": {3}, "double": {0.1}} {
		got, err := f.Float32s(name)
		require.NoError(t, err)
		require.Equal(t, want, got, name)
	}
	for name, want := range map[string][]int{"flags": {1, 0, 1}, "ids": {-1, 5}, "labels": {-100}} {
		got, err := f.Ints(name)
		require.NoError(t, err)
		require.Equal(t, want, got, name)
	}
	_, err = f.Float32s("ids")
	require.ErrorIs(t, err, ErrDType)
	_, err = f.Ints("floats")
	require.ErrorIs(t, err, ErrDType)
	_, err = f.Bytes("nothing")
	require.ErrorIs(t, err, ErrMissing)
}

func TestLongTensorsAreWrittenInParts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	data := make([]float32, 100_001)
	for i := range data {
		data[i] = float32(i)
	}
	require.NoError(t, WriteFile(path, []Tensor{Float32Tensor("x", []int{len(data)}, data)}, nil))
	f, err := OpenFile(path)
	require.NoError(t, err)
	defer f.Close()
	got, err := f.Float32s("x")
	require.NoError(t, err)
	require.Equal(t, data, got)
	require.Empty(t, f.Metadata())
}

func TestNothingIsWrittenByHalf(t *testing.T) {
	broken := errors.New("out of ideas")
	tests := []struct {
		name    string
		tensors []Tensor
		want    string
	}{
		{"too few bytes", []Tensor{RawTensor("x", dtypes.Int32, []int{2}, make([]byte, 4))}, `tensor "x": wrote 4 bytes, want 8`},
		{"too many bytes", []Tensor{RawTensor("x", dtypes.Int32, []int{2}, make([]byte, 9))}, `tensor "x": wrote 1 bytes more than its shape holds`},
		{"a writer that fails", []Tensor{{"x", dtypes.Int32, []int{2}, func(io.Writer) error { return broken }}}, "out of ideas"},
		{"a name twice", []Tensor{RawTensor("x", dtypes.Int32, []int{0}, nil), RawTensor("x", dtypes.Int32, []int{0}, nil)}, `tensor "x": the name is taken`},
		{"the name of the metadata", []Tensor{RawTensor("__metadata__", dtypes.Int32, []int{0}, nil)}, "the name is taken"},
		{"a name that is not UTF-8", []Tensor{RawTensor("\xff", dtypes.Int32, []int{0}, nil)}, "not UTF-8"},
		{"a negative dimension", []Tensor{RawTensor("x", dtypes.Int32, []int{-1}, nil)}, "dimension -1 of shape [-1] is negative"},
		{"a size that overflows", []Tensor{RawTensor("x", dtypes.Int32, []int{math.MaxInt, 3}, nil)}, "overflows"},
		{"a type that the format lacks", []Tensor{RawTensor("x", dtypes.Complex128, []int{1}, make([]byte, 16))}, "safetensors has no Complex128"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := write(t, "x.safetensors", "as it was")
			err := WriteFile(path, tt.tensors, nil)
			require.ErrorContains(t, err, tt.want)
			require.ErrorContains(t, err, path)
			was, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, "as it was", string(was))
			left, err := os.ReadDir(filepath.Dir(path))
			require.NoError(t, err)
			require.Len(t, left, 1)
		})
	}
	require.Error(t, WriteFile(filepath.Join(t.TempDir(), "no", "folder"), nil, nil))
}

func TestAFileThatShrinksIsAnErrorAndNoCrash(t *testing.T) {
	path := write(t, "x.safetensors", container(`{"x":{"dtype":"U8","shape":[1000000],"data_offsets":[0,1000000]}}`, 1000000))
	f, err := OpenFile(path)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, os.Truncate(path, 5000))
	_, err = f.Bytes("x")
	require.ErrorIs(t, err, ErrTruncated)
}

func TestOpenFileNamesWhatIsNotAFile(t *testing.T) {
	dir := t.TempDir()
	_, err := OpenFile(dir)
	require.ErrorContains(t, err, dir+": not a regular file")
	_, err = OpenFile(filepath.Join(dir, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
