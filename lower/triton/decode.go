package triton

// Decode is routed experts for few tokens, where time goes to reading matrices: a matrix of a chosen expert is
// read once if a block holds all its rows, which a Tile of M ≥ T rows grants. Matrices are the left operand of
// the products, so that a block of 16 rows wastes nothing of them.
type Decode struct {
	Groups
	Tokens, Choices int // T, K; R = T·K
	Width, Hidden   int // D, F
	Elem            Elem
}

// Up is the kernel of gather, both products and SwiGLU.
//
//	x       [T, D]     order [R] i32, the routed row at each place of the group order
//	gate    [E, F, D]  up    [E, F, D]
//	blocks, offsets    see Groups
//	h       [R, F]     in group order, if Tile's Split is 1
//	g, u    [S, R, F]  f32 otherwise: partial sums of S programs, which SwiGLU ends
func (d Decode) Up(t Tile) (Call, error) {
	const name = "decode_up"
	if err := d.check(name, t); err != nil {
		return Call{}, err
	}
	k := newKernel(name, t)
	x, order, gate, up := k.upOperands(d.Groups, d.Elem, d.Tokens, d.Width, d.Hidden, false)
	blocks, offsets := k.groupOperands(d.Groups, t.M)
	var results []*Value
	if t.Split == 1 {
		results = []*Value{k.result("h", d.Elem, d.Rows, d.Hidden)}
	} else {
		results = []*Value{k.result("g", F32, t.Split, d.Rows, d.Hidden), k.result("u", F32, t.Split, d.Rows, d.Hidden)}
	}
	b := k.block(blocks, offsets, k.Program(1), d.Groups, t.M)
	k.If(b.used, func() {
		token := k.Div(k.Load(k.Ptr(order, b.rows), b.own), k.Int(d.Choices)) // [M]
		cols, inside := k.span(k.Program(0), t.N, d.Hidden)                   // [N]
		first := k.Add(k.long(b.expert, d.Hidden*d.Width), k.long(k.Program(0), t.N*d.Width))
		weights := k.offsets(k.Range(t.N), d.Width, t.N*d.Width)
		p := k.share(d.Width, t)
		p.streams = []stream{
			k.across(k.Ptr(gate, first), weights, inside, t.K),                 // [N, K]
			k.across(k.Ptr(up, first), weights, inside, t.K),                   // [N, K]
			k.down(x, k.offsets(token, d.Width, d.Tokens*d.Width), b.own, t.K), // [K, M]
		}
		p.dots = []term{{0, 2, 0}, {1, 2, 1}}
		sums := k.sum(p, k.Zeros(F32, t.N, t.M), k.Zeros(F32, t.N, t.M))
		if t.Split == 1 {
			sums = []*Value{k.SwiGLU(sums[0], sums[1])}
		}
		for i, v := range sums {
			k.storeTurned(results[i], v, b.rows, cols, k.box(inside, b.own), d.Rows, d.Hidden)
		}
	})
	return k.finish(ceil(d.Hidden, t.N), d.Blocks(t.M), t.Split)
}

// Down is the kernel of the product down; Combine ends it, with weights.
//
//	h       [R, F]      in group order
//	down    [E, D, F]   order [R] i32
//	blocks, offsets     see Groups
//	y       [S, R, D]   f32 in the order of routed rows: partial sums of S programs, Tile's Split;
//	                    [R, D] for one
func (d Decode) Down(t Tile) (Call, error) {
	const name = "decode_down"
	if err := d.check(name, t); err != nil {
		return Call{}, err
	}
	k := newKernel(name, t)
	h := k.operand("h", d.Elem, d.Rows, d.Hidden)
	down := k.operand("down", d.Elem, d.Experts, d.Width, d.Hidden)
	order := k.operand("order", I32, d.Rows)
	blocks, offsets := k.groupOperands(d.Groups, t.M)
	y := k.result("y", F32, splits(t.Split, d.Rows, d.Width)...)
	b := k.block(blocks, offsets, k.Program(1), d.Groups, t.M)
	k.If(b.used, func() {
		cols, inside := k.span(k.Program(0), t.N, d.Width) // [N]
		first := k.Add(k.long(b.expert, d.Hidden*d.Width), k.long(k.Program(0), t.N*d.Hidden))
		p := k.share(d.Hidden, t)
		p.streams = []stream{
			k.across(k.Ptr(down, first), k.offsets(k.Range(t.N), d.Hidden, t.N*d.Hidden), inside, t.K),               // [N, K]
			k.down(k.Ptr(h, k.long(b.first, d.Hidden)), k.offsets(k.Range(t.M), d.Hidden, t.M*d.Hidden), b.own, t.K), // [K, M]
		}
		p.dots = []term{{0, 1, 0}}
		sum := k.sum(p, k.Zeros(F32, t.N, t.M))[0]
		rows := k.Load(k.Ptr(order, b.rows), b.own)
		k.storeTurned(y, sum, rows, cols, k.box(inside, b.own), d.Rows, d.Width)
	})
	return k.finish(ceil(d.Width, t.N), d.Blocks(t.M), t.Split)
}

func (d Decode) check(name string, t Tile) error {
	return checkRouted(name, d.Groups, d.Elem, t, d.Tokens, d.Choices, d.Width, d.Hidden)
}

// share is the part of a sum over n that is this program's, by its number along z.
func (k *kernel) share(n int, t Tile) product {
	if t.Split == 1 {
		return k.depth(n, t.K)
	}
	each := ceil(ceil(n, t.K), t.Split) * t.K
	lo := k.Mul(k.Program(2), k.Int(each))
	return product{lo: lo, hi: k.Min(k.Add(lo, k.Int(each)), k.Int(n)), ragged: n%t.K != 0, k: t.K}
}

// storeTurned stores a block [N, M] of columns and rows as part z of an array [S, rows, width].
func (k *kernel) storeTurned(base, v, rows, cols, mask *Value, n, width int) {
	part := k.Mul(k.Convert(k.Program(2), I64), k.Long(n*width))
	at := k.Add(k.Row(k.long(rows, width)), k.Column(k.Convert(cols, I64)))
	k.Store(k.Ptr(base, k.Add(at, part)), v, mask)
}
