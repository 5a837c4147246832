package serve

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"mix/serve/infer"
	"mix/serve/sched"
)

// BatchOptions say how many requests run at once and what they share.
type BatchOptions struct {
	Slots   int // requests that run at once, B
	Chunk   int // tokens of a prompt run at a time, a multiple of Block
	Chunks  int // of prompts between two tokens of those that decode, at most; 0 for 4
	Block   int // positions of a block of the pool
	Context int // longest sequence, 0 for the model's
	Blocks  int // of the pool, 0 for what all slots need at their longest
	Queue   int // requests that may wait beyond those, 0 for 1024, less for none

	// Speculate is how many tokens are guessed for a request in a step, at most: what came after its last few
	// tokens when they came before. They run in rows that no other request needs, and change no answer. Requests
	// with a mask are not guessed for. 0 for none.
	Speculate int

	Watch Watcher      // told of each request; nil for none
	Log   *slog.Logger // of what ought not to happen; nil for slog.Default
}

// Watcher is told of requests while they run. The batcher waits for it.
type Watcher interface {
	Queued(time.Duration)    // a request waited so long for a slot
	Prefilled(time.Duration) // its first token came so long after it got one, or its prompt was run
}

// Batcher runs many requests at once on one engine: continuous batching with chunked prefill over a paged
// pool. It is an infer.Engine.
//
// What a request gets does not depend on what else runs: its prompt runs in chunks of its own at fixed
// places, its tokens as rows of one program whose shape never changes.
type Batcher struct {
	e     *Engine
	o     BatchOptions
	paged *paged
	model infer.Model

	// Arguments, for the loop alone.
	prompt, tokens *feed           // of a prompt's part, and of a decode step
	choices        map[int]*choice // by rows
	work           *work

	mu      sync.Mutex
	s       *sched.Scheduler
	running map[sched.ID]*job
	closed  bool
	failed  error
	wake    chan struct{} // holds one: there may be something to do
	done    chan struct{} // closed when the loop has ended
}

// NewBatcher compiles all programs and starts to run requests. Close ends it.
func NewBatcher(ctx context.Context, e *Engine, o BatchOptions, ends []int32) (*Batcher, error) {
	if o.Context == 0 {
		o.Context = e.cfg.Context
	}
	if o.Queue == 0 {
		o.Queue = 1024
	}
	o.Queue = max(o.Queue, 0)
	if o.Chunks == 0 {
		o.Chunks = 4
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Slots < 1 || o.Block < 1 || o.Chunk < 1 || o.Context < 1 || o.Context > e.cfg.Context || o.Chunk%o.Block != 0 {
		return nil, fmt.Errorf("batcher: %d slots, blocks of %d positions, chunks of %d tokens, context %d: want at least 1 of each, chunks of whole blocks, a context of at most %d",
			o.Slots, o.Block, o.Chunk, o.Context, e.cfg.Context)
	}
	o.Context = (o.Context + o.Block - 1) / o.Block * o.Block
	if o.Blocks == 0 {
		o.Blocks = o.Slots * (o.Context / o.Block)
	}
	s, err := sched.New(sched.Options{Slots: o.Slots, Blocks: o.Blocks, Size: o.Block, Chunk: o.Chunk, Chunks: o.Chunks, Speculate: o.Speculate, Context: min(o.Context, e.cfg.Context), Queue: o.Queue,
		Fork: true})
	if err != nil {
		return nil, fmt.Errorf("batcher: %w", err)
	}
	scratch := max(o.Chunk, o.Slots) // positions that nobody reads, behind the pool
	p, err := newPaged(ctx, e, o.Slots, o.Chunk, o.Context, o.Blocks*o.Block+scratch, o.Block)
	if err != nil {
		return nil, err
	}
	b := &Batcher{e: e, o: o, paged: p, s: s, running: map[sched.ID]*job{}, wake: make(chan struct{}, 1), done: make(chan struct{}),
		prompt: newFeed(1, o.Chunk, o.Context, o.Block), tokens: newFeed(o.Slots, 1, o.Context, o.Block),
		work:    newWork(e.cfg.Layers, e.cfg.Experts, e.cfg.TopK),
		choices: map[int]*choice{1: newChoice(1, e.cfg.Vocab), o.Slots: newChoice(o.Slots, e.cfg.Vocab)},
		model:   infer.Model{Vocab: e.cfg.Vocab, Context: min(o.Context, e.cfg.Context), Layers: e.cfg.Layers, Experts: e.cfg.Experts, Ends: ends}}
	go b.loop()
	return b, nil
}

// Model implements infer.Engine.
func (b *Batcher) Model() infer.Model { return b.model }

// Ready implements infer.Engine: a Batcher has compiled everything.
func (b *Batcher) Ready() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.closed && b.failed == nil
}

// Failed implements infer.Failing.
func (b *Batcher) Failed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed
}

// Submit implements infer.Engine.
func (b *Batcher) Submit(ctx context.Context, r infer.Request) (<-chan infer.Event, error) {
	if err := r.Validate(b.model); err != nil {
		return nil, err
	}
	j := newJob(ctx, r, b.model, b.o.Log)
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return nil, infer.ErrDraining
	case b.failed != nil:
		return nil, b.failed
	}
	id, err := b.s.Arrive(sched.Request{Prompt: r.Prompt, Max: r.Max, Priority: r.Priority, Salt: r.Salt, Whole: r.PromptLogProbs >= 0,
		Speculate: r.Mask == nil})
	if err != nil {
		return nil, err
	}
	b.running[id] = j
	j.stop = context.AfterFunc(ctx, func() { b.cancel(id) })
	b.poke()
	return j.events.out, nil
}

// poke tells the loop to look.
func (b *Batcher) poke() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// cancel ends a request whose context has ended. Its slot and blocks are free at once.
func (b *Batcher) cancel(id sched.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if j := b.running[id]; j != nil {
		b.s.End(id)
		b.finish(id, j, infer.Event{Finish: infer.FinishCancelled, Err: j.ctx.Err(), StopID: -1})
	}
}

// finish sends the last event of a request. The lock is held.
func (b *Batcher) finish(id sched.ID, j *job, last infer.Event) {
	delete(b.running, id)
	j.stop()
	last.Usage = j.usage
	j.events.send(last)
	j.events.close()
}

// Close ends all requests and frees the pool. Programs belong to the engine.
func (b *Batcher) Close() {
	b.mu.Lock()
	already := b.closed
	b.closed = true
	b.mu.Unlock()
	b.poke()
	<-b.done
	if already {
		return
	}
	args := append(b.prompt.all(), b.tokens.all()...)
	for _, c := range b.choices {
		args = append(args, c.all()...)
	}
	for _, a := range args {
		a.free()
	}
	b.work.free()
	b.paged.close()
}

// loop runs steps until Close.
func (b *Batcher) loop() {
	defer close(b.done)
	for {
		step, ok := b.next()
		switch {
		case !ok:
			return
		case step.Number == 0: // it has failed
			<-b.wake
			continue
		}
		if err := b.guard(func() error { return b.run(step) }); err != nil {
			b.mu.Lock()
			b.failed = fmt.Errorf("step %d: %w", step.Number, err)
			b.mu.Unlock()
			b.o.Log.Error("the batcher has failed", "error", b.failed)
			continue
		}
		if step.Idle() {
			<-b.wake
		}
	}
}

// next decides what to run. Once the batcher has failed it ends all requests, and the step is empty; once it is
// closed there are no more.
func (b *Batcher) next() (step sched.Step, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed && b.failed == nil {
		b.failed = b.guard(func() (err error) {
			if step, err = b.s.Next(); err == nil {
				b.admit(step)
			}
			return err
		})
	}
	if b.closed || b.failed != nil {
		b.endAll(infer.ErrDraining)
		return sched.Step{}, !b.closed
	}
	return step, true
}

// guard makes an error of a panic, so that it ends what runs here and not the process.
func (b *Batcher) guard(call func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			b.o.Log.Error("the batcher panics", "panic", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return call()
}

// endAll ends every request, with the failure of the batcher or with why. The lock is held.
func (b *Batcher) endAll(why error) {
	if b.failed != nil {
		why = b.failed
	}
	for id, j := range b.running {
		b.finish(id, j, infer.Event{Finish: infer.FinishError, Err: why, StopID: -1})
		_ = b.guard(func() error { b.s.End(id); return nil }) // a scheduler that has failed is not asked again
	}
}

// admit takes in what the scheduler decided. The lock is held.
func (b *Batcher) admit(step sched.Step) {
	for _, a := range step.Admitted {
		if j := b.running[a.ID]; j != nil && !a.Again {
			j.usage.Cached = a.Cached
			j.seated = time.Now()
			j.usage.Queued = j.seated.Sub(j.arrived)
			if b.o.Watch != nil {
				b.o.Watch.Queued(j.usage.Queued)
			}
		}
	}
	for _, id := range step.Finished {
		if j := b.running[id]; j != nil {
			if b.o.Watch != nil {
				b.o.Watch.Prefilled(time.Since(j.seated))
			}
			b.finish(id, j, infer.Event{Prompt: j.takePrompt(), Finish: infer.FinishLength, StopID: -1})
		}
	}
}
