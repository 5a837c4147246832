package serve

import (
	"context"
	"fmt"
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"

	"mix/lower"
)

// Array is a tensor on the host, row-major.
type Array struct {
	Dims   []int
	Floats []float32 // or
	Ints   []int32
}

// Score is what the model says of one sequence of S tokens.
type Score struct {
	Logits Array   // [S, V]
	Loss   float64 // summed over the S-1 next tokens, in nats
	Tokens int     // S-1

	// Only of ScoreTrace: T = S, since there is one sequence.
	Trace *Trace
}

// Trace is what happened inside.
type Trace struct {
	Embedded, FinalNorm     Array   // [S, D]
	Layers, AttnOut, MoEOut []Array // a layer each [S, D]: residual stream, outputs before the residual
	RouterLogits            []Array // [S, E]
	RouterWeights           []Array // [S, K]
	RouterChosen            []Array // [S, K] int32
}

// Score computes the logits of every position and the loss of every next token.
func (e *Engine) Score(ctx context.Context, ids []int32) (Score, error) {
	return e.scored(ctx, ids, false)
}

// ScoreTrace is Score that also returns what every layer computed.
func (e *Engine) ScoreTrace(ctx context.Context, ids []int32) (Score, error) {
	return e.scored(ctx, ids, true)
}

// bucket is the length to which a sequence is padded: a power of two, so that few programs serve all.
// Padding comes last, where nothing before it sees it.
func (e *Engine) bucket(n int) int {
	b := 16
	for b < n {
		b *= 2
	}
	return b
}

// PrepareScore compiles what a sequence of n tokens needs, so that scoring it is not held up.
func (e *Engine) PrepareScore(n int, trace bool) error {
	_, err := e.score(e.bucket(n), trace)
	return err
}

func (e *Engine) scored(ctx context.Context, ids []int32, trace bool) (Score, error) {
	if err := ctx.Err(); err != nil {
		return Score{}, err
	}
	n := len(ids)
	if err := CheckTokens(e.cfg, ids); err != nil {
		return Score{}, err
	}
	p, err := e.score(e.bucket(n), trace)
	if err != nil {
		return Score{}, err
	}
	padded := make([]int32, e.bucket(n))
	copy(padded, ids)
	tokens, err := upload1(e.be, dtypes.Int32, padded, 1, len(padded))
	if err != nil {
		return Score{}, err
	}
	defer tokens.Finalize()
	outs, err := p.Run(tokens)
	if err != nil {
		return Score{}, err
	}
	defer free(outs...)
	arrays := make([]Array, len(outs))
	for i, b := range outs {
		if arrays[i], err = read(b); err != nil {
			return Score{}, err
		}
	}
	s := Score{Logits: arrays[0].squeeze().rows(n), Tokens: n - 1}
	s.Loss = loss(s.Logits, ids)
	if trace {
		s.Trace = newTrace(arrays[1:], n)
	}
	return s, nil
}

func newTrace(a []Array, n int) *Trace {
	tr := &Trace{Embedded: a[0].squeeze().rows(n), FinalNorm: a[1].squeeze().rows(n)}
	for i, to := range []*[]Array{&tr.Layers, &tr.AttnOut, &tr.MoEOut, &tr.RouterLogits, &tr.RouterWeights, &tr.RouterChosen} {
		for _, layer := range a[2+i].split() {
			if len(layer.Dims) == 3 { // [1, S, D]
				layer = layer.squeeze()
			}
			*to = append(*to, layer.rows(n))
		}
	}
	return tr
}

// loss sums -log softmax(logits[s])[ids[s+1]] in float64.
func loss(logits Array, ids []int32) float64 {
	v := logits.Dims[1]
	var sum float64
	for s := range len(ids) - 1 {
		row := logits.Floats[s*v : (s+1)*v]
		top := math.Inf(-1)
		for _, x := range row {
			top = math.Max(top, float64(x))
		}
		var z float64
		for _, x := range row {
			z += math.Exp(float64(x) - top)
		}
		sum += top + math.Log(z) - float64(row[ids[s+1]])
	}
	return sum
}

// read copies a tensor to the host.
func read(b *lower.Buffer) (Array, error) {
	shape, err := b.Shape()
	if err != nil {
		return Array{}, err
	}
	a := Array{Dims: shape.Dimensions}
	switch shape.DType {
	case dtypes.Float32:
		a.Floats = make([]float32, shape.Size())
		return a, b.ToFlatData(a.Floats)
	case dtypes.Int32:
		a.Ints = make([]int32, shape.Size())
		return a, b.ToFlatData(a.Ints)
	}
	return Array{}, fmt.Errorf("read of %s, want float32 or int32", shapes.Make(shape.DType, shape.Dimensions...))
}

// squeeze drops the first axis, of size 1.
func (a Array) squeeze() Array { return Array{a.Dims[1:], a.Floats, a.Ints} }

// rows keeps the first n of the first axis.
func (a Array) rows(n int) Array {
	size := 1
	for _, d := range a.Dims[1:] {
		size *= d
	}
	out := Array{Dims: append([]int{n}, a.Dims[1:]...)}
	if a.Floats != nil {
		out.Floats = a.Floats[:n*size]
	} else {
		out.Ints = a.Ints[:n*size]
	}
	return out
}

// split cuts the first axis apart.
func (a Array) split() []Array {
	out := make([]Array, a.Dims[0])
	for i := range out {
		n := (len(a.Floats) + len(a.Ints)) / a.Dims[0]
		out[i] = Array{Dims: a.Dims[1:]}
		if a.Floats != nil {
			out[i].Floats = a.Floats[i*n : (i+1)*n]
		} else {
			out[i].Ints = a.Ints[i*n : (i+1)*n]
		}
	}
	return out
}
