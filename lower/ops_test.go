package lower

import (
	"math"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/compute/support/testutil"
	"github.com/stretchr/testify/require"
)

// TestOperations runs operations that the conformance suite leaves out.
func TestOperations(t *testing.T) {
	b := testBackend(t)
	type value = compute.Value
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, tt := range []struct {
		name string
		in   []any
		op   func(f compute.Function, in []value) (value, error)
		want any
	}{
		{"total order puts NaN last", []any{[]float32{nan, 1, inf}}, func(f compute.Function, in []value) (value, error) {
			c, err := f.Constant([]float32{inf})
			if err != nil {
				return nil, err
			}
			return f.GreaterThanTotalOrder(in[0], c)
		}, []bool{true, false, false}},
		{"argmax takes the first NaN", []any{[]float32{1, nan, inf, nan}}, func(f compute.Function, in []value) (value, error) {
			return f.ArgMinMax(in[0], 0, dtypes.Int32, false)
		}, int32(1)},
		{"argmin of equals takes the first", []any{[]float32{3, 1, 1}}, func(f compute.Function, in []value) (value, error) {
			return f.ArgMinMax(in[0], 0, dtypes.Int8, true)
		}, int8(1)},
		{"argmax of booleans", []any{[]bool{false, true, true}}, func(f compute.Function, in []value) (value, error) {
			return f.ArgMinMax(in[0], 0, dtypes.Int32, false)
		}, int32(1)},
		{"is NaN", []any{[]float32{nan, 0, inf}}, func(f compute.Function, in []value) (value, error) { return f.IsNaN(in[0]) }, []bool{true, false, false}},
		{"sign of unsigned", []any{[]uint8{0, 1, 200}}, func(f compute.Function, in []value) (value, error) { return f.Sign(in[0]) }, []uint8{0, 1, 1}},
		{"magnitude of complex", []any{[]complex64{3 + 4i, -1}}, func(f compute.Function, in []value) (value, error) { return f.Abs(in[0]) }, []float32{5, 1}},
		{"conjugate", []any{[]complex64{3 + 4i}}, func(f compute.Function, in []value) (value, error) { return f.Conj(in[0]) }, []complex64{3 - 4i}},
		{"imaginary part of real", []any{[]float32{7}}, func(f compute.Function, in []value) (value, error) { return f.Imag(in[0]) }, []float32{0}},
		{"complex of a scalar and a vector", []any{float32(2), []float32{1, 3}}, func(f compute.Function, in []value) (value, error) {
			return f.Complex(in[0], in[1])
		}, []complex64{2 + 1i, 2 + 3i}},
		{"complex to real", []any{[]complex64{3 + 4i}}, func(f compute.Function, in []value) (value, error) {
			return f.ConvertDType(in[0], dtypes.Float32)
		}, []float32{3}},
		{"Fourier transform", []any{[]complex64{1, 0, 0, 0}}, func(f compute.Function, in []value) (value, error) {
			return f.FFT(in[0], compute.FFTForward, []int{4})
		}, []complex64{1, 1, 1, 1}},
		{"real Fourier transform and back", []any{[]float32{1, 2, 3, 4}}, func(f compute.Function, in []value) (value, error) {
			x, err := f.FFT(in[0], compute.FFTForwardReal, []int{4})
			if err != nil {
				return nil, err
			}
			return f.FFT(x, compute.FFTInverseReal, []int{4})
		}, []float32{1, 2, 3, 4}},
		{"batch norm for inference", []any{[][]float32{{1, 10}, {3, 30}}, []float32{1, 2}, []float32{0, 1}, []float32{2, 20}, []float32{1, 100}},
			func(f compute.Function, in []value) (value, error) {
				return f.BatchNormForInference(in[0], in[1], in[2], in[3], in[4], 0, 1)
			}, [][]float32{{-1, -1}, {1, 3}}},
		{"clamp between a scalar and a vector", []any{float32(0), []float32{-1, 5}, []float32{9, 2}}, func(f compute.Function, in []value) (value, error) {
			return f.Clamp(in[0], in[1], in[2])
		}, []float32{0, 2}},
		{"slice at a vector of indices", []any{[][]float32{{1, 2}, {3, 4}, {5, 6}}, []int32{2, 1}}, func(f compute.Function, in []value) (value, error) {
			return f.DynamicSlice(in[0], []value{in[1]}, []int{1, 1})
		}, [][]float32{{6}}},
		{"exclusive reverse cumulative sum with infinity", []any{[]float32{1, inf, 3}}, func(f compute.Function, in []value) (value, error) {
			return f.CumSum(in[0], 0, compute.CumSumOptions{Exclusive: true, Reverse: true})
		}, []float32{inf, 3, 0}},
		{"reduction of no element", nil, func(f compute.Function, in []value) (value, error) {
			c, err := f.Constant([]float32{}, 0, 2)
			if err != nil {
				return nil, err
			}
			return f.ReduceMax(c, 0)
		}, []float32{-inf, -inf}},
		{"product of integers in wider ones", []any{[][]int8{{100, 100}}, [][]int8{{100, 100}}}, func(f compute.Function, in []value) (value, error) {
			return f.DotGeneral(in[0], []int{1}, nil, in[1], []int{1}, nil, compute.DotGeneralConfig{AccumulatorDType: dtypes.Int32, OutputDType: dtypes.Int32})
		}, [][]int32{{20000}}},
		{"product of integers in floats", []any{[][]int8{{100, 100}}, [][]int8{{100, 100}}}, func(f compute.Function, in []value) (value, error) {
			return f.DotGeneral(in[0], []int{1}, nil, in[1], []int{1}, nil, compute.DotGeneralConfig{OutputDType: dtypes.Float32})
		}, [][]float32{{20000}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := testutil.Exec1(b, tt.in, tt.op)
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
		})
	}
}

// TestConstantsReadBack sends constants of every form and dtype through the text.
func TestConstantsReadBack(t *testing.T) {
	b := testBackend(t)
	long := make([]bfloat16.BFloat16, 40)
	flags := make([]bool, 40)
	for i := range long {
		long[i] = bfloat16.FromFloat32(float32(i) / 3)
		flags[i] = i%3 == 0
	}
	complexes := make([]complex128, 20)
	for i := range complexes {
		complexes[i] = complex(float64(i), 1/float64(i+1))
	}
	for _, flat := range []any{
		[]float32{1, 0.1, float32(math.Inf(-1)), math.MaxFloat32, math.SmallestNonzeroFloat32, -0.3333333},
		[]float64{1.0 / 3, math.MaxFloat64, math.SmallestNonzeroFloat64},
		[]bfloat16.BFloat16{bfloat16.FromFloat32(3.140625), bfloat16.FromFloat32(float32(math.Inf(1)))},
		[]int8{-128, 127}, []uint64{0, math.MaxUint64}, []bool{true, false, true}, []complex64{1 - 2i, 0.5i},
		long, flags, complexes, []int32{5, 5, 5, 5},
	} {
		got, err := testutil.Exec1(b, nil, func(f compute.Function, _ []compute.Value) (compute.Value, error) {
			return f.Constant(flat, lenOf(flat))
		})
		require.NoError(t, err)
		require.Equal(t, flat, got)
	}
}

func lenOf(flat any) int {
	_, s := testutil.ToFlatAndShape(flat)
	return s.Dimensions[0]
}

// TestRandomBitsAdvance draws twice: other bits, another state, and the same again from the same state.
func TestRandomBitsAdvance(t *testing.T) {
	b := testBackend(t)
	for _, dtype := range []dtypes.DType{dtypes.Uint8, dtypes.Uint32, dtypes.Uint64, dtypes.Int32} {
		draw := func(state []uint64) (next, bits any) {
			next, bits, err := testutil.Exec2(b, []any{state}, func(f compute.Function, in []compute.Value) (compute.Value, compute.Value, error) {
				return f.RNGBitGenerator(in[0], shapes.Make(dtype, 64))
			})
			require.NoError(t, err)
			return next, bits
		}
		s1, b1 := draw([]uint64{1, 2, 3})
		again, same := draw([]uint64{1, 2, 3})
		require.Equal(t, s1, again)
		require.Equal(t, b1, same)
		_, b2 := draw(s1.([]uint64))
		require.NotEqual(t, b1, b2)
	}
}
