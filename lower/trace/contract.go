package trace

import (
	"fmt"
	"slices"
	"strings"

	"mix/lower/ir"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapeinference"
	"github.com/gomlx/compute/shapes"
)

// DotGeneral multiplies and sums over the contracting axes. The result has the batch axes, the free
// axes of lhs, then those of rhs. XLA accumulates in config.AccumulatorDType when the product is
// asked for in it, so the result is made there and rounded to the output dtype.
func (f *Function) DotGeneral(lhs compute.Value, lhsContractingAxes, lhsBatchAxes []int,
	rhs compute.Value, rhsContractingAxes, rhsBatchAxes []int, config compute.DotGeneralConfig) (compute.Value, error) {
	a, b, err := f.input2("DotGeneral", lhs, rhs)
	if err != nil {
		return nil, err
	}
	shape, err := shapeinference.DotGeneral(a.shape, lhsContractingAxes, lhsBatchAxes, b.shape, rhsContractingAxes, rhsBatchAxes, config)
	if err != nil {
		return nil, err
	}
	product := shape
	if acc := config.AccumulatorDType; acc != dtypes.InvalidDType {
		product = withDType(shape, acc)
	}
	if kind(product.DType) != kind(a.shape.DType) || product.DType.Bits() < a.shape.DType.Bits() {
		// A dot may widen its operands' dtype but not change its kind or narrow it.
		if a, b, err = f.convert2(a, b, product.DType); err != nil {
			return nil, err
		}
	}
	attr := fmt.Sprintf("#stablehlo.dot<lhs_batching_dimensions = %s, rhs_batching_dimensions = %s, "+
		"lhs_contracting_dimensions = %s, rhs_contracting_dimensions = %s>",
		list(lhsBatchAxes), list(rhsBatchAxes), list(lhsContractingAxes), list(rhsContractingAxes))
	v, err := f.emit("stablehlo.dot_general", product, ir.Attrs{"dot_dimension_numbers": ir.Attr(attr)}, a, b)
	if err != nil {
		return nil, err
	}
	return f.ConvertDType(v, shape.DType)
}

func (f *Function) convert2(a, b *value, t dtypes.DType) (x, y *value, err error) {
	if x, err = f.emit("stablehlo.convert", withDType(a.shape, t), nil, a); err != nil {
		return nil, nil, err
	}
	y, err = f.emit("stablehlo.convert", withDType(b.shape, t), nil, b)
	return x, y, err
}

func kind(t dtypes.DType) int {
	switch {
	case t.IsFloat():
		return 1
	case t.IsComplex():
		return 2
	case t.IsUnsigned():
		return 3
	case t.IsInt():
		return 4
	}
	return 0
}

func list(vs []int) string {
	return "[" + strings.Trim(strings.Join(strings.Fields(fmt.Sprint(vs)), ", "), "[]") + "]"
}

// ConvGeneral convolves input with kernel.
func (f *Function) ConvGeneral(input, kernel compute.Value, axes compute.ConvolveAxesConfig, strides []int, paddings [][2]int,
	inputDilations, kernelDilations []int, channelGroupCount, batchGroupCount int) (compute.Value, error) {
	a, k, err := f.input2("ConvGeneral", input, kernel)
	if err != nil {
		return nil, err
	}
	n := a.shape.Rank() - 2
	strides, inputDilations, kernelDilations = orOnes(strides, n), orOnes(inputDilations, n), orOnes(kernelDilations, n)
	if len(paddings) == 0 {
		paddings = make([][2]int, max(n, 0))
	}
	channelGroupCount, batchGroupCount = max(channelGroupCount, 1), max(batchGroupCount, 1)
	shape, err := shapeinference.ConvGeneral(a.shape, k.shape, axes, strides, paddings, inputDilations, kernelDilations, channelGroupCount, batchGroupCount)
	if err != nil {
		return nil, err
	}
	numbers := fmt.Sprintf("#stablehlo.conv<%sx%s->%s>",
		axesLetters(a.shape.Rank(), 'b', axes.InputBatch, 'f', axes.InputChannels, axes.InputSpatial),
		axesLetters(k.shape.Rank(), 'i', axes.KernelInputChannels, 'o', axes.KernelOutputChannels, axes.KernelSpatial),
		axesLetters(shape.Rank(), 'b', axes.OutputBatch, 'f', axes.OutputChannels, axes.OutputSpatial))
	return result(f.emit("stablehlo.convolution", shape, ir.Attrs{
		"window_strides":      ir.Ints(strides...),
		"padding":             pairs(paddings),
		"lhs_dilation":        ir.Ints(inputDilations...),
		"rhs_dilation":        ir.Ints(kernelDilations...),
		"dimension_numbers":   ir.Attr(numbers),
		"feature_group_count": ir.Int(channelGroupCount),
		"batch_group_count":   ir.Int(batchGroupCount),
	}, a, k))
}

// axesLetters writes one side of a convolution's dimension numbers, e.g. [b, 0, 1, f].
func axesLetters(rank int, p rune, pAxis int, q rune, qAxis int, spatial []int) string {
	s := make([]string, rank)
	for i := range s {
		switch i {
		case pAxis:
			s[i] = string(p)
		case qAxis:
			s[i] = string(q)
		default:
			s[i] = fmt.Sprint(slices.Index(spatial, i))
		}
	}
	return "[" + strings.Join(s, ", ") + "]"
}

func orOnes(s []int, n int) []int {
	if len(s) == 0 {
		return filled(max(n, 0), 1)
	}
	return s
}

// pairs writes paddings as a matrix of two columns.
func pairs(ps [][2]int) ir.Attr {
	rows := make([]string, len(ps))
	for i, p := range ps {
		rows[i] = fmt.Sprintf("[%d, %d]", p[0], p[1])
	}
	text := "[" + strings.Join(rows, ", ") + "]"
	if len(ps) == 0 {
		text = ""
	}
	return ir.Attr(fmt.Sprintf("dense<%s> : tensor<%dx2xi64>", text, len(ps)))
}

// fftTypes maps FFT kinds to StableHLO's names.
var fftTypes = map[compute.FFTType]string{
	compute.FFTForward: "FFT", compute.FFTInverse: "IFFT", compute.FFTForwardReal: "RFFT", compute.FFTInverseReal: "IRFFT",
}

// FFT transforms the last len(fftLength) axes.
func (f *Function) FFT(operand compute.Value, fftType compute.FFTType, fftLength []int) (compute.Value, error) {
	a, err := f.input("FFT", operand)
	if err != nil {
		return nil, err
	}
	name, ok := fftTypes[fftType]
	n := len(fftLength)
	if !ok || n < 1 || n > 3 || n > a.shape.Rank() {
		return nil, fmt.Errorf("trace: FFT %s of %s with lengths %v, want 1 to 3 of its last axes", fftType, a.shape, fftLength)
	}
	shape := a.shape.Clone()
	last := shape.Rank() - 1
	switch fftType {
	case compute.FFTForwardReal:
		if shape.DType = complexOf(a.shape.DType); shape.DType == dtypes.InvalidDType {
			return nil, fmt.Errorf("trace: FFT %s of %s, want Float32 or Float64", fftType, a.shape)
		}
		shape.Dimensions[last] = fftLength[n-1]/2 + 1
	default:
		if !a.shape.DType.IsComplex() {
			return nil, fmt.Errorf("trace: FFT %s of %s, want a complex dtype", fftType, a.shape)
		}
		if fftType == compute.FFTInverseReal {
			shape.DType = a.shape.DType.RealDType()
			shape.Dimensions[last] = fftLength[n-1]
		}
	}
	for i, l := range fftLength {
		axis := a.shape.Rank() - n + i
		want := a.shape.Dimensions[axis]
		if axis == last && fftType == compute.FFTInverseReal {
			if l/2+1 != want {
				return nil, fmt.Errorf("trace: FFT %s of %s to length %d, want a last axis of %d", fftType, a.shape, l, l/2+1)
			}
			continue
		}
		if l != want {
			return nil, fmt.Errorf("trace: FFT %s of %s with length %d for axis %d, want %d", fftType, a.shape, l, axis, want)
		}
	}
	return result(f.emit("stablehlo.fft", shape, ir.Attrs{
		"fft_type": ir.Attr("#stablehlo<fft_type " + name + ">"), "fft_length": ir.Ints(fftLength...)}, a))
}

// BatchNormForInference normalizes with given mean and variance.
func (f *Function) BatchNormForInference(operand, scale, offset, mean, variance compute.Value, epsilon float32, featureAxis int) (compute.Value, error) {
	vs, err := f.inputs("BatchNormForInference", operand, scale, offset, mean, variance)
	if err != nil {
		return nil, err
	}
	if err := checkFeatures(vs, 1, featureAxis); err != nil {
		return nil, err
	}
	return result(f.emit("stablehlo.batch_norm_inference", vs[0].shape, batchNorm(epsilon, featureAxis), vs...))
}

// BatchNormForTraining normalizes with the batch's own mean and variance, and returns them.
func (f *Function) BatchNormForTraining(operand, scale, offset compute.Value, epsilon float32, featureAxis int) (normalized, batchMean, batchVariance compute.Value, err error) {
	vs, err := f.inputs("BatchNormForTraining", operand, scale, offset)
	if err != nil {
		return nil, nil, nil, err
	}
	if err := checkFeatures(vs, 1, featureAxis); err != nil {
		return nil, nil, nil, err
	}
	return three(f.emitN("stablehlo.batch_norm_training", []shapes.Shape{vs[0].shape, vs[1].shape, vs[1].shape},
		batchNorm(epsilon, featureAxis), nil, vs...))
}

// BatchNormGradient is the gradient of BatchNormForTraining by operand, scale and offset.
func (f *Function) BatchNormGradient(operand, scale, mean, variance, gradOutput compute.Value, epsilon float32, featureAxis int) (gradOperand, gradScale, gradOffset compute.Value, err error) {
	vs, err := f.inputs("BatchNormGradient", operand, scale, mean, variance, gradOutput)
	if err != nil {
		return nil, nil, nil, err
	}
	if err := checkFeatures(vs[:4], 1, featureAxis); err != nil {
		return nil, nil, nil, err
	}
	return three(f.emitN("stablehlo.batch_norm_grad", []shapes.Shape{vs[0].shape, vs[1].shape, vs[1].shape},
		batchNorm(epsilon, featureAxis), nil, vs...))
}

func three(vs []*value, err error) (a, b, c compute.Value, _ error) {
	if err != nil {
		return nil, nil, nil, err
	}
	return vs[0], vs[1], vs[2], nil
}

// checkFeatures wants vs[from:] to be vectors over the feature axis of vs[0].
func checkFeatures(vs []*value, from, featureAxis int) error {
	x := vs[0].shape
	if featureAxis < 0 || featureAxis >= x.Rank() {
		return fmt.Errorf("trace: batch norm of %s over feature axis %d, want 0 ≤ axis < %d", x, featureAxis, x.Rank())
	}
	want := shapes.Make(x.DType, x.Dimensions[featureAxis])
	for _, v := range vs[from:] {
		if !v.shape.Equal(want) {
			return fmt.Errorf("trace: batch norm of %s with %s, want %s", x, v.shape, want)
		}
	}
	return nil
}

func batchNorm(epsilon float32, featureAxis int) ir.Attrs {
	return ir.Attrs{"epsilon": ir.Attr(element([]float32{epsilon}, 0) + " : f32"), "feature_index": ir.Int(featureAxis)}
}
