package sched

import (
	"fmt"
	"slices"
)

// Step is what the engine runs: first the copies, in order or all at once, then the chunks in order, then all rows
// at once. It is run whole, even if requests in it end meanwhile: others may share their blocks. Its slices hold
// until the next call of Next.
type Step struct {
	Number    int64      // counted from 1
	Finished  []ID       // their prompts have run, and they have nothing to generate
	Preempted []ID       // back in the queue; what they drew is kept
	Admitted  []Admitted // have a slot from here on
	Copies    []Copy     // of blocks
	Prefill   []Chunk
	Decode    []Row // best request first, a row for each that decodes
	Ahead     []Row // further tokens of some of these, in their order and that of positions
}

// Idle tells that there is nothing to run before another request arrives.
func (x Step) Idle() bool { return len(x.Prefill) == 0 && len(x.Decode) == 0 }

// Admitted is a request that got a slot.
type Admitted struct {
	ID     ID
	Slot   int
	Cached int  // tokens of its prompt that are not run
	Again  bool // it was preempted before
}

// Copy is a block whose positions are copied to another.
type Copy struct{ From, To int32 }

// Chunk is a part of a prompt: whole chunks but for the last one. Its table ends with the block of the prompt's
// last token, or later: padding has to be written elsewhere.
type Chunk struct {
	ID     ID
	Slot   int
	Start  int     // position of the first token, a multiple of Options.Chunk
	Tokens []int32 // at least 1
	Table  []int32 // blocks of all positions, in order
	Last   bool    // the prompt ends here
	Draw   bool    // draw a token after it, and tell Drawn
	Forks  []Fork  // with Last: others with the same prompt, in their slots from here on
}

// Fork is a request with the prompt of another's chunk.
type Fork struct {
	ID   ID
	Slot int
	Draw bool // draw a token from the chunk's last logits, and tell Drawn
}

// Row is a token to be put into the cache.
type Row struct {
	ID       ID
	Slot     int // of the program's rows; of Ahead, a slot whose request needs none
	Position int
	Token    int32
	Table    []int32 // blocks of positions 0 to Position and perhaps further ones
	Replay   bool    // the token after it is known; else draw one, and tell Drawn
	Guess    bool    // tell Drawn only if the row before was told, and its token is this one
}

// Next says what to run. The step before has been run, and all its draws were told to Drawn, or their requests
// ended by End; it is an error, and changes nothing, if not. If a step fails, End its requests, and DropCache
// if blocks were lost.
func (s *Scheduler) Next() (Step, error) {
	if s.drawing > 0 {
		i := slices.IndexFunc(s.running, func(r *request) bool { return r.drawing })
		return Step{}, fmt.Errorf("step %d: the token of request %d is missing", s.step.Number+1, s.running[i].id)
	}
	x := &s.step
	*x = Step{
		Number:    x.Number + 1,
		Finished:  x.Finished[:0],
		Preempted: x.Preempted[:0],
		Admitted:  x.Admitted[:0],
		Copies:    x.Copies[:0],
		Prefill:   x.Prefill[:0],
		Decode:    x.Decode[:0],
		Ahead:     x.Ahead[:0],
	}
	s.settle()
	s.decode()
	for len(x.Prefill) < s.o.Chunks {
		s.keepFilled()
		if len(x.Preempted) == 0 { // else they would come back at once, and take what others lack
			s.admit()
		}
		if !s.prefill() {
			break
		}
	}
	s.ahead()
	return *x, nil
}

// settle takes in that the last step has run.
func (s *Scheduler) settle() {
	s.keepFilled()
	for _, r := range s.scored {
		if s.all[r.id] != nil {
			s.step.Finished = append(s.step.Finished, r.id)
			s.remove(r)
		}
	}
	s.scored = s.scored[:0]
}

// keepFilled leaves the last chunk's blocks in the prefix cache: it has run, or will have before another chunk does.
func (s *Scheduler) keepFilled() {
	if s.filled != nil {
		s.keep(s.filled)
		s.filled = nil
	}
}

// decode makes the rows, the best request's first: the last ones make room for those before them.
func (s *Scheduler) decode() {
	for i := 0; i < len(s.running); i++ {
		r := s.running[i]
		if r.prefilling() || !s.writable(r) {
			continue
		}
		n := r.done - len(r.Prompt)
		replay := n < len(r.generated)-1
		s.step.Decode = append(s.step.Decode, Row{
			ID: r.id, Slot: r.slot, Position: r.done, Token: r.generated[n], Table: r.table, Replay: replay,
		})
		r.done++
		if !replay {
			s.draws(r)
		}
	}
}

// writable sees to it that r alone has the block of its next position. Others are preempted if need be; it is
// false if r itself is. That does not happen to one that runs alone: all its tokens fit.
func (s *Scheduler) writable(r *request) bool {
	n := r.done / s.o.Size
	for {
		if n < len(r.table) && s.blocks.refs[r.table[n]] == 1 {
			return true
		}
		b, ok := s.blocks.take()
		switch {
		case ok && n == len(r.table):
			r.table = append(r.table, b)
			return true
		case ok:
			s.step.Copies = append(s.step.Copies, Copy{From: r.table[n], To: b})
			s.stats.Copies++
			s.blocks.release(r.table[n])
			r.table[n] = b
			return true
		}
		victim := s.running[len(s.running)-1]
		s.preempt(victim)
		if victim == r {
			return false
		}
	}
}

// preempt puts a running request back into the queue.
func (s *Scheduler) preempt(r *request) {
	s.leave(r)
	s.waiting = insert(s.waiting, r)
	s.step.Preempted = append(s.step.Preempted, r.id)
	s.stats.Preemptions++
}

// admit gives slots to the first of the queue, as long as none before them has a prompt to be prefilled.
func (s *Scheduler) admit() {
	for len(s.waiting) > 0 && s.seats > 0 {
		r := s.waiting[0]
		if p := s.prefilling(); p != nil && p.before(r) {
			return
		}
		shared := s.reusable(r)
		idle := 0
		for _, k := range r.keys[:shared] {
			if s.blocks.refs[s.blocks.cached[k]] == 0 {
				idle++
			}
		}
		if !s.room(s.cover(r.known())-shared, idle) {
			return
		}
		for _, k := range r.keys[:shared] {
			b := s.blocks.cached[k]
			s.blocks.share(b)
			r.table = append(r.table, b)
		}
		r.done, r.kept = shared*s.o.Size, shared
		s.seat(r)
	}
}

// prefilling is the first running request whose prompt is not all in the cache, nil for none.
func (s *Scheduler) prefilling() *request {
	for _, r := range s.running {
		if r.prefilling() {
			return r
		}
	}
	return nil
}

// room tells whether a request may be admitted that takes so many blocks, beside idle ones that it shares. The
// first one may take all there are.
func (s *Scheduler) room(blocks, idle int) bool {
	left := s.blocks.available() - idle - blocks
	return left >= 0 && (left >= s.o.Watermark || len(s.running) == 0)
}

// seat moves the first of the queue to a slot. Its table has what it shares, and gets blocks for all further
// tokens that are known.
func (s *Scheduler) seat(r *request) {
	s.waiting = slices.Delete(s.waiting, 0, 1)
	s.running = insert(s.running, r)
	r.slot = slices.Index(s.slots, nil)
	s.slots[r.slot] = r
	s.seats--
	for len(r.table) < s.cover(r.known()) {
		b, _ := s.blocks.take() // room has counted them
		r.table = append(r.table, b)
	}
	s.step.Admitted = append(s.step.Admitted, Admitted{ID: r.id, Slot: r.slot, Cached: r.done, Again: r.seated})
	if !r.seated && !r.Whole {
		s.stats.PrefixQueries += int64(len(r.Prompt))
		s.stats.PrefixHits += int64(r.done)
	}
	r.seated = true
}

// prefill makes a chunk, of the best request that has one, and tells whether there is any.
func (s *Scheduler) prefill() bool {
	r := s.prefilling()
	if r == nil {
		return false
	}
	end := min(r.done+s.o.Chunk, len(r.Prompt))
	last := end == len(r.Prompt)
	c := Chunk{ID: r.id, Slot: r.slot, Start: r.done, Tokens: r.Prompt[r.done:end], Table: r.table, Last: last}
	r.done = end
	s.filled = r
	if last {
		c.Draw = s.first(r)
		c.Forks = s.fork(r)
	}
	s.step.Prefill = append(s.step.Prefill, c)
	return true
}

// first tells whether r's first token is to be drawn in this step, in which its prompt ends.
func (s *Scheduler) first(r *request) bool {
	switch {
	case r.Max == 0:
		s.scored = append(s.scored, r)
		return false
	case len(r.generated) > 0:
		return false
	}
	s.draws(r)
	return true
}

func (s *Scheduler) draws(r *request) {
	r.drawing = true
	s.drawing++
}

// fork admits the first ones of the queue that have r's prompt.
func (s *Scheduler) fork(r *request) (forks []Fork) {
	if !s.o.Fork || r.Whole || len(s.step.Preempted) > 0 {
		return nil
	}
	n := len(r.Prompt)
	for len(s.waiting) > 0 && s.seats > 0 {
		q := s.waiting[0]
		if q.Whole || q.Salt != r.Salt || !slices.Equal(q.Prompt, r.Prompt) {
			return forks
		}
		// The block that the prompt ends in will be copied, if it has room for more.
		if !s.room(s.cover(q.known())-n/s.o.Size, 0) {
			return forks
		}
		for _, b := range r.table[:s.cover(n)] {
			s.blocks.share(b)
			q.table = append(q.table, b)
		}
		q.done = n
		s.seat(q)
		s.stats.Forks++
		forks = append(forks, Fork{ID: q.id, Slot: q.slot, Draw: s.first(q)})
	}
	return forks
}
