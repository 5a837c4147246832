// Package ir is the module between tracing and XLA: MLIR's generic form as Go structs.
//
// A Module holds functions, a function one region of operations in SSA form, an operation may hold
// regions of its own. Types and attributes are kept as MLIR text: passes read the few that they
// understand through accessors and carry the rest along unharmed. Print gives text that MLIR parses;
// Parse reads that text back.
package ir

// Module is a compilation unit.
type Module struct {
	Name    string // symbol name, e.g. "decode"
	Attrs   Attrs
	Globals []*Op   // module-level operations that are not functions, e.g. sdy.mesh
	Funcs   []*Func // the entry is called "main"
}

// Func is a function: a region whose arguments are its parameters and whose last op is func.return.
type Func struct {
	Name        string
	Private     bool
	Attrs       Attrs   // beside sym_name, function_type, sym_visibility and the two lists below
	ParamAttrs  []Attrs // one entry a parameter, nil entries allowed; nil when no parameter has any
	Results     []Type
	ResultAttrs []Attrs // as ParamAttrs
	Body        *Region
}

// Region is one block of operations; the last is its terminator.
type Region struct {
	Args []*Value
	Ops  []*Op
}

// Value is a region's argument or one result of an operation. Values have no names: Print numbers them.
type Value struct {
	Type Type
	Def  *Op // nil for a region's argument
}

// Dims are the sizes of a tensor's axes, nil of what is no tensor of static sizes.
func (v *Value) Dims() []int {
	_, dims, _ := v.Type.Split()
	return dims
}

// Op is an operation in generic form.
type Op struct {
	Name     string // e.g. "stablehlo.add"
	Operands []*Value
	Results  []*Value
	Attrs    Attrs
	Regions  []*Region
}

// NewOp makes an operation with one result a type. It is in no region yet.
func NewOp(name string, operands []*Value, attrs Attrs, results ...Type) *Op {
	op := &Op{Name: name, Operands: operands, Attrs: attrs}
	for _, t := range results {
		op.Results = append(op.Results, &Value{Type: t, Def: op})
	}
	return op
}

// Result is the only result of op; it panics when there is not exactly one.
func (op *Op) Result() *Value {
	if len(op.Results) != 1 {
		panic("ir: Result of " + op.Name + ", which does not have exactly one")
	}
	return op.Results[0]
}

// NewRegion makes a region with one argument a type.
func NewRegion(args ...Type) *Region {
	r := &Region{}
	for _, t := range args {
		r.Args = append(r.Args, &Value{Type: t})
	}
	return r
}

// Add appends op and returns it.
func (r *Region) Add(op *Op) *Op {
	r.Ops = append(r.Ops, op)
	return op
}

// Emit makes an operation, appends it to r and returns it.
func (r *Region) Emit(name string, operands []*Value, attrs Attrs, results ...Type) *Op {
	return r.Add(NewOp(name, operands, attrs, results...))
}

// Func returns the function called name, or nil.
func (m *Module) Func(name string) *Func {
	for _, f := range m.Funcs {
		if f.Name == name {
			return f
		}
	}
	return nil
}

// Types lists the types of values.
func Types(vs []*Value) []Type {
	ts := make([]Type, len(vs))
	for i, v := range vs {
		ts[i] = v.Type
	}
	return ts
}

// Params lists the arguments of f's body.
func (f *Func) Params() []*Value {
	if f.Body == nil {
		return nil
	}
	return f.Body.Args
}
