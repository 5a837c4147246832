package ref_test

import (
	"fmt"
	"math"
	"testing"
	"unsafe"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/internal/oracle"
	"mix/internal/ref"
	"mix/sharding/axis"
	"mix/sharding/ckpt"
)

// load reads a checkpoint into a plain model.
func load(t *testing.T, dir string) ref.Model {
	t.Helper()
	c, err := graph.LoadConfig(dir)
	require.NoError(t, err)
	ck, err := ckpt.Open(dir, graph.Params(c), ckpt.Options{})
	require.NoError(t, err)
	defer ck.Close()
	weights := map[string][]float32{}
	for _, p := range graph.Params(c) {
		w := make([]float32, p.Elements())
		require.NoError(t, ck.Read(axis.Whole(p, dtypes.Float32), unsafe.Slice((*byte)(unsafe.Pointer(&w[0])), 4*len(w))))
		weights[p.Path] = w
	}
	m := ref.New(ref.Sizes{Vocab: c.Vocab, Width: c.Width, Hidden: c.Hidden, Layers: c.Layers, Heads: c.Heads, KVHeads: c.KVHeads,
		HeadDim: c.HeadDim, Experts: c.Experts}, func(path string) []float32 { return weights[path] })
	m.TopK, m.Window, m.Theta, m.Eps = c.TopK, c.Window, c.RopeTheta, c.NormEps
	return m
}

func flat(x []ref.Matrix) []float32 {
	var y []float32
	for _, m := range x {
		for _, row := range m {
			for _, v := range row {
				y = append(y, float32(v))
			}
		}
	}
	return y
}

// TestAgainstRecordings holds the specification to another implementation. It runs in float64, the
// recording ran in float32: logits differ by what the latter rounds.
func TestAgainstRecordings(t *testing.T) {
	for _, name := range oracle.Cases {
		t.Run(name, func(t *testing.T) {
			c := oracle.Open(t, name)
			m := load(t, c.Checkpoints[0])
			ids, dims := c.Ints(t, "input_ids")
			flatLabels, _ := c.Ints(t, "labels")
			batch, seq := dims[0], dims[1]
			var logits []ref.Matrix
			var labels [][]int32
			layers := len(m.Layers)
			router, chosen := make([]ref.Matrix, layers), make([][][]int, layers)
			hidden := make([][]ref.Matrix, layers)
			for b := range batch {
				y, traces := m.Forward(ids[b*seq:(b+1)*seq], 0, nil)
				logits, labels = append(logits, y), append(labels, flatLabels[b*seq:(b+1)*seq])
				for l, tr := range traces {
					router[l], chosen[l] = append(router[l], tr.Logits...), append(chosen[l], tr.Chosen...)
					hidden[l] = append(hidden[l], tr.Hidden)
				}
			}
			require.LessOrEqual(t, oracle.MaxDiff(flat(logits), c.Floats(t, "logits")), 2e-4)
			for l := range layers {
				require.LessOrEqual(t, oracle.MaxDiff(flat(hidden[l]), c.Floats(t, fmt.Sprintf("hidden.layer%d", l))), 2e-4)
				want, _ := c.Ints(t, fmt.Sprintf("router.experts.layer%d", l))
				var got []int32
				for _, row := range chosen[l] {
					for _, e := range row {
						got = append(got, int32(e))
					}
				}
				require.Equal(t, want, got, "choices of layer %d", l)
			}
			ce, _ := ref.CrossEntropy(logits, labels)
			require.InEpsilon(t, c.Meta.Loss.CE, ce, 1e-5)
			require.InEpsilon(t, c.Meta.Loss.Aux, ref.LoadBalance(router, chosen, nil), 1e-5)
		})
	}
}

func TestSoftmax(t *testing.T) {
	inf := math.Inf(-1)
	require.Equal(t, ref.Vector{0, 0.5, 0.5}, ref.Softmax(ref.Vector{inf, 700, 700}))
	require.Equal(t, ref.Vector{1}, ref.Softmax(ref.Vector{-1e30}))
}

func TestSees(t *testing.T) {
	at := ref.Places{Query: []int{0, 1, 2, 3}, Key: []int{0, 1, 2, 3}, Window: 2,
		QuerySegments: []int{0, 0, 0, 1}, KeySegments: []int{0, 0, 0, 1}}
	want := [][]bool{{true, false, false, false}, {true, true, false, false}, {false, true, true, false}, {false, false, false, true}}
	for s := range want {
		for c := range want[s] {
			require.Equal(t, want[s][c], at.Sees(s, c), "query %d, key %d", s, c)
		}
	}
}

func TestKept(t *testing.T) {
	x := ref.Vector{math.Log(0.1), math.Log(0.4), math.Log(0.1), math.Log(0.3), math.Log(0.1)}
	tests := []struct {
		name              string
		temperature       float64
		topK              int
		topP, minP        float64
		want              []int
		wantProbabilities ref.Vector
	}{
		{"everything", 1, 0, 1, 0, []int{1, 3, 0, 2, 4}, ref.Vector{0.4, 0.3, 0.1, 0.1, 0.1}},
		{"temperature zero takes the best", 0, 3, 1, 0, []int{1}, ref.Vector{1}},
		{"a tie at the border goes to the lower id", 1, 3, 1, 0, []int{1, 3, 0}, ref.Vector{0.5, 0.375, 0.125}},
		{"top-p takes the token that crosses it", 1, 0, 0.5, 0, []int{1, 3}, ref.Vector{4. / 7, 3. / 7}},
		{"top-p counts after top-k", 1, 2, 0.5, 0, []int{1}, ref.Vector{1}},
		{"a tiny top-p keeps the best", 1, 0, 1e-9, 0, []int{1}, ref.Vector{1}},
		{"min-p", 1, 0, 1, 0.5, []int{1, 3}, ref.Vector{4. / 7, 3. / 7}},
		{"min-p at a lower temperature", 0.5, 0, 1, 0.6, []int{1}, ref.Vector{1}},
		{"top-k above the vocabulary", 1, 9, 1, 0.9, []int{1}, ref.Vector{1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ids, p := ref.Kept(x, tt.temperature, tt.topK, tt.topP, tt.minP)
			require.Equal(t, tt.want, ids)
			require.InDeltaSlice(t, tt.wantProbabilities, p, 1e-12)
		})
	}
}

// The vectors are those that the authors of Threefry publish with Random123.
func TestThreefry(t *testing.T) {
	ones := ^uint32(0)
	require.Equal(t, [2]uint32{0x6b200159, 0x99ba4efe}, ref.Threefry([2]uint32{}, [2]uint32{}))
	require.Equal(t, [2]uint32{0x1cb996fc, 0xbb002be7}, ref.Threefry([2]uint32{ones, ones}, [2]uint32{ones, ones}))
	require.Equal(t, [2]uint32{0xc4923a9c, 0x483df7a0}, ref.Threefry([2]uint32{0x13198a2e, 0x03707344}, [2]uint32{0x243f6a88, 0x85a308d3}))
}
