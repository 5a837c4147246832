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
//	mix.grouped_pair   x, w, x2, w2, sizes → the sum of two products by transposed matrices
//	mix.grouped_swiglu x, gate and up [E, N, M], sizes → silu(g)·u [R, N] of the products g and u, and these if they are asked for
//	mix.grouped_swiglu_gradient dh, g, u [R, N], sizes → the gradients by g and by u, and silu(g)·u
//
// Groups may have fewer rows than there are. Results of the others are zeros, with rest = "unread" and of the last three
// anything, and no sum has them.
//
// After: on cpu none of them is left. Each group's rows run in blocks through its own matrix, so that the
// work is that of the rows and not E times as much; sums have a fixed order. On cuda those by matrices of one tensor are
// kernels, and work and order are the same.
func groupedGEMM(m *ir.Module, ctx Context) (changed bool, err error) {
	return takeRules(m, ctx, groupedPairName, groupedSwiGLUName, groupedSwiGLUGradientName, groupedGEMMName, groupedOuterName)
}

const (
	groupedGEMMName           = "mix.grouped_gemm"
	groupedOuterName          = "mix.grouped_outer"
	groupedPairName           = "mix.grouped_pair"
	groupedSwiGLUName         = "mix.grouped_swiglu"
	groupedSwiGLUGradientName = "mix.grouped_swiglu_gradient"
)

// groups is what both composites have.
type groups struct {
	sizes   *ir.Value
	rows, e int
}

// matrix reads a float tensor of that rank.
func matrix(v *ir.Value, rank int) (elem string, dims []int, err error) {
	elem, dims, ok := v.Type.Split()
	if !ok || len(dims) != rank || !floats[elem] {
		return "", nil, fmt.Errorf("operand %s, wanted %d axes of a float type", v.Type, rank)
	}
	for _, d := range dims {
		if d < 1 || d > 1<<30 {
			return "", nil, fmt.Errorf("operand %s, wanted axes of 1 to 2^30", v.Type)
		}
	}
	return elem, dims, nil
}

func readGroups(sizes *ir.Value, rows int) (g groups, err error) {
	g.sizes, g.rows = sizes, rows
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

// steps are the numbers of rows that products are compiled for, ascending, in quarters of a group's share: a group runs
// in one product as far as possible, for a product reads its matrix anew and gets a third faster from 32 rows to 64 and
// again to 128, with few rows that are not its own. Each costs compile time.
func (g groups) steps(quarters ...int) (sizes []int) {
	share := g.block(maxRows) / 2
	for _, q := range quarters {
		n := min(max(share*q/4, 4), g.rows)
		if len(sizes) == 0 || n > sizes[len(sizes)-1] {
			sizes = append(sizes, n)
		}
	}
	return sizes
}

// maxRows is where products of more rows gain nothing.
const maxRows = 512

// each loops over the groups. body is given one of them and what the loop carries.
func (g groups) each(b ir.Builder, carried *ir.Value, body func(b ir.Builder, at group, carried *ir.Value) *ir.Value) *ir.Value {
	loop := b.While([]*ir.Value{b.Index(0), b.Index(0), carried},
		func(b ir.Builder, vs []*ir.Value) *ir.Value { return b.Compare("LT", vs[0], b.Index(g.e)) },
		func(b ir.Builder, vs []*ir.Value) []*ir.Value {
			end := b.Add(vs[1], b.Reshape(b.DynamicSlice(g.sizes, []*ir.Value{vs[0]}, 1)))
			return []*ir.Value{b.Add(vs[0], b.Index(1)), end, body(b, group{vs[0], vs[1], end}, vs[2])}
		})
	return loop[2]
}

// group is a group's number and where its rows begin and end.
type group struct{ number, from, end *ir.Value }

// window is a run of n of all rows that holds some of the group's.
type window struct {
	p   *ir.Value // its first row
	n   int
	own func(b ir.Builder, width int) *ir.Value // [n, width] of i1: which elements are of the group's rows
}

// window is n rows from p on, moved inside where it sticks out.
func (g groups) window(b ir.Builder, at group, p *ir.Value, n int) window {
	p = b.Binary("minimum", p, b.Index(g.rows-n))
	return window{p, n, func(b ir.Builder, width int) *ir.Value {
		row := b.Add(b.Broadcast(p, []int{n}), b.Iota(0, "i32", n))
		from := b.Compare("GE", row, b.Broadcast(at.from, []int{n}))
		own := b.Binary("and", from, b.Compare("LT", row, b.Broadcast(at.end, []int{n})))
		return b.Broadcast(own, []int{n, width}, 0)
	}}
}

// read is the window's part of rows [R, width].
func (w window) read(b ir.Builder, rows *ir.Value) *ir.Value {
	dims := rows.Dims()
	return b.DynamicSlice(rows, []*ir.Value{w.p, b.Index(0)}, w.n, dims[1])
}

// ownOf is read with zeros where rows are not the group's.
func (w window) ownOf(b ir.Builder, rows *ir.Value) *ir.Value {
	part := w.read(b, rows)
	dims := part.Dims()
	return b.Select(w.own(b, dims[1]), part, b.Const(part.Type, "0.0"))
}

// write is rows with those of the group replaced by the window's.
func (w window) write(b ir.Builder, rows, part *ir.Value) *ir.Value {
	dims := rows.Dims()
	mixed := b.Select(w.own(b, dims[1]), part, w.read(b, rows))
	return b.DynamicUpdate(rows, mixed, w.p, b.Index(0))
}

// windows runs body over windows that hold all rows of a group: the largest again and again, then one that is just large
// enough for the rest. Each size is a loop, which runs once or not at all: what a loop carries stays in place.
func (g groups) windows(b ir.Builder, at group, carried *ir.Value, body func(b ir.Builder, w window, carried *ir.Value) *ir.Value) *ir.Value {
	sizes := g.steps(2, 4, 5, 6, 8)
	p := at.from
	for i := len(sizes) - 1; i >= 0; i-- {
		n, below := sizes[i], 0
		if i > 0 {
			below = sizes[i-1]
		}
		loop := b.While([]*ir.Value{p, carried},
			func(b ir.Builder, vs []*ir.Value) *ir.Value {
				return b.Compare("GT", b.Binary("subtract", at.end, vs[0]), b.Index(below))
			},
			func(b ir.Builder, vs []*ir.Value) []*ir.Value {
				return []*ir.Value{b.Add(vs[0], b.Index(n)), body(b, g.window(b, at, vs[0], n), vs[1])}
			})
		p, carried = loop[0], loop[1]
	}
	return carried
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

// isSplit tells whether a composite takes or gives the matrices of groups as a tensor each.
func isSplit(op *ir.Op) bool {
	form, _ := op.Attrs["composite_attributes"].Entry("form")
	return form == ir.String("split")
}

// groupedProduct is a mix.grouped_gemm taken apart.
type groupedProduct struct {
	groups
	elem       string      // of rows
	ws         []*ir.Value // one tensor, or split a matrix a group
	split      bool
	transposed bool
	in, out    int // widths of x and y
}

func readProduct(op *ir.Op) (p groupedProduct, err error) {
	n, split := len(op.Operands), isSplit(op)
	if n < 3 || !split && n != 3 || len(op.Results) != 1 {
		return p, fmt.Errorf("%d operands and %d results, wanted 3, or with form split 2 and a matrix a group, and 1", n, len(op.Results))
	}
	elem, xd, err := matrix(op.Operands[0], 2)
	if err != nil {
		return p, err
	}
	p = groupedProduct{elem: elem, ws: op.Operands[1 : n-1], split: split, in: xd[1]}
	if p.groups, err = readGroups(op.Operands[n-1], xd[0]); err != nil {
		return p, err
	}
	if split && len(p.ws) != p.e {
		return p, fmt.Errorf("%d matrices, wanted one for each of %d groups", len(p.ws), p.e)
	}
	t, _ := op.Attrs["composite_attributes"].Entry("transposed")
	p.transposed = t == ir.String("true")
	for _, w := range p.ws {
		rank := 3
		if split {
			rank = 2
		}
		_, wd, err := matrix(w, rank)
		if err != nil {
			return p, err
		}
		in, out := wd[rank-1], wd[rank-2]
		if p.transposed {
			in, out = out, in
		}
		if !split && wd[0] != p.e || w.Type != p.ws[0].Type || in != p.in || op.Results[0].Type != ir.Tensor(elem, xd[0], out) {
			return p, fmt.Errorf("x %s, w %s and %d groups give %s, wanted sizes that fit", op.Operands[0].Type, w.Type, p.e, op.Results[0].Type)
		}
		p.out = out
	}
	return p, nil
}

func groupedGEMMCPU(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
	g, err := readProduct(op)
	if err != nil {
		return nil, err
	}
	along := 1 // axis of a matrix
	if g.transposed {
		along = 0
	}
	y := g.each(b, b.Const(op.Results[0].Type, "0.0"), func(b ir.Builder, at group, y *ir.Value) *ir.Value {
		w := g.ws[0]
		if !g.split {
			wd := w.Dims()
			zero := b.Index(0)
			w = b.DynamicSlice(w, []*ir.Value{at.number, zero, zero}, 1, wd[1], wd[2])
			w = b.Convert(b.Reshape(w, wd[1], wd[2]), g.elem)
		}
		return g.windows(b, at, y, func(b ir.Builder, x window, y *ir.Value) *ir.Value {
			rows := x.read(b, op.Operands[0])
			if !g.split {
				return x.write(b, y, b.Dot(rows, 1, w, along, g.elem))
			}
			part := b.Case(at.number, g.e, ir.Tensor(g.elem, x.n, g.out), func(b ir.Builder, e int) *ir.Value {
				return b.Dot(rows, 1, b.Convert(g.ws[e], g.elem), along, g.elem)
			})
			return x.write(b, y, part)
		})
	})
	return []*ir.Value{y}, nil
}

// groupedSum is a mix.grouped_outer taken apart.
type groupedSum struct {
	groups
	elem string
	n, m int // widths of a and b
}

func readSum(op *ir.Op) (s groupedSum, err error) {
	split := isSplit(op)
	if len(op.Operands) != 3 || !split && len(op.Results) != 1 {
		return s, fmt.Errorf("%d operands and %d results, wanted 3 and 1, or with form split one a group", len(op.Operands), len(op.Results))
	}
	elem, ad, err := matrix(op.Operands[0], 2)
	if err != nil {
		return s, err
	}
	belem, bd, err := matrix(op.Operands[1], 2)
	if err != nil {
		return s, err
	}
	s = groupedSum{elem: elem, n: ad[1], m: bd[1]}
	if s.groups, err = readGroups(op.Operands[2], ad[0]); err != nil {
		return s, err
	}
	want := ir.Tensor(elem, s.e, s.n, s.m)
	if split {
		want = ir.Tensor(elem, s.n, s.m)
	}
	if split && len(op.Results) != s.e {
		return s, fmt.Errorf("%d results, wanted one for each of %d groups", len(op.Results), s.e)
	}
	for _, r := range op.Results {
		if belem != elem || bd[0] != ad[0] || r.Type != want {
			return s, fmt.Errorf("a %s, b %s and %d groups give %s, wanted sizes that fit", op.Operands[0].Type, op.Operands[1].Type, s.e, r.Type)
		}
	}
	return s, nil
}

// groupedOuterCPU sums in f32 and leaves out the rows that are not the group's own.
func groupedOuterCPU(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
	g, err := readSum(op)
	if err != nil {
		return nil, err
	}
	one := func(b ir.Builder, at group) *ir.Value { return g.outer(b, at, op.Operands[0], op.Operands[1]) }
	if isSplit(op) {
		var all []*ir.Value
		at := group{end: b.Index(0)}
		for e := range g.e {
			at.from = at.end
			at.end = b.Add(at.from, b.Reshape(b.Slice(g.sizes, []int{e}, []int{e + 1})))
			all = append(all, one(b, at))
		}
		return all, nil
	}
	y := g.each(b, b.Const(op.Results[0].Type, "0.0"), func(b ir.Builder, at group, y *ir.Value) *ir.Value {
		return b.DynamicUpdate(y, b.Reshape(one(b, at), 1, g.n, g.m), at.number, b.Index(0), b.Index(0))
	})
	return []*ir.Value{y}, nil
}

// outer is the sum of one group, [N, M]. A case over the sizes of windows gives a product as it is; a sum of several starts
// from zeros and adds, and so does that of no rows.
func (g groups) outer(b ir.Builder, at group, left, right *ir.Value) *ir.Value {
	elem, ad, _ := left.Type.Split()
	bd := right.Dims()
	wide := "f32"
	if elem == "f64" {
		wide = elem
	}
	sizes := g.steps(4, 6, 8)
	count := b.Binary("subtract", at.end, at.from)
	which := b.Index(0) // how many sizes are too small
	for _, n := range sizes {
		small := b.Convert(b.Compare("GT", count, b.Index(n)), "i32")
		which = b.Add(which, small)
	}
	none := b.Convert(b.Compare("EQ", count, b.Index(0)), "i32")
	which = b.Add(which, b.Mul(none, b.Index(len(sizes)))) // as if there were too many
	result := ir.Tensor(elem, ad[1], bd[1])
	product := func(b ir.Builder, w window) *ir.Value {
		return b.Dot(w.ownOf(b, left), 0, w.ownOf(b, right), 0, wide)
	}
	return b.Case(which, len(sizes)+1, result, func(b ir.Builder, i int) *ir.Value {
		if i < len(sizes) {
			return b.Convert(product(b, g.window(b, at, at.from, sizes[i])), elem)
		}
		n := sizes[len(sizes)-1]
		sum := b.Const(ir.Tensor(wide, ad[1], bd[1]), "0.0")
		sum = blocks(b, n, at.from, at.end, sum, func(b ir.Builder, p, sum *ir.Value) *ir.Value {
			// What a window moved inside reads again was added before.
			return b.Add(sum, product(b, g.window(b, group{from: p, end: at.end}, p, n)))
		})
		return b.Convert(sum, elem)
	})
}
