package api

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// events writes server-sent events.
type events struct {
	w http.ResponseWriter
	c *http.ResponseController
}

// stream begins a stream of events.
func (s *Server) stream(w http.ResponseWriter) (*events, error) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no") // proxies would hold the events back
	e := &events{w, http.NewResponseController(w)}
	w.WriteHeader(http.StatusOK)
	return e, e.send("")
}

// data sends a value as an event, with its name unless that is empty.
func (e *events) data(name string, v any) error {
	b, err := encode(v)
	if err != nil {
		return err
	}
	if name != "" {
		return e.send(fmt.Sprintf("event: %s\ndata: %s\n\n", name, b))
	}
	return e.send(fmt.Sprintf("data: %s\n\n", b))
}

func (e *events) done() error { return e.send("data: [DONE]\n\n") }

// send writes and flushes.
func (e *events) send(text string) error {
	if _, err := e.w.Write([]byte(text)); err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	if err := e.c.Flush(); err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return nil
}

// forward gives all pieces of so many texts to each, and sends idle when nothing has come for a while. It returns the error of
// the first text that did not end by itself.
func (s *Server) forward(ctx context.Context, texts int, pieces <-chan piece, each func(piece) error, idle func() error) error {
	tick := time.NewTicker(s.o.KeepAlive)
	defer tick.Stop()
	for {
		select {
		case p, ok := <-pieces:
			switch {
			case !ok && texts > 0 && ctx.Err() != nil: // the end of one was lost with its receiver
				return ended(ctx)
			case !ok:
				return nil
			}
			tick.Reset(s.o.KeepAlive)
			if p.end != nil {
				texts--
				if err := broken(ctx, p.end); err != nil {
					return err
				}
			}
			if err := each(p); err != nil {
				return err
			}
		case <-ctx.Done(): // the engine may be long at its step
			return ended(ctx)
		case <-tick.C:
			if err := idle(); err != nil {
				return err
			}
		}
	}
}

// keepAlive sends a comment, which clients ignore.
func (e *events) keepAlive() error { return e.send(": keep-alive\n\n") }

// abort ends a stream with an error, which can no longer be told by a status. It returns nil: the request is answered.
func (s *Server) abort(e *events, w http.ResponseWriter, sh shape, err error) error {
	f := asFailure(err)
	id := w.Header().Get(requestID)
	if f.status == statusGone {
		s.o.Log.Debug("client left a stream", "request", id)
		return nil
	}
	s.o.Log.Error("stream failed", "request", id, "error", err)
	name := ""
	if sh == anthropic {
		name = "error"
	}
	if err := e.data(name, f.body(sh, id)); err == nil && sh == openAI {
		_ = e.done() // a client that left meanwhile is no error
	}
	return nil
}
