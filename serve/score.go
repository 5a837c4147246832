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

	Trace *Trace // of ScoreTrace, else nil
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

// scoreChunk is how many tokens are scored at once. Longer sequences go through a cache, so that memory for
// attention grows with their length and not with its square.
const scoreChunk = 512

// bucket is the length to which a short sequence is padded: a power of two, so that few programs serve all.
// Padding comes last, where nothing before it sees it.
func bucket(n int) int {
	b := 16
	for b < n {
		b *= 2
	}
	return b
}

// PrepareScore compiles what a sequence of n tokens needs, so that scoring it is not held up.
func (e *Engine) PrepareScore(n int, trace bool) error {
	size, capacity := e.scoring(n)
	_, err := e.score(size, capacity, trace)
	return err
}

// scoring is how n tokens are scored: so many at once, and behind a cache of that capacity, 0 for none.
func (e *Engine) scoring(n int) (size, capacity int) {
	if n <= scoreChunk {
		return bucket(n), 0
	}
	return scoreChunk, e.capacityFor(n, scoreChunk)
}

func (e *Engine) scored(ctx context.Context, ids []int32, trace bool) (s Score, err error) {
	if err := CheckTokens(e.cfg, ids); err != nil {
		return s, err
	}
	size, capacity := e.scoring(len(ids))
	p, err := e.score(size, capacity, trace)
	if err != nil {
		return s, err
	}
	var cache []*lower.Buffer
	defer func() { free(cache...) }()
	if capacity > 0 {
		if cache, err = e.emptyCache(capacity); err != nil {
			return s, err
		}
	}
	s.Tokens = len(ids) - 1
	for from := 0; from < len(ids); from += size {
		if err := ctx.Err(); err != nil {
			return s, err
		}
		part := ids[from:min(from+size, len(ids))]
		arrays, err := e.scorePart(p, part, from, size, cache)
		if err != nil {
			return s, err
		}
		s.Logits = s.Logits.append(arrays[0])
		if trace {
			s.Trace = s.Trace.append(newTrace(arrays[1:]))
		}
	}
	s.Loss = loss(s.Logits, ids)
	return s, nil
}

// scorePart runs part, padded to size tokens, and reads the results, without the padding. cache, if any, is
// replaced by its successor.
func (e *Engine) scorePart(p *lower.Program, part []int32, from, size int, cache []*lower.Buffer) ([]Array, error) {
	padded := make([]int32, size)
	copy(padded, part)
	tokens, err := upload(e.be, padded, 1, size)
	if err != nil {
		return nil, err
	}
	defer tokens.Finalize()
	args := []*lower.Buffer{tokens}
	if cache != nil {
		start, err := upload(e.be, []int32{int32(from)})
		if err != nil {
			return nil, err
		}
		defer start.Finalize()
		args = append(append(args, start), cache...)
	}
	outs, err := p.Run(args...)
	if err != nil {
		return nil, err
	}
	results := outs[:len(outs)-len(cache)]
	copy(cache, outs[len(results):])
	defer free(results...)
	arrays := make([]Array, len(results))
	for i, b := range results {
		if arrays[i], err = read(b); err != nil {
			return nil, err
		}
		arrays[i] = arrays[i].cut(len(part))
	}
	return arrays, nil
}

// newTrace sorts a chunk's arrays, in the order of Engine.score's results.
func newTrace(a []Array) *Trace {
	tr := &Trace{Embedded: a[0], FinalNorm: a[1]}
	for i, to := range tr.layers() {
		*to = a[2+i].split()
	}
	return tr
}

// layers are the parts of a trace that have an array a layer.
func (tr *Trace) layers() []*[]Array {
	return []*[]Array{&tr.Layers, &tr.AttnOut, &tr.MoEOut, &tr.RouterLogits, &tr.RouterWeights, &tr.RouterChosen}
}

// append adds the rows of the next chunk. tr is nil before the first.
func (tr *Trace) append(next *Trace) *Trace {
	if tr == nil {
		return next
	}
	tr.Embedded, tr.FinalNorm = tr.Embedded.append(next.Embedded), tr.FinalNorm.append(next.FinalNorm)
	for i, to := range tr.layers() {
		for l, more := range *next.layers()[i] {
			(*to)[l] = (*to)[l].append(more)
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

// cut drops the padding: of [S, X] or [L, S, X] it keeps n rows, [n, X] or [L, n, X].
func (a Array) cut(n int) Array {
	r := len(a.Dims)
	size, width := a.Dims[r-2], a.Dims[r-1]
	out := Array{Dims: append(append([]int{}, a.Dims[:r-2]...), n, width)}
	for from := 0; from < len(a.Floats); from += size * width {
		out.Floats = append(out.Floats, a.Floats[from:from+n*width]...)
	}
	for from := 0; from < len(a.Ints); from += size * width {
		out.Ints = append(out.Ints, a.Ints[from:from+n*width]...)
	}
	return out
}

// append adds rows; the zero Array has none.
func (a Array) append(b Array) Array {
	if a.Dims == nil {
		return b
	}
	dims := append([]int{a.Dims[0] + b.Dims[0]}, a.Dims[1:]...)
	return Array{dims, append(a.Floats, b.Floats...), append(a.Ints, b.Ints...)}
}

// split cuts the first axis apart.
func (a Array) split() []Array {
	out := make([]Array, a.Dims[0])
	for i := range out {
		n := (len(a.Floats) + len(a.Ints)) / a.Dims[0]
		out[i] = Array{Dims: a.Dims[1:]}
		if a.Floats != nil {
			out[i].Floats = a.Floats[i*n : (i+1)*n : (i+1)*n]
		} else {
			out[i].Ints = a.Ints[i*n : (i+1)*n : (i+1)*n]
		}
	}
	return out
}
