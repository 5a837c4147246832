package triton

// Func is a kernel: one block of operations on its parameters.
type Func struct {
	Name   string
	Params []*Value // pointers to arrays
	Body   *Region
	Values int // IDs of values are below it
}

// Value is a parameter, an argument of a region or a result of an operation.
type Value struct {
	ID   int
	Type Type
	Name string // of a parameter
}

// Region is a list of operations with arguments.
type Region struct {
	Args []*Value
	Ops  []*Op
}

// Op is an operation. What its name leaves open lies in Ints, Number and Text:
//
//	arith.constant         Ints[0] of an integer, Number of a float
//	tt.get_program_id      Ints[0] the axis of the grid
//	tt.make_range          Ints from, to
//	tt.expand_dims         Ints[0] the axis
//	tt.trans               Ints the order of axes
//	tt.reduce, tt.scan     Ints[0] the axis, Text the operation that folds
//	arith.cmpi, arith.cmpf Text the predicate
type Op struct {
	Name     string
	Operands []*Value
	Results  []*Value
	Regions  []*Region
	Ints     []int64
	Number   float64
	Text     string
}

// Result is the only result.
func (op *Op) Result() *Value { return op.Results[0] }
