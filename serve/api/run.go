package api

import (
	"context"
	"errors"
	"sync"
	"time"

	"mix/serve/infer"
)

// running is the texts of one request at work.
type running struct {
	s      *Server
	ctx    context.Context
	start  time.Time // of the request
	jobs   []job
	spans  []*span
	pieces chan piece
	all    sync.WaitGroup
	ended  chan struct{} // one for each text that has
}

// run submits jobs and returns their pieces as they come; the channel is closed after all have ended. The
// end of ctx ends them. start is when the request came. If the engine has room for some of the jobs only, the others
// follow as those end; it is an error if it has none, unless work on the text has begun.
func (s *Server) run(ctx context.Context, start time.Time, jobs []job) (<-chan piece, error) {
	ctx, cancel := context.WithCancel(ctx)
	r := &running{s: s, ctx: ctx, start: start, jobs: jobs, spans: make([]*span, len(jobs)),
		pieces: make(chan piece, len(jobs)), ended: make(chan struct{}, len(jobs))}
	for i := range jobs {
		err := r.begin(i)
		if (i > 0 || jobs[i].begun) && errors.Is(err, infer.ErrBusy) {
			r.all.Go(func() { r.follow(i) })
			break
		}
		if err != nil {
			r.spans[i].refused(err)
			cancel()
			return nil, err
		}
	}
	go func() { r.all.Wait(); cancel(); close(r.pieces) }()
	return r.pieces, nil
}

// begin submits job i.
func (r *running) begin(i int) error {
	j := r.jobs[i]
	if j.grammar != nil {
		j.Mask = j.grammar()
	}
	if r.spans[i] == nil && !j.part {
		r.spans[i] = r.s.span(r.ctx, j)
	}
	alone, end := context.WithCancel(r.ctx)
	events, err := r.s.o.Engine.Submit(alone, j.Request)
	if err != nil {
		end()
		return err
	}
	t := &text{index: i, job: j, end: end, events: events, out: r.pieces, log: r.s.o.Log, span: r.spans[i], start: r.start,
		stream: r.s.o.Tokenizer.Stream(), stopper: stopper{stops: j.stops, include: j.includeStop}, calling: j.calling}
	if !j.part {
		t.metrics = r.s.metrics
	}
	if j.follows {
		t.stream = r.s.o.Tokenizer.StreamAfter(j.Prompt)
	}
	r.all.Go(func() {
		defer func() { end(); r.ended <- struct{}{} }()
		t.run(r.ctx)
	})
	return nil
}

// follow begins the jobs from the given one on, each when another has ended, or when others have made room.
func (r *running) follow(from int) {
	at := from
	fail := func(err error) {
		r.spans[at].refused(err)
		select {
		case r.pieces <- piece{index: at, end: &ending{finish: infer.FinishError, stopID: -1, err: err}}:
		case <-r.ctx.Done():
		}
	}
	defer func() {
		if err := panicked(r.ctx, r.s.o.Log, recover()); err != nil {
			fail(err)
		}
	}()
	again := time.NewTicker(patience)
	defer again.Stop()
	for at < len(r.jobs) {
		err := r.begin(at)
		switch {
		case err == nil:
			at++
			continue
		case !errors.Is(err, infer.ErrBusy):
			fail(err)
			return
		}
		select {
		case <-r.ended:
		case <-again.C:
		case <-r.ctx.Done():
			r.spans[at].refused(ended(r.ctx))
			return
		}
	}
}

// patience is how long a request waits before it asks again whether there is room for the rest of its texts.
const patience = 20 * time.Millisecond
