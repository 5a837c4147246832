package trace

import (
	"fmt"
	"strings"

	"mix/lower/ir"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
)

// compositePrefix begins the names of functions whose calls are composites.
const compositePrefix = "mix."

// Call runs a function of this program on the inputs. A call of a composite keeps its name and
// parameters beside the function, so that a pass may put another form in its place.
func (f *Function) Call(fn compute.Function, inputs ...compute.Value) ([]compute.Value, error) {
	t, ok := fn.(*Function)
	if !ok || t.b != f.b || t.decl == nil {
		return nil, fmt.Errorf("trace: call of %v in %s, want a named function of program %q", fn, f, f.b.name)
	}
	if !t.returned {
		return nil, fmt.Errorf("trace: call of %s, which has not returned yet", t)
	}
	vs, err := f.inputs("call of "+t.String(), inputs...)
	if err != nil {
		return nil, err
	}
	if err := sameShapes(fmt.Sprintf("call of %s, input", t), vs, t.params); err != nil {
		return nil, err
	}
	name, attrs := "func.call", ir.Attrs{"callee": ir.Symbol(t.name)}
	if kind, params, ok := composite(t.name); ok {
		name = "stablehlo.composite"
		attrs = ir.Attrs{"name": ir.String(kind), "decomposition": ir.Symbol(t.name), "version": ir.I32(0)}
		if len(params) > 0 {
			attrs["composite_attributes"] = ir.Dictionary(params)
		}
	}
	out, err := f.emitN(name, shapesOf(t.outs), attrs, nil, vs...)
	if err != nil {
		return nil, err
	}
	return values(out), nil
}

// composite reads a function name of the form mix.<name>[(<k>=<v>;<k>=<v>…)].<n>.
func composite(fn string) (name string, params ir.Attrs, ok bool) {
	if !strings.HasPrefix(fn, compositePrefix) {
		return "", nil, false
	}
	name = strings.TrimRight(fn, "0123456789")
	if name == fn || !strings.HasSuffix(name, ".") {
		name = fn
	} else {
		name = name[:len(name)-1]
	}
	name, list, found := strings.Cut(name, "(")
	if !found {
		return name, nil, true
	}
	params = ir.Attrs{}
	for kv := range strings.SplitSeq(strings.TrimSuffix(list, ")"), ";") {
		k, v, _ := strings.Cut(kv, "=")
		if k != "" {
			params[k] = ir.String(v)
		}
	}
	return name, params, true
}

// While runs body on the state for as long as cond holds.
func (f *Function) While(cond, body compute.Function, initialState ...compute.Value) ([]compute.Value, error) {
	vs, err := f.inputs("While", initialState...)
	if err != nil {
		return nil, err
	}
	c, err := f.closure("While condition", cond, vs)
	if err != nil {
		return nil, err
	}
	if len(c.outs) != 1 || !c.outs[0].shape.Equal(shapes.Make(dtypes.Bool)) {
		return nil, fmt.Errorf("trace: While condition returns %v, want one Bool scalar", shapesOf(c.outs))
	}
	b, err := f.closure("While body", body, vs)
	if err != nil {
		return nil, err
	}
	if err := sameShapes("While body, output", b.outs, vs); err != nil {
		return nil, err
	}
	regions, err := f.attach(c, b)
	if err != nil {
		return nil, err
	}
	out, err := f.emitN("stablehlo.while", shapesOf(vs), nil, regions, vs...)
	if err != nil {
		return nil, err
	}
	return values(out), nil
}

// If runs one of two closures without parameters.
func (f *Function) If(pred compute.Value, trueBranch, falseBranch compute.Function) ([]compute.Value, error) {
	p, err := f.input("If", pred)
	if err != nil {
		return nil, err
	}
	if !p.shape.Equal(shapes.Make(dtypes.Bool)) {
		return nil, fmt.Errorf("trace: If of %s, want a Bool scalar", p.shape)
	}
	t, err := f.closure("If, true branch", trueBranch, nil)
	if err != nil {
		return nil, err
	}
	e, err := f.closure("If, false branch", falseBranch, nil)
	if err != nil {
		return nil, err
	}
	if err := sameShapes("If, false branch, output", e.outs, t.outs); err != nil {
		return nil, err
	}
	regions, err := f.attach(t, e)
	if err != nil {
		return nil, err
	}
	out, err := f.emitN("stablehlo.if", shapesOf(t.outs), nil, regions, p)
	if err != nil {
		return nil, err
	}
	return values(out), nil
}

// Sort orders the inputs along axis by a comparator that says whether lhs comes before rhs. Its
// parameters are (lhs_0, rhs_0, lhs_1, rhs_1, …), as GoMLX makes them and StableHLO wants them; the
// comment of compute.Function has another order that nobody uses.
func (f *Function) Sort(comparator compute.Function, axis int, isStable bool, inputs ...compute.Value) ([]compute.Value, error) {
	vs, err := f.inputs("Sort", inputs...)
	if err != nil {
		return nil, err
	}
	if len(vs) == 0 {
		return nil, fmt.Errorf("trace: Sort of nothing")
	}
	var pairs []*value
	for i, v := range vs {
		if !v.shape.EqualDimensions(vs[0].shape) {
			return nil, fmt.Errorf("trace: Sort input %d is %s, input 0 %s, want equal dimensions", i, v.shape, vs[0].shape)
		}
		s := &value{shape: shapes.Make(v.shape.DType)}
		pairs = append(pairs, s, s)
	}
	if err := checkAxes("Sort", vs[0].shape, []int{axis}); err != nil {
		return nil, err
	}
	c, err := f.closure("Sort comparator", comparator, pairs)
	if err != nil {
		return nil, err
	}
	if len(c.outs) != 1 || !c.outs[0].shape.Equal(shapes.Make(dtypes.Bool)) {
		return nil, fmt.Errorf("trace: Sort comparator returns %v, want one Bool scalar", shapesOf(c.outs))
	}
	regions, err := f.attach(c)
	if err != nil {
		return nil, err
	}
	if err := f.closed("Sort comparator", c, regions[0]); err != nil {
		return nil, err
	}
	out, err := f.emitN("stablehlo.sort", shapesOf(vs), ir.Attrs{"dimension": ir.Int(axis), "is_stable": ir.Bool(isStable)}, regions, vs...)
	if err != nil {
		return nil, err
	}
	return values(out), nil
}

// closure checks that fn is a finished closure of this program with parameters like want.
func (f *Function) closure(what string, fn compute.Function, want []*value) (*Function, error) {
	c, ok := fn.(*Function)
	switch {
	case !ok || c.b != f.b:
		return nil, fmt.Errorf("trace: %s in %s is not of program %q", what, f, f.b.name)
	case c.decl != nil:
		return nil, fmt.Errorf("trace: %s is %s, want a closure", what, c)
	case !c.returned:
		return nil, fmt.Errorf("trace: %s has not returned", what)
	}
	return c, sameShapes(what+", parameter", c.params, want)
}

func sameShapes(what string, got, want []*value) error {
	if len(got) != len(want) {
		return fmt.Errorf("trace: %s count is %d, want %d", what, len(got), len(want))
	}
	for i := range got {
		if !got[i].shape.Equal(want[i].shape) {
			return fmt.Errorf("trace: %s %d is %s, want %s", what, i, got[i].shape, want[i].shape)
		}
	}
	return nil
}

func shapesOf(vs []*value) []shapes.Shape {
	out := make([]shapes.Shape, len(vs))
	for i, v := range vs {
		out[i] = v.shape
	}
	return out
}

// RNGBitGenerator fills shape with random bits by the Philox generator and advances the state.
func (f *Function) RNGBitGenerator(state compute.Value, shape shapes.Shape) (newState, bits compute.Value, err error) {
	s, err := f.input("RNGBitGenerator", state)
	if err != nil {
		return nil, nil, err
	}
	if s.shape.DType != dtypes.Uint64 || s.shape.Rank() != 1 || s.shape.Dimensions[0] < 2 || s.shape.Dimensions[0] > 3 {
		return nil, nil, fmt.Errorf("trace: RNGBitGenerator state is %s, want %s", s.shape, compute.RNGStateShape)
	}
	drawn := shape
	if !shape.DType.IsUnsigned() {
		// XLA draws unsigned integers only; signed ones and floats take the bits of one as wide.
		u, ok := map[int]dtypes.DType{8: dtypes.Uint8, 16: dtypes.Uint16, 32: dtypes.Uint32, 64: dtypes.Uint64}[shape.DType.Bits()]
		if !ok || shape.DType == dtypes.Bool {
			return nil, nil, fmt.Errorf("trace: RNGBitGenerator of %s, want 8 to 64 bits an element", shape)
		}
		drawn = withDType(shape, u)
	}
	vs, err := f.emitN("stablehlo.rng_bit_generator", []shapes.Shape{s.shape, drawn},
		ir.Attrs{"rng_algorithm": "#stablehlo<rng_algorithm PHILOX>"}, nil, s)
	if err != nil {
		return nil, nil, err
	}
	bits, err = f.Bitcast(vs[1], shape.DType)
	return vs[0], bits, err
}

// AllReduce reduces each operand over the replicas of its group.
func (f *Function) AllReduce(operands []compute.Value, reductionType compute.ReduceOpType, replicaGroups [][]int) ([]compute.Value, error) {
	vs, err := f.inputs("AllReduce", operands...)
	if err != nil {
		return nil, err
	}
	r, err := reductionOf(reductionType)
	if err != nil {
		return nil, err
	}
	groups, err := groupsAttr(replicaGroups)
	if err != nil {
		return nil, err
	}
	out := make([]compute.Value, len(vs))
	for i, v := range vs {
		o, err := f.emitN("stablehlo.all_reduce", []shapes.Shape{v.shape}, ir.Attrs{"replica_groups": groups},
			[]*ir.Region{r.body(v.shape.DType)}, v)
		if err != nil {
			return nil, err
		}
		out[i] = o[0]
	}
	return out, nil
}

func groupsAttr(groups [][]int) (ir.Attr, error) {
	rows := make([]string, len(groups))
	for i, g := range groups {
		if len(g) != len(groups[0]) {
			return "", fmt.Errorf("trace: replica group %d has %d replicas, group 0 has %d, want equal sizes", i, len(g), len(groups[0]))
		}
		rows[i] = list(g)
	}
	if len(groups) == 0 || len(groups[0]) == 0 {
		return "", fmt.Errorf("trace: AllReduce over no replicas")
	}
	return ir.Attr(fmt.Sprintf("dense<[%s]> : tensor<%dx%dxi64>", strings.Join(rows, ", "), len(groups), len(groups[0]))), nil
}
