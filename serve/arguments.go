package serve

import "mix/lower"

// held is an argument of a program that is called over and over. It is uploaded again only when a value has
// changed.
type held[T int32 | uint32 | uint8 | float32] struct {
	dims    []int
	values  []T
	changed bool
	buffer  *lower.Buffer
}

func newHeld[T int32 | uint32 | uint8 | float32](dims ...int) *held[T] {
	n := 1
	for _, d := range dims {
		n *= d
	}
	return &held[T]{dims: dims, values: make([]T, n)}
}

// set changes one value.
func (h *held[T]) set(i int, x T) {
	if h.values[i] != x {
		h.values[i], h.changed = x, true
	}
}

// row is the i-th of equal parts, for whoever changes it.
func (h *held[T]) row(i int) []T {
	h.changed = true
	n := len(h.values) / h.dims[0]
	return h.values[i*n : (i+1)*n]
}

// upload gives the argument as a buffer, which stays the holder's.
func (h *held[T]) upload(be *lower.Backend) (*lower.Buffer, error) {
	if h.buffer != nil && !h.changed {
		return h.buffer, nil
	}
	b, err := upload(be, h.values, h.dims...)
	if err != nil {
		return nil, err
	}
	free(h.buffer)
	h.buffer, h.changed = b, false
	return b, nil
}

func (h *held[T]) free() {
	free(h.buffer)
	h.buffer = nil
}

// argument is a held of any type.
type argument interface {
	upload(*lower.Backend) (*lower.Buffer, error)
	free()
}

// uploaded are arguments as buffers, in order.
func uploaded(be *lower.Backend, all ...argument) (bs []*lower.Buffer, err error) {
	for _, a := range all {
		b, err := a.upload(be)
		if err != nil {
			return nil, err
		}
		bs = append(bs, b)
	}
	return bs, nil
}

// feed are the arguments of a program over the pool: B rows of S tokens that see C positions.
type feed struct {
	tokens, positions, write, read *held[int32]
	last                           *held[int32] // [] of a prompt's part
	size                           int          // of a block
	filled                         [][]int32    // of each row, the blocks whose places are in read
}

func newFeed(rows, tokens, context, size int) *feed {
	return &feed{tokens: newHeld[int32](rows, tokens), positions: newHeld[int32](rows, tokens), write: newHeld[int32](rows, tokens),
		read: newHeld[int32](rows, context), last: newHeld[int32](), size: size, filled: make([][]int32, rows)}
}

func (f *feed) all() []argument { return []argument{f.tokens, f.positions, f.write, f.read, f.last} }

// of are the arguments of a program that gives the logits of one in so many tokens: it takes the last one's place,
// unless it gives those of every token.
func (f *feed) of(tokens int) []argument {
	if tokens == 1 {
		return f.all()[:4]
	}
	return f.all()
}

// see lets a row read the blocks of a table, and place 0 for the positions behind them: those are not seen, and
// one place that is read often costs less than many.
func (f *feed) see(row int, table []int32) {
	context := f.read.dims[1]
	table = table[:min(len(table), context/f.size)]
	known := f.filled[row]
	for k, block := range table {
		if k < len(known) && known[k] == block {
			continue
		}
		to := f.read.row(row)[k*f.size : (k+1)*f.size]
		for i := range to {
			to[i] = block*int32(f.size) + int32(i)
		}
	}
	if len(table) < len(known) {
		clear(f.read.row(row)[len(table)*f.size : len(known)*f.size])
	}
	f.filled[row] = append(known[:0], table...)
}

// place is where in the pool a position of a sequence is.
func (f *feed) place(table []int32, position int) int32 {
	return table[position/f.size]*int32(f.size) + int32(position%f.size)
}

// choice are the arguments of a draw from B rows of logits.
type choice struct {
	temperature, minP, topP, repetition *held[float32] // [B]
	seed                                *held[uint32]  // [B, 2]
	step, topK                          *held[int32]   // [B]
	added                               *held[float32] // [B, V]
	seen                                *held[uint8]   // [B, V]
	adds, sees                          []bool         // of each row, that it is not all zeros
}

func newChoice(rows, vocab int) *choice {
	c := &choice{temperature: newHeld[float32](rows), minP: newHeld[float32](rows), topP: newHeld[float32](rows), repetition: newHeld[float32](rows),
		seed: newHeld[uint32](rows, 2), step: newHeld[int32](rows), topK: newHeld[int32](rows),
		added: newHeld[float32](rows, vocab), seen: newHeld[uint8](rows, vocab), adds: make([]bool, rows), sees: make([]bool, rows)}
	for i := range rows {
		c.topP.set(i, 1)
		c.repetition.set(i, 1)
	}
	return c
}

func (c *choice) all() []argument { return append(c.plain(), c.ranked()...) }

// plain are the arguments of all forms of the program.
func (c *choice) plain() []argument { return []argument{c.temperature, c.minP, c.seed, c.step} }

// ranked are the further ones of a ranked form.
func (c *choice) ranked() []argument {
	return []argument{c.topK, c.topP, c.added, c.seen, c.repetition}
}

// coolest is the lowest temperature that logits are divided by. Below it the best token is taken: the draw is
// the same, and no quotient overflows.
const coolest = 1e-5

// set makes a row draw for a job, at a position, as if further tokens had been drawn before.
func (c *choice) set(row int, j *job, position int, after []int32) error {
	s := j.r.Sampling
	if s.Temperature < coolest {
		s.Temperature = 0
	}
	c.temperature.set(row, s.Temperature)
	c.minP.set(row, s.MinP)
	c.topP.set(row, s.TopP)
	c.topK.set(row, int32(s.TopK))
	c.repetition.set(row, s.Repetition)
	c.seed.set(2*row, uint32(s.Seed))
	c.seed.set(2*row+1, uint32(s.Seed>>32))
	c.step.set(row, int32(position))
	if c.adds[row] {
		clear(c.added.row(row))
	}
	if c.adds[row] = j.adds(after); c.adds[row] {
		if err := j.added(c.added.row(row), after); err != nil {
			return err
		}
	}
	switch {
	case j.seen != nil:
		seen := c.seen.row(row)
		copy(seen, j.seen)
		for _, id := range after {
			seen[id] = 1
		}
	case c.sees[row]:
		clear(c.seen.row(row))
	}
	c.sees[row] = j.seen != nil
	return nil
}
