package interp_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/triton"
	"mix/lower/triton/interp"
)

// call makes a kernel from x [20] to y [n] f32, one program for each 16 elements.
func call(t *testing.T, n int, build func(b *triton.Builder, x, y, at *triton.Value)) triton.Call {
	b := triton.NewBuilder("test")
	x, y := b.Param("x", triton.F32), b.Param("y", triton.F32)
	build(b, x, y, b.Add(b.Range(16), b.Mul(b.Program(0), b.Int(16))))
	f, err := b.Finish()
	require.NoError(t, err)
	return triton.Call{Name: "test", Grid: [3]int{(n + 15) / 16, 1, 1}, Func: f,
		Operands: []triton.Array{{Name: "x", Elem: triton.F32, Dims: []int{20}}}, Results: []triton.Array{{Name: "y", Elem: triton.F32, Dims: []int{n}}}}
}

func TestRunFindsWhatAGPUWouldHide(t *testing.T) {
	for _, test := range []struct {
		name, want string
		build      func(b *triton.Builder, x, y, at *triton.Value)
	}{
		{"a load outside", "program [1 0 0]: load of element 20 of x, which has 20", func(b *triton.Builder, x, y, at *triton.Value) {
			b.Store(b.Ptr(y, at), b.Load(b.Ptr(x, at), nil), b.Less(at, b.Int(20)))
		}},
		{"a store outside", "store of element 20 of y, which has 20", func(b *triton.Builder, x, y, at *triton.Value) {
			b.Store(b.Ptr(y, at), b.Load(b.Ptr(x, at), b.Less(at, b.Int(20))), nil)
		}},
		{"before the beginning", "load of element -1 of x", func(b *triton.Builder, x, y, at *triton.Value) {
			b.Store(b.Ptr(y, at), b.Load(b.Ptr(x, b.Sub(at, b.Int(1))), nil), nil)
		}},
		{"two writers", "element 0 of y is written by program 1 of the grid and again by 2", func(b *triton.Builder, _, y, at *triton.Value) {
			b.Store(b.Ptr(y, b.Sub(at, b.Mul(b.Program(0), b.Int(16)))), b.Float(1), nil)
		}},
		{"not everything written", "element 19 of y is never written", func(b *triton.Builder, _, y, at *triton.Value) {
			b.Store(b.Ptr(y, at), b.Float(1), b.Less(at, b.Int(19)))
		}},
		{"a result is read", "load of element 0 of the result y", func(b *triton.Builder, _, y, at *triton.Value) {
			b.Store(b.Ptr(y, at), b.Load(b.Ptr(y, at), nil), nil)
		}},
		{"an operand is written", "store to the operand x", func(b *triton.Builder, x, _, at *triton.Value) {
			b.Store(b.Ptr(x, at), b.Float(1), nil)
		}},
		{"division by zero", "arith.divsi by zero", func(b *triton.Builder, _, y, at *triton.Value) {
			b.Store(b.Ptr(y, b.Div(at, b.Sub(at, at))), b.Float(1), nil)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := interp.Run(call(t, 20, test.build), interp.Floats(triton.F32, make([]float32, 20)))
			require.ErrorContains(t, err, test.want)
		})
	}
}

func TestRunChecksOperands(t *testing.T) {
	c := call(t, 16, func(b *triton.Builder, _, y, at *triton.Value) { b.Store(b.Ptr(y, at), b.Float(1), nil) })
	_, err := interp.Run(c)
	require.ErrorContains(t, err, "0 operands, wanted 1")
	_, err = interp.Run(c, interp.Floats(triton.F32, make([]float32, 19)))
	require.ErrorContains(t, err, "operand x is 19 of f32, wanted tensor<20xf32>")
	_, err = interp.Run(c, interp.Floats(triton.BF16, make([]float32, 20)))
	require.ErrorContains(t, err, "operand x is 20 of bf16")
}

func TestOperationsAgainstTheirMeaning(t *testing.T) {
	x := make([]float32, 20)
	for i := range x {
		x[i] = float32(i) - 5.5
	}
	for _, test := range []struct {
		name string
		of   func(b *triton.Builder, v *triton.Value) *triton.Value
		want func(i int) float64
	}{
		{"cumulative sum", func(b *triton.Builder, v *triton.Value) *triton.Value { return b.CumSum(v, 0) },
			func(i int) float64 { return float64(i*(i+1))/2 - 5.5*float64(i+1) }},
		{"sums of rows and of columns", func(b *triton.Builder, v *triton.Value) *triton.Value {
			all := b.Mul(b.Column(v), b.Row(v)) // [16, 16]
			return b.Add(b.Sum(all, 0), b.Sum(all, 1))
		}, func(i int) float64 { return 2 * (float64(i) - 5.5) * 32 }},
		{"greatest, least and select", func(b *triton.Builder, v *triton.Value) *triton.Value {
			return b.Select(b.Less(v, b.Float(0)), b.Greatest(v, 0), b.Least(v, 0))
		}, func(i int) float64 {
			if i < 6 {
				return 9.5
			}
			return -5.5
		}},
		{"transposed", func(b *triton.Builder, v *triton.Value) *triton.Value {
			return b.Sum(b.Trans(b.Sub(b.Column(v), b.Mul(b.Row(v), b.Float(2)))), 1) // Σⱼ v[j] - 2·v[i]
		}, func(i int) float64 { return 32 - 32*(float64(i)-5.5) }},
		{"power of two and back", func(b *triton.Builder, v *triton.Value) *triton.Value { return b.Log2(b.Exp2(v)) },
			func(i int) float64 { return float64(i) - 5.5 }},
		{"sigmoid", func(b *triton.Builder, v *triton.Value) *triton.Value { return b.Sigmoid(v) },
			func(i int) float64 { return 1 / (1 + math.Exp(5.5-float64(i))) }},
		{"through bf16", func(b *triton.Builder, v *triton.Value) *triton.Value {
			return b.Convert(b.Convert(b.Add(v, b.Float(256)), triton.BF16), triton.F32)
		}, func(i int) float64 { return math.RoundToEven((float64(i)+250.5)/unit(i)) * unit(i) }},
		{"counting wraps", func(b *triton.Builder, v *triton.Value) *triton.Value {
			top := b.Mul(b.Int(1<<30), b.Int(2))
			return b.Add(b.Convert(top, triton.F32), b.Mul(v, b.Float(0)))
		}, func(int) float64 { return -1 << 31 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := call(t, 16, func(b *triton.Builder, x, y, at *triton.Value) {
				b.Store(b.Ptr(y, at), test.of(b, b.Load(b.Ptr(x, at), nil)), nil)
			})
			out, err := interp.Run(c, interp.Floats(triton.F32, x))
			require.NoError(t, err)
			for i, got := range out[0].Floats {
				require.InDelta(t, test.want(i), got, 1e-5, "element %d", i)
			}
		})
	}
}

// unit is the distance of bf16 numbers at i + 250.5.
func unit(i int) float64 {
	if i < 6 {
		return 1 // below 256
	}
	return 2
}

func TestRound(t *testing.T) {
	inf := math.Inf(1)
	for _, test := range []struct {
		elem    triton.Elem
		x, want float64
	}{
		{triton.F32, 1.0000001, 1.0000001},
		{triton.BF16, 1 + 1.0/256, 1}, // a tie goes to even
		{triton.BF16, 1 + 3.0/256, 1 + 4.0/256},
		{triton.BF16, 1 + 1.01/256, 1 + 2.0/256},
		{triton.BF16, 3.4e38, inf},
		{triton.BF16, -inf, -inf},
		{triton.F16, 65519, 65504},
		{triton.F16, 65520, inf},
		{triton.F16, 2049, 2048},
		{triton.F16, 5.9e-8, 5.9604644775390625e-08}, // the least
		{triton.F16, 2.9e-8, 0},
		{triton.F8, 448, 448},
		{triton.F8, 1e6, 448}, // saturates
		{triton.F8, -460, -448},
		{triton.F8, 17, 16},
		{triton.F8, 19, 20},
		{triton.F8, 1.0 / 512, 1.0 / 512}, // the least
		{triton.F8, 1.0 / 1024, 0},        // half of it, to even
		{triton.F8, 0.0137, 7.0 / 512},
	} {
		require.Equal(t, float32(test.want), interp.Round(test.elem, float32(test.x)), "%v to %s", test.x, test.elem)
	}
	require.True(t, math.IsNaN(float64(interp.Round(triton.F8, float32(math.NaN())))))
}
