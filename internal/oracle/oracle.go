// Package oracle reads the golden recordings of another implementation of Mixtral, for tests: checkpoints
// with random weights and what Hugging Face transformers computed from them. internal/golden/testdata has
// the files and says how they were made.
package oracle

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/sharding/axis"
	"mix/sharding/ckpt"
)

// Cases names the recordings.
var Cases = []string{"a_tiny_f32", "b_bf16_sharded", "c_odd", "d_layouts"}

// Names are the recordings that a test of compiled programs runs: all, or with -short the odd one, whose
// sizes are all different.
func Names() []string {
	if testing.Short() {
		return []string{"c_odd"}
	}
	return Cases
}

// Case is one recording.
type Case struct {
	Name        string
	Checkpoints []string // folders that hold the same weights in different layouts
	Meta        Meta
	arrays      *ckpt.File
}

// Meta is the part of golden.json that tests read.
type Meta struct {
	Checkpoints []string
	Loss        Loss
	Pad         map[string]Loss
	Gen         struct{ Tokens, Prompts [][]int32 }
	Grad        struct {
		PerParam map[string]Stat `json:"per_param"`
	}
}

// Loss is a recorded loss: Total = CE + Coef·Aux.
type Loss struct{ Total, Aux, Coef, CE float64 }

// Stat summarizes a recorded array.
type Stat struct {
	Shape       []int
	L2, Absmax  float64
	SampleIndex []int `json:"sample_index"`
	Sample      []float64
}

// Open reads a recording; the test fails where it is missing.
func Open(t testing.TB, name string) *Case {
	t.Helper()
	dir := filepath.Join(root(t), "internal", "golden", "testdata", name)
	b, err := os.ReadFile(filepath.Join(dir, "golden.json"))
	require.NoError(t, err)
	c := &Case{Name: name}
	require.NoError(t, json.Unmarshal(b, &c.Meta))
	for _, ck := range c.Meta.Checkpoints {
		c.Checkpoints = append(c.Checkpoints, filepath.Join(dir, ck))
	}
	c.arrays, err = ckpt.OpenFile(filepath.Join(dir, "golden.safetensors"))
	require.NoError(t, err)
	t.Cleanup(func() { c.arrays.Close() })
	return c
}

// Has says whether the recording holds an array.
func (c *Case) Has(name string) bool { _, err := c.arrays.Info(name); return err == nil }

// Floats is a recorded array, row-major.
func (c *Case) Floats(t testing.TB, name string) []float32 {
	t.Helper()
	v, err := c.arrays.Float32s(name)
	require.NoError(t, err)
	return v
}

// Ints is a recorded array of integers, row-major, and its shape.
func (c *Case) Ints(t testing.TB, name string) ([]int32, []int) {
	t.Helper()
	v, err := c.arrays.Ints(name)
	require.NoError(t, err)
	info, err := c.arrays.Info(name)
	require.NoError(t, err)
	out := make([]int32, len(v))
	for i, x := range v {
		out[i] = int32(x)
	}
	return out, info.Shape
}

// root is the module's folder.
func root(t testing.TB) string {
	dir, err := os.Getwd()
	require.NoError(t, err)
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		require.NotEqual(t, dir, up, "no go.mod above the test")
		dir = up
	}
}

// MaxDiff is the largest absolute difference; NaN where either side has one.
func MaxDiff(got, want []float32) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	var d float64
	for i := range got {
		x := math.Abs(float64(got[i]) - float64(want[i]))
		if math.IsNaN(x) {
			return x
		}
		d = max(d, x)
	}
	return d
}

// RelL2 is |got-want|₂ / |want|₂.
func RelL2(got, want []float32) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	var d, n float64
	for i := range got {
		x := float64(got[i]) - float64(want[i])
		d += x * x
		n += float64(want[i]) * float64(want[i])
	}
	return math.Sqrt(d / n)
}

// CheckStat compares an array with a recorded summary: its norm and its samples, relative to the norm
// and to the largest element.
func CheckStat(got []float32, want Stat, tolerance float64) error {
	if l2 := norm(got); math.Abs(l2-want.L2) > tolerance*want.L2 {
		return fmt.Errorf("norm %.9g, want %.9g", l2, want.L2)
	}
	for k, i := range want.SampleIndex {
		if d := math.Abs(float64(got[i]) - want.Sample[k]); d > tolerance*want.Absmax {
			return fmt.Errorf("element %d is %.9g, want %.9g", i, got[i], want.Sample[k])
		}
	}
	return nil
}

// hub translates paths of the catalogue to the published tensor names that recordings use.
var hub = map[string]string{
	"embed":             "model.embed_tokens.weight",
	"layers/attn_norm":  "model.layers.%d.input_layernorm.weight",
	"layers/attn/query": "model.layers.%d.self_attn.q_proj.weight",
	"layers/attn/key":   "model.layers.%d.self_attn.k_proj.weight",
	"layers/attn/value": "model.layers.%d.self_attn.v_proj.weight",
	"layers/attn/out":   "model.layers.%d.self_attn.o_proj.weight",
	"layers/moe_norm":   "model.layers.%d.post_attention_layernorm.weight",
	"layers/moe/router": "model.layers.%d.block_sparse_moe.gate.weight",
	"layers/moe/gate":   "model.layers.%d.block_sparse_moe.experts.%d.w1.weight",
	"layers/moe/up":     "model.layers.%d.block_sparse_moe.experts.%d.w3.weight",
	"layers/moe/down":   "model.layers.%d.block_sparse_moe.experts.%d.w2.weight",
	"final_norm":        "model.norm.weight",
	"head":              "lm_head.weight",
}

// CheckGradients compares the gradient of each piece with the recording, at a tolerance of relative L2:
// whole arrays where they were recorded, statistics elsewhere. Every recorded gradient is looked at.
func (c *Case) CheckGradients(t testing.TB, pieces []axis.Piece, grads [][]float32, tolerance float64) {
	t.Helper()
	seen := 0
	eachTensor(pieces, grads, func(name string, got []float32) {
		stat, ok := c.Meta.Grad.PerParam[name]
		require.True(t, ok, "no recorded gradient of %s", name)
		seen++
		require.NoError(t, CheckStat(got, stat, tolerance), "gradient of %s", name)
		if c.Has("grad." + name) {
			require.LessOrEqual(t, RelL2(got, c.Floats(t, "grad."+name)), tolerance, "gradient of %s", name)
		}
	})
	require.Equal(t, len(c.Meta.Grad.PerParam), seen, "recorded gradients")
}

// CheckMoved compares the weights after the recorded optimizer steps: the difference in L2 is at most
// tolerance times how far the weight moved, for whole arrays where they were recorded. Elsewhere the norm
// is held to that bound.
func (c *Case) CheckMoved(t testing.TB, pieces []axis.Piece, weights [][]float32, after map[string]Stat, moved map[string]float64, tolerance float64) {
	t.Helper()
	seen := 0
	eachTensor(pieces, weights, func(name string, got []float32) {
		stat, ok := after[name]
		require.True(t, ok, "no recorded weight %s", name)
		seen++
		require.InDelta(t, stat.L2, norm(got), tolerance*moved[name], "norm of %s", name)
		if c.Has("after5." + name) {
			want := c.Floats(t, "after5."+name)
			require.LessOrEqual(t, RelL2(got, want)*norm(want)/moved[name], tolerance, "weight %s", name)
		}
	})
	require.Equal(t, len(after), seen, "recorded weights")
}

// norm is the L2 norm.
func norm(x []float32) float64 {
	var n float64
	for _, v := range x {
		n += float64(v) * float64(v)
	}
	return math.Sqrt(n)
}

// eachTensor hands out the tensors of the hub that pieces hold, by their published names.
func eachTensor(pieces []axis.Piece, values [][]float32, f func(name string, values []float32)) {
	for i, q := range pieces {
		lead := strings.Count(hub[q.Path], "%d")
		n := 1
		for k := range lead {
			n *= q.Size[k]
		}
		for part := range n { // a stacked piece holds several
			index, rest := make([]any, lead), part
			for k := lead - 1; k >= 0; k-- {
				index[k], rest = q.Offset[k]+rest%q.Size[k], rest/q.Size[k]
			}
			size := len(values[i]) / n
			f(fmt.Sprintf(hub[q.Path], index...), values[i][part*size:(part+1)*size])
		}
	}
}
