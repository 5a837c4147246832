package triton

import "fmt"

// Permute puts routed rows into group order, without sorting: a row's place is the number of rows of lower
// experts and of earlier rows of its own.
type Permute struct {
	Tokens, Experts, Choices int // T, E, K
	Block                    int // rows of a block of Groups, a power of two
}

// groups are the rows it orders.
func (p Permute) groups() Groups { return Groups{Rows: p.Tokens * p.Choices, Experts: p.Experts} }

// Call is the kernel, one program.
//
//	chosen  [T, K] i32 the K of a token distinct; rows of experts outside [0, E) are left out
//	place   [R] i32    where each routed row lies in group order, -1 where it is left out
//	order   [R] i32    the routed row at each place; what lies beyond the last is not written
//	sizes   [E] i32    rows of each expert
//	offsets [E+1] i32  where each expert's rows begin, and the last end
//	blocks  [2, P] i32 see Groups
func (p Permute) Call() (Call, error) {
	const name = "experts_permute"
	if err := p.check(name); err != nil {
		return Call{}, err
	}
	k := newKernel(name, onePass)
	chosen := k.operand("chosen", I32, p.Tokens, p.Choices)
	k.permute(p, func(tokens, inside *Value) []*Value {
		at := k.Ptr(chosen, k.Mul(tokens, k.Int(p.Choices)))
		all := make([]*Value, p.Choices)
		for i := range all {
			e := k.Load(k.Ptr(at, k.Int(i)), inside)
			all[i] = k.Select(inside, e, k.Int(-1))
		}
		return all
	}, nil)
	return k.finish(1, 1, 1)
}

// onePass is the tile of kernels of one program.
var onePass = Tile{Warps: 16, Stages: 1}

// maxChoices bounds what is written out choice by choice.
const maxChoices = 64

func (p Permute) check(kernel string) error {
	if err := p.groups().check(kernel); err != nil {
		return err
	}
	if err := positive(kernel, "tokens", p.Tokens, "choices", p.Choices); err != nil {
		return err
	}
	if p.Choices > min(p.Experts, maxChoices) {
		return fmt.Errorf("triton: %s: %d choices of %d experts, wanted at most all of them and %d", kernel, p.Choices, p.Experts, maxChoices)
	}
	return checkBlock(kernel, p.Block)
}

func checkBlock(kernel string, n int) error {
	if n > maxSize || !isPowerOfTwo(n) {
		return fmt.Errorf("triton: %s: blocks of %d rows, wanted a power of two", kernel, n)
	}
	return nil
}

// permute declares the results of Permute and computes them. choose gives the K experts of tokens [n] i32, each
// [n] i32, -1 where a token is not inside; it is asked twice. write, unless nil, is told of the same in the end.
func (k *kernel) permute(p Permute, choose func(tokens, inside *Value) []*Value, write func(tokens, inside *Value, chosen []*Value)) {
	g := p.groups()
	place := k.result("place", I32, g.Rows)
	order := k.result("order", I32, g.Rows)
	sizes := k.result("sizes", I32, p.Experts)
	offsets := k.result("offsets", I32, p.Experts+1)
	blocks := k.result("blocks", I32, 2, g.Blocks(p.Block))

	width := powerOfTwo(p.Experts)
	n := max(16, min(powerOfTwo(p.Tokens), 2048/width)) // tokens at a time
	experts := k.Row(k.Range(width))                    // [1, E]
	loop := func(carried *Value, body func(tokens, inside *Value, chosen []*Value, own, carried *Value)) *Value {
		return k.For(k.Int(0), k.Int(p.Tokens), k.Int(n), []*Value{carried}, func(i *Value, c []*Value) []*Value {
			tokens := k.Add(k.Range(n), i)
			inside := k.Less(tokens, k.Int(p.Tokens))
			chosen := choose(tokens, inside)
			for i, e := range chosen {
				here := k.And(k.Less(k.Int(-1), e), k.Less(e, k.Int(p.Experts)))
				chosen[i] = k.Select(here, e, k.Int(-1))
			}
			own := k.Zeros(I32, n, width) // 1 where a token goes
			for _, e := range chosen {
				own = k.Add(own, k.Convert(k.Equal(k.Column(e), experts), I32))
			}
			body(tokens, inside, chosen, own, c[0])
			return []*Value{k.Add(c[0], k.Sum(own, 0))}
		})[0]
	}
	counts := loop(k.Zeros(I32, width), func(_, _ *Value, _ []*Value, _, _ *Value) {}) // [E]
	starts := k.groupBounds(counts, sizes, offsets, g)                                 // [E]
	loop(starts, func(tokens, inside *Value, chosen []*Value, own, before *Value) {
		at := k.Add(k.Sub(k.CumSum(own, 0), own), k.Row(before)) // [n, E]
		for i, e := range chosen {
			row := k.Add(k.Mul(tokens, k.Int(p.Choices)), k.Int(i))
			to := k.Sum(k.Select(k.Equal(k.Column(e), experts), at, k.Int(0)), 1) // [n]
			here := k.Less(k.Int(-1), e)                                          // [n]
			k.Store(k.Ptr(place, row), k.Select(here, to, k.Int(-1)), inside)
			k.Store(k.Ptr(order, to), row, here)
		}
		if write != nil {
			write(tokens, inside, chosen)
		}
	})
	k.blockMap(counts, starts, blocks, g, p.Block)
}

// groupBounds stores sizes, unless nil, and offsets, and returns where groups begin.
func (k *kernel) groupBounds(counts, sizes, offsets *Value, g Groups) (starts *Value) {
	width := counts.Type.Dims()[0]
	ends := k.CumSum(counts, 0)
	starts = k.Sub(ends, counts)
	e := k.Range(width)
	known := k.Less(e, k.Int(g.Experts))
	if sizes != nil {
		k.Store(k.Ptr(sizes, e), counts, known)
	}
	k.Store(k.Ptr(offsets, e), starts, known)
	k.Store(k.Ptr(offsets, k.Int(g.Experts)), k.Sum(counts, 0), nil)
	return starts
}

// blockMap stores the blocks of m rows that groups fall into.
func (k *kernel) blockMap(counts, starts, blocks *Value, g Groups, m int) {
	width, most := counts.Type.Dims()[0], g.Blocks(m)
	whole := k.Div(k.Add(counts, k.Int(m-1)), k.Int(m)) // blocks of each group
	ends := k.CumSum(whole, 0)
	before := k.Sub(ends, whole)
	n := max(16, min(powerOfTwo(most), 2048/width))
	k.For(k.Int(0), k.Int(most), k.Int(n), nil, func(i *Value, _ []*Value) []*Value {
		p := k.Add(k.Range(n), i)
		passed := k.LessEqual(k.Row(ends), k.Column(p))                                                 // [n, E]
		expert := k.Min(k.Sum(k.Convert(passed, I32), 1), k.Int(g.all()))                               // [n]
		first := k.Add(k.Mul(k.Sub(k.Column(p), k.Row(before)), k.Int(m)), k.Row(starts))               // [n, E]
		own := k.Equal(k.Column(expert), k.Row(k.Range(width)))                                         // [n, E]
		own = k.And(own, k.Less(k.Row(k.Range(width)), k.Int(g.all())))                                 // a group of that number
		inside := k.Less(p, k.Int(most))                                                                // [n]
		k.Store(k.Ptr(blocks, p), expert, inside)                                                       // row 0
		k.Store(k.Ptr(blocks, k.Add(p, k.Int(most))), k.Sum(k.Select(own, first, k.Int(0)), 1), inside) // row 1
		return nil
	})
}
