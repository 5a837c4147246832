package serve

import (
	"slices"

	"mix/lower"
	"mix/serve/sched"
)

// run runs a step: copies, then the chunks, then the rows. One that is idle ends what came before.
func (b *Batcher) run(step sched.Step) error {
	if step.Idle() {
		return b.rest()
	}
	for _, c := range step.Copies {
		if err := b.copyBlock(c); err != nil {
			return err
		}
	}
	for _, c := range step.Prefill {
		if err := b.prefill(c); err != nil {
			return err
		}
	}
	if len(step.Decode) > 0 {
		if err := b.decode(step.Decode, step.Ahead); err != nil {
			return err
		}
	}
	if len(b.work.pending) >= unasked {
		return b.rest()
	}
	return nil
}

// unasked is how many programs may be started before one is waited for. Prompts without a draw ask for nothing: without a
// bound, what is kept of each would pile up as long as they come.
const unasked = 32

// rest waits for the programs whose results nobody has asked for.
func (b *Batcher) rest() error {
	if err := b.work.fetch(nil); err != nil {
		return err
	}
	b.work.ended()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.work.publish()
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
	b.work.launched()
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
func (b *Batcher) prefill(c sched.Chunk) error {
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
	program, args := b.paged.prefill, f.of(b.o.Chunk)
	if scored {
		program, args = b.paged.scored, f.of(1) // all places but for the last one
	}
	outs, err := b.pooled(program, 2, args...)
	if err != nil {
		return err
	}
	defer free(outs[0])
	logits := outs[0]
	experts := b.work.routed(outs[1], span(n))
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
		if logits, err = upload(b.e.be, all[(n-1)*v:n*v], 1, v); err != nil {
			return err
		}
		defer free(logits)
	}
	var draws []sched.ID
	if c.Draw {
		draws = append(draws, c.ID)
	}
	for _, fork := range c.Forks {
		if fork.Draw {
			draws = append(draws, fork.ID)
		}
	}
	for _, id := range draws { // from the same logits, each in its own way
		if err := b.drawFor([]drawn{{id: id, row: 0, token: n - 1, position: c.Start + n}}, 1, logits, experts); err != nil {
			return err
		}
	}
	return nil
}

// decode puts a token of every decoding request into the pool, and tokens ahead of these, and draws the next ones.
func (b *Batcher) decode(rows, ahead []sched.Row) error {
	f, busy := b.tokens, make([]bool, b.o.Slots)
	var draws []drawn
	var at []int // rows at work
	guesses := map[sched.ID][]int32{}
	for _, r := range slices.Concat(rows, ahead) {
		i := r.Slot
		busy[i] = true
		at = append(at, i)
		f.tokens.set(i, r.Token)
		f.positions.set(i, int32(r.Position))
		f.write.set(i, f.place(r.Table, r.Position))
		f.see(i, r.Table)
		if r.Guess {
			guesses[r.ID] = append(guesses[r.ID], r.Token)
		}
		if !r.Replay {
			draws = append(draws, drawn{id: r.ID, row: i, token: i, position: r.Position + 1, after: guesses[r.ID]})
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
	outs, err := b.pooled(b.paged.decode, 2, f.of(1)...)
	if err != nil {
		return err
	}
	defer free(outs[0])
	return b.drawFor(draws, b.o.Slots, outs[0], b.work.routed(outs[1], at))
}

// span is 0 to n-1.
func span(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}
