package lora

import (
	"fmt"
	"math"
	"strings"

	"github.com/gomlx/compute/dtypes"

	"mix/graph"
	"mix/sharding/axis"
	"mix/sharding/ckpt"
)

// Quantized lists the weights that a quantized base has as int8, all of attention and of the experts, and
// their scales, float32, in the same order: the weight's axes without the input's. For
// "layers/attn/out" [L, D, H, A] that is "layers/attn/out/scale" [L, D].
//
// The router stays in float32, since near-ties between experts decide what is computed; embeddings, norms
// and head stay as they are.
func Quantized(c graph.Config) (weights, scales []axis.Param, err error) {
	ps, err := quantizable(c)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range ps {
		weights, scales = append(weights, p.base), append(scales, p.scales())
	}
	return weights, scales, nil
}

func quantizable(c graph.Config) (list []pair, err error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("lora: %w", err)
	}
	for _, t := range targets {
		if t.name == "gate" {
			continue
		}
		p, err := t.of(c)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

func (p pair) scales() axis.Param {
	return axis.Param{Path: graph.ScalePath(p.path), Axes: p.base.Axes[:p.rows()], Dims: p.base.Dims[:p.rows()]}
}

// quantized reads a model with int8 matrices.
type quantized struct {
	base  Reader
	pairs map[string]pair // by path of the base
}

// Quantize is the model of base with the weights of Quantized in int8, each row of a matrix symmetric around
// 0 with a scale of its own: at path pieces of Int8 in [-127, 127], at graph.ScalePath(path) pieces of Float32,
// so that W ≈ int8·scale to half a scale. All other paths are base's.
//
// A row is read whole for its largest magnitude, a few MiB of rows at a time, twice in all: once for the
// values and once for the scales. The result may be read by several goroutines if base may. A NaN or an Inf
// is an error that names the weight.
//
// Source: Dettmers et al. 2022, "LLM.int8()", arXiv:2208.07339, section 2: absmax quantization by row.
func Quantize(c graph.Config, base Reader) (Reader, error) {
	ps, err := quantizable(c)
	if err != nil {
		return nil, err
	}
	z := &quantized{base: base, pairs: map[string]pair{}}
	for _, p := range ps {
		z.pairs[p.path] = p
	}
	return z, nil
}

// Read fills dst with a piece of int8 values, of scales, or of a weight that is not quantized.
func (z *quantized) Read(q axis.Piece, dst []byte) error {
	path, wantsScale := strings.CutSuffix(q.Path, graph.ScalePath(""))
	p, ok := z.pairs[path]
	if !ok {
		return z.base.Read(q, dst)
	}
	whole, dtype := p.base, dtypes.Int8
	if wantsScale {
		whole, dtype = p.scales(), dtypes.Float32
	}
	if err := q.Check(whole); err != nil {
		return err
	}
	if q.DType != dtype {
		return fmt.Errorf("piece %s: dtype %s, want %s", q.Name, q.DType, dtype)
	}
	if err := checkBuffer(q, dst); err != nil {
		return err
	}
	rows, width := p.rows(), p.inputs()
	input := p.base.Dims[rows:]
	return eachRun(q.Offset[:rows], q.Size[:rows], width, func(r run) error {
		w, err := floats(z.base, r.of(q.Name, p.base, make([]int, p.in), input)) // [n, width]
		if err != nil {
			return err
		}
		steps := make([]float32, r.n)
		share(r.n, func(i int) { steps[i] = scaleOf(w[i*width : (i+1)*width]) })
		if strange(steps) >= 0 {
			i := strange(w)
			return fmt.Errorf("lora: quantize: %s has %g in row %d from %v", p.path, w[i], i/width, r.at)
		}
		if wantsScale {
			ckpt.PutFloat32(dst[4*r.first:], dtypes.Float32, steps)
			return nil
		}
		offset, size := q.Offset[rows:], q.Size[rows:]
		n := axis.Count(size)
		share(r.n, func(i int) {
			row := w[i*width : (i+1)*width]
			toInt8(dst[(r.first+i)*n:(r.first+i+1)*n], cut(row, input, offset, size), steps[i])
		})
		return nil
	})
}

// scaleOf is the largest magnitude of a row over 127, NaN or Inf if the row has one. It is at least the
// smallest normal number: below it the quotient would lose the bits that make the bound hold, and machines
// may take it for 0.
func scaleOf(row []float32) float32 {
	var most uint32 // magnitudes are ordered as their bits are
	for _, v := range row {
		most = max(most, math.Float32bits(v)&^(1<<31))
	}
	return max(math.Float32frombits(most)/127, 0x1p-126)
}

// toInt8 fills dst with a part of a row in steps of its scale, to nearest with ties to even.
func toInt8(dst []byte, part []float32, scale float32) {
	const whole = 3 << 51 // at this size a float64 has no fraction, and its lowest bits are the integer's
	steps := 1 / float64(scale)
	dst = dst[:len(part)]
	for i, v := range part {
		dst[i] = byte(math.Float64bits(float64(v)*steps + whole)) // within ±127, since no v is above 127.00001 scales
	}
}
