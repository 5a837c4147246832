// Package trace records what GoMLX builds as an ir.Module in StableHLO operations.
//
// It is the compute.Builder and compute.Function of our backend: every call appends operations to a
// region, nothing is computed. Functions named mix.* are composites: a call of one is recorded as
// stablehlo.composite with the function as its decomposition, for passes to replace. Closures become
// regions of the operation that takes them.
//
//	builder      module, functions, parameters, constants, return
//	elementwise  one or two operands, any broadcast
//	shape        moving elements without computing
//	contract     dot, convolution          reduce  reductions, windows, sort
//	index        gather, scatter, slices   control while, if, call, composites
package trace

import (
	"fmt"
	"slices"

	"mix/lower/ir"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
)

// Param is a parameter of the main function.
type Param struct {
	Name  string
	Shape shapes.Shape // of the whole tensor
	Local shapes.Shape // of the part that one device holds
}

// Compiler makes an executable of a finished trace.
type Compiler func(b *Builder) (compute.Executable, error)

// Builder is one traced program. It is not safe for concurrent use.
type Builder struct {
	name     string
	module   *ir.Module
	main     *Function
	funcs    map[string]*Function
	compile  Compiler
	compiled bool
	meshes   []compute.Mesh

	replicas, partitions int
	devices              []compute.DeviceNum
}

// New starts a program called name; Compile of the builder hands the finished trace to compile.
func New(name string, compile Compiler) *Builder {
	b := &Builder{name: name, compile: compile, funcs: map[string]*Function{}, replicas: 1, partitions: 1}
	b.module = &ir.Module{Name: symbolName(name), Attrs: ir.Attrs{}}
	b.main = b.function(compute.MainName)
	return b
}

// Name is the name the program was given.
func (b *Builder) Name() string { return b.name }

// Main is the function that is run.
func (b *Builder) Main() compute.Function { return b.main }

// NewFunction starts a function that others can call. Its name must be new.
func (b *Builder) NewFunction(name string) (compute.Function, error) {
	if name == "" {
		return nil, fmt.Errorf("trace: a function of program %q has no name", b.name)
	}
	if b.funcs[name] != nil {
		return nil, fmt.Errorf("trace: program %q already has a function %q", b.name, name)
	}
	return b.function(name), nil
}

func (b *Builder) function(name string) *Function {
	f := &Function{b: b, name: name, region: &ir.Region{}}
	f.ErrFn = notImplemented
	f.decl = &ir.Func{Name: name, Private: name != compute.MainName, Body: f.region}
	b.funcs[name] = f
	b.module.Funcs = append(b.module.Funcs, f.decl)
	return f
}

func notImplemented(op compute.OpType) error {
	return fmt.Errorf("trace: %s: %w", op, compute.ErrNotImplemented)
}

// OpShape is the shape of a value of this program.
func (b *Builder) OpShape(op compute.Value) (shapes.Shape, error) { return b.main.Shape(op) }

// DistributedSPMD runs the program on n replicas, each with its own inputs.
func (b *Builder) DistributedSPMD(n int) error {
	if n < 1 {
		return fmt.Errorf("trace: program %q on %d replicas, want at least 1", b.name, n)
	}
	b.replicas = n
	return nil
}

// DistributedAutoSharding partitions one program over the devices of the first mesh.
func (b *Builder) DistributedAutoSharding(meshes ...compute.Mesh) error {
	if len(meshes) == 0 {
		return fmt.Errorf("trace: program %q is to be sharded over no mesh", b.name)
	}
	for i, m := range meshes {
		op, n, err := meshOp(m)
		if err != nil {
			return err
		}
		if i == 0 {
			b.partitions = n
		}
		if n != b.partitions {
			return fmt.Errorf("trace: mesh %q has %d devices, mesh %q has %d", m.Name, n, meshes[0].Name, b.partitions)
		}
		b.module.Globals = append(b.module.Globals, op)
	}
	b.meshes = slices.Clone(meshes)
	return nil
}

// DeviceAssignment names the devices that the program is compiled for, one a replica or partition.
func (b *Builder) DeviceAssignment(devices ...compute.DeviceNum) error {
	if want := b.replicas * b.partitions; len(devices) != want {
		return fmt.Errorf("trace: program %q is assigned %d devices, want %d", b.name, len(devices), want)
	}
	b.devices = slices.Clone(devices)
	return nil
}

// Compile ends the trace. The builder cannot be used afterwards.
func (b *Builder) Compile() (compute.Executable, error) {
	if b.compiled {
		return nil, fmt.Errorf("trace: program %q is compiled already", b.name)
	}
	if !b.main.returned {
		return nil, fmt.Errorf("trace: main of program %q does not return", b.name)
	}
	for _, f := range b.funcs {
		if !f.returned {
			return nil, fmt.Errorf("trace: function %q of program %q does not return", f.name, b.name)
		}
	}
	b.compiled = true
	return b.compile(b)
}

// Module is the trace. Passes change it in place.
func (b *Builder) Module() *ir.Module { return b.module }

// Params are the parameters of main, in order.
func (b *Builder) Params() []Param {
	ps := make([]Param, len(b.main.params))
	for i, p := range b.main.params {
		ps[i] = Param{b.main.paramNames[i], p.shape, b.main.locals[i]}
	}
	return ps
}

// Outputs are the shapes that main returns.
func (b *Builder) Outputs() []shapes.Shape {
	s := make([]shapes.Shape, len(b.main.outs))
	for i, v := range b.main.outs {
		s[i] = v.shape
	}
	return s
}

// Replicas and Partitions are the size of the program's device grid; Devices are the assigned
// device numbers, nil when any will do.
func (b *Builder) Replicas() int                { return b.replicas }
func (b *Builder) Partitions() int              { return b.partitions }
func (b *Builder) Devices() []compute.DeviceNum { return b.devices }

// symbolName keeps a module's name to the characters that every MLIR printer leaves bare.
func symbolName(s string) string {
	out := []byte(s)
	for i, c := range out {
		if !(c == '_' || c == '.' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') {
			out[i] = '_'
		}
	}
	if len(out) == 0 || out[0] >= '0' && out[0] <= '9' || out[0] == '.' {
		out = append([]byte{'_'}, out...)
	}
	return string(out)
}

var elements = map[dtypes.DType]string{
	dtypes.Bool: "i1",
	dtypes.Int2: "i2", dtypes.Int4: "i4", dtypes.Int8: "i8", dtypes.Int16: "i16", dtypes.Int32: "i32", dtypes.Int64: "i64",
	dtypes.Uint2: "ui2", dtypes.Uint4: "ui4", dtypes.Uint8: "ui8", dtypes.Uint16: "ui16", dtypes.Uint32: "ui32", dtypes.Uint64: "ui64",
	dtypes.Float16: "f16", dtypes.BFloat16: "bf16", dtypes.Float32: "f32", dtypes.Float64: "f64",
	dtypes.Complex64: "complex<f32>", dtypes.Complex128: "complex<f64>",
	dtypes.F8E5M2: "f8E5M2", dtypes.F8E4M3FN: "f8E4M3FN", dtypes.F8E4M3B11FNUZ: "f8E4M3B11FNUZ",
	dtypes.F8E5M2FNUZ: "f8E5M2FNUZ", dtypes.F8E4M3FNUZ: "f8E4M3FNUZ", dtypes.F8E4M3: "f8E4M3", dtypes.F8E3M4: "f8E3M4",
}

// Type is the MLIR type of a shape. Dtypes that StableHLO lacks and dynamic dimensions are errors.
func Type(s shapes.Shape) (t ir.Type, err error) {
	e, ok := elements[s.DType]
	if !ok {
		return "", fmt.Errorf("trace: dtype %s has no StableHLO type", s.DType)
	}
	for _, d := range s.Dimensions {
		if d < 0 {
			return "", fmt.Errorf("trace: shape %s has a dynamic dimension, want static ones: %w", s, compute.ErrNotImplemented)
		}
	}
	return ir.Tensor(e, s.Dimensions...), nil
}
