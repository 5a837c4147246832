package triton

import (
	"fmt"
	"slices"
)

// Builder appends operations to a kernel.
//
// Operations on two values of different shapes broadcast as NumPy does, but keep ranks: a scalar fits every
// block, and an axis of size 1 fits every axis. What does not fit is an error, the first of which Finish
// returns; values made after it have no meaning.
type Builder struct {
	f   *Func
	at  *Region
	err error
}

// NewBuilder begins a kernel.
func NewBuilder(name string) *Builder {
	f := &Func{Name: name, Body: &Region{}}
	return &Builder{f: f, at: f.Body}
}

// Finish ends the kernel and verifies it.
func (b *Builder) Finish() (*Func, error) {
	b.emit("tt.return", nil)
	if b.err != nil {
		return nil, b.err
	}
	return b.f, Verify(b.f)
}

// fail keeps the first error.
func (b *Builder) fail(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf("triton: %s: %s", b.f.Name, fmt.Sprintf(format, args...))
	}
}

func (b *Builder) value(t Type) *Value {
	v := &Value{ID: b.f.Values, Type: t}
	b.f.Values++
	return v
}

// Param declares the next parameter: a pointer to an array that is aligned to 16 bytes.
func (b *Builder) Param(name string, e Elem) *Value {
	v := b.value(Type{Elem: e, Pointer: true})
	v.Name = name
	b.f.Params = append(b.f.Params, v)
	return v
}

// emit appends an operation with results of the given types.
func (b *Builder) emit(name string, operands []*Value, results ...Type) *Op {
	op := &Op{Name: name, Operands: operands}
	for _, t := range results {
		op.Results = append(op.Results, b.value(t))
	}
	b.at.Ops = append(b.at.Ops, op)
	return op
}

func (b *Builder) one(name string, t Type, operands ...*Value) *Value {
	return b.emit(name, operands, t).Result()
}

// Int is an i32.
func (b *Builder) Int(n int) *Value { return b.ints(Scalar(I32), int64(n)) }

// Long is an i64.
func (b *Builder) Long(n int) *Value { return b.ints(Scalar(I64), int64(n)) }

// Fill is an i1, i32 or i64 block that holds n everywhere.
func (b *Builder) Fill(n int, e Elem, dims ...int) *Value { return b.ints(Block(e, dims...), int64(n)) }

// Float is an f32.
func (b *Builder) Float(x float64) *Value { return b.number(Scalar(F32), x) }

// Zeros is a block of zeros.
func (b *Builder) Zeros(e Elem, dims ...int) *Value {
	if e.Float() {
		return b.number(Block(e, dims...), 0)
	}
	return b.ints(Block(e, dims...), 0)
}

func (b *Builder) ints(t Type, n int64) *Value {
	op := b.emit("arith.constant", nil, t)
	op.Ints = []int64{n}
	return op.Result()
}

func (b *Builder) number(t Type, x float64) *Value {
	op := b.emit("arith.constant", nil, t)
	op.Number = x
	return op.Result()
}

// Program is the number of this program along axis 0, 1 or 2 of the grid.
func (b *Builder) Program(axis int) *Value {
	op := b.emit("tt.get_program_id", nil, Scalar(I32))
	op.Ints = []int64{int64(axis)}
	return op.Result()
}

// Range counts from 0 to n-1, [n] i32.
func (b *Builder) Range(n int) *Value {
	op := b.emit("tt.make_range", nil, Block(I32, n))
	op.Ints = []int64{0, int64(n)}
	return op.Result()
}

// Expand inserts an axis of size 1.
func (b *Builder) Expand(x *Value, axis int) *Value {
	if axis < 0 || axis > x.Type.Rank() || x.Type.Rank() == maxRank {
		b.fail("axis %d of %s, wanted 0 to %d", axis, x.Type, x.Type.Rank())
		return x
	}
	op := b.emit("tt.expand_dims", []*Value{x}, x.Type.Of(slices.Insert(slices.Clone(x.Type.Dims()), axis, 1)...))
	op.Ints = []int64{int64(axis)}
	return op.Result()
}

// Column is a vector [n] as [n, 1].
func (b *Builder) Column(x *Value) *Value { return b.Expand(x, 1) }

// Row is a vector [n] as [1, n].
func (b *Builder) Row(x *Value) *Value { return b.Expand(x, 0) }

// Trans swaps the axes of a matrix.
func (b *Builder) Trans(x *Value) *Value {
	d := x.Type.Dims()
	if len(d) != 2 {
		b.fail("transposed %s, wanted two axes", x.Type)
		return x
	}
	op := b.emit("tt.trans", []*Value{x}, x.Type.Of(d[1], d[0]))
	op.Ints = []int64{1, 0}
	return op.Result()
}

// Broadcast repeats x to dims: a scalar everywhere, axes of size 1 along.
func (b *Builder) Broadcast(x *Value, dims ...int) *Value {
	have := x.Type.Dims()
	if slices.Equal(have, dims) {
		return x
	}
	to := x.Type.Of(dims...)
	if len(have) == 0 {
		return b.one("tt.splat", to, x)
	}
	fits := len(have) == len(dims)
	for i := range have {
		fits = fits && (have[i] == dims[i] || have[i] == 1)
	}
	if !fits {
		b.fail("%s does not broadcast to %v", x.Type, dims)
	}
	return b.one("tt.broadcast", to, x)
}

// meet broadcasts values to what fits them all.
func (b *Builder) meet(vs ...*Value) []*Value {
	var dims []int
	for _, v := range vs {
		d := v.Type.Dims()
		switch {
		case len(d) == 0:
		case dims == nil:
			dims = slices.Clone(d)
		case len(d) != len(dims):
			b.fail("%s beside a block of %d axes", v.Type, len(dims))
			return vs
		default:
			for i := range d {
				if dims[i] == 1 {
					dims[i] = d[i]
				}
			}
		}
	}
	out := make([]*Value, len(vs))
	for i, v := range vs {
		out[i] = b.Broadcast(v, dims...)
	}
	return out
}
