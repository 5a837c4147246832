package triton

// SwiGLU ends an up projection whose sums were split.
type SwiGLU struct {
	Rows, Hidden, Splits int // R, F, S
	Elem                 Elem
}

// Call is the kernel: g, u [S, R, F] f32, [R, F] for one split → h [R, F] = silu(Σₛ g)·(Σₛ u).
func (s SwiGLU) Call() (Call, error) {
	const name = "experts_swiglu"
	if err := positive(name, "rows", s.Rows, "hidden", s.Hidden, "splits", s.Splits); err != nil {
		return Call{}, err
	}
	if err := checkSplits(name, s.Splits); err != nil {
		return Call{}, err
	}
	if err := dotElem(name, s.Elem); err != nil {
		return Call{}, err
	}
	k := newKernel(name, elementwise)
	g := k.operand("g", F32, splits(s.Splits, s.Rows, s.Hidden)...)
	u := k.operand("u", F32, splits(s.Splits, s.Rows, s.Hidden)...)
	h := k.result("h", s.Elem, s.Rows, s.Hidden)
	const n = 1024
	cols, inside := k.span(k.Program(0), n, s.Hidden)
	at := k.Add(k.Convert(cols, I64), k.long(k.Program(1), s.Hidden))
	size := s.Rows * s.Hidden
	k.Store(k.Ptr(h, at), k.SwiGLU(k.partial(g, at, inside, s.Splits, size), k.partial(u, at, inside, s.Splits, size)), inside)
	return k.finish(ceil(s.Hidden, n), s.Rows, 1)
}
