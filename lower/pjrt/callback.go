package pjrt

import "sync"

// callbacks maps the number given to C as user_arg to the event it is for. Go pointers never
// travel as user_arg.
var callbacks = struct {
	sync.Mutex
	next uintptr
	m    map[uintptr]*Event
}{m: map[uintptr]*Event{}}

// PendingCallbacks counts the events that wait for a callback of the plugin, to find leaks.
func PendingCallbacks() int {
	callbacks.Lock()
	defer callbacks.Unlock()
	return len(callbacks.m)
}

// subscribe asks the plugin to call back at completion, unless somebody waits already.
func (e *Event) subscribe() {
	if err := e.c.enter(); err != nil {
		e.abandon(err)
		return
	}
	defer e.c.leave()
	e.subscribeInside()
}

// abandon completes an event that nobody waits for and whose client is gone. It must not be one that
// holds memory: those are subscribed inside the call that makes them.
func (e *Event) abandon(err error) {
	e.mu.Lock()
	h := e.take()
	e.mu.Unlock()
	if h != 0 {
		eventRef{e.c.p, h}.destroy()
		e.finish(err)
	}
}

// subscribeInside is subscribe for a caller inside the client, which stays until the callback is
// asked for, even if Destroy has begun.
func (e *Event) subscribeInside() {
	e.mu.Lock()
	h := e.take()
	e.mu.Unlock()
	if h == 0 {
		return
	}
	// The callback belongs to the shared state behind the PJRT_Event, not to the PJRT_Event.
	defer eventRef{e.c.p, h}.destroy()
	callbacks.Lock()
	callbacks.next++
	id := callbacks.next
	callbacks.m[id] = e
	callbacks.Unlock()
	// No lock is held: the callback may come at once, on this thread.
	if e.c.p.eventOnReady(&eventOnReadyArgs{event: h, callback: cOnReady, userArg: id}) != nil && takeCallback(id) != nil {
		e.finish(e.await(h)) // the memory that the event holds is in use until then
	}
}

func takeCallback(id uintptr) *Event {
	callbacks.Lock()
	defer callbacks.Unlock()
	e := callbacks.m[id]
	delete(callbacks.m, id)
	return e
}

// onReady runs on a thread of the plugin, or inside PJRT_Event_OnReady on the caller's own. It
// must not block or panic.
func onReady(p errorHandle, id uintptr) {
	if e := takeCallback(id); e != nil {
		_ = quietly(func() { e.finish(e.c.p.takeError(e.op, p)) })
	}
}
