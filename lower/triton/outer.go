package triton

// Outer sums the outer products of the rows of each group, the gradient of the matrices.
type Outer struct {
	Groups
	N, M int // widths of a and b
	Elem Elem
	Wide bool // y is f32, as it was summed
}

// Call is the kernel.
//
//	a       [R, N]       b [R, M], rows in group order
//	offsets [E+1] i32    where each group begins
//	y       [E, N, M]    y[e] = Σ a[r]·b[r]ᵀ over the rows r of group e, summed in f32; zeros for no rows. Of a's elements,
//	                     or Wide
//
// A program sums all rows of its group in order, so runs repeat bit for bit. Tile's M cuts N and its N cuts M.
func (o Outer) Call(t Tile) (Call, error) {
	const name = "grouped_outer"
	if err := check(name, o.Groups, o.Elem, t, "n", o.N, "m", o.M); err != nil {
		return Call{}, err
	}
	k := newKernel(name, t)
	a := k.operand("a", o.Elem, o.Rows, o.N)
	b := k.operand("b", o.Elem, o.Rows, o.M)
	offsets := k.operand("offsets", I32, o.Experts+1)
	out := o.Elem
	if o.Wide {
		out = F32
	}
	y := k.result("y", out, o.Experts, o.N, o.M)

	rows, columns := ceil(o.N, t.M), ceil(o.M, t.N)
	pn, pm := k.order(k.Program(0), rows, columns, t.Group)
	expert := k.Program(1)
	from := k.Load(k.Ptr(offsets, expert), nil)
	end := k.Load(k.Ptr(offsets, k.Add(expert, k.Int(1))), nil)
	_, leftInside := k.span(pn, t.M, o.N)                                         // [M]
	_, rightInside := k.span(pm, t.N, o.M)                                        // [N]
	ls := k.along(k.Ptr(a, k.long(pn, t.M)), k.Range(t.M), leftInside, o.N, t.K)  // [K, M]
	rs := k.along(k.Ptr(b, k.long(pm, t.N)), k.Range(t.N), rightInside, o.M, t.K) // [K, N]
	sum := k.For(from, end, k.Int(t.K), []*Value{k.Zeros(F32, t.M, t.N)}, func(i *Value, c []*Value) []*Value {
		inside := k.Column(k.Less(k.Add(k.Range(t.K), i), end))
		x := k.Load(k.Ptr(k.Ptr(ls.base, k.long(i, ls.stride)), ls.block), k.both(ls.mask, inside))
		y := k.Load(k.Ptr(k.Ptr(rs.base, k.long(i, rs.stride)), rs.block), k.both(rs.mask, inside))
		return []*Value{k.Dot(k.Trans(x), y, c[0])}
	})[0]
	at, block := k.corner(k.Ptr(y, k.long(expert, o.N*o.M)), k.Mul(pn, k.Int(t.M)), pm, o.M, t.M, t.N)
	k.Store(k.Ptr(at, block), sum, k.box(leftInside, rightInside))
	return k.finish(rows*columns, o.Experts, 1)
}
