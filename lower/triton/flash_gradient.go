package triton

import "math"

// FlashGradient is the gradient of Flash, which keeps no scores either: each is computed again, from the logarithm of its
// query's sum. Nothing is added up in memory, so that runs repeat bit for bit.
//
// Both kernels take
//
//	q, keys, values      as Flash takes them
//	dy    [B, H, S, A]   gradient of y
//	lse   [B, H, S] f32  as Flash gives it
//	delta [B, H, S] f32  sums over A of dy·y
//	queryAt, keyAt, queryIn, keyIn  as Flash takes them
//
// With powers p = exp(q·k/√A) over their sum and dp = dy·v, the gradient of a score is ds = p·(dp - delta). Tile's M is
// queries and its N keys: one is a program's own block, the other those at a time.
//
// Source: Dao 2023, arXiv:2307.08691, algorithm 2, each of whose two sums has a kernel in the place of atomic additions.
type FlashGradient Flash

// OfQueries gives dq [B, H, S, A], a program a block of queries of a head: dq = Σ ds·k/√A over the keys.
func (x FlashGradient) OfQueries(t Tile) (Call, error) {
	const name = "flash_dq"
	f := Flash(x)
	if err := f.check(name, t); err != nil {
		return Call{}, err
	}
	t = f.cut(t)
	k := newFlashGradient(name, f, t)
	dq := k.result("dq", f.Elem, f.Sequences, f.Heads, f.Queries, f.Width)

	head := k.Program(1) // of B·H
	seq := k.Div(head, k.Int(f.Heads))
	group := k.Div(head, k.Int(f.Heads/f.KeyHeads)) // of B·G
	query, own := k.span(k.Program(0), t.M, f.Queries)
	first := k.Mul(k.Program(0), k.Int(t.M))
	block, keyBlock := k.block(t.M), k.block(t.N)
	mask := k.box(own, k.inside)
	q, dy := k.rows(k.q, head, f.Queries, first, block, mask), k.rows(k.dy, head, f.Queries, first, block, mask) // [M, a]
	lse, delta := k.Column(k.number(k.lse, head, query, own)), k.Column(k.number(k.delta, head, query, own))     // [M, 1]
	of := k.queryPlaces(k.places, seq, query, own)                                                               // [M]
	body := func(masked bool) func(i *Value, state []*Value) []*Value {
		return func(i *Value, state []*Value) []*Value {
			var key, real *Value // [N]
			if masked {
				key = k.Add(k.Range(t.N), i)
				real = k.Less(key, k.Int(f.Keys))
			}
			mask := k.box(real, k.inside)
			keys, values := k.rows(k.keys, group, f.Keys, i, keyBlock, mask), k.rows(k.values, group, f.Keys, i, keyBlock, mask) // [N, a]
			scores := k.scale(k.Dot(q, k.Trans(keys), k.Zeros(F32, t.M, t.N)), f.Width)                                          // [M, N]
			if masked {
				seen := k.sees(f, of.by(k.Column), k.keyPlaces(k.places, seq, key, real).by(k.Row))
				scores = k.Select(k.And(seen, k.Row(real)), scores, k.Float(math.Inf(-1)))
			}
			powers := k.Exp2(k.Sub(scores, lse))
			dp := k.Dot(dy, k.Trans(values), k.Zeros(F32, t.M, t.N))
			ds := k.Mul(powers, k.Sub(dp, delta))
			return []*Value{k.Dot(k.Convert(ds, f.Elem), keys, state[0])}
		}
	}
	lo, all, hi := k.keyRange(k.places, t, seq, of, own)
	sum := []*Value{k.Zeros(F32, t.M, k.a)}
	if all != nil {
		sum = k.For(lo, all, k.Int(t.N), sum, body(false))
		lo = all
	}
	sum = k.For(lo, hi, k.Int(t.N), sum, body(true))
	k.store(dq, head, f.Queries, first, block, k.Mul(sum[0], k.root()), mask)
	return k.finish(ceil(f.Queries, t.M), f.Sequences*f.Heads, 1)
}

// OfKeys gives dk and dv [B, G, C, A], a program a block of keys of a key head: dk = Σ ds·q/√A and dv = Σ p·dy over the
// queries of all heads that read it. Of keys in order the first blocks have the most queries, and come first.
func (x FlashGradient) OfKeys(t Tile) (Call, error) {
	const name = "flash_dkv"
	f := Flash(x)
	if err := f.check(name, t); err != nil {
		return Call{}, err
	}
	switch { // what does not fit into registers
	case f.padded() > 128:
		t.M, t.N = max(16, t.M/4), max(16, t.N/2)
	case f.Queries%t.M != 0: // masks of the queries that there are
		t.M = max(16, t.M/2)
	}
	k := newFlashGradient(name, f, t)
	dk := k.result("dk", f.Elem, f.Sequences, f.KeyHeads, f.Keys, f.Width)
	dv := k.result("dv", f.Elem, f.Sequences, f.KeyHeads, f.Keys, f.Width)

	group := k.Program(0) // of B·G
	seq := k.Div(group, k.Int(f.KeyHeads))
	heads := f.Heads / f.KeyHeads
	key, real := k.span(k.Program(1), t.N, f.Keys)
	first := k.Mul(k.Program(1), k.Int(t.N))
	block, queryBlock := k.block(t.N), k.block(t.M)
	mask := k.box(real, k.inside)
	keys, values := k.rows(k.keys, group, f.Keys, first, block, mask), k.rows(k.values, group, f.Keys, first, block, mask) // [N, a]
	of := k.keyPlaces(k.places, seq, key, real)                                                                            // [N]
	body := func(head *Value, masked bool) func(i *Value, state []*Value) []*Value {
		return func(i *Value, state []*Value) []*Value {
			query := k.Add(k.Range(t.M), i) // [M]
			var own *Value                  // of others dy and delta are zeros, so that they add nothing
			if f.Queries%t.M != 0 {
				own = k.Less(query, k.Int(f.Queries))
			}
			mask := k.box(own, k.inside)
			q, dy := k.rows(k.q, head, f.Queries, i, queryBlock, mask), k.rows(k.dy, head, f.Queries, i, queryBlock, mask) // [M, a]
			lse, delta := k.number(k.lse, head, query, own), k.number(k.delta, head, query, own)                           // [M]
			// What is taken away goes into the products' sums, where it takes no registers of its own.
			less := k.Broadcast(k.Row(k.Mul(lse, k.Float(-math.Sqrt(float64(f.Width))/log2e))), t.N, t.M)
			scores := k.Dot(keys, k.Trans(q), less) // [N, M]
			if masked {
				seen := k.sees(f, k.queryPlaces(k.places, seq, query, own).by(k.Row), of.by(k.Column))
				scores = k.Select(seen, scores, k.Float(math.Inf(-1)))
			}
			powers := k.Exp2(k.scale(scores, f.Width))
			dv := k.Dot(k.Convert(powers, f.Elem), dy, state[1])
			ds := k.Mul(powers, k.Dot(values, k.Trans(dy), k.Broadcast(k.Row(k.Sub(k.Float(0), delta)), t.N, t.M)))
			return []*Value{k.Dot(k.Convert(ds, f.Elem), q, state[0]), dv}
		}
	}
	lo, all, hi := k.queryRange(k.places, t, seq, of, real)
	sums := []*Value{k.Zeros(F32, t.N, k.a), k.Zeros(F32, t.N, k.a)}
	sums = k.For(k.Int(0), k.Int(heads), k.Int(1), sums, func(i *Value, sums []*Value) []*Value {
		head := k.Add(k.Mul(group, k.Int(heads)), i) // of B·H
		if all == nil {
			return k.For(lo, hi, k.Int(t.M), sums, body(head, true))
		}
		sums = k.For(lo, all, k.Int(t.M), sums, body(head, true))
		return k.For(all, hi, k.Int(t.M), sums, body(head, false))
	})
	k.store(dk, group, f.Keys, first, block, k.Mul(sums[0], k.root()), mask)
	k.store(dv, group, f.Keys, first, block, sums[1], mask)
	return k.finish(f.Sequences*f.KeyHeads, ceil(f.Keys, t.N), 1)
}

// flashGradient is one of the kernels in the making.
type flashGradient struct {
	*kernel
	f                               Flash
	q, keys, values, dy, lse, delta *Value
	places                          flashPlaces
	a                               int    // width of blocks
	columns, inside                 *Value // [a], and which of them there are, nil for all
}

// newFlashGradient declares the operands.
func newFlashGradient(name string, f Flash, t Tile) *flashGradient {
	k := &flashGradient{kernel: newKernel(name, t), f: f, a: f.padded()}
	k.q = k.operand("q", f.Elem, f.Sequences, f.Heads, f.Queries, f.Width)
	k.keys = k.operand("keys", f.Elem, f.Sequences, f.KeyHeads, f.Keys, f.Width)
	k.values = k.operand("values", f.Elem, f.Sequences, f.KeyHeads, f.Keys, f.Width)
	k.dy = k.operand("dy", f.Elem, f.Sequences, f.Heads, f.Queries, f.Width)
	k.lse = k.operand("lse", F32, f.Sequences, f.Heads, f.Queries)
	k.delta = k.operand("delta", F32, f.Sequences, f.Heads, f.Queries)
	k.places = k.kernel.places(f)
	k.columns, k.inside = k.span(k.Int(0), k.a, f.Width)
	return k
}

// root is 1/√A.
func (k *flashGradient) root() *Value { return k.Float(1 / math.Sqrt(float64(k.f.Width))) }

// block is offsets [n, a] from where a block of n rows begins.
func (k *flashGradient) block(n int) *Value {
	return k.Add(k.Column(k.Mul(k.Range(n), k.Int(k.f.Width))), k.Row(k.columns))
}

// start moves x [heads, rows, A] to where a row of a head begins.
func (k *flashGradient) start(x, head *Value, rows int, first *Value) *Value {
	return k.Ptr(x, k.Add(k.long(head, rows*k.f.Width), k.long(first, k.f.Width)))
}

// rows reads a block [n, a] of x [heads, rows, A] from row first on.
func (k *flashGradient) rows(x, head *Value, rows int, first, block, mask *Value) *Value {
	return k.Load(k.Ptr(k.start(x, head, rows, first), block), mask)
}

// store writes what rows reads.
func (k *flashGradient) store(x, head *Value, rows int, first, block, v, mask *Value) {
	k.Store(k.Ptr(k.start(x, head, rows, first), block), v, mask)
}

// number reads what queries [n] have one of each, of x [B, H, S].
func (k *flashGradient) number(x, head, query, own *Value) *Value {
	return k.Load(k.Ptr(x, k.Add(k.long(head, k.f.Queries), k.Convert(query, I64))), own)
}
