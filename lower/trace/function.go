package trace

import (
	"fmt"
	"slices"

	"mix/lower/ir"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/notimplemented"
	"github.com/gomlx/compute/shapes"
)

// Function records operations into one region: main, a named function, or a closure.
type Function struct {
	notimplemented.Function // the operations that are left out

	b      *Builder
	name   string
	parent *Function // of a closure
	decl   *ir.Func  // of a named function
	region *ir.Region

	params     []*value
	paramNames []string
	locals     []shapes.Shape // of params, the part on one device
	outs       []*value
	captured   []*value // values of other functions that operations here use, or that their regions do
	attached   bool     // the region belongs to an operation already
	returned   bool
}

// value is what GoMLX holds for a result.
type value struct {
	v     *ir.Value
	shape shapes.Shape
	fn    *Function
}

// Name is the function's name, empty for a closure.
func (f *Function) Name() string { return f.name }

// Builder is the program that the function belongs to.
func (f *Function) Builder() compute.Builder { return f.b }

// Parent is the function in which a closure was made, nil for a named function.
func (f *Function) Parent() compute.Function {
	if f.parent == nil {
		return nil
	}
	return f.parent
}

// Closure starts a function without a name whose operations may use values around it.
func (f *Function) Closure() (compute.Function, error) {
	if f.returned {
		return nil, fmt.Errorf("trace: closure in %s, which has returned", f)
	}
	c := &Function{b: f.b, parent: f, region: &ir.Region{}}
	c.ErrFn = notImplemented
	return c, nil
}

// String names the function in errors.
func (f *Function) String() string {
	if f.name == "" {
		return fmt.Sprintf("a closure of %s", f.parent)
	}
	return fmt.Sprintf("function %q", f.name)
}

// Shape is the shape of a value of this program.
func (f *Function) Shape(v compute.Value) (shapes.Shape, error) {
	x, err := f.b.value(v)
	if err != nil {
		return shapes.Invalid(), err
	}
	return x.shape, nil
}

// Parameter adds an input. Only main's parameters can be sharded.
func (f *Function) Parameter(name string, shape shapes.Shape, sharding *compute.ShardingSpec) (compute.Value, error) {
	if f.returned {
		return nil, fmt.Errorf("trace: parameter %q of %s, which has returned", name, f)
	}
	t, err := Type(shape)
	if err != nil {
		return nil, fmt.Errorf("parameter %q: %w", name, err)
	}
	v := &ir.Value{Type: t}
	f.region.Args = append(f.region.Args, v)
	p := &value{v, shape.Clone(), f}
	f.params = append(f.params, p)
	f.paramNames = append(f.paramNames, name)
	local := p.shape
	if f.decl != nil {
		var attrs ir.Attrs
		if sharding != nil {
			s, part, err := f.b.sharding(sharding, p.shape)
			if err != nil {
				return nil, fmt.Errorf("trace: parameter %q: %w", name, err)
			}
			local, attrs = part, ir.Attrs{"sdy.sharding": s}
		}
		f.decl.ParamAttrs = append(f.decl.ParamAttrs, attrs)
	}
	f.locals = append(f.locals, local)
	return p, nil
}

// Return ends the function. Only main's outputs can be sharded.
func (f *Function) Return(outputs []compute.Value, shardings []*compute.ShardingSpec) error {
	vs, err := f.inputs("return", outputs...)
	if err != nil {
		return err
	}
	if len(shardings) != 0 && len(shardings) != len(outputs) {
		return fmt.Errorf("trace: %s returns %d values with %d shardings", f, len(outputs), len(shardings))
	}
	f.outs = vs
	ret := "stablehlo.return"
	if f.decl != nil {
		ret = "func.return"
		for i, o := range vs {
			f.decl.Results = append(f.decl.Results, o.v.Type)
			var attrs ir.Attrs
			if i < len(shardings) && shardings[i] != nil {
				s, _, err := f.b.sharding(shardings[i], o.shape)
				if err != nil {
					return fmt.Errorf("trace: output %d: %w", i, err)
				}
				attrs = ir.Attrs{"sdy.sharding": s}
			}
			f.decl.ResultAttrs = append(f.decl.ResultAttrs, attrs)
		}
		f.decl.ParamAttrs = orNil(f.decl.ParamAttrs)
		f.decl.ResultAttrs = orNil(f.decl.ResultAttrs)
	}
	f.region.Emit(ret, irs(vs), nil)
	f.returned = true
	if f.decl != nil {
		return f.rematerialize()
	}
	return nil
}

func orNil(as []ir.Attrs) []ir.Attrs {
	if slices.ContainsFunc(as, func(a ir.Attrs) bool { return len(a) > 0 }) {
		return as
	}
	return nil
}

// value checks that v came from this builder.
func (b *Builder) value(v compute.Value) (*value, error) {
	x, ok := v.(*value)
	if !ok || x == nil {
		return nil, fmt.Errorf("trace: value of type %T in program %q, want one that it made", v, b.name)
	}
	if x.fn.b != b {
		return nil, fmt.Errorf("trace: value of program %q used in program %q", x.fn.b.name, b.name)
	}
	return x, nil
}

// inputs checks the operands of an operation to be recorded in f, and notes those from outside.
func (f *Function) inputs(op string, operands ...compute.Value) ([]*value, error) {
	if f.returned {
		return nil, fmt.Errorf("trace: %s in %s, which has returned", op, f)
	}
	vs := make([]*value, len(operands))
	for i, o := range operands {
		x, err := f.b.value(o)
		if err != nil {
			return nil, fmt.Errorf("%s, operand %d: %w", op, i, err)
		}
		if x.fn != f {
			f.captured = append(f.captured, x)
		}
		vs[i] = x
	}
	return vs, nil
}

// input is inputs of one operand, input2 of two.
func (f *Function) input(op string, x compute.Value) (*value, error) {
	vs, err := f.inputs(op, x)
	if err != nil {
		return nil, err
	}
	return vs[0], nil
}

func (f *Function) input2(op string, x, y compute.Value) (a, b *value, err error) {
	vs, err := f.inputs(op, x, y)
	if err != nil {
		return nil, nil, err
	}
	return vs[0], vs[1], nil
}

// emit records an operation with one result.
func (f *Function) emit(name string, result shapes.Shape, attrs ir.Attrs, operands ...*value) (*value, error) {
	vs, err := f.emitN(name, []shapes.Shape{result}, attrs, nil, operands...)
	if err != nil {
		return nil, err
	}
	return vs[0], nil
}

// emitN records an operation with any number of results and regions.
func (f *Function) emitN(name string, results []shapes.Shape, attrs ir.Attrs, regions []*ir.Region, operands ...*value) ([]*value, error) {
	types := make([]ir.Type, len(results))
	for i, r := range results {
		t, err := Type(r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		types[i] = t
	}
	op := f.region.Emit(name, irs(operands), attrs, types...)
	op.Regions = regions
	out := make([]*value, len(results))
	for i, r := range results {
		out[i] = &value{op.Results[i], unnamed(r), f}
	}
	return out, nil
}

// unnamed drops axis names that are all empty, which shape inference leaves behind: they make shapes
// unequal that are the same.
func unnamed(s shapes.Shape) shapes.Shape {
	for _, n := range s.AxisNames {
		if n != "" {
			return s
		}
	}
	s.AxisNames = nil
	return s
}

func irs(vs []*value) []*ir.Value {
	out := make([]*ir.Value, len(vs))
	for i, v := range vs {
		out[i] = v.v
	}
	return out
}

// values makes the interface slice that compute wants.
func values(vs []*value) []compute.Value {
	out := make([]compute.Value, len(vs))
	for i, v := range vs {
		out[i] = v
	}
	return out
}
