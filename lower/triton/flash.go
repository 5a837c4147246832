package triton

import "fmt"

// Flash is attention over whole sequences that keeps no scores.
type Flash struct {
	Sequences, Heads, KeyHeads, Width int  // B, H, G, A
	Queries, Keys                     int  // S and C a sequence
	Window                            int  // 0 for none
	InOrder                           bool // key c is at position c, so keys after a query's position are not read
	Segments                          bool // queries see only keys of their own segment
	Elem                              Elem
}

// Call is the kernel.
//
//	q       [B, H, S, A]    query head h reads key head h/(H/G)
//	keys, values [B, G, C, A]
//	queryAt [B, S] i32      positions
//	keyAt   [B, C] i32      positions, unless InOrder
//	queryIn [B, S] i32, keyIn [B, C] i32  segments, with Segments
//	y       [B, H, S, A]    scores q·k/√A over keys at positions p-Window+1 to p, softmax in f32
//
// A query sees at least one key; one that sees none gets zeros. Tile's M is queries and its N keys at a time.
//
// Source: Dao 2023, arXiv:2307.08691.
func (f Flash) Call(t Tile) (Call, error) {
	const name = "flash_attention"
	if err := f.check(name, t); err != nil {
		return Call{}, err
	}
	k := newKernel(name, t)
	q := k.operand("q", f.Elem, f.Sequences, f.Heads, f.Queries, f.Width)
	keys := k.operand("keys", f.Elem, f.Sequences, f.KeyHeads, f.Keys, f.Width)
	values := k.operand("values", f.Elem, f.Sequences, f.KeyHeads, f.Keys, f.Width)
	queryAt := k.operand("query_at", I32, f.Sequences, f.Queries)
	var keyAt, queryIn, keyIn *Value
	if !f.InOrder {
		keyAt = k.operand("key_at", I32, f.Sequences, f.Keys)
	}
	if f.Segments {
		queryIn, keyIn = k.operand("query_in", I32, f.Sequences, f.Queries), k.operand("key_in", I32, f.Sequences, f.Keys)
	}
	y := k.result("y", f.Elem, f.Sequences, f.Heads, f.Queries, f.Width)

	a := max(16, powerOfTwo(f.Width))
	head := k.Program(1) // of B·H
	seq := k.Div(head, k.Int(f.Heads))
	group := k.Div(head, k.Int(f.Heads/f.KeyHeads)) // of B·G
	query, own := k.span(k.Program(0), t.M, f.Queries)
	cols, inside := k.span(k.Int(0), a, f.Width)
	rows := k.Add(k.cells(query, cols, f.Width), k.long(head, f.Queries*f.Width))
	x := k.Load(k.Ptr(q, rows), k.box(own, inside)) // [M, a]
	queries := k.Add(query, k.Mul(seq, k.Int(f.Queries)))
	at := k.Load(k.Ptr(queryAt, queries), own) // [M]
	var in *Value
	if f.Segments {
		in = k.Load(k.Ptr(queryIn, queries), own) // [M]
	}
	base := k.long(group, f.Keys*f.Width)
	body := func(masked bool) func(i *Value, state []*Value) []*Value {
		return func(i *Value, state []*Value) []*Value {
			key := k.Add(k.Range(t.N), i)      // [N]
			real := k.Less(key, k.Int(f.Keys)) // [N]
			keyRow := k.Add(k.long(key, f.Width), base)
			kt := k.Load(k.Ptr(k.Ptr(keys, k.Row(keyRow)), k.Column(cols)), k.box(inside, real))  // [a, N]
			scores := k.scale(k.Dot(x, kt, k.Zeros(F32, t.M, t.N)), f.Width)                      // [M, N]
			v := k.Load(k.Ptr(k.Ptr(values, k.Column(keyRow)), k.Row(cols)), k.box(real, inside)) // [N, a]
			if !masked {
				return k.attend(state, scores, nil, v)
			}
			position := key
			every := k.Add(key, k.Mul(seq, k.Int(f.Keys)))
			if !f.InOrder {
				position = k.Load(k.Ptr(keyAt, every), real)
			}
			seen := k.And(k.LessEqual(k.Row(position), k.Column(at)), k.Row(real)) // [M, N]
			if f.Window > 0 {
				seen = k.And(seen, k.Less(k.Sub(k.Column(at), k.Row(position)), k.Int(f.Window)))
			}
			if f.Segments {
				seen = k.And(seen, k.Equal(k.Column(in), k.Row(k.Load(k.Ptr(keyIn, every), real))))
			}
			return k.attend(state, scores, seen, v)
		}
	}
	lo, all, hi := k.keyRange(f, t, at, own)
	state := k.online(t.M, a)
	if all != nil {
		state = k.For(lo, all, k.Int(t.N), state, body(false))
		lo = all
	}
	state = k.For(lo, hi, k.Int(t.N), state, body(true))
	k.Store(k.Ptr(y, rows), k.mean(state), k.box(own, inside))
	return k.finish(ceil(f.Queries, t.M), f.Sequences*f.Heads, 1)
}

// keyRange is the first key that any of a block of queries sees, rounded down to a block, the first that not all of
// them see, rounded down too, and the end of the last. Up to all no mask is needed; it is nil where that is not known.
func (k *kernel) keyRange(f Flash, t Tile, at, own *Value) (lo, all, hi *Value) {
	lo, hi = k.Int(0), k.Int(f.Keys)
	if !f.InOrder {
		return lo, nil, hi
	}
	last, first := at, at
	if own != nil {
		last, first = k.Select(own, at, k.Int(0)), k.Select(own, at, k.Int(maxSize))
	}
	hi = k.Min(k.Add(k.Greatest(last, 0), k.Int(1)), hi)
	least := k.Least(first, 0)
	down := func(x *Value) *Value { return k.Mul(k.Div(x, k.Int(t.N)), k.Int(t.N)) }
	if f.Window > 0 {
		return down(k.Max(k.Sub(least, k.Int(f.Window-1)), lo)), nil, hi
	}
	if !f.Segments {
		all = k.Max(k.Min(down(k.Add(least, k.Int(1))), k.Int(f.Keys/t.N*t.N)), lo)
	}
	return lo, all, hi
}

func (f Flash) check(name string, t Tile) error {
	if err := positive(name, "sequences", f.Sequences, "heads", f.Heads, "key heads", f.KeyHeads, "width", f.Width,
		"queries", f.Queries, "keys", f.Keys); err != nil {
		return err
	}
	switch {
	case f.Heads%f.KeyHeads != 0:
		return fmt.Errorf("triton: %s: %d query heads of %d key heads, wanted a multiple", name, f.Heads, f.KeyHeads)
	case f.Width > 256 || f.Window < 0:
		return fmt.Errorf("triton: %s: heads %d wide and a window of %d, wanted at most 256 and at least 0", name, f.Width, f.Window)
	case f.Sequences*max(f.Queries, f.Keys) > maxSize:
		return fmt.Errorf("triton: %s: %d sequences of %d queries and %d keys, wanted at most %d of either", name, f.Sequences, f.Queries, f.Keys, maxSize)
	}
	if err := dotElem(name, f.Elem); err != nil {
		return err
	}
	return t.check(name)
}
