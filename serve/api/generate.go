package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"
	"unicode/utf8"

	"mix/graph/token"
	"mix/serve/infer"
)

// piece is the next part of one text.
type piece struct {
	index  int // of the text
	text   string
	calls  string        // of the list of tool calls
	tokens []tok         // whose text has begun to be given out
	prompt []infer.Place // of the prompt, in the first piece
	end    *ending       // in the last piece
}

// tok is a token of a text.
type tok struct {
	id      int32
	place   *infer.Place
	experts [][]uint8
	offset  int // characters of the text before it
	at      int // bytes of the text before it
}

// ending says how a text ended.
type ending struct {
	finish infer.Finish
	stop   string       // the stop string
	stopID int32        // the id, -1 for none
	place  *infer.Place // of that id, with LogProbs
	usage  infer.Usage
	err    error
}

// text is one text in the making.
type text struct {
	index   int
	job     job
	end     context.CancelFunc // of the engine's work
	events  <-chan infer.Event
	out     chan<- piece
	metrics *Metrics // nil counts nothing
	log     *slog.Logger
	span    *span
	start   time.Time // of the request
	stream  *token.Stream
	stopper stopper
	calling bool // the text is a list of tool calls

	generated    int
	bytes, chars int       // of text made, given out or not
	given        int       // bytes given out
	held         []tok     // whose text was not given out
	begun, last  time.Time // of the first token, and of the latest
}

func (t *text) run(ctx context.Context) {
	defer t.recovered(ctx)
	for e := range t.events {
		p := t.take(e)
		p.index = t.index
		if p.text == "" && p.calls == "" && len(p.tokens) == 0 && len(p.prompt) == 0 && p.end == nil {
			continue
		}
		if p.end != nil {
			t.ended(p.end)
		}
		select {
		case t.out <- p:
		case <-ctx.Done():
			if p.end == nil {
				t.drain()
			}
			return
		}
		if p.end != nil {
			return
		}
	}
}

// drain waits for the end of a text whose receiver is gone, to count it.
func (t *text) drain() {
	for e := range t.events {
		if e.Finish != "" {
			t.ended(&ending{finish: e.Finish, usage: e.Usage})
			return
		}
	}
	t.ended(&ending{finish: infer.FinishCancelled})
}

// ended counts the end of the text, once.
func (t *text) ended(e *ending) {
	t.metrics.ended(t, e)
	t.span.end(t, e)
}

// recovered makes a failure of the text out of a panic, which would else end the process.
func (t *text) recovered(ctx context.Context) {
	err := panicked(ctx, t.log, recover())
	if err == nil {
		return
	}
	t.end()
	e := &ending{finish: infer.FinishError, stopID: -1, err: err}
	t.ended(e)
	select {
	case t.out <- piece{index: t.index, end: e}:
	case <-ctx.Done():
	}
}

// panicked logs what a recovery found and returns an error of it, nil for nothing.
func panicked(ctx context.Context, log *slog.Logger, found any) error {
	if found == nil {
		return nil
	}
	log.Error("panic", "request", requestOf(ctx), "value", found, "stack", string(debug.Stack()))
	return errPanic
}

// take turns an event into a piece.
func (t *text) take(e infer.Event) piece {
	p := piece{prompt: e.Prompt}
	if e.Has {
		if t.generated == 0 {
			t.begun = time.Now()
		}
		t.metrics.token(t)
		t.generated++
		t.last = time.Now()
		if e.Token == t.job.calls && !t.calling {
			p.text = t.stopper.flush()
			t.calling = true
		} else if stop := t.add(&p, e); stop != "" {
			t.end()
			p.end = &ending{finish: infer.FinishStop, stop: stop, stopID: -1, usage: t.usage(e)}
			return p
		}
	}
	if e.Finish == "" {
		return p
	}
	p.end = &ending{finish: e.Finish, stopID: e.StopID, usage: e.Usage, err: e.Err}
	if e.StopID >= 0 {
		p.end.place = e.Place
	}
	rest := t.stream.Flush()
	if t.calling {
		p.calls += rest
		return p
	}
	t.bytes += len(rest)
	out, stop := t.stopper.push(rest)
	p.text += out
	if stop == "" {
		p.text += t.stopper.flush()
		p.tokens = append(p.tokens, t.held...)
	} else {
		p.end.finish, p.end.stop, p.end.stopID = infer.FinishStop, stop, -1
		t.release(&p, out)
	}
	return p
}

// add takes a token of the text and returns the stop string that it completed, if any.
func (t *text) add(p *piece, e infer.Event) (stop string) {
	t.held = append(t.held, tok{id: e.Token, place: e.Place, experts: e.Experts, offset: t.chars, at: t.bytes})
	made := t.stream.Push(e.Token)
	if t.calling {
		p.calls, p.tokens, t.held = made, t.held, nil
		return ""
	}
	t.bytes += len(made)
	t.chars += utf8.RuneCountInString(made)
	out := t.stopper.flush() + made
	if t.generated >= t.job.Min {
		out, stop = t.stopper.push(out)
	}
	p.text = out
	t.release(p, out)
	return stop
}

// release moves the tokens whose text begins in what is given out to the piece.
func (t *text) release(p *piece, out string) {
	t.given += len(out)
	n := 0
	for n < len(t.held) && t.held[n].at < t.given {
		n++
	}
	p.tokens = append(p.tokens, t.held[:n]...)
	t.held = t.held[n:]
}

// usage waits for the engine's word on a text that was ended from here, unless it has come with the last token.
func (t *text) usage(last infer.Event) infer.Usage {
	for e := range t.events {
		last = e
	}
	u := infer.Usage{Prompt: len(t.job.Prompt), Generated: t.generated}
	if last.Finish != "" {
		u.Cached, u.Queued = last.Usage.Cached, last.Usage.Queued
	}
	return u
}

// result is a whole text.
type result struct {
	text, calls string
	tokens      []tok
	prompt      []infer.Place
	end         ending
}

func (r *result) add(p piece) {
	r.text += p.text
	r.calls += p.calls
	r.tokens = append(r.tokens, p.tokens...)
	r.prompt = append(r.prompt, p.prompt...)
	if p.end != nil {
		r.end = *p.end
	}
}

// results runs jobs and waits for their texts.
func (s *Server) results(ctx context.Context, start time.Time, jobs []job) ([]result, error) {
	pieces, err := s.run(ctx, start, jobs)
	if err != nil {
		return nil, err
	}
	return collect(ctx, pieces, len(jobs))
}

// collect waits for all texts. Errors are those of the engine and of ctx.
func collect(ctx context.Context, pieces <-chan piece, n int) ([]result, error) {
	all := make([]result, n)
	for open := true; open; {
		var p piece
		select {
		case p, open = <-pieces:
		case <-ctx.Done(): // the engine may be long at its step
			return nil, ended(ctx)
		}
		if open {
			all[p.index].add(p)
		}
	}
	for _, r := range all {
		if err := broken(ctx, &r.end); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// broken is the error of a text that did not end by itself.
func broken(ctx context.Context, e *ending) error {
	switch {
	case e.finish == infer.FinishStop || e.finish == infer.FinishLength:
		return nil
	case ctx.Err() != nil:
		return ended(ctx)
	case e.err != nil:
		return e.err
	}
	return fmt.Errorf("the engine ended a text with %q", e.finish)
}

// ended is the error of a context that has ended.
func ended(ctx context.Context) error {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, context.DeadlineExceeded):
		return fmt.Errorf("the time for one request is over: %w", cause)
	case errors.Is(cause, infer.ErrDraining):
		return cause
	}
	return errGone
}
