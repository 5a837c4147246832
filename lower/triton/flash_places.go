package triton

import "math"

// flashPlaces are the operands that say which keys a query sees.
type flashPlaces struct {
	f              Flash
	queryAt, keyAt *Value // positions [B, S] and [B, C]; keyAt is nil of keys in order
	queryIn, keyIn *Value // segments, nil without
}

// places declares them.
func (k *kernel) places(f Flash) (p flashPlaces) {
	p.f, p.queryAt = f, k.operand("query_at", I32, f.Sequences, f.Queries)
	if !f.InOrder {
		p.keyAt = k.operand("key_at", I32, f.Sequences, f.Keys)
	}
	if f.Segments {
		p.queryIn, p.keyIn = k.operand("query_in", I32, f.Sequences, f.Queries), k.operand("key_in", I32, f.Sequences, f.Keys)
	}
	return p
}

// place is where queries or keys stand: positions and, where there are any, segments.
type place struct{ at, in *Value }

// by is k.Row or k.Column of both.
func (p place) by(expand func(x *Value) *Value) place {
	p.at = expand(p.at)
	if p.in != nil {
		p.in = expand(p.in)
	}
	return p
}

// queryPlaces reads where queries [n] of a sequence stand.
func (k *kernel) queryPlaces(p flashPlaces, seq, query, own *Value) (at place) {
	every := k.Add(query, k.Mul(seq, k.Int(p.f.Queries)))
	at.at = k.Load(k.Ptr(p.queryAt, every), own)
	if p.queryIn != nil {
		at.in = k.Load(k.Ptr(p.queryIn, every), own)
	}
	return at
}

// keyPlaces reads where keys [n] of a sequence stand.
func (k *kernel) keyPlaces(p flashPlaces, seq, key, real *Value) (at place) {
	at.at = key
	every := k.Add(key, k.Mul(seq, k.Int(p.f.Keys)))
	if p.keyAt != nil {
		at.at = k.Load(k.Ptr(p.keyAt, every), real)
	}
	if p.keyIn != nil {
		at.in = k.Load(k.Ptr(p.keyIn, every), real)
	}
	return at
}

// sees tells which queries see which keys, one of them rows and the other columns.
func (k *kernel) sees(f Flash, query, key place) *Value {
	seen := k.LessEqual(key.at, query.at)
	if f.Window > 0 {
		seen = k.And(seen, k.Less(k.Sub(query.at, key.at), k.Int(f.Window)))
	}
	if f.Segments {
		seen = k.And(seen, k.Equal(query.in, key.in))
	}
	return seen
}

// keyRange is the first key that any of a block of queries sees, of which some are own, rounded down to a block, the first
// that not all of them see, rounded down too, and the end of the last. Up to all no mask is needed; it is nil where that is
// not known.
func (k *kernel) keyRange(p flashPlaces, t Tile, seq *Value, query place, own *Value) (lo, all, hi *Value) {
	f := p.f
	first, last := k.ends(query.at, own)
	if !f.InOrder || f.Segments {
		alike := k.among(query.in, own)
		some := func(key, real *Value) (some, _ *Value) {
			at := k.keyPlaces(p, seq, key, real)
			some = k.LessEqual(at.at, last)
			if f.Window > 0 {
				some = k.And(some, k.Less(k.Sub(first, at.at), k.Int(f.Window)))
			}
			return k.both(some, alike(at.in)), nil
		}
		lo, hi, _ = k.extent(f.Keys, some)
		return k.floor(lo, t.N), nil, hi
	}
	lo, hi = k.Int(0), k.Min(k.Add(last, k.Int(1)), k.Int(f.Keys))
	if f.Window > 0 {
		return k.floor(k.Max(k.Sub(first, k.Int(f.Window-1)), lo), t.N), nil, hi
	}
	all = k.Max(k.Min(k.floor(k.Add(first, k.Int(1)), t.N), k.Int(f.Keys/t.N*t.N)), lo)
	return lo, all, hi
}

// queryRange is for a block of keys, of which some are real, what keyRange is for one of queries, but that from all on every
// query sees every key. It is right in whatever order positions are.
func (k *kernel) queryRange(p flashPlaces, t Tile, seq *Value, key place, real *Value) (lo, all, hi *Value) {
	f := p.f
	first, last := k.ends(key.at, real)
	alike := k.among(key.in, real)
	mixed := f.Window > 0 || f.Segments // no query is known to see every key
	lo, hi, blind := k.extent(f.Queries, func(query, own *Value) (some, not *Value) {
		at := k.queryPlaces(p, seq, query, own)
		some = k.LessEqual(first, at.at)
		if f.Window > 0 {
			some = k.And(some, k.Less(k.Sub(at.at, last), k.Int(f.Window)))
		}
		if !mixed {
			not = k.Less(at.at, last)
		}
		return k.both(some, alike(at.in)), not
	})
	lo = k.floor(lo, t.M)
	if !mixed {
		all = k.Min(k.Max(k.floor(k.Add(blind, k.Int(t.M-1)), t.M), lo), hi)
	}
	return lo, all, hi
}

// ends are the least and the greatest of x [n], of those that are inside.
func (k *kernel) ends(x, inside *Value) (first, last *Value) {
	first, last = x, x
	if inside != nil {
		first, last = k.Select(inside, x, k.Int(math.MaxInt32)), k.Select(inside, x, k.Int(math.MinInt32))
	}
	return k.Least(first, 0), k.Greatest(last, 0)
}

// among tells which of others [n] lie between the ends of a block's segments; nil is all, as where there are none.
func (k *kernel) among(segments, inside *Value) func(others *Value) *Value {
	if segments == nil {
		return func(*Value) *Value { return nil }
	}
	first, last := k.ends(segments, inside)
	return func(others *Value) *Value { return k.And(k.LessEqual(first, others), k.LessEqual(others, last)) }
}

// floor is x rounded down to a multiple of n.
func (k *kernel) floor(x *Value, n int) *Value { return k.Mul(k.Div(x, k.Int(n)), k.Int(n)) }

// extent reads all of n rows: [lo, hi) has those for which some holds, and last is where the last ends for which not does.
func (k *kernel) extent(n int, of func(row, inside *Value) (some, not *Value)) (lo, hi, last *Value) {
	step := min(1024, powerOfTwo(n))
	out := k.For(k.Int(0), k.Int(n), k.Int(step), []*Value{k.Int(n), k.Int(0), k.Int(0)}, func(i *Value, s []*Value) []*Value {
		row := k.Add(k.Range(step), i)
		var inside *Value
		if n%step != 0 {
			inside = k.Less(row, k.Int(n))
		}
		some, not := of(row, inside)
		some = k.both(some, inside)
		next := k.Add(row, k.Int(1))
		s = []*Value{k.Min(s[0], k.Least(k.Select(some, row, k.Int(n)), 0)), k.Max(s[1], k.Greatest(k.Select(some, next, k.Int(0)), 0)), s[2]}
		if not != nil {
			s[2] = k.Max(s[2], k.Greatest(k.Select(k.both(not, inside), next, k.Int(0)), 0))
		}
		return s
	})
	return out[0], out[1], out[2]
}
