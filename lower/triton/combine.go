package triton

import "fmt"

// Combine adds up the results of each token's experts.
type Combine struct {
	Tokens, Choices, Width int  // T, K, D
	Splits                 int  // S partial sums of each row
	Weighted               bool // rows are multiplied by weights here
	Grouped                bool // rows lie in group order
	Partial                bool // rows that were left out count as zeros
	Rows, Elem             Elem // elements of rows and of y
}

// Call is the kernel.
//
//	rows    [S, R, D]      sums over S are the results of routed rows; [R, D] for one split
//	weights [T, K] f32     with Weighted
//	place   [R] i32        with Grouped or Partial: that of Permute
//	y       [T, D]         y[t] = Σᵢ weights[t,i]·Σₛ rows[s, t·K+i], in that order and in f32
//
// It gathers, nothing is scattered: runs repeat bit for bit.
func (c Combine) Call() (Call, error) {
	const name = "experts_combine"
	if err := positive(name, "tokens", c.Tokens, "choices", c.Choices, "width", c.Width, "splits", c.Splits, "rows", c.Tokens*c.Choices); err != nil {
		return Call{}, err
	}
	if c.Choices > maxChoices {
		return Call{}, fmt.Errorf("triton: %s: %d choices, wanted at most %d", name, c.Choices, maxChoices)
	}
	if err := checkSplits(name, c.Splits); err != nil {
		return Call{}, err
	}
	for _, e := range []Elem{c.Rows, c.Elem} {
		if err := dotElem(name, e); err != nil {
			return Call{}, err
		}
	}
	k := newKernel(name, elementwise)
	routed := c.Tokens * c.Choices
	rows := k.operand("rows", c.Rows, splits(c.Splits, routed, c.Width)...)
	var weights, place *Value
	if c.Weighted {
		weights = k.operand("weights", F32, c.Tokens, c.Choices)
	}
	if c.Grouped || c.Partial {
		place = k.operand("place", I32, routed)
	}
	y := k.result("y", c.Elem, c.Tokens, c.Width)

	const m, n = 4, 256
	tokens, tokenInside := k.span(k.Program(1), m, c.Tokens) // [m]
	cols, colInside := k.span(k.Program(0), n, c.Width)      // [n]
	mask := k.box(tokenInside, colInside)
	choices := k.Mul(tokens, k.Int(c.Choices))
	var sum *Value
	for i := range c.Choices {
		row := k.Add(choices, k.Int(i)) // [m]
		from, rowMask := row, mask
		if place != nil {
			at := k.Load(k.Ptr(place, row), tokenInside)
			if c.Grouped {
				from = at
			}
			if c.Partial {
				rowMask = k.both(mask, k.Column(k.Less(k.Int(-1), at)))
			}
		}
		at := k.cells(from, cols, c.Width) // [m, n]
		v := k.partial(rows, at, rowMask, c.Splits, routed*c.Width)
		if c.Weighted {
			v = k.Mul(v, k.Column(k.Load(k.Ptr(weights, row), tokenInside)))
		}
		if sum == nil {
			sum = v
		} else {
			sum = k.Add(sum, v)
		}
	}
	k.Store(k.Ptr(y, k.cells(tokens, cols, c.Width)), sum, mask)
	return k.finish(ceil(c.Width, n), ceil(c.Tokens, m), 1)
}

// splits are the sizes of n partial sums, of one the sum's own.
func splits(n int, dims ...int) []int {
	if n == 1 {
		return dims
	}
	return append([]int{n}, dims...)
}

// checkSplits bounds sums that are written out one by one, as Tile's Split is bounded.
func checkSplits(kernel string, n int) error {
	if n > maxSplits {
		return fmt.Errorf("triton: %s: %d splits, wanted at most %d", kernel, n, maxSplits)
	}
	return nil
}

const maxSplits = 256

// elementwise is the tile of kernels that only stream.
var elementwise = Tile{Warps: 4, Stages: 1}

// partial adds up n partial results, size elements apart, in f32.
func (k *kernel) partial(base, at, mask *Value, n, size int) *Value {
	var sum *Value
	for s := range n {
		v := k.Convert(k.Load(k.Ptr(base, k.Add(at, k.Long(s*size))), mask), F32)
		if sum == nil {
			sum = v
		} else {
			sum = k.Add(sum, v)
		}
	}
	return sum
}

// box is which elements of a block lie inside, of masks [m] and [n], nil for all.
func (k *kernel) box(rows, columns *Value) *Value {
	if rows != nil {
		rows = k.Column(rows)
	}
	if columns != nil {
		columns = k.Row(columns)
	}
	return k.both(rows, columns)
}
