package serve

import (
	"context"
	"sync"

	"mix/serve/infer"
)

// events are a channel without bound: the loop never waits for a reader.
type events struct {
	ctx     context.Context
	out     chan infer.Event
	mu      sync.Mutex
	list    []infer.Event // that out had no room for
	pumping bool          // pump runs
	end     bool
}

func newEvents(ctx context.Context) *events {
	return &events{ctx: ctx, out: make(chan infer.Event, 16)}
}

// send hands out an event.
func (q *events) send(e infer.Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.pumping {
		select {
		case q.out <- e:
			return
		default:
			q.pumping = true
			go q.pump()
		}
	}
	q.list = append(q.list, e)
}

// close ends the channel after what was sent.
func (q *events) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.end = true
	if !q.pumping {
		close(q.out)
	}
}

// pump hands out the list, until there is none, or nobody may be there to take it.
func (q *events) pump() {
	for {
		q.mu.Lock()
		list := q.list
		q.list = nil
		if len(list) == 0 {
			q.pumping = false
			if q.end {
				close(q.out)
			}
			q.mu.Unlock()
			return
		}
		q.mu.Unlock()
		for _, e := range list {
			select {
			case q.out <- e:
			case <-q.ctx.Done():
				q.squeeze(e)
			}
		}
	}
}

// squeeze hands out an event that nobody may be there to take. The oldest ones give way, so that the last is among those
// that a reader finds.
func (q *events) squeeze(e infer.Event) {
	for {
		select {
		case q.out <- e:
			return
		default:
		}
		select {
		case <-q.out:
		default:
		}
	}
}
