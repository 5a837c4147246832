package pass

import (
	"fmt"
	"math/bits"

	"mix/lower/ir"
)

// groupedGEMM replaces composites mix.grouped_gemm and mix.grouped_outer by the form that suits the
// platform. Rows lie in group order; sizes [E] i32 counts those of each group and sums to R.
//
//	mix.grouped_gemm   x [R, M], w [E, N, M], sizes → y [R, N], y[r] = w[group of r]·x[r];
//	                   with transposed = "true" x [R, N] → y [R, M], by the transposed matrices
//	mix.grouped_outer  a [R, N], b [R, M], sizes → y [E, N, M], y[e] = Σ a[r]·b[r]ᵀ over the rows of e
//
// After: on cpu none of them is left. Each group's rows run in blocks through its own matrix, so that the
// work is that of the rows and not E times as much; sums have a fixed order.
func groupedGEMM(m *ir.Module, ctx Context) (changed bool, err error) {
	for _, name := range []string{"mix.grouped_gemm", "mix.grouped_outer"} {
		did, err := takeRules(m, name, ctx.Platform)
		if err != nil {
			return changed, err
		}
		changed = changed || did
	}
	return changed, nil
}

// groups is what both composites have.
type groups struct {
	sizes   *ir.Value
	rows, e int
}

// matrix reads a float tensor of that rank.
func matrix(v *ir.Value, rank int) (elem string, dims []int, err error) {
	elem, dims, ok := v.Type.Split()
	if !ok || len(dims) != rank || elem != "f32" && elem != "bf16" && elem != "f16" && elem != "f64" {
		return "", nil, fmt.Errorf("operand %s, wanted %d axes of a float type", v.Type, rank)
	}
	for _, d := range dims {
		if d < 1 || d > 1<<30 {
			return "", nil, fmt.Errorf("operand %s, wanted axes of 1 to 2^30", v.Type)
		}
	}
	return elem, dims, nil
}

func readGroups(op *ir.Op, rows int) (g groups, err error) {
	g.sizes, g.rows = op.Operands[2], rows
	elem, dims, ok := g.sizes.Type.Split()
	if !ok || elem != "i32" || len(dims) != 1 || dims[0] < 1 || dims[0] > 1<<16 {
		return g, fmt.Errorf("sizes %s, wanted [E] of i32", g.sizes.Type)
	}
	g.e = dims[0]
	return g, nil
}

// block is how many rows run at once: about twice a group's share, from 4 to most.
func (g groups) block(most int) int {
	twice := (2*g.rows + g.e - 1) / g.e
	return min(max(1<<bits.Len(uint(twice-1)), 4), most)
}

// each loops over the groups. body is given the group, where its rows begin and end, and what the loop
// carries.
func (g groups) each(b ir.Builder, carried *ir.Value, body func(b ir.Builder, e, from, end, carried *ir.Value) *ir.Value) *ir.Value {
	loop := b.While([]*ir.Value{b.Index(0), b.Index(0), carried},
		func(b ir.Builder, vs []*ir.Value) *ir.Value { return b.Compare("LT", vs[0], b.Index(g.e)) },
		func(b ir.Builder, vs []*ir.Value) []*ir.Value {
			end := b.Add(vs[1], b.Reshape(b.DynamicSlice(g.sizes, []*ir.Value{vs[0]}, 1)))
			return []*ir.Value{b.Add(vs[0], b.Index(1)), end, body(b, vs[0], vs[1], end, vs[2])}
		})
	return loop[2]
}

// blocks loops over a group's rows, n at a time.
func blocks(b ir.Builder, n int, from, end, carried *ir.Value, body func(b ir.Builder, p, carried *ir.Value) *ir.Value) *ir.Value {
	loop := b.While([]*ir.Value{from, carried},
		func(b ir.Builder, vs []*ir.Value) *ir.Value { return b.Compare("LT", vs[0], end) },
		func(b ir.Builder, vs []*ir.Value) []*ir.Value {
			return []*ir.Value{b.Add(vs[0], b.Index(n)), body(b, vs[0], vs[1])}
		})
	return loop[1]
}

// padded is rows with n more of zeros, so that the last block has where to read.
func padded(b ir.Builder, rows *ir.Value, n int) *ir.Value {
	elem, dims, _ := rows.Type.Split()
	return b.Concat(0, rows, b.Const(ir.Tensor(elem, n, dims[1]), "0.0"))
}

// groupedGEMMCPU writes whole blocks: the last of a group reaches into the rows of the next ones, which
// run later and write over it.
func groupedGEMMCPU(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
	if len(op.Operands) != 3 || len(op.Results) != 1 {
		return nil, fmt.Errorf("%d operands and %d results, wanted 3 and 1", len(op.Operands), len(op.Results))
	}
	elem, xd, err := matrix(op.Operands[0], 2)
	if err != nil {
		return nil, err
	}
	_, wd, err := matrix(op.Operands[1], 3)
	if err != nil {
		return nil, err
	}
	g, err := readGroups(op, xd[0])
	if err != nil {
		return nil, err
	}
	along, out := 2, 1 // axes of w
	if t, _ := op.Attrs["composite_attributes"].Entry("transposed"); t == ir.String("true") {
		along, out = 1, 2
	}
	if wd[0] != g.e || wd[along] != xd[1] || op.Results[0].Type != ir.Tensor(elem, xd[0], wd[out]) {
		return nil, fmt.Errorf("x %s, w %s and %d groups give %s, wanted sizes that fit", op.Operands[0].Type, op.Operands[1].Type, g.e, op.Results[0].Type)
	}
	n := g.block(64)
	rows := padded(b, op.Operands[0], n)
	y := b.Const(ir.Tensor(elem, g.rows+n, wd[out]), "0.0")
	y = g.each(b, y, func(b ir.Builder, e, from, end, y *ir.Value) *ir.Value {
		zero := b.Index(0)
		w := b.Reshape(b.DynamicSlice(op.Operands[1], []*ir.Value{e, zero, zero}, 1, wd[1], wd[2]), wd[1], wd[2])
		w = b.Convert(w, elem)
		return blocks(b, n, from, end, y, func(b ir.Builder, p, y *ir.Value) *ir.Value {
			zero := b.Index(0)
			part := b.DynamicSlice(rows, []*ir.Value{p, zero}, n, xd[1])
			return b.DynamicUpdate(y, b.Dot(part, 1, w, along-1, elem), p, zero)
		})
	})
	return []*ir.Value{b.Slice(y, []int{0, 0}, []int{g.rows, wd[out]})}, nil
}

// groupedOuterCPU sums a group's blocks in f32 and leaves out the rows that are not its own.
func groupedOuterCPU(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
	if len(op.Operands) != 3 || len(op.Results) != 1 {
		return nil, fmt.Errorf("%d operands and %d results, wanted 3 and 1", len(op.Operands), len(op.Results))
	}
	elem, ad, err := matrix(op.Operands[0], 2)
	if err != nil {
		return nil, err
	}
	belem, bd, err := matrix(op.Operands[1], 2)
	if err != nil {
		return nil, err
	}
	g, err := readGroups(op, ad[0])
	if err != nil {
		return nil, err
	}
	if belem != elem || bd[0] != ad[0] || op.Results[0].Type != ir.Tensor(elem, g.e, ad[1], bd[1]) {
		return nil, fmt.Errorf("a %s, b %s and %d groups give %s, wanted sizes that fit", op.Operands[0].Type, op.Operands[1].Type, g.e, op.Results[0].Type)
	}
	n := g.block(256)
	left, right := padded(b, op.Operands[0], n), padded(b, op.Operands[1], n)
	wide := "f32"
	if elem == "f64" {
		wide = elem
	}
	y := g.each(b, b.Const(op.Results[0].Type, "0.0"), func(b ir.Builder, e, from, end, y *ir.Value) *ir.Value {
		sum := b.Const(ir.Tensor(wide, ad[1], bd[1]), "0.0")
		sum = blocks(b, n, from, end, sum, func(b ir.Builder, p, sum *ir.Value) *ir.Value {
			at := b.Add(b.Broadcast(p, []int{n}), b.Iota(0, "i32", n))
			own := b.Compare("LT", at, b.Broadcast(end, []int{n}))
			take := func(rows *ir.Value, width int) *ir.Value {
				part := b.DynamicSlice(rows, []*ir.Value{p, b.Index(0)}, n, width)
				mask := b.Broadcast(own, []int{n, width}, 0)
				return b.Emit("select", nil, part.Type, mask, part, b.Const(part.Type, "0.0"))
			}
			return b.Add(sum, b.Dot(take(left, ad[1]), 0, take(right, bd[1]), 0, wide))
		})
		one := b.Reshape(b.Convert(sum, elem), 1, ad[1], bd[1])
		return b.DynamicUpdate(y, one, e, b.Index(0), b.Index(0))
	})
	return []*ir.Value{y}, nil
}
