package pass

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"mix/lower/ir"
	"mix/lower/target"
	"mix/lower/triton"
	"mix/sharding"
	"mix/sharding/axis"
)

// addRows puts sums of outer products in the place of scatters that add rows to a table of zeros, as the gradient of a lookup
// does:
//
//	at [B, S] i32, rows [B, S, D] → y [V, D] f32, y[v] = Σ rows[b, s] over at[b, s] = v
//
// XLA's scatter adds by atomics, in another order in each run; its deterministic form sorts all elements, not rows. Here rows are
// sorted by at, and a block of the table is the sum of the outer products of its rows with one-hots of their places in it:
// a product by 1 is exact, sums are f32 in the order of rows. Rows that are not finite spoil the block of the table, not their
// own places alone. Numbers that are not in the table are left out.
//
// On a mesh each device makes a table of its own tokens, as the rules split them, and of a part of D where an axis of the mesh splits
// no tokens; XLA adds the tables up.
//
// After: on cuda no scatter adds rows of f32 to a table of zeros, but on meshes over which its tokens do not divide.
func addRows(m *ir.Module, ctx Context) (changed bool, err error) {
	if ctx.Platform != target.CUDA {
		return false, nil
	}
	if ctx.Mesh.Devices() == 1 {
		return rewriteOps(m, "stablehlo.scatter", addsRows, rowsByBlock)
	}
	w := ownersOf(m, ctx.Mesh)
	return rewriteOps(m, "stablehlo.scatter", addsRows, func(b ir.Builder, op *ir.Op) ([]*ir.Value, error) { return w.addRows(b, op, ctx) })
}

// addsRows tells a scatter of whole rows of f32 that are added to zeros.
func addsRows(op *ir.Op) bool {
	if op.Name != "stablehlo.scatter" || len(op.Operands) != 3 || len(op.Results) != 1 || len(op.Regions) != 1 || op.Attrs["unique_indices"] == "true" {
		return false
	}
	elem, table, ok := op.Operands[0].Type.Split()
	kind, at, ok2 := op.Operands[1].Type.Split()
	_, rows, ok3 := op.Operands[2].Type.Split()
	if !ok || !ok2 || !ok3 || elem != "f32" || kind != "i32" || len(table) != 2 || len(at) == 0 || at[len(at)-1] != 1 {
		return false
	}
	numbers := op.Attrs["scatter_dimension_numbers"]
	lead := at[:len(at)-1]
	for name, want := range map[string][]int{"update_window_dims": {len(lead)}, "inserted_window_dims": {0}, "scatter_dims_to_operand_dims": {0},
		"input_batching_dims": nil} {
		if got, _ := numbers.Field(name); !slices.Equal(got, want) {
			return false
		}
	}
	vector := "index_vector_dim = " + strconv.Itoa(len(lead))
	return (strings.Contains(string(numbers), vector+">") || strings.Contains(string(numbers), vector+",")) &&
		slices.Equal(rows, append(slices.Clone(lead), table[1])) && adds(op.Regions[0]) && zeros(op.Operands[0])
}

// adds tells a region that returns the sum of its two arguments.
func adds(r *ir.Region) bool {
	return len(r.Ops) == 2 && len(r.Args) == 2 && r.Ops[0].Name == "stablehlo.add" && slices.Equal(r.Ops[0].Operands, r.Args) &&
		slices.Equal(r.Ops[1].Operands, r.Ops[0].Results)
}

// zeros tells a tensor of zeros.
func zeros(v *ir.Value) bool {
	for v.Def != nil && moves[v.Def.Name] {
		v = v.Def.Operands[0]
	}
	x, ok := number(v)
	return ok && x == 0
}

// blockRows is how many rows of a table a block has, more where kernels do not take as many groups.
const blockRows = 128

func rowsByBlock(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
	return tableOf(b, op.Operands[1], unwidened(b, op.Operands[2]), op.Results[0].Dims()[0])
}

// unwidened is rows as they were before they were widened to f32.
func unwidened(b ir.Builder, rows *ir.Value) *ir.Value {
	if widenedFrom(rows) == "" {
		return rows
	}
	return narrow(b, rows)
}

// tableOf is the table [V, D] f32 of at [..., 1] and rows [..., D], nil where no kernel fits.
func tableOf(b ir.Builder, at, rows *ir.Value, v int) ([]*ir.Value, error) {
	elem, dims, _ := rows.Type.Split()
	d := dims[len(dims)-1]
	r := axis.Count(at.Dims())
	sum := triton.Outer{Groups: triton.Groups{Rows: r}, M: d, Elem: kernelElems[elem], Wide: true}
	var call triton.Call
	unfit := errors.New("no size of a block was tried")
	width := blockRows
	for ; width <= 8*blockRows; width *= 2 {
		sum.N, sum.Experts = width, (v+width-1)/width
		tile, err := tiles().Choose("outer", sum.Elem, sum.Average())
		if err != nil {
			return nil, nil
		}
		if call, unfit = sum.Call(tile); unfit == nil {
			break
		}
	}
	if unfit != nil {
		return nil, nil
	}
	blocks := sum.Experts
	number, order := b.SortBy(b.Reshape(at, r), b.Iota(0, "i32", r))                                     // [R] both
	sorted := b.Rows(b.Reshape(rows, r, d), order)                                                       // [R, D]
	each := b.Broadcast(number, []int{r, width}, 0)                                                      // [R, W]
	place := b.Binary("remainder", each, b.Const(each.Type, strconv.Itoa(width)))                        // [R, W]
	own := b.Convert(b.Compare("EQ", place, b.Iota(1, "i32", r, width)), elem)                           // [R, W]
	first := b.Mul(b.Iota(0, "i32", blocks+1), b.Const(ir.Tensor("i32", blocks+1), strconv.Itoa(width))) // [B+1]
	pairs := []int{blocks + 1, r}                                                                        // [B+1, R]
	before := b.Compare("LT", b.Broadcast(number, pairs, 1), b.Broadcast(first, pairs, 0))               // [B+1, R]
	offsets := b.Reduce("add", b.Convert(before, "i32"), "0", 1)                                         // [B+1]
	y, err := EmitCall(b, call, own, sorted, offsets)                                                    // [B, W, D]
	if err != nil {
		return nil, err
	}
	table := b.Reshape(y[0], blocks*width, d)
	if blocks*width > v {
		table = b.Slice(table, []int{0, 0}, []int{v, d})
	}
	return []*ir.Value{table}, nil
}

// addRows is rowsByBlock on a mesh. It answers nil where tokens do not divide.
func (w *owners) addRows(b ir.Builder, op *ir.Op, ctx Context) ([]*ir.Value, error) {
	shared, met := w.shared(op)
	if !met {
		return nil, nil
	}
	if len(shared) == 0 {
		return rowsByBlock(b, op)
	}
	dims, table := op.Operands[2].Dims(), op.Results[0].Dims()
	n := len(dims)
	if n < 3 {
		return nil, nil
	}
	q, err := ctx.Rules.Resolve(sharding.Activations, axis.Param{Path: "rows of a table", Axes: []axis.Logical{axis.Batch, axis.Seq, axis.Embed}, Dims: dims[n-3:]}, ctx.Mesh)
	if err != nil || len(q[2]) > 0 {
		return nil, nil
	}
	lead := slices.Concat(q[0], q[1])
	var wide []axis.Mesh // those that split D
	for _, a := range shared {
		if !slices.Contains(lead, a) && table[1]%(ctx.Mesh.Size(wide...)*ctx.Mesh.Size(a)) == 0 {
			wide = append(wide, a)
		}
	}
	if slices.ContainsFunc(lead, func(a axis.Mesh) bool { return !slices.Contains(shared, a) }) {
		return nil, nil
	}
	spec := make(sharding.Spec, n)
	spec[n-3], spec[n-2] = q[0], q[1]
	places := slices.Clone(spec)
	spec[n-1] = wide
	unfit := false
	in := []placed{{op.Operands[1], places}, {unwidened(b, op.Operands[2]), spec}}
	results := ownWork(b, ctx.Mesh, shared, in, func(b ir.Builder, parts []*ir.Value) []placed {
		var y []*ir.Value
		if y, err = tableOf(b, parts[0], parts[1], table[0]); err != nil || y == nil {
			unfit = true
			return []placed{{parts[1], spec}}
		}
		part := b.Reshape(y[0], 1, table[0], y[0].Dims()[1])
		return []placed{{part, sharding.Spec{lead, nil, wide}}}
	})
	if unfit {
		b.Region.Erase(results[0].Def)
		return nil, err
	}
	return []*ir.Value{b.Reduce("add", results[0], "0.0", 0)}, nil
}
