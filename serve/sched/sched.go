// Package sched decides what an engine runs next: whose prompt is prefilled, who decodes, and in which blocks
// of the paged cache. It is a state machine without clock, chance or device: the same calls in the same order
// give the same steps.
//
//	Arrive, Drawn, End → Next → Step → (the engine runs it) → Drawn, End → Next → …
//
// # Rules
//
// Requests go by priority, lower first, then by arrival. One waits until a slot is free and the blocks of all
// its tokens, and Watermark more, are free; none passes one before it. Prompts are prefilled one at a time, so
// the next is admitted when the one before it is in the cache; only a better priority gets between its chunks.
// A step has at most Chunks chunks, and a row of each request that decodes: neither starves the other.
//
// A request that decodes takes a block more when it comes to a new one. If none is left, the last of the
// running ones is preempted: it loses slot and blocks, waits in its old place, and later its prompt is
// prefilled again and its tokens are replayed through decode. A request ends with the token that would not fit
// into the whole cache, so that every one can go on alone.
//
// # Equal results
//
// What a position holds depends on the program that wrote it. So a prompt is cut at multiples of Chunk from
// its start, generated tokens go through decode even if they are known, and only blocks of whole chunks of
// prompts are left in the cache and taken from it. A request never takes the chunk of its last token: that one
// gives the logits of the first draw. What was generated is not reused as a part of a later prompt.
//
// # Running ahead
//
// Rows that no request needs in a step run further tokens of those that decode: those that are known, of a
// replay, and with Speculate guesses, what came after the last few tokens when they came before. A row is
// computed as it would be alone, since the program writes the keys and values of all rows before it reads any.
// A guess that the draw before it agrees with saves a step; what another one wrote is overwritten. So guesses
// change when a token comes, never which. They take free blocks only, and nothing from the prefix cache.
//
// # Equal prompts
//
// Requests with equal prompts that come together, as those of n or best_of do, share the work in two ways.
// Since the second is admitted after the first's prefill, it finds all chunks but the last in the cache. With
// Fork, the second joins the first's last chunk if it is next in the queue: its first token is drawn from the
// same logits, and it has the same blocks, the last one too, which is copied by whoever first writes into it.
package sched

import (
	"fmt"
	"slices"

	"mix/serve/infer"
)

// Options are sizes and limits.
type Options struct {
	Slots     int  // requests that run at once, the rows of a decode step
	Blocks    int  // of the cache
	Size      int  // positions a block
	Chunk     int  // tokens of a prompt run at a time, a multiple of Size
	Chunks    int  // chunks a step, 0 for 1
	Speculate int  // tokens that are guessed for a request in a step, at most; 0 for none
	Context   int  // positions a request, prompt and answer
	Watermark int  // blocks left free for growth when a request is admitted while others run
	Queue     int  // requests beyond those that slots are for, at most
	Fork      bool // the engine can draw several first tokens from one chunk
}

// Validate names the first value that is out of bounds.
func (o Options) Validate() error {
	switch {
	case o.Slots < 1:
		return fmt.Errorf("scheduler of %d slots, want at least 1", o.Slots)
	case o.Blocks < 1 || o.Blocks > 1<<30:
		return fmt.Errorf("scheduler of %d blocks, want 1 to %d", o.Blocks, 1<<30)
	case o.Size < 1:
		return fmt.Errorf("blocks of %d positions, want at least 1", o.Size)
	case o.Chunk < 1 || o.Chunk%o.Size != 0:
		return fmt.Errorf("chunks of %d tokens, want a multiple of the %d positions of a block", o.Chunk, o.Size)
	case o.Chunks < 0:
		return fmt.Errorf("%d chunks a step, want at least 1, or 0 for that", o.Chunks)
	case o.Speculate < 0:
		return fmt.Errorf("%d tokens guessed a step, want at least 0", o.Speculate)
	case o.Context < 1:
		return fmt.Errorf("context of %d positions, want at least 1", o.Context)
	case o.Watermark < 0 || o.Watermark >= o.Blocks:
		return fmt.Errorf("watermark of %d blocks, want 0 to %d", o.Watermark, o.Blocks-1)
	case o.Queue < 0:
		return fmt.Errorf("queue of %d requests, want at least 0", o.Queue)
	}
	return nil
}

// Request is what the scheduler knows of a request.
type Request struct {
	Prompt   []int32 // it must not change
	Max      int     // tokens to generate; 0 only runs the prompt
	Priority int     // lower runs first
	Salt     string  // blocks are shared among requests of one salt only
	// Whole runs the whole prompt, for results of all its positions: nothing is taken from the cache or left
	// there.
	Whole bool
	// Speculate allows guesses: that the draw after a guessed token can be made before it is known to come.
	Speculate bool
}

// ID names a request. IDs count up from 1 in the order of arrival.
type ID uint64

// Scheduler is the state. It is not safe for use by several goroutines at once.
type Scheduler struct {
	o       Options
	blocks  *pool
	most    int // tokens a request; the last one drawn needs no place in the cache
	last    ID
	all     map[ID]*request
	waiting []*request // in order
	running []*request // in order
	slots   []*request // nil is free
	seats   int        // free slots
	drawing int        // running requests whose drawn token is to come
	step    Step       // its memory is used again
	filled  *request   // its chunk is the last in the step that runs
	scored  []*request // without tokens to generate, their prompts end in the step that runs
	stats   Stats
}

// request is a request in the queue or in a slot.
type request struct {
	Request
	id        ID
	keys      []key   // of the blocks of the prompt's whole chunks
	generated []int32 // tokens drawn
	text      []int32 // prompt and generated, to guess from; nil for no guesses
	guesses   []int32 // in the step that runs, those to be compared with draws that are to come
	slot      int     // -1 waits
	table     []int32 // blocks
	done      int     // positions in the cache, or put there by the step that runs
	kept      int     // first blocks of table that are in the prefix cache, or that need not be left there
	drawing   bool    // its next token is to come
	seated    bool    // it had a slot before
}

// before tells whether r goes before q.
func (r *request) before(q *request) bool { return r.compare(q) < 0 }

func (r *request) compare(q *request) int {
	switch {
	case r.Priority != q.Priority:
		if r.Priority < q.Priority {
			return -1
		}
		return 1
	case r.id < q.id:
		return -1
	case r.id > q.id:
		return 1
	}
	return 0
}

// prefilling tells whether part of the prompt is not in the cache.
func (r *request) prefilling() bool { return r.done < len(r.Prompt) }

// known counts the tokens that are known, of prompt and answer.
func (r *request) known() int { return len(r.Prompt) + len(r.generated) }

// New has no requests and an empty cache.
func New(o Options) (*Scheduler, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o.Chunks = max(o.Chunks, 1)
	return &Scheduler{
		o:      o,
		blocks: newPool(o.Blocks),
		most:   min(o.Context, o.Blocks*o.Size+1),
		all:    map[ID]*request{},
		slots:  make([]*request, o.Slots),
		seats:  o.Slots,
	}, nil
}

// Arrive puts a request into the queue. Errors wrap infer.ErrBusy, infer.ErrTooLong or infer.ErrRequest.
func (s *Scheduler) Arrive(r Request) (ID, error) {
	n := len(r.Prompt)
	switch {
	case n < 1:
		return 0, fmt.Errorf("%w: the prompt has no tokens, want at least 1", infer.ErrRequest)
	case r.Max < 0:
		return 0, fmt.Errorf("%w: %d tokens to generate, want at least 0", infer.ErrRequest, r.Max)
	case n > s.o.Context || n == s.o.Context && r.Max > 0:
		return 0, fmt.Errorf("%w: %d tokens in the prompt and %d to generate, the context is %d", infer.ErrTooLong, n, r.Max, s.o.Context)
	case s.cover(n) > s.o.Blocks:
		return 0, fmt.Errorf("%w: %d tokens in the prompt, the cache holds %d", infer.ErrTooLong, n, s.o.Blocks*s.o.Size)
	case len(s.all) >= s.o.Slots+s.o.Queue: // one that will have a slot in the next step does not count as waiting
		return 0, fmt.Errorf("%w: %d", infer.ErrBusy, len(s.waiting))
	}
	s.last++
	q := &request{Request: r, id: s.last, slot: -1}
	if !r.Whole {
		q.keys = keys(r.Salt, r.Prompt, s.o.Chunk, s.o.Chunk/s.o.Size)
	}
	if s.o.Speculate > 0 && r.Speculate {
		q.text = slices.Clone(r.Prompt)
	}
	s.all[q.id] = q
	s.waiting = insert(s.waiting, q)
	return q.id, nil
}

// Drawn tells the token that a step drew for a request: that of a row, a chunk or a fork with Draw. It ends the
// request, and says so, if that was the last of Max tokens, of the context or of the cache. If the token is the
// one that a row ahead has guessed, that row's is to be told next, else none of the guesses after it.
func (s *Scheduler) Drawn(id ID, token int32) (ended bool, err error) {
	r := s.all[id]
	if r == nil || !r.drawing {
		return false, fmt.Errorf("request %d awaits no token, got %d", id, token)
	}
	if s.filled == r { // its chunk has run
		s.keep(r)
		s.filled = nil
	}
	guessed := len(r.guesses) > 0 && r.guesses[0] == token
	if guessed {
		r.guesses = r.guesses[1:]
		r.done++
		s.stats.Accepted++
	} else {
		r.guesses = nil
		r.drawing = false
		s.drawing--
	}
	r.generated = append(r.generated, token)
	if r.text != nil {
		r.text = append(r.text, token)
	}
	if len(r.generated) >= r.Max || r.known() >= s.most {
		s.remove(r)
		return true, nil
	}
	return false, nil
}

// End takes a request out because it was cancelled, or its text has ended with a token that is not told to
// Drawn. Its slot and blocks are free at once: what the running step still writes comes before anything that
// a later one does. It tells whether there was such a request.
func (s *Scheduler) End(id ID) bool {
	r := s.all[id]
	if r == nil {
		return false
	}
	s.remove(r)
	return true
}

// DropCache forgets all prompts in the cache. Running requests keep their blocks, and leave none in the cache of
// prompts that began before.
func (s *Scheduler) DropCache() {
	s.blocks.forget()
	for _, r := range s.running {
		r.kept = len(r.keys) // later chunks depend on those from before
	}
}

// remove takes a request out of everything.
func (s *Scheduler) remove(r *request) {
	delete(s.all, r.id)
	if r.slot < 0 {
		s.waiting = without(s.waiting, r)
		return
	}
	s.leave(r)
}

// leave takes a request out of its slot and gives back its blocks.
func (s *Scheduler) leave(r *request) {
	s.running = without(s.running, r)
	s.slots[r.slot] = nil
	s.seats++
	r.slot = -1
	if r.drawing {
		r.drawing = false
		s.drawing--
	}
	// The last blocks first, so that they are evicted first: a prefix without its beginning is of no use.
	for _, b := range slices.Backward(r.table) {
		s.blocks.release(b)
	}
	r.table, r.guesses, r.done, r.kept = nil, nil, 0, 0
}

// cover is how many blocks hold so many positions.
func (s *Scheduler) cover(positions int) int { return (positions + s.o.Size - 1) / s.o.Size }

func insert(rs []*request, r *request) []*request {
	i, _ := slices.BinarySearchFunc(rs, r, (*request).compare)
	return slices.Insert(rs, i, r)
}

func without(rs []*request, r *request) []*request {
	i, found := slices.BinarySearchFunc(rs, r, (*request).compare)
	if !found {
		return rs
	}
	return slices.Delete(rs, i, i+1)
}

// Stats are numbers for metrics. Counters go up from the start.
type Stats struct {
	Running, Waiting int
	Blocks           int // of the cache
	Used             int // held by running requests
	Cached           int // held by none, with prompts that may come again
	Preemptions      int64
	Forks            int64 // requests that joined another's prefill
	Copies           int64 // of blocks
	Ahead            int64 // known tokens that were replayed ahead
	// Tokens that were guessed, and those of them that were drawn.
	Proposed, Accepted int64
	// Of requests when first admitted, but those with Whole: tokens of their prompts, and those of them that
	// were in the cache.
	PrefixQueries, PrefixHits int64
}

// Usage is the part of the cache that running requests hold, 0 to 1.
func (x Stats) Usage() float64 { return float64(x.Used) / float64(x.Blocks) }

// Stats counts.
func (s *Scheduler) Stats() Stats {
	x := s.stats
	x.Running, x.Waiting = len(s.running), len(s.waiting)
	x.Blocks, x.Cached = s.o.Blocks, s.blocks.idle
	x.Used = s.o.Blocks - s.blocks.available()
	return x
}
