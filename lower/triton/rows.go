package triton

import "fmt"

// Groups says how the rows of a product fall into groups, one an expert.
//
// A kernel over rows in group order takes
//
//	blocks  [2, P] i32    expert and first row of each block of M rows; expert E where a block is not used
//	offsets [E+1]  i32    where each group begins, and the last ends
//
// Rows behind the last group are in no block and their results are not written. With Rest these are zeros: their blocks are
// of expert E, and those that are not used of expert E+1.
type Groups struct {
	Rows    int // R
	Experts int // E
	Rest    bool
}

// Blocks is P, the most blocks of m rows that R rows in E groups can need.
func (g Groups) Blocks(m int) int {
	some := min(g.Rows, g.all())
	return (g.Rows + some*(m-1)) / m
}

// all is the number of groups that have blocks.
func (g Groups) all() int {
	if g.Rest {
		return g.Experts + 1
	}
	return g.Experts
}

// Average is the rows of an average group, rounded up.
func (g Groups) Average() int { return ceil(g.Rows, g.Experts) }

func (g Groups) check(kernel string) error {
	if err := positive(kernel, "rows", g.Rows, "experts", g.Experts); err != nil {
		return err
	}
	if g.Experts > maxExperts {
		return fmt.Errorf("triton: %s: %d experts, wanted at most %d", kernel, g.Experts, maxExperts)
	}
	return nil
}

// maxExperts bounds blocks with an axis of experts.
const maxExperts = 512

// block is the rows of one program.
type block struct {
	expert *Value // i32
	used   *Value // i1: there are rows, of an expert
	first  *Value // i32, the place of the first row
	rows   *Value // [M] i32, places in group order
	own    *Value // [M] i1: the row is the expert's
}

// groupOperands declares blocks and offsets.
func (k *kernel) groupOperands(g Groups, m int) (blocks, offsets *Value) {
	return k.operand("blocks", I32, 2, g.Blocks(m)), k.operand("offsets", I32, g.Experts+1)
}

// block reads where the rows of block pm lie.
func (k *kernel) block(blocks, offsets, pm *Value, g Groups, m int) block {
	at := k.Ptr(blocks, pm)
	expert := k.Load(at, nil)
	first := k.Load(k.Ptr(at, k.Int(g.Blocks(m))), nil)
	used := k.Less(expert, k.Int(g.Experts))
	end := k.Load(k.Ptr(offsets, k.Add(k.Min(expert, k.Int(g.Experts-1)), k.Int(1))), nil)
	rows := k.Add(k.Range(m), first)
	return block{expert, used, first, rows, k.And(k.Less(rows, end), used)}
}

// clear stores zeros where block b is of the rows behind the last group: in y, rows width wide, at columns number pn.
func (k *kernel) clear(y *Value, b block, pn *Value, g Groups, width int, t Tile) {
	if !g.Rest {
		return
	}
	k.If(k.Equal(b.expert, k.Int(g.Experts)), func() {
		_, inside := k.span(pn, t.N, width)
		at, block := k.corner(y, b.first, pn, width, t.M, t.N)
		k.Store(k.Ptr(at, block), k.Zeros(F32, t.M, t.N), k.box(k.Less(b.rows, k.Int(g.Rows)), inside))
	})
}

// order gives program number pid its block of rows and of columns: group blocks of rows run beside each other on
// the same columns.
func (k *kernel) order(pid *Value, rows, columns, group int) (pm, pn *Value) {
	if group == 1 {
		return k.Rem(pid, k.Int(rows)), k.Div(pid, k.Int(rows))
	}
	width := k.Int(group * columns)
	first := k.Mul(k.Div(pid, width), k.Int(group))
	size := k.Min(k.Sub(k.Int(rows), first), k.Int(group))
	in := k.Rem(pid, width)
	return k.Add(first, k.Rem(in, size)), k.Div(in, size)
}

// span is the numbers n·size to n·size+size-1, and which of them are below most; nil if all are.
func (k *kernel) span(n *Value, size, most int) (numbers, inside *Value) {
	numbers = k.Add(k.Range(size), k.Mul(n, k.Int(size)))
	if most%size != 0 {
		inside = k.Less(numbers, k.Int(most))
	}
	return numbers, inside
}

// long is offsets x·n in i64.
func (k *kernel) long(x *Value, n int) *Value { return k.Mul(k.Convert(x, I64), k.Long(n)) }

// cells are the offsets [m, n] of rows [m] and columns [n] of a row-major array that is width wide, i64.
func (k *kernel) cells(rows, columns *Value, width int) *Value {
	return k.Add(k.Column(k.long(rows, width)), k.Row(k.Convert(columns, I64)))
}

// both is x & y, of which nil is true.
func (k *kernel) both(x, y *Value) *Value {
	switch {
	case x == nil:
		return y
	case y == nil:
		return x
	}
	return k.And(x, y)
}

// stream is a block of a matrix that a product moves along the axis it sums over. Offsets inside the block stay the
// same, and only the scalar base moves: that takes the fewest registers.
type stream struct {
	base   *Value // pointer to the array
	block  *Value // offsets [k, n] or [n, k], i32 where they fit
	stride int    // elements from one to the next along the axis summed over
	axis   int    // the one summed over
	mask   *Value // of the other axis, of size 1 along axis; nil is true
}

// product is what a loop over streams does.
type product struct {
	lo, hi  *Value // of the axis summed over, i32
	ragged  bool   // hi-lo may leave a rest when divided by k
	k       int    // the block along that axis
	streams []stream
	dots    []term
	scaled  func(i *Value) *Value // what products of the blocks at i are multiplied by; nil for 1
}

// term is sums[to] += left·right, numbers of streams.
type term struct{ left, right, to int }

// sum runs a product and returns its sums, f32.
func (k *kernel) sum(p product, sums ...*Value) []*Value {
	return k.For(p.lo, p.hi, k.Int(p.k), sums, func(i *Value, sums []*Value) []*Value {
		var inside *Value
		if p.ragged {
			inside = k.Less(k.Add(k.Range(p.k), i), p.hi) // [k]
		}
		blocks := make([]*Value, len(p.streams))
		for j, s := range p.streams {
			mask := s.mask
			if inside != nil {
				mask = k.both(mask, k.Expand(inside, 1-s.axis))
			}
			blocks[j] = k.Load(k.Ptr(k.Ptr(s.base, k.long(i, s.stride)), s.block), mask)
		}
		next := append([]*Value(nil), sums...)
		for _, d := range p.dots {
			if p.scaled == nil {
				next[d.to] = k.Dot(blocks[d.left], blocks[d.right], next[d.to])
				continue
			}
			part := k.Dot(blocks[d.left], blocks[d.right], k.Zeros(F32, next[d.to].Type.Dims()...))
			next[d.to] = k.Add(next[d.to], k.Mul(part, p.scaled(i)))
		}
		return next
	})
}

// depth makes a product over all of an axis of n.
func (k *kernel) depth(n, block int) product {
	return product{lo: k.Int(0), hi: k.Int(n), ragged: n%block != 0, k: block}
}

// across streams [n, block] of rows of a row-major matrix, given by offsets of their first elements.
func (k *kernel) across(base, rows, mask *Value, block int) stream {
	s := stream{base: base, block: k.Add(k.Column(rows), k.Row(k.like(k.Range(block), rows))), stride: 1, axis: 1}
	if mask != nil {
		s.mask = k.Column(mask)
	}
	return s
}

// down is the transposed of across, [block, n].
func (k *kernel) down(base, rows, mask *Value, block int) stream {
	s := stream{base: base, block: k.Add(k.Row(rows), k.Column(k.like(k.Range(block), rows))), stride: 1, axis: 0}
	if mask != nil {
		s.mask = k.Row(mask)
	}
	return s
}

// along streams [block, n] of columns of a row-major matrix that is width wide.
func (k *kernel) along(base, columns, mask *Value, width, block int) stream {
	rows := k.offsets(k.Range(block), width, block*width)
	s := stream{base: base, block: k.Add(k.Column(rows), k.Row(k.like(columns, rows))), stride: width, axis: 0}
	if mask != nil {
		s.mask = k.Row(mask)
	}
	return s
}

// offsets is x·width, in i32 if all of it and what is added to it stay below size that fits, else in i64.
func (k *kernel) offsets(x *Value, width, size int) *Value {
	if size < 1<<31 {
		return k.Mul(x, k.Int(width))
	}
	return k.long(x, width)
}

// like is x in the type of y's elements.
func (k *kernel) like(x, y *Value) *Value { return k.Convert(x, y.Type.Elem) }

// corner moves base to where block (row first, column number pn of n) begins in a row-major array, and gives the
// offsets [m, n] from there.
func (k *kernel) corner(base, first, pn *Value, width, m, n int) (at, block *Value) {
	at = k.Ptr(base, k.Add(k.long(first, width), k.long(pn, n)))
	rows := k.offsets(k.Range(m), width, m*width)
	return at, k.Add(k.Column(rows), k.Row(k.like(k.Range(n), rows)))
}

// product elements: f16, bf16 and f32 are multiplied as they are and summed in f32.
func dotElem(kernel string, e Elem) error {
	if e != F16 && e != BF16 && e != F32 {
		return fmt.Errorf("triton: %s: elements %s, wanted f16, bf16 or f32", kernel, e)
	}
	return nil
}

// check holds what the products over groups share to its bounds.
func check(kernel string, g Groups, e Elem, t Tile, sizes ...any) error {
	if err := g.check(kernel); err != nil {
		return err
	}
	if err := dotElem(kernel, e); err != nil {
		return err
	}
	if err := positive(kernel, sizes...); err != nil {
		return err
	}
	return t.check(kernel)
}

// checkRouted is check of rows that are those of tokens and choices.
func checkRouted(kernel string, g Groups, e Elem, t Tile, tokens, choices, width, hidden int) error {
	if err := check(kernel, g, e, t, "tokens", tokens, "choices", choices, "width", width, "hidden", hidden); err != nil {
		return err
	}
	if g.Rows != tokens*choices {
		return fmt.Errorf("triton: %s: %d rows of %d tokens and %d choices, wanted %d", kernel, g.Rows, tokens, choices, tokens*choices)
	}
	return nil
}

// upOperands declares the rows [T, D], their order unless they have it, and the matrices gate and up [E, F, D] that both up
// projections read.
func (k *kernel) upOperands(g Groups, e Elem, tokens, width, hidden int, ordered bool) (x, order, gate, up *Value) {
	x = k.operand("x", e, tokens, width)
	if !ordered {
		order = k.operand("order", I32, g.Rows)
	}
	return x, order, k.operand("gate", e, g.Experts, hidden, width), k.operand("up", e, g.Experts, hidden, width)
}
