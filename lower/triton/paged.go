package triton

import "fmt"

// Paged is attention of one query a sequence over keys and values in a pool.
type Paged struct {
	Sequences, Heads, KeyHeads, Width int // B, H, G, A
	Positions                         int // N of the pool
	Context                           int // C, the most keys of a sequence
	Page                              int // positions that lie together; 1 for a table of positions
	Window                            int // the last keys that a query sees, 0 for all
	Elem                              Elem
}

// Call is the kernel.
//
//	q       [B, H, A]          query head h reads key head h/(H/G)
//	keys, values [N, G, A]
//	table   [B, C/Page] i32    page of each Page keys of a sequence, in order
//	lengths [B] i32            keys of each sequence, the query's own among them; 0 to C, of 0 y is zeros
//	y       [B, H, A]          if Tile's Split is 1
//	most, sums [S, B, H] f32, parts [S, B, H, A] f32 otherwise, which PagedCombine ends
//
// Tile's N is keys at a time. Source: Kwon et al. 2023, arXiv:2309.06180.
func (p Paged) Call(t Tile) (Call, error) {
	const name = "paged_attention"
	if err := p.check(name); err != nil {
		return Call{}, err
	}
	if err := t.check(name); err != nil {
		return Call{}, err
	}
	k := newKernel(name, t)
	q := k.operand("q", p.Elem, p.Sequences, p.Heads, p.Width)
	keys := k.operand("keys", p.Elem, p.Positions, p.KeyHeads, p.Width)
	values := k.operand("values", p.Elem, p.Positions, p.KeyHeads, p.Width)
	table := k.operand("table", I32, p.Sequences, p.Context/p.Page)
	lengths := k.operand("lengths", I32, p.Sequences)
	var results []*Value
	if t.Split == 1 {
		results = []*Value{k.result("y", p.Elem, p.Sequences, p.Heads, p.Width)}
	} else {
		results = []*Value{k.result("most", F32, t.Split, p.Sequences, p.Heads), k.result("sums", F32, t.Split, p.Sequences, p.Heads),
			k.result("parts", F32, t.Split, p.Sequences, p.Heads, p.Width)}
	}

	each := p.Heads / p.KeyHeads
	m, a := max(16, powerOfTwo(each)), max(16, powerOfTwo(p.Width))
	seq, group := k.Program(1), k.Program(0)
	heads := k.Range(m) // of the group
	own := k.Less(heads, k.Int(each))
	head := k.Add(k.Add(heads, k.Mul(group, k.Int(each))), k.Mul(seq, k.Int(p.Heads))) // [m] of B·H
	cols := k.Range(a)
	inside := k.Less(cols, k.Int(p.Width))
	rows := k.cells(head, cols, p.Width) // [m, a]
	query := k.Load(k.Ptr(q, rows), k.box(own, inside))

	length := k.Load(k.Ptr(lengths, seq), nil)
	from := k.Int(0)
	if p.Window > 0 {
		from = k.Max(k.Sub(length, k.Int(p.Window)), from)
	}
	stride := k.Int(t.N * t.Split)
	share := k.Mul(k.Div(k.Add(k.Sub(length, from), k.Sub(stride, k.Int(1))), stride), k.Int(t.N)) // keys a program
	lo := k.Add(from, k.Mul(k.Program(2), share))
	hi := k.Min(k.Add(lo, share), length)
	state := k.For(lo, hi, k.Int(t.N), k.online(m, a), func(i *Value, state []*Value) []*Value {
		key := k.Add(k.Range(t.N), i) // [n]
		seen := k.Less(key, hi)
		page := k.Load(k.Ptr(table, k.Add(k.Div(key, k.Int(p.Page)), k.Mul(seq, k.Int(p.Context/p.Page)))), seen)
		position := k.Add(k.Mul(page, k.Int(p.Page)), k.Rem(key, k.Int(p.Page)))
		at := k.Add(k.long(position, p.KeyHeads*p.Width), k.long(group, p.Width))         // [n]
		x := k.Load(k.Ptr(k.Ptr(keys, k.Row(at)), k.Column(cols)), k.box(inside, seen))   // [a, n]
		scores := k.scale(k.Dot(query, x, k.Zeros(F32, m, t.N)), p.Width)                 // [m, n]
		v := k.Load(k.Ptr(k.Ptr(values, k.Column(at)), k.Row(cols)), k.box(seen, inside)) // [n, a]
		return k.attend(state, scores, k.Row(seen), v)
	})
	if t.Split == 1 {
		k.Store(k.Ptr(results[0], rows), k.mean(state), k.box(own, inside))
		return k.finish(p.KeyHeads, p.Sequences, 1)
	}
	part := k.Mul(k.Convert(k.Program(2), I64), k.Long(p.Sequences*p.Heads))
	at := k.Add(k.Convert(head, I64), part) // [m] of S·B·H
	k.Store(k.Ptr(results[0], at), state[0], own)
	k.Store(k.Ptr(results[1], at), state[1], own)
	k.Store(k.Ptr(results[2], k.Add(k.Column(k.Mul(at, k.Long(p.Width))), k.Row(k.Convert(cols, I64)))), state[2], k.box(own, inside))
	return k.finish(p.KeyHeads, p.Sequences, t.Split)
}

func (p Paged) check(kernel string) error {
	if err := positive(kernel, "sequences", p.Sequences, "heads", p.Heads, "key heads", p.KeyHeads, "width", p.Width,
		"positions", p.Positions, "context", p.Context, "page", p.Page, "sequences times context", p.Sequences*p.Context); err != nil {
		return err
	}
	switch {
	case p.Heads%p.KeyHeads != 0 || p.Heads/p.KeyHeads > 128:
		return fmt.Errorf("triton: %s: %d query heads of %d key heads, wanted a multiple up to 128", kernel, p.Heads, p.KeyHeads)
	case p.Context%p.Page != 0:
		return fmt.Errorf("triton: %s: a context of %d in pages of %d, wanted whole pages", kernel, p.Context, p.Page)
	case p.Width > 256 || p.Window < 0:
		return fmt.Errorf("triton: %s: heads %d wide and a window of %d, wanted at most 256 and at least 0", kernel, p.Width, p.Window)
	}
	return dotElem(kernel, p.Elem)
}
