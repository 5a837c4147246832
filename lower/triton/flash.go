package triton

import "fmt"

// Flash is attention over whole sequences that keeps no scores.
type Flash struct {
	Sequences, Heads, KeyHeads, Width int  // B, H, G, A
	Queries, Keys                     int  // S and C a sequence
	Window                            int  // 0 for none
	InOrder                           bool // key c is at position c, so keys after a query's position are not read
	Segments                          bool // queries see only keys of their own segment
	LSE                               bool // also give what the gradient reads
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
//	lse     [B, H, S] f32   with LSE: logarithms to base 2 of the sums that the softmax divides by
//
// A query that sees no key gets zeros and an lse of infinity, which takes all its powers to 0. Tile's M is queries and its
// N keys at a time.
//
// Source: Dao 2023, arXiv:2307.08691.
func (f Flash) Call(t Tile) (Call, error) {
	const name = "flash_attention"
	if err := f.check(name, t); err != nil {
		return Call{}, err
	}
	t = f.cut(t)
	k := newKernel(name, t)
	q := k.operand("q", f.Elem, f.Sequences, f.Heads, f.Queries, f.Width)
	keys := k.operand("keys", f.Elem, f.Sequences, f.KeyHeads, f.Keys, f.Width)
	values := k.operand("values", f.Elem, f.Sequences, f.KeyHeads, f.Keys, f.Width)
	places := k.places(f)
	y := k.result("y", f.Elem, f.Sequences, f.Heads, f.Queries, f.Width)
	var lse *Value
	if f.LSE {
		lse = k.result("lse", F32, f.Sequences, f.Heads, f.Queries)
	}

	a := f.padded()
	head := k.Program(1) // of B·H
	seq := k.Div(head, k.Int(f.Heads))
	group := k.Div(head, k.Int(f.Heads/f.KeyHeads)) // of B·G
	query, own := k.span(k.Program(0), t.M, f.Queries)
	cols, inside := k.span(k.Int(0), a, f.Width)
	rows := k.Add(k.cells(query, cols, f.Width), k.long(head, f.Queries*f.Width))
	x := k.Load(k.Ptr(q, rows), k.box(own, inside)) // [M, a]
	of := k.queryPlaces(places, seq, query, own)    // [M]
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
			seen := k.sees(f, of.by(k.Column), k.keyPlaces(places, seq, key, real).by(k.Row))
			seen = k.And(seen, k.Row(real)) // [M, N]
			return k.attend(state, scores, seen, v)
		}
	}
	lo, all, hi := k.keyRange(places, t, seq, of, own)
	state := k.online(t.M, a)
	if all != nil {
		state = k.For(lo, all, k.Int(t.N), state, body(false))
		lo = all
	}
	state = k.For(lo, hi, k.Int(t.N), state, body(true))
	k.Store(k.Ptr(y, rows), k.mean(state), k.box(own, inside))
	if f.LSE {
		k.Store(k.Ptr(lse, k.Add(k.long(head, f.Queries), k.Convert(query, I64))), k.sums(state), own)
	}
	return k.finish(ceil(f.Queries, t.M), f.Sequences*f.Heads, 1)
}

// padded is how wide blocks of heads are.
func (f Flash) padded() int { return max(16, powerOfTwo(f.Width)) }

// cut is the tile with fewer keys at a time where heads are so wide that they would not fit.
func (f Flash) cut(t Tile) Tile {
	if f.padded() > 128 {
		t.N = max(16, t.N/2)
	}
	return t
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
