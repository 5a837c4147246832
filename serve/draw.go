package serve

import (
	"fmt"
	"time"

	"mix/lower"
	"mix/serve/infer"
	"mix/serve/sched"
)

// drawn is a draw for a request.
type drawn struct {
	id       sched.ID
	row      int     // of the logits
	token    int     // of the experts
	position int     // of the token that is drawn
	after    []int32 // guesses since the token that the request drew last: the draw is for nothing unless they come
	j        *job
	place    *infer.Place
}

// drawFor draws from logits [rows, V] and tells requests and scheduler. What takes time is done without the
// lock: requests that end meanwhile are not told.
func (b *Batcher) drawFor(draws []drawn, rows int, logits *lower.Buffer, experts *routed) error {
	draws = b.atWork(draws)
	if len(draws) == 0 {
		return nil
	}
	form, c := drawing{rows: rows}, b.choices[rows]
	var wantLogits, wantExperts bool
	for _, d := range draws {
		if err := c.set(d.row, d.j, d.position, d.after); err != nil {
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
	if err := b.work.fetch(experts); err != nil { // of calls before, while the device is at work
		return err
	}
	ids, err := fetch[int32](outs[0])
	if err != nil {
		return err
	}
	b.work.ended()
	if wantExperts {
		if err := b.work.fetch(nil); err != nil {
			return err
		}
	}
	draws = sure(draws, ids)
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
	b.work.publish()
	for _, d := range draws {
		if b.running[d.id] == nil { // ended meanwhile
			continue
		}
		var used [][]uint8
		if d.j.r.Experts {
			used = experts.of(d.token)
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

// sure leaves out draws after guesses that did not come. A request's draws are in order.
func sure(draws []drawn, ids []int32) (all []drawn) {
	came := map[sched.ID]int32{} // the last id that was surely drawn
	for _, d := range draws {
		if n := len(d.after); n > 0 {
			if id, ok := came[d.id]; !ok || id != d.after[n-1] {
				delete(came, d.id)
				continue
			}
		}
		came[d.id] = ids[d.row]
		all = append(all, d)
	}
	return all
}

// tell hands a drawn id to its request and to the scheduler. The lock is held.
func (b *Batcher) tell(id sched.ID, j *job, token int32, place *infer.Place, experts [][]uint8) error {
	if j.usage.Generated == 0 && b.o.Watch != nil {
		b.o.Watch.Prefilled(time.Since(j.seated))
	}
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
