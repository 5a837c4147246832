package serve

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"

	"mix/lower"
	"mix/serve/infer"
	"mix/serve/sched"
)

// arguments collects buffers of one call.
type arguments struct {
	be  *lower.Backend
	all []*lower.Buffer
	err error
}

func (a *arguments) add(dtype dtypes.DType, flat any, dims ...int) {
	if a.err != nil {
		return
	}
	var b *lower.Buffer
	if b, a.err = a.be.Upload(shapes.Make(dtype, dims...), flat); a.err == nil {
		a.all = append(a.all, b)
	}
}

func (a *arguments) ints(x []int32, dims ...int)     { a.add(dtypes.Int32, x, dims...) }
func (a *arguments) floats(x []float32, dims ...int) { a.add(dtypes.Float32, x, dims...) }

// run runs a step: copies, then the chunk, then the rows.
func (b *Batcher) run(step sched.Step) error {
	for _, c := range step.Copies {
		if err := b.copyBlock(c); err != nil {
			return err
		}
	}
	if step.Prefill != nil {
		if err := b.prefill(step.Prefill); err != nil {
			return err
		}
	}
	if len(step.Decode) > 0 {
		return b.decode(step.Decode)
	}
	return nil
}

// place is where in the pool a position of a sequence is.
func (b *Batcher) place(table []int32, position int) int32 {
	return table[position/b.o.Block]*int32(b.o.Block) + int32(position%b.o.Block)
}

// reads lists the places of all positions that a sequence has blocks for, and 0 for those beyond, which are
// not seen.
func (b *Batcher) reads(to []int32, table []int32) {
	n := min(len(to), len(table)*b.o.Block)
	for i := range n {
		to[i] = b.place(table, i)
	}
}

// scratch is the first of the positions that nobody reads.
func (b *Batcher) scratch() int32 { return int32(b.o.Blocks * b.o.Block) }

// pooled runs a program over the pool and returns its results before the pool's.
func (b *Batcher) pooled(p *lower.Program, a *arguments, results int) ([]*lower.Buffer, error) {
	defer free(a.all...)
	if a.err != nil {
		return nil, a.err
	}
	outs, err := p.Run(append(append([]*lower.Buffer{}, a.all...), b.paged.pool...)...)
	if err != nil {
		return nil, err
	}
	copy(b.paged.pool, outs[results:])
	return outs[:results], nil
}

func (b *Batcher) copyBlock(c sched.Copy) error {
	n := b.o.Block
	from, to := make([]int32, n), make([]int32, n)
	for i := range n {
		from[i], to[i] = c.From*int32(n)+int32(i), c.To*int32(n)+int32(i)
	}
	a := &arguments{be: b.e.be}
	a.ints(from, n)
	a.ints(to, n)
	_, err := b.pooled(b.paged.copy, a, 0)
	return err
}

// prefill puts a part of a prompt into the pool, and draws after its last token where that is wanted.
func (b *Batcher) prefill(c *sched.Chunk) error {
	b.mu.Lock()
	j := b.running[c.ID]
	b.mu.Unlock()
	s := b.o.Chunk
	tokens, positions, write, read := make([]int32, s), make([]int32, s), make([]int32, s), make([]int32, b.o.Context)
	copy(tokens, c.Tokens)
	for i := range s {
		positions[i], write[i] = int32(c.Start+i), b.scratch()+int32(i)
		if i < len(c.Tokens) {
			write[i] = b.place(c.Table, c.Start+i)
		}
	}
	b.reads(read, c.Table)
	a := &arguments{be: b.e.be}
	a.ints(tokens, 1, s)
	a.ints(positions, 1, s)
	a.ints(write, 1, s)
	a.ints(read, 1, b.o.Context)
	scored := j != nil && j.r.PromptLogProbs >= 0
	program := b.paged.scored
	if !scored {
		a.ints([]int32{int32(len(c.Tokens) - 1)})
		program = b.paged.prefill
	}
	outs, err := b.pooled(program, a, 2)
	if err != nil {
		return err
	}
	defer free(outs...)
	logits, experts := outs[0], outs[1]
	if scored {
		all, err := fetch[float32](logits)
		if err != nil {
			return err
		}
		v := b.model.Vocab
		b.mu.Lock()
		for i := range c.Tokens {
			if at := c.Start + i + 1; at == j.scored+1 && at < len(j.r.Prompt) { // once, also if it was preempted
				j.scored++
				j.prompt = append(j.prompt, placeOf(all[i*v:(i+1)*v], j.r.Prompt[at], j.r.PromptLogProbs))
			}
		}
		b.mu.Unlock()
		n := len(c.Tokens)
		if logits, err = b.e.be.Upload(shapes.Make(dtypes.Float32, 1, v), all[(n-1)*v:n*v]); err != nil {
			return err
		}
		defer free(logits)
	}
	if !c.Draw || j == nil {
		return nil
	}
	return b.drawFor([]drawn{{c.ID, 0, len(c.Tokens) - 1, c.Start + len(c.Tokens)}}, 1, logits, experts)
}

// decode puts a token of every decoding request into the pool and draws the next ones.
func (b *Batcher) decode(rows []sched.Row) error {
	n, c := b.o.Slots, b.o.Context
	tokens, positions, write, read := make([]int32, n), make([]int32, n), make([]int32, n), make([]int32, n*c)
	for i := range n {
		write[i] = b.scratch() + int32(i)
	}
	var draws []drawn
	for _, r := range rows {
		i := r.Slot
		tokens[i], positions[i], write[i] = r.Token, int32(r.Position), b.place(r.Table, r.Position)
		b.reads(read[i*c:(i+1)*c], r.Table)
		if !r.Replay {
			draws = append(draws, drawn{r.ID, i, i, r.Position + 1})
		}
	}
	a := &arguments{be: b.e.be}
	a.ints(tokens, n, 1)
	a.ints(positions, n, 1)
	a.ints(write, n, 1)
	a.ints(read, n, c)
	outs, err := b.pooled(b.paged.decode, a, 2)
	if err != nil {
		return err
	}
	defer free(outs...)
	if len(draws) == 0 {
		return nil
	}
	return b.drawFor(draws, n, outs[0], outs[1])
}

// drawn is a draw for a request.
type drawn struct {
	id       sched.ID
	row      int // of the logits
	token    int // of the experts
	position int // of the token that is drawn
}

// drawFor draws from logits [rows, V] and tells requests and scheduler.
func (b *Batcher) drawFor(draws []drawn, rows int, logits, experts *lower.Buffer) error {
	a := &arguments{be: b.e.be}
	a.all = append(a.all, logits)
	b.mu.Lock()
	form := b.sampling(a, draws, rows)
	var wantLogits, wantExperts bool
	for _, d := range draws {
		if j := b.running[d.id]; j != nil {
			wantLogits, wantExperts = wantLogits || j.r.LogProbs >= 0, wantExperts || j.r.Experts
		}
	}
	b.mu.Unlock()
	defer func() { free(a.all[1:]...) }()
	if a.err != nil {
		return a.err
	}
	outs, err := b.paged.draw[form].Run(a.all...)
	if err != nil {
		return err
	}
	defer free(outs...)
	ids, err := fetch[int32](outs[0])
	if err != nil {
		return err
	}
	var scores []float32
	var chosen []int32
	if wantLogits {
		if scores, err = fetch[float32](logits); err != nil {
			return err
		}
	}
	if wantExperts {
		if chosen, err = fetch[int32](experts); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range draws {
		j := b.running[d.id]
		if j == nil { // cancelled meanwhile
			continue
		}
		id := ids[d.row]
		var place *infer.Place
		if j.r.LogProbs >= 0 {
			p := placeOf(scores[d.row*b.model.Vocab:(d.row+1)*b.model.Vocab], id, j.r.LogProbs)
			place = &p
		}
		var used [][]uint8
		if j.r.Experts {
			used = b.used(chosen, d.token)
		}
		if err := b.tell(d.id, j, id, place, used); err != nil {
			return err
		}
	}
	return nil
}

// used is which experts a token used, of [L, T, K].
func (b *Batcher) used(chosen []int32, token int) (all [][]uint8) {
	k := b.e.cfg.TopK
	t := len(chosen) / b.model.Layers / k
	for l := range b.model.Layers {
		var row []uint8
		for _, e := range chosen[(l*t+token)*k : (l*t+token+1)*k] {
			row = append(row, uint8(e))
		}
		all = append(all, row)
	}
	return all
}

// tell hands a drawn id to its request and to the scheduler. The lock is held.
func (b *Batcher) tell(id sched.ID, j *job, token int32, place *infer.Place, experts [][]uint8) error {
	e, ends, err := j.take(token, place, experts)
	switch {
	case err != nil:
		b.s.End(id)
		b.finish(id, j, infer.Event{Finish: infer.FinishError, Err: err, StopID: -1})
		return nil
	case ends:
		b.s.End(id)
		b.finish(id, j, e)
		return nil
	}
	over, err := b.s.Drawn(id, token)
	if err != nil {
		return err
	}
	if over {
		e.Finish = infer.FinishLength
		b.finish(id, j, e)
		return nil
	}
	j.events.send(e)
	return nil
}

// sampling adds the arguments of a draw and says which form takes them. The lock is held.
func (b *Batcher) sampling(a *arguments, draws []drawn, rows int) drawing {
	v := b.model.Vocab
	temperature, minP, topP, repetition := make([]float32, rows), make([]float32, rows), make([]float32, rows), make([]float32, rows)
	topK, step, seed := make([]int32, rows), make([]int32, rows), make([]uint32, 2*rows)
	for i := range rows {
		topP[i], repetition[i] = 1, 1
	}
	form := drawing{rows: rows}
	for _, d := range draws {
		j := b.running[d.id]
		if j == nil {
			continue
		}
		s, i := j.r.Sampling, d.row
		temperature[i], minP[i], topP[i], topK[i], repetition[i] = s.Temperature, s.MinP, s.TopP, int32(s.TopK), s.Repetition
		seed[2*i], seed[2*i+1], step[i] = uint32(s.Seed), uint32(s.Seed>>32), int32(d.position)
		form.ranked = form.ranked || j.ranked()
	}
	a.floats(temperature, rows)
	a.floats(minP, rows)
	a.add(dtypes.Uint32, seed, rows, 2)
	a.ints(step, rows)
	if !form.ranked {
		return form
	}
	a.ints(topK, rows)
	a.floats(topP, rows)
	added, seen := make([]float32, rows*v), make([]uint8, rows*v)
	for _, d := range draws {
		if j := b.running[d.id]; j != nil {
			j.added(added[d.row*v : (d.row+1)*v])
			copy(seen[d.row*v:(d.row+1)*v], j.seen)
		}
	}
	a.floats(added, rows, v)
	a.add(dtypes.Uint8, seen, rows, v)
	a.floats(repetition, rows)
	return form
}

// fetch copies a buffer to the host.
func fetch[T float32 | int32](b *lower.Buffer) ([]T, error) {
	s, err := b.Shape()
	if err != nil {
		return nil, err
	}
	x := make([]T, s.Size())
	if err := b.ToFlatData(x); err != nil {
		return nil, fmt.Errorf("results: %w", err)
	}
	return x, nil
}
