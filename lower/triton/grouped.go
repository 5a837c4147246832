package triton

import "fmt"

// Grouped is a product of rows in group order with the matrix of their group.
type Grouped struct {
	Groups
	In, Out    int // M and N: widths of x and y
	Elem       Elem
	Transposed bool // matrices are [E, In, Out] instead of [E, Out, In]
	Routed     bool // y in the order of routed rows, each times its weight
	Choices    int  // K, with Routed
	Pair       bool // the sum of two products
	Y          Elem // elements of y; 0 for Elem
}

// Call is the kernel.
//
//	x       [R, In]       w [E, Out, In], with Transposed [E, In, Out]
//	x2, w2                with Pair: like x and w, and their product is added
//	order   [R] i32       with Routed: the routed row at each place of the group order
//	weights [T, K] f32    with Routed, of routed rows
//	blocks, offsets       see Groups
//	y       [R, Out]      y[r] = w[group of r]·x[r]; with Routed y[order[r]] = weight of order[r] · w·x[r]. Not Routed with Rest
//
// Summed and weighted in f32. Each row of y is written once, so runs repeat bit for bit.
func (g Grouped) Call(t Tile) (Call, error) {
	name := "grouped_gemm"
	switch {
	case g.Transposed:
		name = "grouped_gemm_transposed"
	case g.Routed:
		name = "experts_down"
	}
	if err := check(name, g.Groups, g.Elem, t, "in", g.In, "out", g.Out); err != nil {
		return Call{}, err
	}
	if g.Routed && g.Rest {
		return Call{}, fmt.Errorf("triton: %s: rows behind the last group, wanted none in the order of routed rows", name)
	}
	if g.Routed && (g.Choices < 1 || g.Rows%g.Choices != 0) {
		return Call{}, fmt.Errorf("triton: %s: %d rows of %d choices a token, wanted whole tokens", name, g.Rows, g.Choices)
	}
	if g.Y == 0 {
		g.Y = g.Elem
	}
	k := newKernel(name, t)
	x := k.operand("x", g.Elem, g.Rows, g.In)
	dims := []int{g.Experts, g.Out, g.In}
	if g.Transposed {
		dims = []int{g.Experts, g.In, g.Out}
	}
	w := k.operand("w", g.Elem, dims...)
	pairs := [][2]*Value{{x, w}}
	if g.Pair {
		pairs = append(pairs, [2]*Value{k.operand("x2", g.Elem, g.Rows, g.In), k.operand("w2", g.Elem, dims...)})
	}
	var order, weights *Value
	if g.Routed {
		order, weights = k.operand("order", I32, g.Rows), k.operand("weights", F32, g.Rows/g.Choices, g.Choices)
	}
	blocks, offsets := k.groupOperands(g.Groups, t.M)
	y := k.result("y", g.Y, g.Rows, g.Out)

	columns := ceil(g.Out, t.N)
	pm, pn := k.order(k.Program(0), g.Blocks(t.M), columns, t.Group)
	b := k.block(blocks, offsets, pm, g.Groups, t.M)
	k.clear(y, b, pn, g.Groups, g.Out, t)
	k.If(b.used, func() {
		cols, inside := k.span(pn, t.N, g.Out) // [N]
		rows := k.offsets(k.Range(t.M), g.In, t.M*g.In)
		sum := k.Zeros(F32, t.M, t.N)
		for _, pair := range pairs { // one loop after the other, so that they share memory
			p := k.depth(g.In, t.K)
			p.streams = []stream{
				k.across(k.Ptr(pair[0], k.long(b.first, g.In)), rows, b.own, t.K), // [M, K]
				k.matrix(pair[1], b.expert, pn, inside, g, t),                     // [K, N]
			}
			p.dots = []term{{0, 1, 0}}
			sum = k.sum(p, sum)[0]
		}
		mask := k.box(b.own, inside)
		if !g.Routed {
			at, block := k.corner(y, b.first, pn, g.Out, t.M, t.N)
			k.Store(k.Ptr(at, block), sum, mask)
			return
		}
		to := k.Load(k.Ptr(order, b.rows), b.own)
		sum = k.Mul(sum, k.Column(k.Load(k.Ptr(weights, to), b.own)))
		k.Store(k.Ptr(y, k.cells(to, cols, g.Out)), sum, mask)
	})
	return k.finish(g.Blocks(t.M)*columns, 1, 1)
}

// matrix streams block pn of columns of the expert's matrix, [K, N], whichever way it lies.
func (k *kernel) matrix(w, expert, pn, inside *Value, g Grouped, t Tile) stream {
	base := k.Ptr(w, k.long(expert, g.In*g.Out))
	if !g.Transposed {
		rows := k.offsets(k.Range(t.N), g.In, t.N*g.In)
		return k.down(k.Ptr(base, k.long(pn, t.N*g.In)), rows, inside, t.K)
	}
	return k.along(k.Ptr(base, k.long(pn, t.N)), k.Range(t.N), inside, g.Out, t.K)
}
