package report

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// The decoder here shares nothing with the writer: its CRC goes bit by bit, its protobuf reader is its own.

// crc32c is the remainder by the reflected Castagnoli polynomial.
func crc32c(data []byte) uint32 {
	crc := ^uint32(0)
	for _, b := range data {
		crc ^= uint32(b)
		for range 8 {
			crc = crc>>1 ^ crc&1*0x82f63b78
		}
	}
	return ^crc
}

func unmask(m uint32) uint32 {
	m -= 0xa282ead8
	return m>>17 | m<<15
}

// fields are the values of a message by field number: uint64 for numbers, []byte for the rest.
type fields map[int][]any

func decode(t *testing.T, b []byte) fields {
	f := fields{}
	for len(b) > 0 {
		key, n := binary.Uvarint(b)
		require.Positive(t, n)
		b = b[n:]
		var v any
		switch key & 7 {
		case 0:
			x, n := binary.Uvarint(b)
			require.Positive(t, n)
			v, b = x, b[n:]
		case 1:
			v, b = binary.LittleEndian.Uint64(b), b[8:]
		case 2:
			size, n := binary.Uvarint(b)
			require.Positive(t, n)
			v, b = b[n:n+int(size)], b[n+int(size):]
		case 5:
			v, b = uint64(binary.LittleEndian.Uint32(b)), b[4:]
		default:
			t.Fatalf("wire type %d", key&7)
		}
		f[int(key>>3)] = append(f[int(key>>3)], v)
	}
	return f
}

func (f fields) bytes(t *testing.T, path ...int) []byte {
	b := f[path[0]][0].([]byte)
	for _, n := range path[1:] {
		b = decode(t, b)[n][0].([]byte)
	}
	return b
}

func (f fields) double(n int) float64 { return math.Float64frombits(f[n][0].(uint64)) }

// readEvents gives the events of a file and holds every frame to its checksums.
func readEvents(t *testing.T, path string) (events []fields) {
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	for len(b) > 0 {
		require.Equal(t, crc32c(b[:8]), unmask(binary.LittleEndian.Uint32(b[8:])))
		n := binary.LittleEndian.Uint64(b)
		data := b[12 : 12+n]
		require.Equal(t, crc32c(data), unmask(binary.LittleEndian.Uint32(b[12+n:])))
		events = append(events, decode(t, data))
		b = b[16+n:]
	}
	return events
}

// values are the summary values of a tag by step.
func values(t *testing.T, path, tag string) map[int]fields {
	all := map[int]fields{}
	for _, e := range readEvents(t, path) {
		if e[5] == nil {
			continue
		}
		for _, v := range decode(t, e.bytes(t, 5))[1] {
			if f := decode(t, v.([]byte)); string(f.bytes(t, 1)) == tag {
				all[int(e[2][0].(uint64))] = f
			}
		}
	}
	return all
}

func scalars(t *testing.T, path, tag string) map[int]float32 {
	all := map[int]float32{}
	for step, f := range values(t, path, tag) {
		all[step] = math.Float32frombits(uint32(f[2][0].(uint64)))
	}
	return all
}

// made writes a report's events: steps 1 to 4, then from another process that resumes at 2.
func made(t *testing.T) (dir string, paths []string) {
	dir = filepath.Join(t.TempDir(), "tb")
	for _, first := range []int{0, 2} {
		r, err := Open(Options{TensorBoard: dir, now: clock()})
		require.NoError(t, err)
		require.NoError(t, r.Start(first, 20))
		for step := first + 1; step <= first+4; step++ {
			require.NoError(t, r.Step(walk(step, 20, 2, 4)))
		}
		require.NoError(t, r.Eval(evaluate(first+4)))
		require.NoError(t, r.Close())
	}
	paths, err := filepath.Glob(filepath.Join(dir, "events.out.tfevents.*"))
	require.NoError(t, err)
	require.Len(t, paths, 2)
	slices.Sort(paths)
	return dir, paths
}

func TestEventsDecode(t *testing.T) {
	_, paths := made(t)
	events := readEvents(t, paths[0])
	require.Equal(t, "brain.Event:2", string(events[0].bytes(t, 3)))
	require.Equal(t, 1700000002.0, events[0].double(1), "wall time in seconds")

	want := map[int]float32{}
	for step := 1; step <= 4; step++ {
		want[step] = float32(walk(step, 20, 2, 4).Loss)
	}
	require.Equal(t, want, scalars(t, paths[0], "loss"))
	for _, tag := range []string{"ce", "aux", "z", "lr", "grad_norm", "tokens_per_second", "step_seconds", "skipped", "dropped", "mfu", "expert_balance/layer_01"} {
		require.Len(t, scalars(t, paths[0], tag), 4, tag)
	}
	e := evaluate(4)
	require.Equal(t, map[int]float32{4: float32(e.Loss)}, scalars(t, paths[0], "eval/loss"))
	require.Equal(t, map[int]float32{4: float32(e.Perplexity)}, scalars(t, paths[0], "eval/perplexity"))
	require.Equal(t, map[int]float32{4: float32(e.BitsPerByte)}, scalars(t, paths[0], "eval/bits_per_byte"))

	histogram := decode(t, values(t, paths[0], "expert_load/layer_00")[1].bytes(t, 5))
	require.Equal(t, []float64{-0.5, 3.5}, []float64{histogram.double(1), histogram.double(2)})
	require.InDelta(t, 1, histogram.double(3), 1e-6, "shares sum to 1")
	heights := histogram.bytes(t, 7)
	for i, share := range walk(1, 20, 2, 4).Load[0] {
		require.Equal(t, share, math.Float64frombits(binary.LittleEndian.Uint64(heights[8*i:])))
	}

	sample := values(t, paths[0], "samples/0")[4]
	require.Equal(t, "    Define <b>. A letter & more.\n    End.", string(sample.bytes(t, 8, 8)))
	require.Equal(t, "text", string(sample.bytes(t, 9, 1, 1)))
}

func TestResumedEventsTellWhereTheyBegin(t *testing.T) {
	_, paths := made(t)
	start := readEvents(t, paths[1])[1]
	require.Equal(t, uint64(3), start[2][0])
	require.Equal(t, []any{uint64(1)}, decode(t, start.bytes(t, 7))[1], "the status is START")
}

func TestMaskedChecksum(t *testing.T) {
	require.Equal(t, uint32(0xe3069283), crc32c([]byte("123456789")), "the polynomial's check value")
	for _, s := range []string{"", "a", "123456789"} {
		require.Equal(t, crc32c([]byte(s)), unmask(masked([]byte(s))))
	}
}

func TestTensorBoardReadsTheEvents(t *testing.T) {
	if err := exec.Command("python3", "-c", "import tensorboard").Run(); err != nil {
		t.Skip("needs Python's tensorboard")
	}
	dir, _ := made(t)
	cmd := exec.Command("python3", "testdata/read_events.py", dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	var got struct {
		Loss       map[string]float64
		EvalLoss   map[string]float64 `json:"eval_loss"`
		Histograms []string
		Texts      map[string]string
	}
	require.NoError(t, json.Unmarshal(out, &got))
	want := map[string]float64{}
	for step := 1; step <= 6; step++ {
		want[string(rune('0'+step))] = float64(float32(walk(step, 20, 2, 4).Loss))
	}
	require.Equal(t, want, got.Loss, "what the first process wrote of steps 3 and 4 is dropped")
	require.Equal(t, map[string]float64{"6": float64(float32(evaluate(6).Loss))}, got.EvalLoss)
	require.Equal(t, []string{"expert_load/layer_00", "expert_load/layer_01"}, got.Histograms)
	require.Equal(t, map[string]string{"samples/0": "    Define <b>. A letter & more.\n    End."}, got.Texts)
}
