package data

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const golden = "testdata/megatron/"

// dump is the contents of a dataset by Megatron's reader.
type dump struct {
	DType     string    `json:"dtype"`
	Code      uint8     `json:"dtype_code"`
	Documents []int     `json:"document_indices"`
	Lengths   []int     `json:"sequence_lengths"`
	Pointers  []int64   `json:"sequence_pointers"`
	Sequences [][]int32 `json:"sequences"`
}

// read decodes a golden JSON file.
func read[T any](t testing.TB, name string) (v T) {
	require.NoError(t, json.Unmarshal(readFile(t, golden+name), &v))
	return v
}

func open(t testing.TB, name string) *Indexed {
	x, err := Open(golden + name + "_text_document")
	require.NoError(t, err)
	t.Cleanup(func() { x.Close() })
	return x
}

func TestOpenReadsWhatMegatronWrote(t *testing.T) {
	dumps := read[map[string]dump](t, "token_ids.json")
	require.Len(t, dumps, 5)
	for name, want := range dumps {
		x := open(t, name)
		require.Equal(t, want.DType, x.DType().String(), name)
		require.Equal(t, DType(want.Code), x.DType(), name)
		require.Equal(t, len(want.Sequences), x.Sequences(), name)
		require.Equal(t, len(want.Documents)-1, x.Documents(), name)
		for i := range x.Documents() {
			begin, end := x.Document(i)
			require.Equal(t, want.Documents[i:i+2], []int{begin, end}, name)
		}
		var tokens int64
		for i, sequence := range want.Sequences {
			require.Equal(t, want.Lengths[i], x.Length(i))
			require.Equal(t, want.Pointers[i], x.pointer(i))
			got := make([]int32, len(sequence))
			require.NoError(t, x.Read(got, i, 0))
			require.Equal(t, sequence, got, "%s: sequence %d", name, i)
			require.NoError(t, x.Read(got[:1], i, len(sequence)-1))
			require.Equal(t, sequence[len(sequence)-1], got[0], "read from the middle")
			tokens += int64(len(sequence))
		}
		require.Equal(t, tokens, x.Tokens())
	}
}

func TestReadStaysInsideASequence(t *testing.T) {
	x := open(t, "u16_nobos")
	for _, tt := range []struct{ n, i, offset int }{
		{1, -1, 0}, {1, 19, 0}, {41, 0, 0}, {1, 0, 40}, {1, 0, -1}, {2, 0, 1 << 62},
	} {
		require.Error(t, x.Read(make([]int32, tt.n), tt.i, tt.offset), "%v", tt)
	}
	require.NoError(t, x.Read(nil, 0, 40))
}

func readFile(t testing.TB, path string) []byte {
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}

// files returns the bytes of a dataset's .idx and .bin.
func files(t testing.TB, prefix string) (idx, bin []byte) {
	return readFile(t, prefix+".idx"), readFile(t, prefix+".bin")
}

func TestWriterIsByteExact(t *testing.T) {
	for name, d := range read[map[string]dump](t, "token_ids.json") {
		prefix := filepath.Join(t.TempDir(), name)
		w, err := Create(prefix, DType(d.Code))
		require.NoError(t, err)
		write(t, w, d.Sequences, d.Documents)
		require.NoFileExists(t, prefix+".bin", "not before Commit")
		require.NoError(t, w.Commit())
		require.Error(t, w.Commit(), "once only")
		gotIdx, gotBin := files(t, prefix)
		wantIdx, wantBin := files(t, golden+name+"_text_document")
		require.Equal(t, wantIdx, gotIdx, name)
		require.Equal(t, wantBin, gotBin, name)
		left, err := os.ReadDir(filepath.Dir(prefix))
		require.NoError(t, err)
		require.Len(t, left, 2, "no temporary file is left")
	}
}

func write(t testing.TB, w *Writer, sequences [][]int32, documents []int) {
	for i, b := range documents[1:] {
		for s := documents[i]; s < b; s++ {
			require.NoError(t, w.Add(sequences[s]))
		}
		w.EndDocument()
	}
}

func TestEveryDTypeKeepsItsIDs(t *testing.T) {
	for dtype, ids := range map[DType][]int32{
		Uint8: {0, 255}, Int8: {-128, 127}, Int16: {-32768, 32767}, Uint16: {0, 65535},
		Int32: {-1 << 31, 1<<31 - 1}, Int64: {-1 << 31, 1<<31 - 1},
	} {
		prefix := filepath.Join(t.TempDir(), "x")
		w, err := Create(prefix, dtype)
		require.NoError(t, err)
		require.NoError(t, w.Add(ids))
		if dtype != Int32 && dtype != Int64 {
			require.ErrorContains(t, w.Add([]int32{ids[0], ids[1] + 1}), "sequence 1, token 1: id")
			require.ErrorContains(t, w.Add([]int32{ids[0] - 1}), "in "+dtype.String())
		}
		w.EndDocument()
		require.NoError(t, w.Commit())
		x, err := Open(prefix)
		require.NoError(t, err)
		got := make([]int32, 2)
		require.NoError(t, x.Read(got, 0, 0))
		require.Equal(t, ids, got, dtype.String())
		require.NoError(t, x.Close())
	}
	for _, dtype := range []DType{0, Float32, Float64, 9} {
		_, err := Create(filepath.Join(t.TempDir(), "x"), dtype)
		require.ErrorContains(t, err, "want integers")
	}
}

func TestAnAbortedWriterLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	w, err := Create(filepath.Join(dir, "x"), Uint16)
	require.NoError(t, err)
	require.NoError(t, w.Add([]int32{1}))
	w.Abort()
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
	_, err = Create(filepath.Join(dir, "none", "x"), Uint16)
	require.Error(t, err)
}

func TestIdsBeyondInt32AreRefused(t *testing.T) {
	prefix := filepath.Join(t.TempDir(), "x")
	w, err := Create(prefix, Int64)
	require.NoError(t, err)
	require.NoError(t, w.Add([]int32{1, 2}))
	w.EndDocument()
	require.NoError(t, w.Commit())
	require.NoError(t, os.WriteFile(prefix+".bin", binary.LittleEndian.AppendUint64(make([]byte, 8), 1<<40), 0o644))
	x, err := Open(prefix)
	require.NoError(t, err)
	defer x.Close()
	require.EqualError(t, x.Read(make([]int32, 2), 0, 0), prefix+".bin: offset 8: sequence 0, token 1: token id 1099511627776, want an int32")
}

func TestOpenRefusesCorruptIndices(t *testing.T) {
	idx, bin := files(t, golden+"u16_nobos_text_document")
	put := func(at int, v uint64, bytes int) func([]byte) []byte {
		return func(b []byte) []byte {
			var word [8]byte
			binary.LittleEndian.PutUint64(word[:], v)
			copy(b[at:], word[:bytes])
			return b
		}
	}
	lengths, pointers, documents := head, head+4*19, head+12*19
	for _, tt := range []struct {
		name string
		edit func([]byte) []byte
		want string
	}{
		{"empty", func(b []byte) []byte { return nil }, "0 bytes, want a head of 34"},
		{"a short head", func(b []byte) []byte { return b[:33] }, "33 bytes, want a head of 34"},
		{"another magic", put(0, 'X', 1), `offset 0: begins with "XMIDIDX\x00\x00"`},
		{"another version", put(9, 2, 8), "offset 9: version is 2, want 1"},
		{"dtype 0", put(17, 0, 1), "offset 17: dtype code is 0, want 1 to 8"},
		{"dtype 9", put(17, 9, 1), "offset 17: dtype code is 9, want 1 to 8"},
		{"a wider dtype", put(17, 4, 1), "begins at byte"},
		{"sequences beyond the file", put(18, 1<<60, 8), "offset 18: 1152921504606846976 sequences, want at most 33"},
		{"sequences that overflow", put(18, 1<<64-1, 8), "offset 18: 18446744073709551615 sequences"},
		{"no boundary", put(26, 0, 8), "offset 26: 0 document boundaries, want 1 to 21"},
		{"boundaries beyond the file", put(26, 22, 8), "offset 26: 22 document boundaries, want 1 to 21"},
		{"too few boundaries", put(26, 20, 8), "430 bytes, want 422 for 19 sequences and 20 document boundaries, or 441 with modes"},
		{"cut off", func(b []byte) []byte { return b[:len(b)-1] }, "document boundaries"},
		{"a byte more", func(b []byte) []byte { return append(b, 0) }, "431 bytes, want 430"},
		{"a negative length", put(lengths, 1<<32-1, 4), "offset 34: length of sequence 0 is -1, want 0 to 1071"},
		{"a length beyond the .bin", put(lengths+4, 1<<31-1, 4), "offset 38: length of sequence 1 is 2147483647"},
		{"a negative pointer", put(pointers, 1<<64-2, 8), "offset 110: sequence 0 of 40 tokens begins at byte -2, want 0 to 2062"},
		{"a pointer beyond the .bin", put(pointers+8, 2142, 8), "offset 118: sequence 1 of 82 tokens begins at byte 2142, want 0 to 1978"},
		{"documents begin late", put(documents, 1, 8), "offset 262: the first document begins at sequence 1, want 0"},
		{"documents go back", put(documents+16, 0, 8), "offset 278: document boundary 2 is 0, want 1 to 19"},
		{"documents beyond the sequences", put(documents+16, 20, 8), "offset 278: document boundary 2 is 20, want 1 to 19"},
		{"documents end early", put(documents+8*20, 18, 8), "offset 422: the last document ends at sequence 18, want 19"},
	} {
		prefix := filepath.Join(t.TempDir(), "x")
		require.NoError(t, os.WriteFile(prefix+".idx", tt.edit(append([]byte(nil), idx...)), 0o644))
		require.NoError(t, os.WriteFile(prefix+".bin", bin, 0o644))
		_, err := Open(prefix)
		require.ErrorIs(t, err, ErrFormat, tt.name)
		require.ErrorContains(t, err, prefix+".idx: ", tt.name)
		require.ErrorContains(t, err, tt.want, tt.name)
		require.False(t, strings.Contains(err.Error(), "\n"))
	}
}

func TestOpenOfWhatIsNotThere(t *testing.T) {
	prefix := filepath.Join(t.TempDir(), "x")
	_, err := Open(prefix)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, prefix+".idx")
	idx, bin := files(t, golden+"u16_nobos_text_document")
	require.NoError(t, os.WriteFile(prefix+".idx", idx, 0o644))
	_, err = Open(prefix)
	require.ErrorContains(t, err, prefix+".bin")
	require.NoError(t, os.WriteFile(prefix+".bin", bin[:len(bin)-2], 0o644))
	_, err = Open(prefix)
	require.ErrorContains(t, err, "want 0 to 1992 in a .bin of 2140 bytes", "a .bin that was cut off")
	require.NoError(t, os.Remove(prefix+".bin"))
	require.NoError(t, os.Mkdir(prefix+".bin", 0o755))
	_, err = Open(prefix)
	require.ErrorContains(t, err, "not a file")
}

func TestModesAreAccepted(t *testing.T) {
	idx, bin := files(t, golden+"u16_nobos_text_document")
	x, err := parseIndex(append(idx, make([]byte, 19)...), int64(len(bin)))
	require.NoError(t, err)
	require.Len(t, x.modes, 19)
}

func FuzzIndex(f *testing.F) {
	for _, name := range []string{"u16_nobos", "u16_multi", "i32_null"} {
		idx, bin := files(f, golden+name+"_text_document")
		f.Add(idx, int64(len(bin)))
	}
	f.Add([]byte(magic), int64(0))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		size = max(0, min(size, 1<<16))
		x, err := parseIndex(b, size)
		if err != nil {
			return
		}
		in := &Indexed{index: x, bin: make([]byte, size)}
		for i := range in.Sequences() {
			dst := make([]int32, in.Length(i))
			if err := in.Read(dst, i, 0); err != nil && in.DType().integer() {
				t.Fatal(err)
			}
		}
		for i := range in.Documents() {
			if begin, end := in.Document(i); begin > end || end > in.Sequences() {
				t.Fatal("document", i, begin, end)
			}
		}
	})
}

// sum is the SHA-256 of b.
func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}
