package main

import (
	"fmt"
	"math"

	"mix/lower"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
)

// decomposing is a backend whose fused operations are built of the others. Neither backend has them:
// XLA fuses by itself. The benchmarks stop at the first that is missing, so both get these.
type decomposing struct {
	compute.Backend
	wait bool // for the results of each run
}

func (d decomposing) Builder(name string) compute.Builder {
	return &builder{Builder: d.Backend.Builder(name), wait: d.wait}
}

type builder struct {
	compute.Builder
	main *function
	wait bool
}

func (b *builder) Compile() (compute.Executable, error) {
	e, err := b.Builder.Compile()
	if err != nil || !b.wait {
		return e, err
	}
	return waiting{e}, nil
}

// waiting is an executable that returns results when they are there.
type waiting struct{ compute.Executable }

func (w waiting) Execute(in []compute.Buffer, donate []bool, d compute.DeviceNum) ([]compute.Buffer, error) {
	outs, err := w.Executable.Execute(in, donate, d)
	for _, o := range outs {
		if err := o.(*lower.Buffer).Wait(); err != nil {
			return nil, err
		}
	}
	return outs, err
}

func (b *builder) Main() compute.Function {
	if b.main == nil {
		b.main = &function{Function: b.Builder.Main()}
	}
	return b.main
}

type function struct{ compute.Function }

// chain calls operations until one fails.
type chain struct {
	f   *function
	err error
}

func (c *chain) do(v compute.Value, err error) compute.Value {
	if c.err == nil {
		c.err = err
	}
	return v
}

func (c *chain) shape(v compute.Value) shapes.Shape {
	if c.err != nil {
		return shapes.Invalid()
	}
	s, err := c.f.Shape(v)
	c.err = err
	return s
}

// reduce reduces over axes and broadcasts back to x's shape.
func (c *chain) reduce(op func(compute.Value, ...int) (compute.Value, error), x compute.Value, axes ...int) compute.Value {
	s := c.shape(x)
	r := c.do(op(x, axes...))
	if c.err != nil {
		return nil
	}
	var kept []int
	for i := range s.Rank() {
		keep := true
		for _, a := range axes {
			keep = keep && a != i
		}
		if keep {
			kept = append(kept, i)
		}
	}
	return c.do(c.f.BroadcastInDim(r, s, kept))
}

func (c *chain) scalar(v float32) compute.Value { return c.do(c.f.Constant([]float32{v})) }

func (f *function) FusedSoftmax(x compute.Value, axis int) (compute.Value, error) {
	c := &chain{f: f}
	if s := c.shape(x); axis < 0 {
		axis += s.Rank()
	}
	e := c.do(f.Exp(c.do(f.Sub(x, c.reduce(f.ReduceMax, x, axis)))))
	return c.do(f.Div(e, c.reduce(f.ReduceSum, e, axis))), c.err
}

func (f *function) FusedGelu(x compute.Value, exact bool) (compute.Value, error) {
	if !exact {
		return nil, fmt.Errorf("approximate gelu: %w", compute.ErrNotImplemented)
	}
	c := &chain{f: f}
	erf := c.do(f.Erf(c.do(f.Mul(x, c.scalar(1/math.Sqrt2)))))
	return c.do(f.Mul(c.do(f.Mul(x, c.scalar(0.5))), c.do(f.Add(erf, c.scalar(1))))), c.err
}

func (f *function) FusedLayerNorm(x compute.Value, axes []int, epsilon float64, gamma, beta compute.Value) (compute.Value, error) {
	c := &chain{f: f}
	s := c.shape(x)
	n := 1
	for _, a := range axes {
		n *= s.Dimensions[a]
	}
	count := c.scalar(float32(n))
	d := c.do(f.Sub(x, c.do(f.Div(c.reduce(f.ReduceSum, x, axes...), count))))
	variance := c.do(f.Div(c.reduce(f.ReduceSum, c.do(f.Mul(d, d)), axes...), count))
	y := c.do(f.Mul(d, c.do(f.Rsqrt(c.do(f.Add(variance, c.scalar(float32(epsilon))))))))
	for _, p := range []struct {
		v  compute.Value
		op func(a, b compute.Value) (compute.Value, error)
	}{{gamma, f.Mul}, {beta, f.Add}} {
		if p.v != nil {
			y = c.do(p.op(y, c.do(f.BroadcastInDim(p.v, s, axes))))
		}
	}
	return y, c.err
}

func (f *function) FusedDense(x, weight, bias compute.Value, o compute.DenseConfig) (compute.Value, error) {
	c := &chain{f: f}
	k := c.shape(x).Rank() - 1
	side := 0
	if o.WeightLayout == compute.DenseLayoutOutputsInput {
		side = 1
	}
	y := c.do(f.DotGeneral(x, []int{k}, nil, weight, []int{side}, nil, compute.DotGeneralConfig{}))
	return c.finish(y, bias, o.Activation)
}

// finish adds a bias over the last axis and applies an activation.
func (c *chain) finish(y, bias compute.Value, a compute.ActivationType) (compute.Value, error) {
	f := c.f
	if s := c.shape(y); bias != nil && c.err == nil {
		y = c.do(f.Add(y, c.do(f.BroadcastInDim(bias, s, []int{s.Rank() - 1}))))
	}
	if c.err != nil {
		return nil, c.err
	}
	switch a {
	case compute.ActivationNone:
	case compute.ActivationRelu:
		y = c.do(f.Max(y, c.scalar(0)))
	case compute.ActivationSilu:
		y = c.do(f.Mul(y, c.do(f.Logistic(y))))
	case compute.ActivationTanh:
		y = c.do(f.Tanh(y))
	case compute.ActivationGelu:
		return f.FusedGelu(y, true)
	default:
		return nil, fmt.Errorf("activation %s: %w", a, compute.ErrNotImplemented)
	}
	return y, c.err
}

func (f *function) FusedQuantizedDense(x, weights, bias compute.Value, q *compute.Quantization, a compute.ActivationType) (compute.Value, error) {
	c := &chain{f: f}
	ws, ss := c.shape(weights), c.shape(q.Scale)
	if c.err != nil {
		return nil, c.err
	}
	var w compute.Value
	switch q.Scheme {
	case compute.QuantNF4:
		table := c.do(f.Constant(compute.NF4LookupTable[:], 16))
		low := c.do(f.BitwiseAnd(weights, c.do(f.Constant([]uint8{15}))))
		index := c.do(f.Reshape(c.do(f.ConvertDType(low, dtypes.Int32)), append(ws.Dimensions[:2:2], 1)...))
		w = c.do(f.Gather(table, index, 2, nil, []int{0}, []int{0}, []int{1}, false))
	case compute.QuantLinear:
		w = c.do(f.ConvertDType(weights, dtypes.Float32))
	default:
		return nil, fmt.Errorf("quantization %s: %w", q.Scheme, compute.ErrNotImplemented)
	}
	blocks := shapes.Make(dtypes.Float32, ss.Dimensions[0], ss.Dimensions[1], q.BlockSize)
	scale := c.do(f.Reshape(c.do(f.BroadcastInDim(q.Scale, blocks, []int{0, 1})), ss.Dimensions[0], ss.Dimensions[1]*q.BlockSize))
	y := c.do(f.DotGeneral(x, []int{c.shape(x).Rank() - 1}, nil, c.do(f.Mul(w, scale)), []int{0}, nil, compute.DotGeneralConfig{}))
	return c.finish(y, bias, a)
}
