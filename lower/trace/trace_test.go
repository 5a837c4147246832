package trace

import (
	"math"
	"strings"
	"testing"

	"mix/internal/golden"
	"mix/lower/ir"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/shapes"
	"github.com/stretchr/testify/require"
)

// tracer builds programs for tests: every call must succeed.
type tracer struct {
	t *testing.T
	b *Builder
}

func newTracer(t *testing.T) *tracer {
	return &tracer{t, New("test", func(*Builder) (compute.Executable, error) { return nil, nil })}
}

func (tr *tracer) one(v compute.Value, err error) compute.Value {
	tr.t.Helper()
	require.NoError(tr.t, err)
	return v
}

func (tr *tracer) many(vs []compute.Value, err error) []compute.Value {
	tr.t.Helper()
	require.NoError(tr.t, err)
	return vs
}

func (tr *tracer) param(f compute.Function, name string, t dtypes.DType, dims ...int) compute.Value {
	tr.t.Helper()
	return tr.one(f.Parameter(name, shapes.Make(t, dims...), nil))
}

func (tr *tracer) ret(f compute.Function, vs ...compute.Value) {
	tr.t.Helper()
	require.NoError(tr.t, f.Return(vs, nil))
}

func (tr *tracer) function(name string) compute.Function {
	tr.t.Helper()
	f, err := tr.b.NewFunction(name)
	require.NoError(tr.t, err)
	return f
}

// closure makes a closure of main with scalar parameters.
func (tr *tracer) closure(params []dtypes.DType, body func(f compute.Function, p []compute.Value) []compute.Value) compute.Function {
	tr.t.Helper()
	c, err := tr.b.Main().Closure()
	require.NoError(tr.t, err)
	ps := make([]compute.Value, len(params))
	for i, t := range params {
		ps[i] = tr.param(c, "p", t)
	}
	tr.ret(c, body(c, ps)...)
	return c
}

const (
	tf32  = dtypes.Float32
	ti32  = dtypes.Int32
	tbf16 = dtypes.BFloat16
)

// programs are what the golden files show, by name.
var programs = map[string]func(tr *tracer, f compute.Function){
	"broadcast": func(tr *tracer, f compute.Function) {
		x, row, s := tr.param(f, "x", tf32, 2, 3), tr.param(f, "row", tf32, 1, 3), tr.param(f, "s", tf32)
		y := tr.one(f.Add(x, row))
		tr.ret(f, tr.one(f.Mul(s, y)), tr.one(f.LessThanTotalOrder(y, s)))
	},
	"constants": func(tr *tracer, f compute.Function) {
		long := make([]int32, 17)
		long[16] = -1
		nan := math.Float32frombits(0x7fc00000)
		tr.ret(f,
			tr.one(f.Constant([]float32{1, 0.1, float32(math.Inf(-1)), nan}, 2, 2)),
			tr.one(f.Constant(make([]float32, 4096), 4096)),
			tr.one(f.Constant(long, 17)),
			tr.one(f.Constant([]bool{true, false}, 2)))
	},
	"composite": func(tr *tracer, f compute.Function) {
		x := tr.param(f, "x", tbf16, 4)
		sq := tr.function("mix.square(window=4096;scale=0.125).3")
		p := tr.param(sq, "p", tbf16, 4)
		tr.ret(sq, tr.one(sq.Mul(p, p)))
		plain := tr.function("plain")
		q := tr.param(plain, "q", tbf16, 4)
		tr.ret(plain, tr.many(plain.Call(sq, q))[0])
		tr.ret(f, tr.many(f.Call(plain, tr.many(f.Call(sq, x))[0]))...)
	},
	"while": func(tr *tracer, f compute.Function) {
		x, step := tr.param(f, "x", ti32), tr.param(f, "step", ti32)
		ten := tr.one(f.Constant([]int32{10}))
		cond := tr.closure([]dtypes.DType{ti32}, func(c compute.Function, p []compute.Value) []compute.Value {
			return []compute.Value{tr.one(c.LessThan(p[0], ten))}
		})
		body := tr.closure([]dtypes.DType{ti32}, func(c compute.Function, p []compute.Value) []compute.Value {
			return []compute.Value{tr.one(c.Add(p[0], step))}
		})
		once := tr.many(f.While(cond, body, x))
		tr.ret(f, tr.many(f.While(cond, body, once...))...)
	},
	"foreign_constants": func(tr *tracer, f compute.Function) {
		x := tr.param(f, "x", tf32, 2)
		two := tr.one(f.Constant([]float32{2}))
		twos := tr.one(f.BroadcastInDim(two, shapes.Make(tf32, 2), nil))
		g := tr.function("g")
		p := tr.param(g, "p", tf32, 2)
		tr.ret(g, tr.one(g.Mul(tr.one(g.Add(p, twos)), two)))
		tr.ret(f, tr.many(f.Call(g, tr.one(f.Mul(x, two))))...)
	},
	"sort": func(tr *tracer, f compute.Function) {
		x, id := tr.param(f, "x", tf32, 8), tr.param(f, "id", ti32, 8)
		zero := tr.one(f.Constant([]float32{0}))
		before := tr.closure([]dtypes.DType{tf32, tf32, ti32, ti32}, func(c compute.Function, p []compute.Value) []compute.Value {
			return []compute.Value{tr.one(c.GreaterThan(tr.one(c.Sub(p[0], p[1])), zero))}
		})
		tr.ret(f, tr.many(f.Sort(before, 0, true, x, id))...)
	},
	"if": func(tr *tracer, f compute.Function) {
		x, p := tr.param(f, "x", tf32, 2), tr.param(f, "p", dtypes.Bool)
		yes := tr.closure(nil, func(c compute.Function, _ []compute.Value) []compute.Value {
			return []compute.Value{tr.one(c.Neg(x))}
		})
		no := tr.closure(nil, func(c compute.Function, _ []compute.Value) []compute.Value { return []compute.Value{x} })
		tr.ret(f, tr.many(f.If(p, yes, no))...)
	},
	"dot": func(tr *tracer, f compute.Function) {
		x, w := tr.param(f, "x", tbf16, 2, 8), tr.param(f, "w", tbf16, 4, 8)
		dot := func(c compute.DotGeneralConfig) compute.Value {
			return tr.one(f.DotGeneral(x, []int{1}, nil, w, []int{1}, nil, c))
		}
		tr.ret(f, dot(compute.DotGeneralConfig{}),
			dot(compute.DotGeneralConfig{AccumulatorDType: tf32}),
			dot(compute.DotGeneralConfig{OutputDType: tf32}))
	},
	"argmax": func(tr *tracer, f compute.Function) {
		x := tr.param(f, "x", tf32, 2, 8)
		tr.ret(f, tr.one(f.ArgMinMax(x, 1, ti32, false)))
	},
	"sharding": func(tr *tracer, f compute.Function) {
		require.NoError(tr.t, tr.b.DistributedAutoSharding(compute.Mesh{Name: "mesh", AxesNames: []string{"data", "expert"}, AxesSizes: []int{2, 4}}))
		spec := &compute.ShardingSpec{Mesh: "mesh", Axes: [][]string{{"data", "expert"}, nil}}
		x := tr.one(f.Parameter("x", shapes.Make(tf32, 8, 2), spec))
		y := tr.param(f, "y", tf32, 8, 2)
		require.NoError(tr.t, f.Return([]compute.Value{tr.one(f.Add(x, y))}, []*compute.ShardingSpec{spec}))
	},
}

func TestTrace(t *testing.T) {
	shown := map[string]bool{}
	golden.Run(t, "testdata/*.txtar", func(t *testing.T, in map[string]string) string {
		name := strings.TrimSpace(in["program"])
		require.Contains(t, programs, name)
		shown[name] = true
		tr := newTracer(t)
		programs[name](tr, tr.b.Main())
		_, err := tr.b.Compile()
		require.NoError(t, err)
		require.NoError(t, ir.Verify(tr.b.Module()))
		text := tr.b.Module().String()
		again, err := ir.Parse(text)
		require.NoError(t, err)
		require.Equal(t, text, again.String())
		return text
	})
	for name := range programs {
		require.True(t, shown[name], "program %q has no golden file", name)
	}
}

func TestElementsReadBack(t *testing.T) {
	for _, tt := range []struct {
		flat any
		want string
	}{
		{[]float32{0.1}, "1.0e-01"},
		{[]float32{float32(math.Copysign(0, -1))}, "-0.0e+00"},
		{[]float32{math.MaxFloat32}, "3.4028235e+38"},
		{[]float64{1.0 / 3}, "3.333333333333333e-01"},
		{[]float64{math.Inf(1)}, "0x7FF0000000000000"},
		{[]bfloat16.BFloat16{bfloat16.FromFloat32(float32(math.Inf(-1)))}, "0xFF80"},
		{[]uint64{math.MaxUint64}, "18446744073709551615"},
		{[]complex64{complex(1, -2)}, "(1.0e+00, -2.0e+00)"},
		{[]bool{true}, "true"},
	} {
		require.Equal(t, tt.want, element(tt.flat, 0))
	}
}

func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(tr *tracer, f compute.Function) error
		want string
	}{
		{"value of another program", func(tr *tracer, f compute.Function) error {
			other := newTracer(tr.t)
			_, err := f.Neg(other.param(other.b.Main(), "x", tf32))
			return err
		}, `value of program "test" used in program "test"`},
		{"value of the wrong type", func(tr *tracer, f compute.Function) error {
			_, err := f.Neg(3)
			return err
		}, "value of type int"},
		{"nil value", func(tr *tracer, f compute.Function) error {
			_, err := f.Neg(nil)
			return err
		}, "value of type <nil>"},
		{"operation after return", func(tr *tracer, f compute.Function) error {
			x := tr.param(f, "x", tf32)
			tr.ret(f, x)
			_, err := f.Neg(x)
			return err
		}, "has returned"},
		{"compile without return", func(tr *tracer, f compute.Function) error {
			_, err := tr.b.Compile()
			return err
		}, "does not return"},
		{"function named twice", func(tr *tracer, f compute.Function) error {
			_, err := tr.b.NewFunction("main")
			return err
		}, `already has a function "main"`},
		{"parameter of another function", func(tr *tracer, f compute.Function) error {
			x := tr.param(f, "x", tf32)
			g := tr.function("g")
			return g.Return([]compute.Value{tr.one(g.Neg(x))}, nil)
		}, `function "g" uses a value (Float32) of function "main"`},
		{"comparator with a captured parameter", func(tr *tracer, f compute.Function) error {
			x, s := tr.param(f, "x", tf32, 4), tr.param(f, "s", tf32)
			c := tr.closure([]dtypes.DType{tf32, tf32}, func(c compute.Function, p []compute.Value) []compute.Value {
				return []compute.Value{tr.one(c.LessThan(p[0], s))}
			})
			_, err := f.Sort(c, 0, false, x)
			return err
		}, "Sort comparator uses a value"},
		{"while that changes its state's shape", func(tr *tracer, f compute.Function) error {
			x := tr.param(f, "x", ti32)
			cond := tr.closure([]dtypes.DType{ti32}, func(c compute.Function, p []compute.Value) []compute.Value {
				return []compute.Value{tr.one(c.LessThan(p[0], p[0]))}
			})
			body := tr.closure([]dtypes.DType{ti32}, func(c compute.Function, p []compute.Value) []compute.Value {
				return []compute.Value{tr.one(c.ConvertDType(p[0], tf32))}
			})
			_, err := f.While(cond, body, x)
			return err
		}, "While body, output 0 is (Float32), want (Int32)"},
		{"call with another shape", func(tr *tracer, f compute.Function) error {
			g := tr.function("g")
			tr.ret(g, tr.param(g, "p", tf32, 2))
			_, err := f.Call(g, tr.param(f, "x", tf32, 3))
			return err
		}, `call of function "g", input 0 is (Float32)[3], want (Float32)[2]`},
		{"constant of the wrong size", func(tr *tracer, f compute.Function) error {
			_, err := f.Constant([]int32{1, 2, 3}, 2)
			return err
		}, "constant of 3 elements"},
		{"constant of the wrong type", func(tr *tracer, f compute.Function) error {
			_, err := f.Constant([]string{"x"}, 1)
			return err
		}, "constant of type []string"},
		{"dynamic shape", func(tr *tracer, f compute.Function) error {
			_, err := f.Parameter("x", shapes.MakeDynamic(tf32, []int{shapes.DynamicDim}, []string{"batch"}), nil)
			return err
		}, "dynamic dimension"},
		{"sharding over an unknown mesh", func(tr *tracer, f compute.Function) error {
			_, err := f.Parameter("x", shapes.Make(tf32, 2), &compute.ShardingSpec{Mesh: "m"})
			return err
		}, `mesh "m", which the program does not have`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr := newTracer(t)
			require.ErrorContains(t, tt.do(tr, tr.b.Main()), tt.want)
		})
	}
}

// TestCapabilities holds the table to what the methods do: an operation that is listed must not
// answer that it is not implemented, whatever else it thinks of its operands.
func TestCapabilities(t *testing.T) {
	c := Capabilities()
	for _, op := range []compute.OpType{compute.OpTypeAdd, compute.OpTypeErf, compute.OpTypeSort, compute.OpTypeWhile, compute.OpTypeFFT} {
		require.True(t, c.Operations[op], "%s", op)
	}
	for _, op := range []compute.OpType{compute.OpTypeDynamicReshape, compute.OpTypeFusedScaledDotProductAttention} {
		require.False(t, c.Operations[op], "%s", op)
	}
	tr := newTracer(t)
	f := tr.b.Main()
	_, err := f.DynamicReshape(tr.param(f, "x", tf32, 2))
	require.ErrorIs(t, err, compute.ErrNotImplemented)
}
