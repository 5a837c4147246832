package serve

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"

	"mix/lower"
	"mix/serve/infer"
	"mix/serve/sched"
)

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

// scratch is the first of the positions that nobody reads.
func (b *Batcher) scratch() int32 { return int32(b.o.Blocks * b.o.Block) }

// pooled runs a program over the pool and returns its results before the pool's.
func (b *Batcher) pooled(p *lower.Program, results int, args ...argument) ([]*lower.Buffer, error) {
	all, err := uploaded(b.e.be, args...)
	if err != nil {
		return nil, err
	}
	outs, err := p.Run(append(all, b.paged.pool...)...)
	if err != nil {
		return nil, err
	}
	copy(b.paged.pool, outs[results:])
	return outs[:results], nil
}

func (b *Batcher) copyBlock(c sched.Copy) error {
	n := b.o.Block
	from, to := newHeld[int32](n), newHeld[int32](n)
	defer from.free()
	defer to.free()
	for i := range n {
		from.set(i, c.From*int32(n)+int32(i))
		to.set(i, c.To*int32(n)+int32(i))
	}
	_, err := b.pooled(b.paged.copy, 0, from, to)
	return err
}

// prefill puts a part of a prompt into the pool, and draws after its last token where that is wanted.
func (b *Batcher) prefill(c *sched.Chunk) error {
	b.mu.Lock()
	j := b.running[c.ID]
	b.mu.Unlock()
	f, n := b.prompt, len(c.Tokens)
	for i := range b.o.Chunk {
		f.positions.set(i, int32(c.Start+i))
		if i < n {
			f.tokens.set(i, c.Tokens[i])
			f.write.set(i, f.place(c.Table, c.Start+i))
		} else {
			f.tokens.set(i, 0)
			f.write.set(i, b.scratch()+int32(i))
		}
	}
	f.see(0, c.Table)
	f.last.set(0, int32(n-1))
	scored := j != nil && j.r.PromptLogProbs >= 0
	program, args := b.paged.prefill, f.all()
	if scored {
		program, args = b.paged.scored, args[:4] // all places but for the last one
	}
	outs, err := b.pooled(program, 2, args...)
	if err != nil {
		return err
	}
	defer free(outs...)
	logits, experts := outs[0], outs[1]
	if scored {
		v := b.model.Vocab
		all, err := fetch[float32](logits)
		if err != nil {
			return err
		}
		for i := range n {
			if at := c.Start + i + 1; at == j.scored+1 && at < len(j.r.Prompt) { // once, also if it was preempted
				j.scored++
				j.prompt = append(j.prompt, placeOf(all[i*v:(i+1)*v], j.r.Prompt[at], j.r.PromptLogProbs))
			}
		}
		if logits, err = b.e.be.Upload(shapes.Make(dtypes.Float32, 1, v), all[(n-1)*v:n*v]); err != nil {
			return err
		}
		defer free(logits)
	}
	if !c.Draw {
		return nil
	}
	return b.drawFor([]drawn{{id: c.ID, row: 0, token: n - 1, position: c.Start + n}}, 1, logits, experts)
}

// decode puts a token of every decoding request into the pool and draws the next ones.
func (b *Batcher) decode(rows []sched.Row) error {
	f, busy := b.tokens, make([]bool, b.o.Slots)
	var draws []drawn
	for _, r := range rows {
		i := r.Slot
		busy[i] = true
		f.tokens.set(i, r.Token)
		f.positions.set(i, int32(r.Position))
		f.write.set(i, f.place(r.Table, r.Position))
		f.see(i, r.Table)
		if !r.Replay {
			draws = append(draws, drawn{id: r.ID, row: i, token: i, position: r.Position + 1})
		}
	}
	for i, busy := range busy {
		if !busy {
			f.tokens.set(i, 0)
			f.positions.set(i, 0)
			f.write.set(i, b.scratch()+int32(i))
			f.see(i, nil)
		}
	}
	outs, err := b.pooled(b.paged.decode, 2, f.tokens, f.positions, f.write, f.read)
	if err != nil {
		return err
	}
	defer free(outs...)
	return b.drawFor(draws, b.o.Slots, outs[0], outs[1])
}

// drawn is a draw for a request.
type drawn struct {
	id       sched.ID
	row      int // of the logits
	token    int // of the experts
	position int // of the token that is drawn
	j        *job
	place    *infer.Place
}

// drawFor draws from logits [rows, V] and tells requests and scheduler. What takes time is done without the
// lock: requests that end meanwhile are not told.
func (b *Batcher) drawFor(draws []drawn, rows int, logits, experts *lower.Buffer) error {
	draws = b.atWork(draws)
	if len(draws) == 0 {
		return nil
	}
	form, c := drawing{rows: rows}, b.choices[rows]
	var wantLogits, wantExperts bool
	for _, d := range draws {
		if err := c.set(d.row, d.j, d.position); err != nil {
			b.fail(d.id, err)
		}
		form.ranked = form.ranked || d.j.ranked()
		wantLogits, wantExperts = wantLogits || d.j.r.LogProbs >= 0, wantExperts || d.j.r.Experts
	}
	args := c.plain()
	if form.ranked {
		args = c.all()
	}
	sampling, err := uploaded(b.e.be, args...)
	if err != nil {
		return err
	}
	outs, err := b.paged.draw[form].Run(append([]*lower.Buffer{logits}, sampling...)...)
	if err != nil {
		return err
	}
	defer free(outs...)
	ids, err := fetch[int32](outs[0])
	if err != nil {
		return err
	}
	var chosen []int32
	if wantExperts {
		if chosen, err = fetch[int32](experts); err != nil {
			return err
		}
	}
	if wantLogits { // as the model has them, whatever the draw makes of them
		scores, err := fetch[float32](logits)
		if err != nil {
			return err
		}
		for i, d := range draws {
			if d.j.r.LogProbs >= 0 {
				p := placeOf(scores[d.row*b.model.Vocab:(d.row+1)*b.model.Vocab], ids[d.row], d.j.r.LogProbs)
				draws[i].place = &p
			}
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range draws {
		if b.running[d.id] == nil { // ended meanwhile
			continue
		}
		var used [][]uint8
		if d.j.r.Experts {
			used = b.used(chosen, d.token)
		}
		if err := b.tell(d.id, d.j, ids[d.row], d.place, used); err != nil {
			return err
		}
	}
	return nil
}

// atWork adds the jobs to draws, and leaves out those of requests that have ended.
func (b *Batcher) atWork(draws []drawn) (all []drawn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range draws {
		if d.j = b.running[d.id]; d.j != nil {
			all = append(all, d)
		}
	}
	return all
}

// fail ends one request with an error.
func (b *Batcher) fail(id sched.ID, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if j := b.running[id]; j != nil {
		b.s.End(id)
		b.finish(id, j, infer.Event{Prompt: j.takePrompt(), Finish: infer.FinishError, Err: err, StopID: -1})
	}
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
