package pjrt

import (
	"fmt"
	"math"
	"sync/atomic"
)

// life guards one C object against being destroyed in use. It counts the calls that are inside;
// who closes it, or the last call to leave after that, destroys the object, exactly once.
type life struct{ n atomic.Int64 }

const closedBit = math.MinInt64

// enter begins a use; false if the object is closed.
func (l *life) enter() bool {
	for {
		n := l.n.Load()
		if n < 0 {
			return false
		}
		if l.n.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// leave ends a use. last says that the caller must destroy the object.
func (l *life) leave() (last bool) { return l.n.Add(-1) == closedBit }

// close forbids further uses. first says that this call closed it, last that the caller must
// destroy the object; otherwise the last user will.
func (l *life) close() (first, last bool) {
	for {
		n := l.n.Load()
		if n < 0 {
			return false, false
		}
		if l.n.CompareAndSwap(n, n+closedBit) {
			return true, n == 0
		}
	}
}

// held is the C object behind an executable or a topology.
type held struct {
	life
	c       *Client // nil if the object needs only the plugin
	what    string
	destroy func() error // the C call
}

// newHeld registers an object with its client, whose Destroy then ends it.
func newHeld(c *Client, what string, destroy func() error) *held {
	h := &held{c: c, what: what, destroy: destroy}
	if c != nil {
		c.mu.Lock()
		c.held[h] = struct{}{}
		c.mu.Unlock()
	}
	return h
}

// enter begins a use of the object, and of its client.
func (h *held) enter() error {
	if h.c != nil {
		if err := h.c.enter(); err != nil {
			return err
		}
	}
	if !h.life.enter() {
		if h.c != nil {
			h.c.leave()
		}
		return fmt.Errorf("%w: %s", ErrDestroyed, h.what)
	}
	return nil
}

// leave ends a use.
func (h *held) leave() {
	if h.life.leave() {
		_ = h.end() // nobody is left to tell
	}
	if h.c != nil {
		h.c.leave()
	}
}

// close destroys the object now or when its last user leaves. Once the client is being destroyed
// that is the client's work.
func (h *held) close() error {
	if h.c != nil {
		if h.c.enter() != nil {
			return nil
		}
		defer h.c.leave()
	}
	if _, last := h.life.close(); last {
		return h.end()
	}
	return nil
}

// end destroys the object; its life must be over.
func (h *held) end() error {
	if h.c != nil {
		h.c.mu.Lock()
		delete(h.c.held, h)
		h.c.mu.Unlock()
	}
	return h.destroy()
}
