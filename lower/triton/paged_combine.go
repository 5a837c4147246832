package triton

import "math"

// PagedCombine ends Paged whose keys were split over programs.
type PagedCombine struct {
	Sequences, Heads, Width, Splits int // B, H, A, S
	Elem                            Elem
}

// Call is the kernel: most, sums [S, B, H] f32, parts [S, B, H, A] f32 → y [B, H, A].
func (p PagedCombine) Call() (Call, error) {
	const name = "paged_combine"
	if err := positive(name, "sequences", p.Sequences, "heads", p.Heads, "width", p.Width, "splits", p.Splits, "rows", p.Sequences*p.Heads); err != nil {
		return Call{}, err
	}
	if err := checkSplits(name, p.Splits); err != nil {
		return Call{}, err
	}
	if err := dotElem(name, p.Elem); err != nil {
		return Call{}, err
	}
	k := newKernel(name, elementwise)
	most := k.operand("most", F32, p.Splits, p.Sequences, p.Heads)
	sums := k.operand("sums", F32, p.Splits, p.Sequences, p.Heads)
	parts := k.operand("parts", F32, p.Splits, p.Sequences, p.Heads, p.Width)
	y := k.result("y", p.Elem, p.Sequences, p.Heads, p.Width)
	const m = 8
	all := p.Sequences * p.Heads
	head, own := k.span(k.Program(0), m, all) // [m] of B·H
	cols, inside := k.span(k.Int(0), powerOfTwo(p.Width), p.Width)
	at := k.cells(head, cols, p.Width)
	top := k.Broadcast(k.Float(math.Inf(-1)), m)
	greatest := make([]*Value, p.Splits)
	for s := range greatest {
		greatest[s] = k.Load(k.Ptr(most, k.Add(head, k.Int(s*all))), own)
		top = k.Max(top, greatest[s])
	}
	top = k.Select(k.Equal(top, k.Float(math.Inf(-1))), k.Float(0), top) // of no key at all
	sum, acc := k.Zeros(F32, m), k.Zeros(F32, m, powerOfTwo(p.Width))
	for s := range greatest {
		fade := k.Exp2(k.Sub(greatest[s], top)) // [m], 0 of parts without keys
		sum = k.Add(sum, k.Mul(k.Load(k.Ptr(sums, k.Add(head, k.Int(s*all))), own), fade))
		part := k.Load(k.Ptr(parts, k.Add(at, k.Long(s*all*p.Width))), k.box(own, inside))
		acc = k.Add(acc, k.Mul(part, k.Column(fade)))
	}
	k.Store(k.Ptr(y, at), k.mean([]*Value{top, sum, acc}), k.box(own, inside))
	return k.finish(ceil(all, m), 1, 1)
}
