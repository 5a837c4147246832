package triton_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/triton"
)

// sample is a kernel with a load, a loop, a branch and a store.
func sample(t *testing.T) *triton.Func {
	b := triton.NewBuilder("sample")
	x, y := b.Param("x", triton.F32), b.Param("y", triton.F32)
	at := b.Add(b.Range(16), b.Mul(b.Program(0), b.Int(16)))
	v := b.Load(b.Ptr(x, at), b.Less(at, b.Int(40)))
	sum := b.For(b.Int(0), b.Int(3), b.Int(1), []*triton.Value{v}, func(_ *triton.Value, c []*triton.Value) []*triton.Value {
		return []*triton.Value{b.Add(c[0], v)}
	})[0]
	b.If(b.Less(b.Program(0), b.Int(3)), func() { b.Store(b.Ptr(y, at), sum, nil) })
	f, err := b.Finish()
	require.NoError(t, err)
	return f
}

func find(f *triton.Func, name string) *triton.Op {
	for _, op := range f.Body.Ops {
		if op.Name == name {
			return op
		}
	}
	return nil
}

func TestVerifyNamesWhatIsWrong(t *testing.T) {
	for _, test := range []struct {
		name, want string
		spoil      func(f *triton.Func)
	}{
		{"unknown operation", "unknown operation", func(f *triton.Func) { find(f, "arith.addi").Name = "arith.xori" }},
		{"use before definition", "not defined before it", func(f *triton.Func) {
			f.Body.Ops[0], f.Body.Ops[4] = f.Body.Ops[4], f.Body.Ops[0]
		}},
		{"a loop's value outside", "not defined before it", func(f *triton.Func) {
			body := find(f, "scf.for").Regions[0]
			find(f, "scf.if").Regions[0].Ops[2].Operands[1] = body.Ops[0].Result()
		}},
		{"nil operand", "not defined before it", func(f *triton.Func) { find(f, "tt.load").Operands[0] = nil }},
		{"no terminator", "wanted the region to end", func(f *triton.Func) { f.Body.Ops = f.Body.Ops[:len(f.Body.Ops)-1] }},
		{"empty body", "empty region", func(f *triton.Func) { f.Body.Ops = nil }},
		{"types differ", "do not fit", func(f *triton.Func) { find(f, "arith.addi").Operands[1] = find(f, "tt.get_program_id").Result() }},
		{"no power of two", "wanted powers of two", func(f *triton.Func) {
			op := find(f, "tt.make_range")
			op.Ints[1], op.Result().Type = 24, triton.Block(triton.I32, 24)
		}},
		{"a block of 2^40", "attributes", func(f *triton.Func) {
			op := find(f, "tt.make_range")
			op.Ints[1], op.Result().Type = 1<<40, triton.Block(triton.I32, 1<<40)
		}},
		{"axis of the grid", "attributes [3]", func(f *triton.Func) { find(f, "tt.get_program_id").Ints[0] = 3 }},
		{"predicate", `predicate "ult"`, func(f *triton.Func) { find(f, "arith.cmpi").Text = "ult" }},
		{"constant too large", "too small for it", func(f *triton.Func) { find(f, "arith.constant").Ints[0] = 1 << 31 }},
		{"yields too few", "yields 0 values", func(f *triton.Func) { find(f, "scf.for").Regions[0].Ops[1].Operands = nil }},
		{"loop over blocks", "bound of type", func(f *triton.Func) {
			op := find(f, "scf.for")
			op.Operands[0] = find(f, "tt.make_range").Result()
		}},
		{"branch by a block", "wanted i1 and one region", func(f *triton.Func) { find(f, "scf.if").Operands[0] = find(f, "arith.cmpi").Result() }},
		{"an ID twice", "an ID of its own", func(f *triton.Func) { find(f, "tt.make_range").Result().ID = 0 }},
		{"an ID out of range", "an ID of its own", func(f *triton.Func) { find(f, "tt.make_range").Result().ID = 1 << 20 }},
		{"parameters of one name", "with a name of its own", func(f *triton.Func) { f.Params[1].Name = "x" }},
		{"parameter that is no pointer", "wanted a pointer", func(f *triton.Func) { f.Params[1].Type = triton.Scalar(triton.F32) }},
		{"unknown element", "do not fit", func(f *triton.Func) { find(f, "arith.addi").Result().Type = triton.Block(99, 16) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := sample(t)
			test.spoil(f)
			require.ErrorContains(t, triton.Verify(f), test.want)
		})
	}
}

func TestBuilderKeepsTheFirstError(t *testing.T) {
	for _, test := range []struct {
		name, want string
		build      func(b *triton.Builder, p *triton.Value)
	}{
		{"elements differ", "arith.addiarith.addf of i32 and f32", func(b *triton.Builder, _ *triton.Value) { b.Add(b.Int(1), b.Float(1)) }},
		{"blocks that do not broadcast", "does not broadcast", func(b *triton.Builder, _ *triton.Value) { b.Add(b.Range(16), b.Range(32)) }},
		{"ranks differ", "beside a block of 2 axes", func(b *triton.Builder, _ *triton.Value) { b.Add(b.Row(b.Range(16)), b.Range(16)) }},
		{"transposed vector", "wanted two axes", func(b *triton.Builder, _ *triton.Value) { b.Trans(b.Range(16)) }},
		{"load of numbers", "load from i32", func(b *triton.Builder, _ *triton.Value) { b.Load(b.Int(1), nil) }},
		{"pointer by a float", "moved by f32", func(b *triton.Builder, p *triton.Value) { b.Ptr(p, b.Float(1)) }},
		{"power of an integer", "math.exp2 of i32", func(b *triton.Builder, _ *triton.Value) { b.Exp2(b.Int(1)) }},
		{"float to integer", "no conversion of f32 to i32", func(b *triton.Builder, _ *triton.Value) { b.Convert(b.Float(1), triton.I32) }},
		{"axis", "axis 3 of", func(b *triton.Builder, _ *triton.Value) { b.Expand(b.Range(16), 3) }},
		{"reduced axis", "reduced axis 1", func(b *triton.Builder, _ *triton.Value) { b.Sum(b.Range(16), 1) }},
		{"product of vectors", "do not fit", func(b *triton.Builder, _ *triton.Value) { b.Dot(b.Range(16), b.Range(16), b.Range(16)) }},
		{"remainder of floats", "wanted equal elements", func(b *triton.Builder, _ *triton.Value) { b.Rem(b.Float(1), b.Float(2)) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := triton.NewBuilder("bad")
			test.build(b, b.Param("p", triton.F32))
			_, err := b.Finish()
			require.ErrorContains(t, err, test.want)
		})
	}
}

func TestConfigEscapesTheModule(t *testing.T) {
	c, err := triton.BlockMap{Groups: triton.Groups{Rows: 8, Experts: 4}, Block: 16}.Call()
	require.NoError(t, err)
	s := c.Config()
	require.True(t, strings.HasPrefix(s, `{debug = false, grid_x = 1 : i32, grid_y = 1 : i32, grid_z = 1 : i32, ir = "module {\0A  tt.func public @group_blocks(`), s[:120])
	require.True(t, strings.HasSuffix(s, `}\0A", name = "group_blocks", num_stages = 1 : i32, num_warps = 16 : i32}`), s)
	require.Contains(t, s, `\22tt.scan\22(`)
	require.NotContains(t, s, "\n")
}
