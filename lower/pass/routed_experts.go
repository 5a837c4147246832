package pass

import (
	"fmt"
	"slices"
	"strconv"

	"mix/lower/ir"
)

// routedExperts replaces composites mix.routed_experts by the form that suits the platform.
//
// A composite has the operands
//
//	x       [T, D] a float type, that of the result [T, D]
//	chosen  [T, K] i32 in [0, E)
//	weights [T, K] a float type
//	gate, up, down: with form = "split" E matrices [F, D], E matrices [F, D], E matrices [D, F],
//	        with form = "stacked" one [E, F, D], one [E, F, D], one [E, D, F]
//
// and with the attributes capacity and drop, see package composite, a second result, the number of rows dropped, [] f32.
// It means y[t] = Σᵢ weights[t,i] · down·(silu(gate·x[t]) · (up·x[t])), e = chosen[t,i] choosing
// the matrices. T tokens, D model width, K experts a token, E experts, F their hidden width, R = T·K
// rows, row t·K+i being choice i of token t.
//
// mix.routed_experts_gradient is described in package composite.
//
// After: on cpu no mix.routed_experts is left, on cuda neither of the two whose matrices are stacked and alike and whose rows
// all have room. Each token's sum runs over its choices in order, no
// matter what else is in the batch, and nothing is scattered: results repeat bit for bit.
func routedExperts(m *ir.Module, ctx Context) (changed bool, err error) {
	merged, err := mergeKept(m)
	if err != nil {
		return false, err
	}
	changed, err = takeRules(m, ctx, routedName, routedGradientName)
	return merged || changed, err
}

// mergeKept finds experts that are computed twice on the same operands, once with what the gradient keeps, and leaves the
// one that keeps, where the first of them stood.
func mergeKept(m *ir.Module) (changed bool, err error) {
	for _, f := range m.Funcs {
		by := map[*ir.Value]*ir.Value{}
		err := ir.WalkRegions(f.Body, func(region *ir.Region) error {
			for i := 0; i < len(region.Ops); i++ {
				plain := region.Ops[i]
				n := answers(plain)
				if composite(plain) != routedName || len(plain.Results) != n {
					continue
				}
				j := slices.IndexFunc(region.Ops, func(op *ir.Op) bool {
					return composite(op) == routedName && answers(op) == n && len(op.Results) > n && slices.Equal(op.Operands, plain.Operands)
				})
				if j < 0 {
					continue
				}
				kept := region.Ops[j]
				for i, v := range plain.Results {
					by[v] = kept.Results[i]
				}
				first, second := min(i, j), max(i, j)
				region.Ops[first] = kept
				region.Ops = slices.Delete(region.Ops, second, second+1)
				i = first
			}
			return nil
		})
		if err != nil {
			return false, err
		}
		ir.ReplaceAll(f.Body, by)
		changed = changed || len(by) > 0
	}
	return changed, nil
}

// answers is how many results of experts come before what is kept: y, and with a capacity the number of dropped rows.
func answers(op *ir.Op) int {
	if _, bounded := op.Attrs["composite_attributes"].Entry("capacity"); bounded {
		return 2
	}
	return 1
}

// experts is a mix.routed_experts taken apart.
type experts struct {
	x, chosen, weights *ir.Value
	gate, up, down     []*ir.Value // E matrices, or one stack
	stacked            bool
	elem               string // of x
	t, k, d, e, f      int
	capacity           float64 // factor, 0 for no bound
	byWeight           bool    // the rows of the lowest weights are dropped, else the last
}

func readExperts(op *ir.Op) (x experts, err error) {
	if len(op.Operands) < 6 || len(op.Results) < 1 {
		return x, fmt.Errorf("%d operands and %d results, wanted at least 6 and 1", len(op.Operands), len(op.Results))
	}
	x.x, x.chosen, x.weights = op.Operands[0], op.Operands[1], op.Operands[2]
	for _, v := range append([]*ir.Value{x.x}, op.Operands[2:]...) {
		if elem, _, _ := v.Type.Split(); !floats[elem] {
			return x, fmt.Errorf("operand %s, wanted a tensor of floats", v.Type)
		}
	}
	var kind string
	var ok [4]bool
	var xd, cd, gd []int
	x.elem, xd, ok[0] = x.x.Type.Split()
	kind, cd, ok[1] = x.chosen.Type.Split()
	_, _, ok[2] = x.weights.Type.Split()
	_, gd, ok[3] = op.Operands[3].Type.Split()
	if ok != [4]bool{true, true, true, true} || len(xd) != 2 || len(cd) != 2 || kind != "i32" || cd[0] != xd[0] {
		return x, fmt.Errorf("x %s and chosen %s, wanted [T, D] and [T, K] of i32", x.x.Type, x.chosen.Type)
	}
	x.t, x.d, x.k = xd[0], xd[1], cd[1]
	matrices := op.Operands[3:]
	x.stacked = len(gd) == 3
	if n := len(matrices); x.stacked && n != 3 || n%3 != 0 {
		return x, fmt.Errorf("%d expert operands, wanted 3 stacks or as many gate, up and down matrices", n)
	}
	n := len(matrices) / 3
	x.gate, x.up, x.down = matrices[:n], matrices[n:2*n], matrices[2*n:]
	x.e = n
	if x.stacked {
		x.e = gd[0]
		gd = gd[1:]
	}
	if len(gd) != 2 {
		return x, fmt.Errorf("gate %s, wanted [F, D] or [E, F, D]", op.Operands[3].Type)
	}
	x.f = gd[0]
	if x.capacity, x.byWeight, err = readCapacity(op); err != nil {
		return x, err
	}
	return x, x.check(op)
}

const (
	maxChoices = 64      // a token, whose choices are written out one by one
	maxSize    = 1 << 30 // of an axis, and rows: they are counted in i32
)

// floats are the types that values may have.
var floats = map[string]bool{"f16": true, "bf16": true, "f32": true, "f64": true}

// check holds weights, matrices, result and attributes to the sizes read.
func (x experts) check(op *ir.Op) error {
	if got, _ := op.Attrs["composite_attributes"].Entry("experts"); got != "" && got != ir.String(strconv.Itoa(x.e)) {
		return fmt.Errorf("attribute experts is %s, the operands hold %d", got, x.e)
	}
	if x.k > x.e || x.k > maxChoices {
		return fmt.Errorf("%d experts a token of %d experts, wanted at most all of them and %d", x.k, x.e, maxChoices)
	}
	for _, n := range []int{x.t, x.k, x.d, x.e, x.f} {
		if n < 1 || n > maxSize {
			return fmt.Errorf("x %s, chosen %s, gate %s: size %d, wanted 1 to %d", x.x.Type, x.chosen.Type, x.gate[0].Type, n, maxSize)
		}
	}
	if r := x.t * x.k; r > maxSize {
		return fmt.Errorf("chosen %s: %d rows, wanted at most %d", x.chosen.Type, r, maxSize)
	}
	if t := op.Results[0].Type; t != x.x.Type {
		return fmt.Errorf("result %s, wanted the type of x, %s", t, x.x.Type)
	}
	if _, dims, _ := x.weights.Type.Split(); len(dims) != 2 || dims[0] != x.t || dims[1] != x.k {
		return fmt.Errorf("weights %s, wanted the sizes of chosen, %s", x.weights.Type, x.chosen.Type)
	}
	in, out := []int{x.f, x.d}, []int{x.d, x.f}
	if x.stacked {
		in, out = []int{x.e, x.f, x.d}, []int{x.e, x.d, x.f}
	}
	for i, group := range [][]*ir.Value{x.gate, x.up, x.down} {
		want := [][]int{in, in, out}[i]
		for e, w := range group {
			elem, _, ok := w.Type.Split()
			if !ok || w.Type != ir.Tensor(elem, want...) {
				return fmt.Errorf("%s of expert %d is %s, wanted %v", [...]string{"gate", "up", "down"}[i], e, w.Type, want)
			}
		}
	}
	return nil
}

// fewTokens is up to how many tokens run their choices one by one: while hardly two rows share an
// expert, bringing them together gains nothing. In f32 it pays longer, because a product of one row
// reads a matrix about twice as fast as one of two to four rows. Single rows of other types are
// left to the pass one_row.
func (x experts) fewTokens() bool { return x.t <= 2 || x.elem == "f32" && x.t <= 4 }

// routedExpertsCPU reads each chosen expert's matrices once, which is what time goes to on a CPU.
func routedExpertsCPU(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
	x, err := readExperts(op)
	if err != nil {
		return nil, err
	}
	if len(op.Results) > 1 { // a step of training: many rows, for which the body's grouped products are the fast form
		return nil, nil
	}
	if !x.stacked && x.fewTokens() {
		return []*ir.Value{x.oneByOne(b)}, nil
	}
	return []*ir.Value{x.sorted(b)}, nil
}

// token is the token of each routed row, [R].
func (x experts) token(b ir.Builder, rows *ir.Value) *ir.Value {
	return b.Div(rows, b.Const(rows.Type, strconv.Itoa(x.k)))
}

// expert is one expert on rows [n, D]: [n, D] of x's elements.
func (x experts) expert(b ir.Builder, rows, gate, up, down *ir.Value) *ir.Value {
	gate, up, down = b.Convert(gate, x.elem), b.Convert(up, x.elem), b.Convert(down, x.elem)
	g := b.Dot(rows, 1, gate, 1, x.elem)              // [n, F]
	u := b.Dot(rows, 1, up, 1, x.elem)                // [n, F]
	return b.Dot(swiglu(b, g, u), 1, down, 1, x.elem) // [n, D]
}

// swiglu is silu(g)·u.
func swiglu(b ir.Builder, g, u *ir.Value) *ir.Value {
	return b.Mul(b.Mul(g, b.Unary("logistic", g)), u)
}

// oneByOne loops over the rows, each through a case over the experts. A case for each row would
// run no faster and compile R times as long.
func (x experts) oneByOne(b ir.Builder) *ir.Value {
	r := x.t * x.k
	flat := b.Reshape(x.chosen, r)                 // [R]
	y := b.Const(ir.Tensor(x.elem, r, x.d), "0.0") // [R, D]
	loop := b.While([]*ir.Value{b.Index(0), y},
		func(b ir.Builder, vs []*ir.Value) *ir.Value { return b.Compare("LT", vs[0], b.Index(r)) },
		func(b ir.Builder, vs []*ir.Value) []*ir.Value {
			p, y, zero := vs[0], vs[1], b.Index(0)
			e := b.Reshape(b.DynamicSlice(flat, []*ir.Value{p}, 1))
			row := b.DynamicSlice(x.x, []*ir.Value{b.Div(p, b.Index(x.k)), zero}, 1, x.d) // [1, D]
			out := b.Case(e, x.e, row.Type, func(b ir.Builder, e int) *ir.Value {         // [1, D]
				return x.expert(b, row, x.gate[e], x.up[e], x.down[e])
			})
			return []*ir.Value{b.Add(p, b.Index(1)), b.DynamicUpdate(y, out, p, zero)}
		})
	y = b.Reshape(loop[1], x.t, x.k, x.d) // [T, K, D]
	var choices []*ir.Value               // K of [T, D]
	for i := range x.k {
		choices = append(choices, choice(b, y, i))
	}
	return x.combine(b, choices)
}

// choice is what all tokens have of choice i, [T, D] of rows [T, K, D].
func choice(b ir.Builder, rows *ir.Value, i int) *ir.Value {
	d := rows.Dims()
	return b.Reshape(b.Slice(rows, []int{0, i, 0}, []int{d[0], i + 1, d[2]}), d[0], d[2])
}

// combine sums K results [T, D] by weight.
func (x experts) combine(b ir.Builder, y []*ir.Value) *ir.Value {
	return b.Convert(weighted(b, y, x.weights), x.elem)
}

// weighted is the sum of K results [T, D] by weights [T, K], in order and in f32: [T, D] f32.
func weighted(b ir.Builder, y []*ir.Value, weights *ir.Value) (sum *ir.Value) {
	weights = b.Convert(weights, "f32")
	for i := range y {
		dims := y[i].Dims()
		w := b.Reshape(b.Slice(weights, []int{0, i}, []int{dims[0], i + 1}), dims[0])
		term := b.Mul(b.Convert(y[i], "f32"), b.Broadcast(w, dims, 0))
		if sum == nil {
			sum = term
		} else {
			sum = b.Add(sum, term)
		}
	}
	return sum
}

// block is how many rows of an expert go through its matrices at once: twice as many as it has on
// average, so that most experts need one block, and at most 64, where a product no longer waits for
// memory: larger blocks made prompts of the sizes benchmarked in package serve no faster.
func (x experts) block() int { return groups{rows: x.t * x.k, e: x.e}.block(64) }

// sorted brings rows of one expert together and runs them in blocks.
//
// The last block of an expert reaches into the rows of the next ones and leaves nonsense there.
// Experts run in ascending order, so that each writes its rows over what its forerunners left.
func (x experts) sorted(b ir.Builder) *ir.Value {
	r, n := x.t*x.k, x.block()
	flat := b.Reshape(x.chosen, r)                       // [R]
	ids, order := b.SortBy(flat, b.Iota(0, "i32", r))    // [R] both
	rows := padded(b, b.Rows(x.x, x.token(b, order)), n) // [R+n, D]
	y := b.Const(rows.Type, "0.0")                       // [R+n, D]
	if x.stacked {
		y = x.stackedBlocks(b, ids, rows, y, x.ends(b, flat))
	} else {
		y = x.splitBlocks(b, rows, y, x.ends(b, flat))
	}
	_, place := b.SortBy(order, b.Iota(0, "i32", r)) // [R] inverse of order
	place = b.Reshape(place, x.t, x.k)               // [T, K]
	var choices []*ir.Value                          // K of [T, D]
	for i := range x.k {
		at := b.Reshape(b.Slice(place, []int{0, i}, []int{x.t, i + 1}), x.t)
		choices = append(choices, b.Rows(y, at))
	}
	return x.combine(b, choices)
}

// ends counts for every expert the sorted rows up to its last, [E] i32.
func (x experts) ends(b ir.Builder, flat *ir.Value) *ir.Value {
	r := x.t * x.k
	ids := b.Broadcast(flat, []int{r, x.e}, 0)
	upto := b.Compare("LE", ids, b.Iota(1, "i32", r, x.e))
	return b.Reduce("add", b.Convert(upto, "i32"), "0", 0)
}

// blocks runs one expert's rows from p up to end and returns y with them written.
func (x experts) blocks(b ir.Builder, p, end, rows, y, gate, up, down *ir.Value) *ir.Value {
	n := x.block()
	return blocks(b, n, p, end, y, func(b ir.Builder, p, y *ir.Value) *ir.Value {
		zero := b.Index(0)
		part := b.DynamicSlice(rows, []*ir.Value{p, zero}, n, x.d)
		return b.DynamicUpdate(y, x.expert(b, part, gate, up, down), p, zero)
	})
}

// splitBlocks has one loop an expert, each with its own matrices: a matrix chosen inside a loop
// would be copied.
func (x experts) splitBlocks(b ir.Builder, rows, y, ends *ir.Value) *ir.Value {
	p := b.Index(0)
	for e := range x.e {
		end := b.Reshape(b.Slice(ends, []int{e}, []int{e + 1}))
		y = x.blocks(b, p, end, rows, y, x.gate[e], x.up[e], x.down[e])
		p = end
	}
	return y
}

// stackedBlocks goes from expert to expert that has rows, and copies its matrices out of the stack
// once.
func (x experts) stackedBlocks(b ir.Builder, ids, rows, y, ends *ir.Value) *ir.Value {
	loop := b.While([]*ir.Value{b.Index(0), y},
		func(b ir.Builder, vs []*ir.Value) *ir.Value {
			return b.Compare("LT", vs[0], b.Index(x.t*x.k))
		},
		func(b ir.Builder, vs []*ir.Value) []*ir.Value {
			p, y, zero := vs[0], vs[1], b.Index(0)
			e := b.Reshape(b.DynamicSlice(ids, []*ir.Value{p}, 1))
			end := b.Reshape(b.DynamicSlice(ends, []*ir.Value{e}, 1))
			matrix := func(stack *ir.Value, n, m int) *ir.Value {
				return b.Reshape(b.DynamicSlice(stack, []*ir.Value{e, zero, zero}, 1, n, m), n, m)
			}
			gate, up, down := matrix(x.gate[0], x.f, x.d), matrix(x.up[0], x.f, x.d), matrix(x.down[0], x.d, x.f)
			y = x.blocks(b, p, end, rows, y, gate, up, down)
			// An id out of range must not stop the loop from ending.
			return []*ir.Value{b.Binary("maximum", end, b.Add(p, b.Index(1))), y}
		})
	return loop[1]
}
