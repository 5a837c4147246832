package lora

import (
	"fmt"
	"runtime"
	"slices"
	"sync"

	"mix/graph"
	"mix/sharding/axis"
	"mix/sharding/ckpt"
)

// merged reads a model with its adapters in it.
type merged struct {
	base, adapters Reader
	scale          float32
	pairs          map[string]pair // by path of the base
}

// Merge is the model of base with adapters added in: the weights of the base's paths, W + scale·B·A where o
// adapts them. It is computed in float32 when a piece is read, and rounded once to the piece's dtype; an
// element has the same value in every piece. Beside the piece, a read holds a few MiB and one A.
//
// The result reads float32, bfloat16 and float16, and may be read by several goroutines if base and
// adapters may. A NaN or an Inf in an adapter is an error that names it.
func Merge(c graph.Config, o Options, base, adapters Reader) (Reader, error) {
	ps, err := pairs(c, o)
	if err != nil {
		return nil, err
	}
	m := &merged{base: base, adapters: adapters, scale: float32(o.Scale()), pairs: map[string]pair{}}
	for _, p := range ps {
		m.pairs[p.path] = p
	}
	return m, nil
}

// Read fills dst with a piece of the merged model.
func (m *merged) Read(q axis.Piece, dst []byte) error {
	p, ok := m.pairs[q.Path]
	if !ok {
		return m.base.Read(q, dst)
	}
	if err := check(q, p.base, dst); err != nil {
		return err
	}
	rows := p.rows()
	offset, size := q.Offset[rows:], q.Size[rows:] // the input's box
	width, element := axis.Count(size), int(q.DType.Size())
	var a []float32 // [r, width] of the matrix at
	var at []int
	return eachRun(q.Offset[:rows], q.Size[:rows], width, func(r run) error {
		if lead := r.at[:p.lead]; a == nil || !slices.Equal(lead, at) {
			var err error
			if a, err = m.adapter(m.matrixA(p, lead, offset, size)); err != nil {
				return err
			}
			at = lead
		}
		rank := len(a) / width
		b, err := m.adapter(r.of(p.b.Path, p.b, []int{0}, []int{rank})) // [n, r]
		if err != nil {
			return err
		}
		w, err := floats(m.base, r.of(q.Name, p.base, offset, size)) // [n, width]
		if err != nil {
			return err
		}
		out := dst[r.first*width*element:]
		share(r.n, func(i int) {
			row := w[i*width : (i+1)*width]
			addScaled(row, m.scale, b[i*rank:(i+1)*rank], a)
			ckpt.PutFloat32(out[i*width*element:(i+1)*width*element], q.DType, row)
		})
		return nil
	})
}

// matrixA is the piece of A for one matrix and a part of its input.
func (m *merged) matrixA(p pair, lead, offset, size []int) axis.Piece {
	one := slices.Repeat([]int{1}, p.lead)
	return box(p.a.Path, p.a.Path, slices.Concat(lead, []int{0}, offset), slices.Concat(one, p.a.Dims[p.lead:p.lead+1], size))
}

func (m *merged) adapter(q axis.Piece) ([]float32, error) {
	v, err := floats(m.adapters, q)
	if err != nil {
		return nil, err
	}
	if i := strange(v); i >= 0 {
		return nil, fmt.Errorf("lora: merge: %s has %g at %v of box %v from %v", q.Path, v[i], axis.Unravel(i, q.Size), q.Size, q.Offset)
	}
	return v, nil
}

// addScaled adds scale·b·a to w: b [r], a [r, len(w)]. A block of w stays in the cache, and four rows of a
// at a time spare passes over it.
func addScaled(w []float32, scale float32, b, a []float32) {
	var block [512]float32
	width := len(w)
	for from := 0; from < width; from += len(block) {
		part := w[from:min(from+len(block), width)]
		n := len(part)
		delta := block[:n]
		clear(delta)
		row := func(k int) []float32 { return a[k*width+from:][:n] }
		k := 0
		for ; k+4 <= len(b); k += 4 {
			b0, b1, b2, b3 := b[k], b[k+1], b[k+2], b[k+3]
			a0, a1, a2, a3 := row(k), row(k+1), row(k+2), row(k+3)
			for j := range delta {
				delta[j] += b0*a0[j] + b1*a1[j] + b2*a2[j] + b3*a3[j]
			}
		}
		for ; k < len(b); k++ {
			for j, v := range row(k) {
				delta[j] += b[k] * v
			}
		}
		for j := range part {
			part[j] += scale * delta[j]
		}
	}
}

// share calls f for 0 to n-1, on as many goroutines as there are processors.
func share(n int, f func(i int)) {
	workers := min(n, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for k := range workers {
		wg.Go(func() {
			for i := k * n / workers; i < (k+1)*n/workers; i++ {
				f(i)
			}
		})
	}
	wg.Wait()
}
