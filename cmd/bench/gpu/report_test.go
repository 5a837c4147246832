package gpu

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/lower/ir"
	"mix/lower/pjrt"
	"mix/lower/target"
	"mix/lower/triton"
	"mix/sharding"
)

func TestReport(t *testing.T) {
	r := Report{Device: "NVIDIA H200", Platform: "cuda", Chip: "h200", Date: "2026-01-02", Failed: true,
		Parity: []Parity{{Kernel: "experts", Shape: "T 1", Elem: "bf16", Result: "y", Error: 0.001, Tolerance: 0.01, Pass: true},
			{Kernel: "quantize", Shape: "R 3", Elem: "f32", Result: "scales", Error: 0.5, Tolerance: 0.01},
			{Kernel: "flash attention", Shape: "S 3", Elem: "f16", Failure: "does not compile"}},
		Rates:    []Rate{{What: "down", Form: "kernel", Tokens: 4096, Seconds: 0.0014, FLOPs: 6.9e14, OfDense: 0.95, OfPeak: 0.7}},
		Tiles:    []Tuned{{Kernel: "up", Was: triton.Tile{M: 128, N: 128, K: 64, Group: 8, Split: 1, Warps: 8, Stages: 3}, Tried: 40, Before: 1e-3, Seconds: 9e-4}},
		Serving:  []Served{{What: "decode", Layers: 32, Batch: 1, Context: 1023, Seconds: 0.0065, Tokens: 154, OfMemory: 0.83}},
		Training: []Trained{{Layers: 3, Samples: 4, Seq: 4096, Seconds: 0.3, Tokens: 54613, FLOPs: 5e14, MFU: 0.51, Roof: Roof{Products: 0.15, Bytes: 1.5e11, State: 0.03, Bound: 0.84}}},
		Skipped:  []Skipped{{"tune", "the time was up"}}}
	var text bytes.Buffer
	require.NoError(t, r.Print(&text))
	for _, want := range []string{"NVIDIA H200, chip h200, 2026-01-02", "parity: 1 of 3", "scales: error 0.5, at most 0.01", "FAIL  does not compile",
		"down, kernel  4096    690.0    95.0%     70.0%    1.400", "128×128×64 g8 s1 w8 d3", "83.0%", "51.0%  84.0%", "0.1500       0.0300    150.0", "the time was up"} {
		require.Contains(t, text.String(), want)
	}
	require.NotContains(t, text.String(), "experts  bf16", "what passes is a number")
	b, err := json.Marshal(r)
	require.NoError(t, err)
	var back Report
	require.NoError(t, json.Unmarshal(b, &back))
	require.Equal(t, r, back)
}

// TestLayersFit holds the sizes that are chosen to the numbers of the published model.
func TestLayersFit(t *testing.T) {
	config := Options{}.config
	require.InDelta(t, 93.4e9, float64(weightBytes(config(32))), 0.1e9, "46.7 billion weights of two bytes")
	require.EqualValues(t, 2*32*2*8*128*100, poolBytes(config(32), 100))
	for _, tt := range []struct {
		chip              string
		positions, layers int
	}{{"h200", 64 * 2048, 32}, {"h100", 64 * 2048, 20}, {"h100", 1024, 24}} {
		c, err := target.LookupChip(tt.chip)
		require.NoError(t, err)
		n := servingLayers(config, 32, tt.positions, int64(share*float64(c.Memory)))
		require.Equal(t, tt.layers, n, "%s with %d positions", tt.chip, tt.positions)
	}
	require.Equal(t, 1, servingLayers(config, 32, 1, 0))

	for _, tt := range []struct {
		chip          string
		layers, micro int
	}{{"h200", 4, 4}, {"h100", 2, 4}} {
		c, err := target.LookupChip(tt.chip)
		require.NoError(t, err)
		gpu, err := sharding.ChipNamed(tt.chip)
		require.NoError(t, err)
		layers, micro, err := trainingLayers(config, 32, gpu, 4096, int64(share*float64(c.Memory)))
		require.NoError(t, err)
		require.Equal(t, []int{tt.layers, tt.micro}, []int{layers, micro}, tt.chip)
	}
}

// TestTrainingRoof holds the bounds to numbers of the published model: with few tokens the update alone keeps a step below half of
// the peak.
func TestTrainingRoof(t *testing.T) {
	chip, err := target.LookupChip("h200")
	require.NoError(t, err)
	one, two := trainingRoof(Options{}.config(1), chip, 4096, 4096), trainingRoof(Options{}.config(2), chip, 4096, 4096)
	require.InDelta(t, 36*3*8*4096*14336+42*2*5120*4096, two.Bytes-one.Bytes, 2e7, "experts and attention of a layer, and little else")
	require.InDelta(t, (42+36)*32000*4096, 2*one.Bytes-two.Bytes, 1e6, "head and embeddings")
	require.Less(t, two.Bound, 0.55)
	four := trainingRoof(Options{}.config(4), chip, 4*4096, 4096)
	require.Greater(t, four.Bound, 0.75)
	require.InDelta(t, 0.176, four.Products, 0.001)
	require.InDelta(t, four.State, four.Bytes/4.8e12, 1e-9)
	require.Zero(t, trainingRoof(Options{}.config(1), target.Chip{}, 4096, 4096).Bound)
}

func TestBytesRead(t *testing.T) {
	c := graph.Config{Vocab: 10, Width: 4, Hidden: 6, Layers: 2, Heads: 2, KVHeads: 1, HeadDim: 2, Experts: 3, TopK: 2}
	all := float64(weightBytes(c)) - 2*10*4
	require.Equal(t, all+float64(poolBytes(c, 7)), bytesRead(c, []uint32{0, 1, 2, 0, 2, 1, 0, 1}, 7), "two rows that choose everything")
	require.Equal(t, all-2*2*3*4*6, bytesRead(c, []uint32{0, 1, 2, 0}, 0), "one row leaves out an expert in each layer")
}

func TestUneven(t *testing.T) {
	for _, rows := range []int{16, 1024, 8192, 16384} {
		sum := 0
		all := uneven(rows, 8)
		for _, n := range all {
			sum += n
		}
		require.Equal(t, rows, sum)
		require.LessOrEqual(t, all[0], all[7])
		require.Equal(t, rows > 16, all[0] < all[7])
	}
	sizes := ragged(600, 5)
	require.Len(t, groups(sizes, 600), 600)
	require.Equal(t, 5, groups(sizes, 600)[599])
	require.Equal(t, []int{0, 1}, sizes[:2])
}

func TestChips(t *testing.T) {
	require.Equal(t, "h200", chipOf("cuda", "NVIDIA H200").Name)
	require.Equal(t, "h100", chipOf("cuda", "NVIDIA H100 80GB HBM3").Name)
	require.Equal(t, "h100", chipOf("cuda", "NVIDIA H100 PCIe").Name)
	require.Empty(t, chipOf("cuda", "NVIDIA L4").Name)
	require.Equal(t, "cpu", chipOf("cpu", "cpu").Name)
}

func TestErrorsInALine(t *testing.T) {
	require.Equal(t, "INTERNAL: bad", firstLine(errors.New("INTERNAL: bad")))
	require.Equal(t, "short more", firstLine(errors.New("short\nmore\nand more")))
	require.Len(t, []rune(firstLine(errors.New(strings.Repeat("é", 1000)))), 301)
	require.True(t, noMemory(fmt.Errorf("x: %w", &pjrt.Error{Code: pjrt.ErrorCodeRESOURCEEXHAUSTED})))
	require.False(t, noMemory(&pjrt.Error{Code: pjrt.ErrorCodeINTERNAL}))
	require.False(t, noMemory(nil))
}

func TestCandidatesInOrder(t *testing.T) {
	was := triton.Tile{M: 128, N: 128, K: 64, Group: 8, Split: 1, Warps: 8, Stages: 3}
	all := triton.Candidates("up", triton.BF16, 1024)
	order := ordered(all, was)
	require.NotContains(t, order, was)
	require.Equal(t, triton.Tile{M: 128, N: 128, K: 64, Group: 8, Split: 1, Warps: 8, Stages: 2}, order[0])
	require.GreaterOrEqual(t, len(order), len(all)-1)
}

// TestClassesBuild makes every program that tiles are tried with, at full size, with the tile that the table has.
func TestClassesBuild(t *testing.T) {
	e, _ := Options{}.sizes()
	for _, c := range classes(e, false) {
		rows := triton.Groups{Rows: c.tokens * e.choices, Experts: e.count}.Average()
		tile, err := triton.Default().Choose(c.kernel, triton.BF16, rows)
		require.NoError(t, err)
		m, err := programOf(c.types, triton.Default(), func(k *kit, in []*ir.Value) *ir.Value { return c.build(k, tile, in) })
		require.NoError(t, err, c.kernel)
		require.Contains(t, m.String(), triton.Target, c.kernel)
	}
}

// TestSession runs everything that a CPU can, tiny.
func TestSession(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute: not in short mode")
	}
	var out bytes.Buffer
	r, err := Run(t.Context(), cpu(t), Options{Small: true, Seconds: 600, Tune: t.TempDir() + "/tiles.json", Out: &out, Log: io.Discard})
	require.NoError(t, err)
	require.False(t, r.Failed, "%+v", r.Skipped)
	require.Len(t, r.Rates, 8)
	require.Len(t, r.Serving, 3)
	require.Len(t, r.Training, 1)
	require.Len(t, r.Skipped, 2, "parity and tune have nothing to run: %+v", r.Skipped)
	for _, s := range r.Serving {
		require.Positive(t, s.Tokens)
		require.Positive(t, s.Bytes)
	}
	require.Positive(t, r.Training[0].FLOPs)
	require.Equal(t, strings.Count(out.String(), "\n"), 1+8+3+1+2, "a line for each: %s", out.String())
}

func TestNoTime(t *testing.T) {
	r, err := Run(t.Context(), cpu(t), Options{Small: true, Seconds: 1e-9, Out: io.Discard, Log: io.Discard})
	require.NoError(t, err)
	require.Len(t, r.Skipped, 4)
}
