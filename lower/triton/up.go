package triton

// Up is the first half of routed experts: gather, both products, SwiGLU.
type Up struct {
	Groups
	Tokens, Choices int // T, K; R = T·K
	Width, Hidden   int // D, F
	Elem            Elem
	Keep            bool // also give the products, which the gradient needs
	Ordered         bool // x are the rows themselves, in group order: Tokens is R, Choices 1
}

// Call is the kernel.
//
//	x       [T, D]     order [R] i32, the routed row at each place of the group order; none if Ordered
//	gate    [E, F, D]  up    [E, F, D]
//	blocks, offsets    see Groups
//	h       [R, F]     in group order: silu(gate·x)·(up·x), of f32 sums
//	g, u    [R, F]     the products, with Keep
func (u Up) Call(t Tile) (Call, error) {
	const name = "experts_up"
	if err := checkRouted(name, u.Groups, u.Elem, t, u.Tokens, u.Choices, u.Width, u.Hidden); err != nil {
		return Call{}, err
	}
	k := newKernel(name, t)
	x, order, gate, up := k.upOperands(u.Groups, u.Elem, u.Tokens, u.Width, u.Hidden, u.Ordered)
	blocks, offsets := k.groupOperands(u.Groups, t.M)
	results := []*Value{k.result("h", u.Elem, u.Rows, u.Hidden)}
	if u.Keep {
		results = append(results, k.result("g", u.Elem, u.Rows, u.Hidden), k.result("u", u.Elem, u.Rows, u.Hidden))
	}

	columns := ceil(u.Hidden, t.N)
	pm, pn := k.order(k.Program(0), u.Blocks(t.M), columns, t.Group)
	b := k.block(blocks, offsets, pm, u.Groups, t.M)
	k.If(b.used, func() {
		var rows stream // [M, K]
		if u.Ordered {
			rows = k.across(k.Ptr(x, k.long(b.first, u.Width)), k.offsets(k.Range(t.M), u.Width, t.M*u.Width), b.own, t.K)
		} else {
			token := k.Div(k.Load(k.Ptr(order, b.rows), b.own), k.Int(u.Choices)) // [M]
			rows = k.across(x, k.offsets(token, u.Width, u.Tokens*u.Width), b.own, t.K)
		}
		_, inside := k.span(pn, t.N, u.Hidden) // [N]
		first := k.Add(k.long(b.expert, u.Hidden*u.Width), k.long(pn, t.N*u.Width))
		weights := k.offsets(k.Range(t.N), u.Width, t.N*u.Width)
		p := k.depth(u.Width, t.K)
		p.streams = []stream{
			rows,
			k.down(k.Ptr(gate, first), weights, inside, t.K), // [K, N]
			k.down(k.Ptr(up, first), weights, inside, t.K),   // [K, N]
		}
		p.dots = []term{{0, 1, 0}, {0, 2, 1}}
		sums := k.sum(p, k.Zeros(F32, t.M, t.N), k.Zeros(F32, t.M, t.N))
		mask := k.box(b.own, inside)
		for i, v := range append([]*Value{k.SwiGLU(sums[0], sums[1])}, sums...)[:len(results)] {
			at, block := k.corner(results[i], b.first, pn, u.Hidden, t.M, t.N)
			k.Store(k.Ptr(at, block), v, mask)
		}
	})
	return k.finish(u.Blocks(t.M)*columns, 1, 1)
}
