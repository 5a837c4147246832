package triton

// Ptr moves pointers by offsets in elements, i32 or i64.
func (b *Builder) Ptr(p, offset *Value) *Value {
	v := b.meet(p, offset)
	if !v[0].Type.Pointer || v[1].Type.Pointer || v[1].Type.Elem != I32 && v[1].Type.Elem != I64 {
		b.fail("pointer %s moved by %s, wanted a pointer and i32 or i64", p.Type, offset.Type)
	}
	return b.one("tt.addptr", v[0].Type, v...)
}

// Load reads what p points to; where mask is false it reads nothing and gives zero. A nil mask is true.
func (b *Builder) Load(p, mask *Value) *Value {
	if !p.Type.Pointer {
		b.fail("load from %s, wanted pointers", p.Type)
	}
	t := p.Type.With(p.Type.Elem)
	if mask == nil {
		return b.one("tt.load", t, p)
	}
	return b.one("tt.load", t, p, b.Broadcast(mask, t.Dims()...), b.Zeros(t.Elem, t.Dims()...))
}

// Store writes v, converted to what p points to, where mask is true. A nil mask is true.
func (b *Builder) Store(p, v, mask *Value) {
	if !p.Type.Pointer {
		b.fail("store to %s, wanted pointers", p.Type)
	}
	dims := p.Type.Dims()
	operands := []*Value{p, b.Broadcast(b.Convert(v, p.Type.Elem), dims...)}
	if mask != nil {
		operands = append(operands, b.Broadcast(mask, dims...))
	}
	b.emit("tt.store", operands)
}

// For runs body with i from lo by step while i < hi, all i32. body takes and returns what the loop carries;
// the result is what the last run returned.
func (b *Builder) For(lo, hi, step *Value, init []*Value, body func(i *Value, carried []*Value) []*Value) []*Value {
	types := make([]Type, len(init))
	r := &Region{Args: []*Value{b.value(Scalar(I32))}}
	for i, v := range init {
		types[i] = v.Type
		r.Args = append(r.Args, b.value(v.Type))
	}
	outer := b.at
	b.at = r
	b.emit("scf.yield", body(r.Args[0], r.Args[1:]))
	b.at = outer
	op := b.emit("scf.for", append([]*Value{lo, hi, step}, init...), types...)
	op.Regions = []*Region{r}
	return op.Results
}

// If runs body where the scalar cond holds.
func (b *Builder) If(cond *Value, body func()) {
	r := &Region{}
	outer := b.at
	b.at = r
	body()
	b.at = outer
	b.emit("scf.if", []*Value{cond}).Regions = []*Region{r}
}
