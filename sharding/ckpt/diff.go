package ckpt

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"

	"mix/sharding/axis"
)

// DiffReport is what two checkpoints do not share, whatever their formats are.
type DiffReport struct {
	A         string       `json:"a"`
	B         string       `json:"b"`
	Weights   []WeightDiff `json:"weights"` // all, in the order of use; then those of B alone
	Different bool         `json:"different"`
}

// WeightDiff compares one weight of the catalogues.
type WeightDiff struct {
	Weight string `json:"weight"`
	A      *Held  `json:"a"` // null where it is missing
	B      *Held  `json:"b"`
	// Compared says whether the values were: they are where both have the weight in the same shape.
	Compared bool    `json:"compared"`
	Elements int     `json:"elements"` // that differ in value; two NaN do not
	Max      float64 `json:"max"`      // largest absolute difference, as float32; the largest float64 where one is infinite or NaN
	First    []int   `json:"first"`    // index of the first element that differs, null without one
}

// Held is how a checkpoint holds a weight.
type Held struct {
	Shape []int  `json:"shape"`
	DType string `json:"dtype"` // "BF16+F32" where its parts have several
}

// same says whether there is nothing to tell.
func (d WeightDiff) same() bool {
	return d.A != nil && d.B != nil && slices.Equal(d.A.Shape, d.B.Shape) && d.A.DType == d.B.DType && d.Elements == 0
}

// Diff compares the weights of two checkpoints: names, shapes, dtypes and values. It holds a window of
// elements a processor.
func Diff(ctx context.Context, a, b *Checkpoint) (r DiffReport, err error) {
	r = DiffReport{A: a.source.where, B: b.source.where}
	for _, p := range a.list {
		d := WeightDiff{Weight: p.Path, A: a.held(p.Path), B: b.held(p.Path)}
		if d.B != nil && slices.Equal(d.A.Shape, d.B.Shape) {
			if err := d.compare(ctx, a, b, p); err != nil {
				return r, err
			}
		}
		r.Weights = append(r.Weights, d)
	}
	for _, p := range b.list {
		if _, ok := a.params[p.Path]; !ok {
			r.Weights = append(r.Weights, WeightDiff{Weight: p.Path, B: b.held(p.Path)})
		}
	}
	r.Different = slices.ContainsFunc(r.Weights, func(d WeightDiff) bool { return !d.same() })
	return r, nil
}

// held describes a weight, nil if there is none.
func (c *Checkpoint) held(path string) *Held {
	p, ok := c.params[path]
	if !ok {
		return nil
	}
	types := map[string]bool{}
	for _, x := range c.matched.extents[path] {
		types[x.info.Format] = true
	}
	return &Held{Shape: p.Dims, DType: strings.Join(sortedKeys(types), "+")}
}

// compare reads the weight from both, a window at a time.
func (d *WeightDiff) compare(ctx context.Context, a, b *Checkpoint, p axis.Param) error {
	d.Compared = true
	list := slices.Collect(windows(axis.Whole(p, dtypes.Float32), chunkElements))
	parts := make([]WeightDiff, len(list))
	workers := runtime.GOMAXPROCS(0)
	held := make([]struct{ x, y []byte }, workers)
	err := inParallel(len(list), workers, func(worker, i int) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, n := &held[worker], list[i].Bytes()
		h.x, h.y = slices.Grow(h.x[:0], n)[:n], slices.Grow(h.y[:0], n)[:n]
		if err := a.Read(list[i], h.x); err != nil {
			return err
		}
		if err := b.Read(list[i], h.y); err != nil {
			return err
		}
		parts[i].values(h.x, h.y, list[i])
		return nil
	})
	if err != nil {
		return err
	}
	for _, part := range parts {
		d.Elements += part.Elements
		d.Max = max(d.Max, part.Max)
		if d.First == nil {
			d.First = part.First
		}
	}
	return nil
}

// values compares the float32s of a window.
func (d *WeightDiff) values(x, y []byte, q axis.Piece) {
	for i := 0; i+4 <= len(x); i += 4 {
		u, v := math.Float32frombits(binary.LittleEndian.Uint32(x[i:])), math.Float32frombits(binary.LittleEndian.Uint32(y[i:]))
		if u == v || u != u && v != v {
			continue
		}
		if d.Elements == 0 {
			d.First = axis.Unravel(i/4, q.Size)
			for k := range d.First {
				d.First[k] += q.Offset[k]
			}
		}
		d.Elements++
		difference := math.Abs(float64(u) - float64(v))
		if !(difference <= math.MaxFloat64) {
			difference = math.MaxFloat64
		}
		d.Max = max(d.Max, difference)
	}
}

// Print writes a line for every weight that differs, and the sum.
func (r DiffReport) Print(w io.Writer) error {
	out := bufio.NewWriter(w)
	n := 0
	for _, d := range r.Weights {
		if d.same() {
			continue
		}
		n++
		switch {
		case d.A == nil:
			fmt.Fprintf(out, "%s: only in %s\n", d.Weight, r.B)
		case d.B == nil:
			fmt.Fprintf(out, "%s: only in %s\n", d.Weight, r.A)
		case !d.Compared:
			fmt.Fprintf(out, "%s: shape %v and %v\n", d.Weight, d.A.Shape, d.B.Shape)
		default:
			if d.A.DType != d.B.DType {
				fmt.Fprintf(out, "%s: dtype %s and %s\n", d.Weight, d.A.DType, d.B.DType)
			}
			if d.Elements > 0 {
				fmt.Fprintf(out, "%s: %d of %d elements differ, by at most %g, the first at %v\n", d.Weight, d.Elements, axis.Count(d.A.Shape), d.Max, d.First)
			}
		}
	}
	fmt.Fprintf(out, "%d of %d weights differ\n", n, len(r.Weights))
	return out.Flush()
}
