package pjrt

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
)

// Event is a future of the plugin. It completes once. A nil Event is complete. All methods are
// safe for concurrent use. An event that nobody waits for is freed after garbage collection.
//
// There are two ways to wait: Wait blocks an operating system thread inside C, the cheapest for
// one waiter; Done and WaitContext ask for a callback, which comes on a thread of the plugin and
// only stores the result.
type Event struct {
	c  *Client
	op string
	// then runs once before completion is told, on the completing thread: it must be quick. An event
	// that has one is subscribed inside the call that makes it, so that then runs after the work.
	then func()

	mu       sync.Mutex
	h        eventHandle // 0 once somebody waits, or it is complete
	clean    runtime.Cleanup
	complete bool
	err      error
	done     chan struct{} // made when somebody asks
}

type eventRef struct {
	p *Plugin
	h eventHandle
}

// liveEvents counts the PJRT_Events that are not destroyed.
var liveEvents atomic.Int64

func (r eventRef) destroy() {
	liveEvents.Add(-1)
	_ = r.p.eventDestroy(&eventDestroyArgs{event: r.h}) // cannot fail on a valid event
}

// newEvent takes over a handle; 0 is an event already complete.
func (c *Client) newEvent(op string, h eventHandle, then func()) *Event {
	e := &Event{c: c, op: op, h: h, then: then}
	if h == 0 {
		e.finish(nil)
		return e
	}
	liveEvents.Add(1)
	e.clean = runtime.AddCleanup(e, eventRef.destroy, eventRef{c.p, h})
	return e
}

// take hands the handle to the one caller that will destroy it; 0 if another has it. The caller
// holds e.mu.
func (e *Event) take() eventHandle {
	h := e.h
	if h != 0 {
		e.h = 0
		e.clean.Stop()
	}
	return h
}

// finish completes the event.
func (e *Event) finish(err error) {
	if e.then != nil {
		if x := quietly(e.then); err == nil {
			err = x
		}
		e.then = nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.complete, e.err = true, err
	if e.done != nil {
		close(e.done)
	}
}

// quietly turns a panic into an error: it must not unwind through C++ frames.
func quietly(f func()) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("pjrt: panic in a callback: %v", r)
		}
	}()
	f()
	return nil
}

// Ready says whether the event has completed. While another goroutine is inside Wait it is false
// until that one has returned.
func (e *Event) Ready() bool {
	if e == nil {
		return true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.complete || e.h == 0 {
		return e.complete
	}
	if e.c.enter() != nil {
		return true // Wait will say that the client is gone
	}
	defer e.c.leave()
	a := eventIsReadyArgs{event: e.h} // does not block
	return e.c.p.eventIsReady(&a) == nil && a.isReady
}

// Wait blocks until the event completes and returns its error.
func (e *Event) Wait() error {
	if e == nil {
		return nil
	}
	e.mu.Lock()
	h := e.take()
	e.mu.Unlock()
	if h == 0 {
		<-e.channel()
		return e.err
	}
	err := e.c.enter()
	if err == nil {
		err = e.await(h)
		e.c.leave()
	}
	eventRef{e.c.p, h}.destroy()
	e.finish(err)
	return e.err
}

// await blocks inside C; the caller is inside the client.
func (e *Event) await(h eventHandle) error {
	err := e.c.p.eventAwait(&eventAwaitArgs{event: h})
	if x, ok := err.(*Error); ok {
		x.Op = e.op
	}
	return err
}

// Done returns a channel that is closed at completion.
func (e *Event) Done() <-chan struct{} {
	if e == nil {
		return closedChannel
	}
	e.subscribe()
	return e.channel()
}

var closedChannel = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// channel returns the channel that finish closes.
func (e *Event) channel() chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.done == nil {
		if e.complete {
			return closedChannel
		}
		e.done = make(chan struct{})
	}
	return e.done
}

// Err is the result; it waits for completion.
func (e *Event) Err() error {
	if e == nil {
		return nil
	}
	<-e.Done()
	return e.err
}

// WaitContext is Wait that gives up waiting, not the work, when ctx ends.
func (e *Event) WaitContext(ctx context.Context) error {
	if e == nil {
		return nil
	}
	select {
	case <-e.Done():
		return e.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// All waits for several events and returns the first error in their order.
func All(es []*Event) (err error) {
	for _, e := range es {
		if x := e.Wait(); x != nil && err == nil {
			err = x
		}
	}
	return err
}
