package train

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/internal/oracle"
	"mix/lower"
	"mix/sharding/axis"
	"mix/sharding/ckpt"
)

// recorded is the part of golden.json about five steps of AdamW.
type recorded struct {
	AdamW struct {
		Hyper struct {
			LR, Eps     float64
			Betas       [2]float64
			WeightDecay float64 `json:"weight_decay"`
		}
		Log []struct {
			Loss float64
			Norm float64 `json:"grad_norm"`
		}
		After map[string]oracle.Stat `json:"params_after"`
		Moved map[string]float64     `json:"delta_l2"`
	}
}

func TestFiveStepsAgainstReference(t *testing.T) {
	be, err := lower.New(context.Background(), lower.Options{Platform: "cpu", NoCache: true})
	require.NoError(t, err)
	defer be.Finalize()
	for _, name := range oracle.Names() {
		t.Run(name, func(t *testing.T) {
			c := oracle.Open(t, name)
			var want recorded
			b, err := os.ReadFile(filepath.Join(filepath.Dir(c.Checkpoints[0]), "golden.json"))
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal(b, &want))
			h := want.AdamW.Hyper
			run := newRun(t, be, c.Checkpoints[0], AdamW{Beta1: h.Betas[0], Beta2: h.Betas[1], Eps: h.Eps, WeightDecay: h.WeightDecay})
			ids, dims := c.Ints(t, "train.input_ids")
			n := dims[1] * dims[2]
			for i, log := range want.AdamW.Log {
				m := run.step(t, ids[i*n:(i+1)*n], dims[1:], h.LR)
				require.InEpsilon(t, log.Loss, m[0], 1e-5, "loss of step %d", i)
				require.InEpsilon(t, log.Norm, m[1], 1e-4, "gradient norm of step %d", i)
				require.EqualValues(t, 1, m[2])
			}
			c.CheckMoved(t, run.pieces, run.weights(t), want.AdamW.After, want.AdamW.Moved, 1e-3)
		})
	}
}

// TestStepWithoutFiniteGradient spoils one weight: the step says so and updates nothing.
func TestStepWithoutFiniteGradient(t *testing.T) {
	be, err := lower.New(context.Background(), lower.Options{Platform: "cpu", NoCache: true})
	require.NoError(t, err)
	defer be.Finalize()
	c := oracle.Open(t, "d_layouts")
	r := newRun(t, be, c.Checkpoints[0], AdamW{Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, WeightDecay: 0.1})
	values := r.weights(t)[0]
	values[0] = float32(math.NaN())
	spoiled, err := be.Upload(shapes.Make(dtypes.Float32, r.pieces[0].Shape...), values)
	require.NoError(t, err)
	r.state[0] = spoiled
	before := r.weights(t)
	m := r.step(t, []int32{0, 1, 2, 3}, []int{1, 4}, 1e-3)
	require.Zero(t, m[2])
	for i, w := range r.weights(t) {
		if i > 0 {
			require.Equal(t, before[i], w, r.pieces[i].Name)
		}
	}
}

// run is a training run of one checkpoint on a device.
type run struct {
	cfg    graph.Config
	be     *lower.Backend
	p      *lower.Program
	pieces []axis.Piece
	state  []*lower.Buffer // weights, first moments, second moments
	a      AdamW
	t      int // updates done
}

func newRun(t *testing.T, be *lower.Backend, dir string, a AdamW) *run {
	cfg, err := graph.LoadConfig(dir)
	require.NoError(t, err)
	ck, err := ckpt.Open(dir, graph.Params(cfg), ckpt.Options{})
	require.NoError(t, err)
	defer ck.Close()
	r := &run{cfg: cfg, be: be, a: a, pieces: graph.Pieces(cfg, graph.Stacked, dtypes.Float32)}
	for i := range 3 {
		for _, q := range r.pieces {
			values := make([]float32, q.Elements())
			if i == 0 {
				require.NoError(t, ck.Read(q, unsafe.Slice((*byte)(unsafe.Pointer(&values[0])), q.Bytes())))
			}
			b, err := be.Upload(shapes.Make(dtypes.Float32, q.Shape...), values)
			require.NoError(t, err)
			r.state = append(r.state, b)
		}
	}
	return r
}

// compile makes the step for a batch of that shape. Results: loss, norm, good, then the state in place.
func (r *run) compile(t testing.TB, dims []int) {
	n := len(r.pieces)
	donate := map[string]int{}
	for i := range 3 * n {
		donate[fmt.Sprintf("state%d", i)] = 3 + i
	}
	g := gx.NewGraph(r.be.With(lower.ProgramOptions{Donate: donate}), "train_step")
	var state []*gx.Node
	for i := range 3 * n {
		state = append(state, gx.Parameter(g, fmt.Sprintf("state%d", i), shapes.Make(dtypes.Float32, r.pieces[i%n].Shape...)))
	}
	tokens := gx.Parameter(g, "tokens", shapes.Make(dtypes.Int32, dims...))
	var rates [3]*gx.Node
	for i, name := range []string{"lr", "bias1", "bias2"} {
		rates[i] = gx.Parameter(g, name, shapes.Make(dtypes.Float32))
	}
	all := make([]bool, n)
	for i := range all {
		all[i] = true
	}
	next, m := Step(r.cfg, graph.Stacked, r.a, State{state[:n], state[n : 2*n], state[2*n:]}, tokens, tokens, Rates{rates[0], rates[1], rates[2]}, all)
	outs := append([]*gx.Node{m.Loss, m.Norm, m.Good}, next.Weights...)
	require.NoError(t, g.Compile(append(append(outs, next.First...), next.Second...)...))
	var err error
	r.p, err = lower.ProgramOf(g.Executable())
	require.NoError(t, err)
}

// step runs one update and returns loss, gradient norm and whether it was made.
func (r *run) step(t testing.TB, ids []int32, dims []int, lr float64) [3]float32 {
	if r.p == nil {
		r.compile(t, dims)
	}
	r.t++
	args := append([]*lower.Buffer{}, r.state...)
	tokens, err := r.be.Upload(shapes.Make(dtypes.Int32, dims...), ids)
	require.NoError(t, err)
	args = append(args, tokens)
	for _, x := range []float64{lr, 1 - math.Pow(r.a.Beta1, float64(r.t)), 1 - math.Pow(r.a.Beta2, float64(r.t))} {
		b, err := r.be.Upload(shapes.Make(dtypes.Float32), []float32{float32(x)})
		require.NoError(t, err)
		args = append(args, b)
	}
	outs, err := r.p.Run(args...)
	require.NoError(t, err)
	copy(r.state, outs[3:])
	var m [3]float32
	for i := range m {
		var x [1]float32
		require.NoError(t, outs[i].ToFlatData(x[:]))
		m[i] = x[0]
	}
	return m
}

// weights copies the weights to the host.
func (r *run) weights(t *testing.T) (all [][]float32) {
	for i, q := range r.pieces {
		values := make([]float32, q.Elements())
		require.NoError(t, r.state[i].ToFlatData(values))
		all = append(all, values)
	}
	return all
}
