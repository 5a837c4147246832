package torchfile

import (
	"archive/zip"
	"bytes"
	"io"
	"math"
	"os"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/internal/golden"
)

// count gives a tensor's elements as bytes 0, 1, 2, …
func count(w io.Writer, t *Tensor) error {
	b := make([]byte, t.Storage.Bytes)
	for i := range b {
		b[i] = byte(i)
	}
	_, err := w.Write(b)
	return err
}

func sample() any {
	return DictOf("args", &Object{Class: Global{"argparse", "Namespace"}, Args: Tuple{}, State: DictOf("layers", 2, "theta", 1e6, "tied", false,
		"none", nil, "long", 1<<40, "dtype", Global{"torch", "bfloat16"}, "list", &List{Items: []any{1, "é"}})},
		"model", DictOf("w", NewTensor(dtypes.BFloat16, 3, 5), "b", NewTensor(dtypes.Float32, 7), "s", NewTensor(dtypes.Float64)))
}

func TestWhatIsWrittenIsReadAgain(t *testing.T) {
	parts, err := Plan("archive", sample())
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, Write(&out, parts, count))
	total := int64(0)
	for _, p := range parts {
		total += p.Bytes
	}
	require.EqualValues(t, total, out.Len())
	r := bytes.NewReader(out.Bytes())
	f, err := Parse(r, total)
	require.NoError(t, err)
	args, _ := f.Root.(*Dict).Get("args")
	for key, want := range map[string]any{"layers": int64(2), "theta": 1e6, "tied": false, "none": nil, "long": int64(1) << 40,
		"dtype": Global{"torch", "bfloat16"}, "list": &List{Items: []any{int64(1), "é"}}} {
		got, _ := args.(*Object).Field(key)
		require.Equal(t, want, got, key)
	}
	model, _ := f.Root.(*Dict).Get("model")
	w, _ := model.(*Dict).Get("w")
	require.Equal(t, []int{3, 5}, w.(*Tensor).Shape)
	require.Zero(t, w.(*Tensor).At()%alignment)
	require.Len(t, whole(t, r, w.(*Tensor)), 15)
	// Any program that knows zip reads it, checksums and all.
	z, err := zip.NewReader(r, total)
	require.NoError(t, err)
	for _, e := range z.File {
		x, err := e.Open()
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, x)
		require.NoError(t, err, e.Name)
	}
}

// TestFormIsTorchs compares a file with one whose loading by torch.load(weights_only=True), with
// argparse.Namespace allowed, was tried by hand.
func TestFormIsTorchs(t *testing.T) {
	parts, err := Plan("archive", sample())
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, Write(&out, parts, count))
	const file = "testdata/written.pt"
	if golden.Update() {
		require.NoError(t, os.WriteFile(file, out.Bytes(), 0o666))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, out.Bytes()), "%s is not what is written", file)
}

// holes reads a file of which only the text is in memory.
type holes struct {
	size int64
	text map[int64][]byte
}

func (h holes) ReadAt(b []byte, at int64) (int, error) {
	clear(b)
	n := int(min(int64(len(b)), h.size-at))
	for from, text := range h.text {
		lo, hi := max(at, from), min(at+int64(n), from+int64(len(text)))
		if lo < hi {
			copy(b[lo-at:hi-at], text[lo-from:hi-from])
		}
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func TestFilesBeyondFourGigabytes(t *testing.T) {
	big := NewTensor(dtypes.BFloat16, 3<<20, 1024)
	parts, err := Plan("a", DictOf("small", NewTensor(dtypes.Uint8, 3), "big", big, "after", NewTensor(dtypes.Float32, 2)))
	require.NoError(t, err)
	h := holes{text: map[int64][]byte{}}
	for _, p := range parts {
		if p.Tensor == nil {
			h.text[h.size] = p.Text([]uint32{1, 2, 3})
			require.Len(t, h.text[h.size], int(p.Bytes))
		}
		h.size += p.Bytes
	}
	require.Greater(t, h.size, int64(math.MaxUint32))
	f, err := Parse(h, h.size)
	require.NoError(t, err)
	for key, shape := range map[string][]int{"small": {3}, "big": {3 << 20, 1024}, "after": {2}} {
		v, _ := f.Root.(*Dict).Get(key)
		require.Equal(t, shape, v.(*Tensor).Shape)
		require.Zero(t, v.(*Tensor).At()%alignment)
	}
	after, _ := f.Root.(*Dict).Get("after")
	entries, err := f.Entries()
	require.NoError(t, err)
	require.Contains(t, entries, Entry{"a/data/2", after.(*Tensor).At(), 8, 3})
}

func TestValuesThatCannotBeWritten(t *testing.T) {
	loop := &List{}
	loop.Items = []any{loop}
	for want, v := range map[string]any{"nested more than": loop, "type chan int": make(chan int), "no storage of that type": NewTensor(dtypes.Complex64, 1)} {
		_, err := Plan("a", v)
		require.ErrorContains(t, err, want)
	}
	_, err := Plan("a/b", nil)
	require.ErrorContains(t, err, "without slashes")
}
