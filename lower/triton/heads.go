package triton

import "fmt"

// Heads ends the projections of attention for one query a sequence: queries and keys are rotated by their positions, and keys and
// values go to their places in a pool.
type Heads struct {
	Tokens, Width   int // T, A
	Heads, KeyHeads int // H, G
	Positions       int // N
	Splits          int // S partial sums of each projection
	Sums, Elem      Elem
}

// Call is the kernel.
//
//	q [S, T, H·A]  k, v [S, T, G·A]  sums over S are the projections; without S for one split. They are rounded to Elem
//	cos, sin [T, A/2] f32            of the angles, rounded to Elem
//	at [T] i32                       where in the pool the token's keys go; those of places outside of it are left out
//	keys, values [N, G, A]           the pool, written in place
//	y [T, H, A]                      the queries
//
// The pairs (i, i+A/2) of a head are rotated: (a·cos - b·sin, b·cos + a·sin), each product and sum rounded to Elem.
func (h Heads) Call() (Call, error) {
	const name = "heads"
	if err := h.check(name); err != nil {
		return Call{}, err
	}
	k := newKernel(name, elementwise)
	wide, narrow := splits(h.Splits, h.Tokens, h.Heads*h.Width), splits(h.Splits, h.Tokens, h.KeyHeads*h.Width)
	from := []*Value{k.operand("q", h.Sums, wide...), k.operand("k", h.Sums, narrow...), k.operand("v", h.Sums, narrow...)}
	cos, sin := k.operand("cos", F32, h.Tokens, h.Width/2), k.operand("sin", F32, h.Tokens, h.Width/2)
	at := k.operand("at", I32, h.Tokens)
	k.operand("keys_before", h.Elem, h.Positions, h.KeyHeads, h.Width)
	k.operand("values_before", h.Elem, h.Positions, h.KeyHeads, h.Width)
	to := []*Value{k.result("y", h.Elem, h.Tokens, h.Heads, h.Width), k.update("keys", 6), k.update("values", 7)}

	pid, token := k.Program(0), k.Program(1)
	half := k.Range(powerOfTwo(h.Width / 2))
	lanes := k.Less(half, k.Int(h.Width/2)) // [A/2]
	place := k.Load(k.Ptr(at, token), nil)
	first := 0
	for i, n := range []int{h.Heads, h.KeyHeads, h.KeyHeads} {
		some := min(headsAtOnce, powerOfTwo(n))
		blocks := ceil(n, some)
		mine := k.And(k.LessEqual(k.Int(first), pid), k.Less(pid, k.Int(first+blocks)))
		row := token
		if i > 0 {
			row = place
			mine = k.And(mine, k.And(k.Less(k.Int(-1), place), k.Less(place, k.Int(h.Positions))))
		}
		k.If(mine, func() {
			heads := k.Add(k.Range(some), k.Mul(k.Sub(pid, k.Int(first)), k.Int(some))) // [H]
			mask := k.box(k.Less(heads, k.Int(n)), lanes)
			left := k.cells(heads, half, h.Width) // [H, A/2]
			right := k.Add(left, k.Long(h.Width/2))
			read := func(cells *Value) *Value {
				v := k.partial(from[i], k.Add(cells, k.long(token, n*h.Width)), mask, h.Splits, h.Tokens*n*h.Width)
				return k.rounded(v, h.Elem)
			}
			a, b := read(left), read(right)
			if i < 2 {
				angle := k.Add(half, k.Mul(token, k.Int(h.Width/2)))
				c := k.Row(k.rounded(k.Load(k.Ptr(cos, angle), lanes), h.Elem))
				s := k.Row(k.rounded(k.Load(k.Ptr(sin, angle), lanes), h.Elem))
				mul := func(x, y *Value) *Value { return k.rounded(k.Mul(x, y), h.Elem) }
				a, b = k.Sub(mul(a, c), mul(b, s)), k.Add(mul(b, c), mul(a, s))
			}
			base := k.long(row, n*h.Width)
			k.Store(k.Ptr(to[i], k.Add(left, base)), a, mask)
			k.Store(k.Ptr(to[i], k.Add(right, base)), b, mask)
		})
		first += blocks
	}
	return k.finish(first, h.Tokens, 1)
}

const (
	headsAtOnce = 8   // of a program, at most
	maxHead     = 256 // wide
)

func (h Heads) check(name string) error {
	if err := positive(name, "tokens", h.Tokens, "width", h.Width, "heads", h.Heads, "key heads", h.KeyHeads, "positions", h.Positions, "splits", h.Splits); err != nil {
		return err
	}
	if h.Width%2 != 0 || h.Width > maxHead {
		return fmt.Errorf("triton: %s: heads %d wide, wanted an even number up to %d", name, h.Width, maxHead)
	}
	if err := checkSplits(name, h.Splits); err != nil {
		return err
	}
	for _, e := range []Elem{h.Sums, h.Elem} {
		if err := dotElem(name, e); err != nil {
			return err
		}
	}
	return nil
}
