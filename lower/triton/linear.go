package triton

import "fmt"

// Linear multiplies few rows by matrices, where time goes to reading those: a matrix is read once if a block holds all
// rows, which a Tile of M ≥ T rows grants. Matrices are the left operand of the products, as in Decode.
type Linear struct {
	Tokens int   // T
	Width  int   // D
	Outs   []int // N of each matrix, one to maxMatrices of them
	Elem   Elem  // of rows and matrices
	Y      Elem  // of the results, where sums are not split
}

// maxMatrices bounds what is written out matrix by matrix.
const maxMatrices = 8

// Call is the kernel.
//
//	x  [T, D]
//	w0 [N0, D], w1 [N1, D], …
//	y0 [T, N0], y1 [T, N1], …   yi = x·wiᵀ, summed in f32; with Tile's Split above 1 [S, T, Ni] f32, partial sums
//
// Programs along x are the blocks of columns of one matrix after the other.
func (l Linear) Call(t Tile) (Call, error) {
	const name = "linear"
	if err := l.check(name, t); err != nil {
		return Call{}, err
	}
	k := newKernel(name, t)
	x := k.operand("x", l.Elem, l.Tokens, l.Width)
	var weights, results []*Value
	for i, n := range l.Outs {
		weights = append(weights, k.operand(fmt.Sprintf("w%d", i), l.Elem, n, l.Width))
	}
	for i, n := range l.Outs {
		elem := l.Y
		if t.Split > 1 {
			elem = F32
		}
		results = append(results, k.result(fmt.Sprintf("y%d", i), elem, splits(t.Split, l.Tokens, n)...))
	}
	pid := k.Program(0)
	rows, own := k.span(k.Program(1), t.M, l.Tokens) // [M]
	from := 0
	for i, n := range l.Outs {
		blocks := ceil(n, t.N)
		one := func() { k.linear(l, t, k.Sub(pid, k.Int(from)), rows, own, x, weights[i], results[i], n) }
		if len(l.Outs) == 1 {
			one()
		} else {
			k.If(k.And(k.LessEqual(k.Int(from), pid), k.Less(pid, k.Int(from+blocks))), one)
		}
		from += blocks
	}
	return k.finish(from, ceil(l.Tokens, t.M), t.Split)
}

// linear is block pn of columns of y = x·wᵀ, w [n, D].
func (k *kernel) linear(l Linear, t Tile, pn, rows, own, x, w, y *Value, n int) {
	cols, inside := k.span(pn, t.N, n) // [N]
	first := k.long(pn, t.N*l.Width)
	p := k.share(l.Width, t)
	p.streams = []stream{
		k.across(k.Ptr(w, first), k.offsets(k.Range(t.N), l.Width, t.N*l.Width), inside, t.K), // [N, K]
		k.down(x, k.offsets(rows, l.Width, ceil(l.Tokens, t.M)*t.M*l.Width), own, t.K),        // [K, M]
	}
	p.dots = []term{{0, 1, 0}}
	sum := k.sum(p, k.Zeros(F32, t.N, t.M))[0]
	k.storeTurned(y, sum, rows, cols, k.box(inside, own), l.Tokens, n)
}

// multiprocessors is how many an H100 or H200 has, to a power of two.
const multiprocessors = 128

// Fit is t with as many splits as there must be for two programs a multiprocessor, at most Tile's own. A block of many
// rows is loaded again by each program and its sums weigh more: one program then is enough.
func (l Linear) Fit(t Tile) Tile {
	blocks, enough, most := 0, 2*multiprocessors, t.Split
	for _, n := range l.Outs {
		blocks += ceil(max(n, 1), max(t.N, 1))
	}
	if t.M > 16 {
		enough = multiprocessors
	}
	for t.Split = 1; t.Split < most && blocks*t.Split < enough; {
		t.Split *= 2
	}
	t.Split = min(t.Split, most)
	return t
}

func (l Linear) check(name string, t Tile) error {
	if n := len(l.Outs); n < 1 || n > maxMatrices {
		return fmt.Errorf("triton: %s: %d matrices, wanted 1 to %d", name, n, maxMatrices)
	}
	sizes := []any{"tokens", l.Tokens, "width", l.Width}
	for _, n := range l.Outs {
		sizes = append(sizes, "out", n)
	}
	if err := positive(name, sizes...); err != nil {
		return err
	}
	for _, e := range []Elem{l.Elem, l.Y} {
		if err := dotElem(name, e); err != nil {
			return err
		}
	}
	return t.check(name)
}
