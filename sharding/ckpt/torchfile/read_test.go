package torchfile

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"math/big"
	"os"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"
)

// parse reads a file of testdata. They were written by torch 2.15.
func parse(t testing.TB, name string) (*File, *bytes.Reader) {
	b, err := os.ReadFile("testdata/" + name)
	require.NoError(t, err)
	r := bytes.NewReader(b)
	f, err := Parse(r, int64(len(b)))
	require.NoError(t, err)
	return f, r
}

// whole is all of a tensor as float64s.
func whole(t testing.TB, r *bytes.Reader, v *Tensor) (list []float64) {
	return box(t, r, v, make([]int, len(v.Shape)), v.Shape)
}

func box(t testing.TB, r *bytes.Reader, v *Tensor, offset, size []int) (list []float64) {
	n, width := 1, int(v.DType.Size())
	for _, d := range size {
		n *= d
	}
	b := make([]byte, n*width)
	require.NoError(t, v.Read(r, offset, size, b))
	for ; len(b) > 0; b = b[width:] {
		switch v.DType {
		case dtypes.Float64:
			list = append(list, math.Float64frombits(binary.LittleEndian.Uint64(b)))
		case dtypes.Float32:
			list = append(list, float64(math.Float32frombits(binary.LittleEndian.Uint32(b))))
		case dtypes.BFloat16:
			list = append(list, float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(b))<<16)))
		case dtypes.Int64:
			list = append(list, float64(binary.LittleEndian.Uint64(b)))
		case dtypes.Float16, dtypes.Uint16:
			list = append(list, float64(binary.LittleEndian.Uint16(b)))
		default:
			list = append(list, float64(b[0]))
		}
	}
	return list
}

func TestValues(t *testing.T) {
	for _, name := range []string{"values.pt", "values_protocol4.pt", "values_stream.pt"} {
		t.Run(name, func(t *testing.T) {
			f, r := parse(t, name)
			get := func(key string) any {
				v, ok := f.Root.(*Dict).Get(key)
				require.True(t, ok, key)
				return v
			}
			tests := []struct {
				key   string
				dtype dtypes.DType
				shape []int
				want  []float64
			}{
				{"columns", dtypes.Float32, []int{4, 3}, []float64{1, 2, 3, 7, 8, 9, 13, 14, 15, 19, 20, 21}},
				{"transposed", dtypes.Float32, []int{6, 4}, []float64{0, 6, 12, 18, 1, 7, 13, 19, 2, 8, 14, 20, 3, 9, 15, 21, 4, 10, 16, 22, 5, 11, 17, 23}},
				{"row", dtypes.Float32, []int{6}, []float64{12, 13, 14, 15, 16, 17}},
				{"a", dtypes.BFloat16, []int{5}, []float64{0, 1, 2, 3, 4}},
				{"b", dtypes.BFloat16, []int{2, 3}, []float64{3, 4, 5, 6, 7, 8}},
				{"half", dtypes.Float16, []int{2}, []float64{0x3e00, 0xc000}},
				{"long", dtypes.Int64, []int{1, 1}, []float64{7}},
				{"byte", dtypes.Uint8, []int{3}, []float64{1, 2, 255}},
				{"empty", dtypes.Float32, []int{0, 3}, nil},
				{"scalar", dtypes.Float64, []int{}, []float64{2.5}},
				{"bool", dtypes.Bool, []int{2}, []float64{1, 0}},
				{"param", dtypes.Float32, []int{1}, []float64{3}},
			}
			for _, tt := range tests {
				v := get(tt.key).(*Tensor)
				require.Equal(t, tt.dtype, v.DType, tt.key)
				require.Equal(t, tt.shape, v.Shape, tt.key)
				require.Equal(t, tt.want, whole(t, r, v), tt.key)
			}
			require.Same(t, get("a").(*Tensor).Storage, get("b").(*Tensor).Storage)
			require.Equal(t, []float64{8, 9, 14, 15}, box(t, r, get("columns").(*Tensor), []int{1, 1}, []int{2, 2}))
			require.Equal(t, []float64{7, 13, 8, 14}, box(t, r, get("transposed").(*Tensor), []int{1, 1}, []int{2, 2}))
			require.True(t, get("b").(*Tensor).RowMajor())
			require.False(t, get("columns").(*Tensor).RowMajor())
			two70 := new(big.Int).Lsh(big.NewInt(1), 70)
			var bytes any = []byte{0, 255}
			list := get("list").(*List).Items
			if o, ok := list[9].(*Object); ok { // protocol 2 has no bytes: they are a call of _codecs.encode
				require.Equal(t, Global{"_codecs", "encode"}, o.Class)
				bytes = o
			}
			require.Equal(t, []any{int64(1), int64(-2), int64(1) << 40, two70, new(big.Int).Neg(two70), 1.25, nil, true, "é", bytes,
				Tuple{int64(1), int64(2), int64(3), int64(4)}}, list)
			x, _ := get("od").(*Dict).Get("x")
			require.Equal(t, int64(1), x)
			ns := get("ns").(*Object)
			require.Equal(t, "argparse.Namespace", ns.Class.String())
			dtype, _ := ns.Field("dtype")
			require.Equal(t, Global{"torch", "bfloat16"}, dtype)
			require.Equal(t, Tuple{int64(2), int64(3)}, get("size"))
		})
	}
}

func TestTensorsOfUntypedStorages(t *testing.T) {
	f, r := parse(t, "untyped.pt")
	v, _ := f.Root.(*Dict).Get("u")
	require.Equal(t, dtypes.Uint16, v.(*Tensor).DType)
	require.Equal(t, []float64{1, 2}, whole(t, r, v.(*Tensor)))
}

func TestMegatronsFile(t *testing.T) {
	f, r := parse(t, "model_optim_rng.pt")
	require.Equal(t, "model_optim_rng", f.Name)
	args, _ := f.Root.(*Dict).Get("args")
	vocab, _ := args.(*Object).Field("padded_vocab_size")
	require.Equal(t, int64(256), vocab)
	model, _ := f.Root.(*Dict).Get("model")
	require.Len(t, model.(*Dict).Keys, 29)
	v, _ := model.(*Dict).Get("output_layer.weight")
	require.Equal(t, []int{256, 16}, v.(*Tensor).Shape)
	require.Zero(t, v.(*Tensor).At()%64)
	require.Len(t, whole(t, r, v.(*Tensor)), 256*16)
	entries, err := f.Entries()
	require.NoError(t, err)
	require.Len(t, entries, 35)
}

// pickled is a pickle without storages.
func pickled(text string) error {
	_, _, err := unpickle([]byte(text), func(Tuple) (*Storage, error) { return &Storage{DType: dtypes.Float32, Elements: 6, Bytes: 24}, nil })
	return err
}

func TestRefusals(t *testing.T) {
	const tensor = "ctorch._utils\n_rebuild_tensor_v2\n("
	tests := []struct {
		name, text string
		is         error
		want       string
	}{
		{"a call of the system", "\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", ErrRefused, `byte 2: global "os.system"`},
		{"the same by names on the stack", "\x80\x04\x8c\x05posix\x8c\x06system\x93.", ErrRefused, `byte 17: global "posix.system"`},
		{"eval", "c__builtin__\neval\n.", ErrRefused, "__builtin__.eval"},
		{"getattr", "cbuiltins\ngetattr\n.", ErrRefused, "builtins.getattr"},
		{"a function of torch", "ctorch\nload\n.", ErrRefused, "torch.load"},
		{"a package that begins like a known one", "cmegatron.corex\nf\n.", ErrRefused, "megatron.corex.f"},
		{"an instance by its class", "(ios\nsystem\n.", ErrRefused, "opcode INST"},
		{"an object by mark", "(o.", ErrRefused, "opcode OBJ"},
		{"an extension", "\x82\x01.", ErrRefused, "opcode EXT1"},
		{"a dtype that is called", "ctorch\nbfloat16\n)R.", ErrRefused, "a call of torch.bfloat16, which is data"},
		{"no opcode", "\xff.", ErrFormat, "opcode 0xff"},
		{"nothing", "", ErrFormat, "byte 0: the pickle ends"},
		{"the end without a value", ".", ErrFormat, "nothing on the stack"},
		{"values left over", "NN.", ErrFormat, "2 values are left over"},
		{"a later protocol", "\x80\x06N.", ErrFormat, "protocol 6"},
		{"text longer than the file", "X\xff\x00\x00\x00a.", ErrFormat, "255 bytes are wanted"},
		{"text of a gigabyte", "X\x00\x00\x00\x40a.", ErrFormat, "text of 1073741824 bytes"},
		{"text that is none", "U\x01\xff.", ErrFormat, "not UTF-8"},
		{"a memory of nothing", "h\x01.", ErrFormat, "nothing is remembered as 1"},
		{"a mark that is missing", "Nt.", ErrFormat, "no mark"},
		{"a mark between a call and its function", "ctorch\nSize\n()R.", ErrFormat, "nothing on the stack"},
		{"a list as a key", "}]Ns.", ErrFormat, "key of a dictionary is a list"},
		{"items for a number", "K\x01Na.", ErrFormat, "items for a integer"},
		{"fields of a number", "K\x01}b.", ErrFormat, "fields for a integer"},
		{"a tensor of nothing", tensor + "tR.", ErrFormat, "_rebuild_tensor_v2 of 0 arguments"},
		{"a tensor larger than its storage", tensor + ")QK\x00K\x07\x85K\x01\x85\x89NtR.", ErrFormat, "shape [7], strides [1] and offset 0 does not fit its storage of 6"},
		{"a tensor behind its storage", tensor + ")QK\x01K\x06\x85K\x01\x85\x89NtR.", ErrFormat, "does not fit"},
		{"strides that overflow", tensor + ")QK\x00K\x05K\x05\x86\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7fK\x01\x86\x89NtR.", ErrFormat, "does not fit"},
		{"sizes that overflow", tensor + ")QK\x00(\x8a\x05\x00\x00\x00\x00\x10\x8a\x05\x00\x00\x00\x00\x10tK\x00K\x00\x86\x89NtR.", ErrFormat, "does not fit"},
		{"a negative size", tensor + ")QK\x00J\xff\xff\xff\xff\x85K\x01\x85\x89NtR.", ErrFormat, "want an integer from 0"},
		{"a size of endless text", tensor + ")QK\x00K\x01" + strings.Repeat("2\x86", 60) + "\x85K\x01\x85\x89NtR.", ErrFormat, "size or stride of a tensor is tuple, want"},
		{"more strides than sizes", tensor + ")QK\x00)K\x01\x85\x89NtR.", ErrFormat, "shape of 0 axes with strides of 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := pickled(tt.text)
			require.ErrorIs(t, err, tt.is)
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestTooManyValues(t *testing.T) {
	require.ErrorContains(t, pickled(string(bytes.Repeat([]byte("N"), maxValues+1))), "more than 2097152 values")
}

// TestOneListForManyCalls makes a dictionary of the same pairs over and over.
func TestOneListForManyCalls(t *testing.T) {
	pairs := "](" + strings.Repeat("K\x01N\x86", 1<<16) + "eq\x00"
	require.ErrorContains(t, pickled(pairs+strings.Repeat("ccollections\nOrderedDict\nh\x00\x85R0", 1<<15)+"."), "more than 2097152 values")
}

func TestContainersThatAreBroken(t *testing.T) {
	good, err := os.ReadFile("testdata/model_optim_rng.pt")
	require.NoError(t, err)
	tests := []struct {
		name, want string
		change     func(b []byte) []byte
	}{
		{"neither form", "neither a zip archive nor", func(b []byte) []byte { return []byte("GGUF0000000000000000") }},
		{"nothing", "0 bytes", func(b []byte) []byte { return nil }},
		{"cut short", "zip", func(b []byte) []byte { return b[:len(b)/2] }},
		{"a changed pickle", "checksum", func(b []byte) []byte { b[0x48] ^= 1; return b }},
		{"a big-endian machine's", `byte order "bigggg"`, func(b []byte) []byte {
			// Its checksum is changed in step, in the directory.
			b = bytes.Replace(b, []byte("little"), []byte("bigggg"), 1)
			at := bytes.LastIndex(b, binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte("little"))))
			binary.LittleEndian.PutUint32(b[at:], crc32.ChecksumIEEE([]byte("bigggg")))
			return b
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.change(bytes.Clone(good))
			_, err := Parse(bytes.NewReader(b), int64(len(b)))
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"values.pt", "values_protocol4.pt", "values_stream.pt", "untyped.pt"} {
		b, err := os.ReadFile("testdata/" + name)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		file, err := Parse(r, int64(len(b)))
		if err != nil {
			return
		}
		if d, ok := file.Root.(*Dict); ok {
			for _, v := range d.Values {
				if v, ok := v.(*Tensor); ok && v.Elements() < 1000 && len(v.Shape) > 0 {
					whole(t, r, v)
				}
			}
		}
	})
}

func FuzzUnpickle(f *testing.F) {
	f.Add([]byte("\x80\x02}(X\x01\x00\x00\x00aK\x01u."))
	f.Add([]byte("]q\x00h\x00a."))
	f.Fuzz(func(t *testing.T, b []byte) { _ = pickled(string(b)) })
}
