package pjrt

import (
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
)

// Buffer is an array on a device. Its methods are safe for concurrent use.
//
// Destroy frees it. Delete frees the device memory only and keeps the object, whose use is then
// an error of the plugin; donation to an executable does the same. A buffer that is forgotten is
// destroyed after the garbage collector has found it and all other results of the same Execute.
type Buffer struct {
	g *group
	i int
}

// group holds the C side of buffers made together: the results of one Execute share a group, so
// that a launch costs the same few allocations however many results it has.
type group struct {
	c          *Client
	prev, next *group // in the client's list
	linked     bool
	alive      atomic.Int64
	bufs       []bufferRef
	one        [1]bufferRef // backs bufs of a single buffer
}

type bufferRef struct {
	life
	h bufferHandle
}

var liveBuffers, collected atomic.Int64

// LiveBuffers counts the buffers of this process that are not destroyed, to find leaks.
func LiveBuffers() int64 { return liveBuffers.Load() }

// Collected counts the buffers that were forgotten and destroyed after garbage collection.
func Collected() int64 { return collected.Load() }

// newBuffers takes over handles of C; the caller is inside the client.
func (c *Client) newBuffers(hs []uintptr) []Buffer {
	if len(hs) == 0 {
		return nil
	}
	g := &group{c: c}
	if len(hs) == 1 {
		g.bufs = g.one[:]
	} else {
		g.bufs = make([]bufferRef, len(hs))
	}
	bs := make([]Buffer, len(hs))
	for i, h := range hs {
		g.bufs[i].h = bufferHandle(h)
		bs[i] = Buffer{g, i}
	}
	g.alive.Store(int64(len(hs)))
	liveBuffers.Add(int64(len(hs)))
	c.mu.Lock()
	g.next, g.linked = c.groups, true
	if g.next != nil {
		g.next.prev = g
	}
	c.groups = g
	c.mu.Unlock()
	runtime.AddCleanup(&bs[0], (*group).forget, g)
	return bs
}

func (c *Client) newBuffer(h bufferHandle) *Buffer { return &c.newBuffers([]uintptr{uintptr(h)})[0] }

// unlink takes a group off the list; the caller holds c.mu.
func (c *Client) unlink(g *group) {
	if !g.linked {
		return
	}
	if g.prev != nil {
		g.prev.next = g.next
	} else {
		c.groups = g.next
	}
	if g.next != nil {
		g.next.prev = g.prev
	}
	g.prev, g.next, g.linked = nil, nil, false
}

// forget destroys what is left of a group that nobody can reach.
func (g *group) forget() {
	if g.alive.Load() == 0 || g.c.enter() != nil {
		return // all destroyed, or the client's Destroy does it
	}
	defer g.c.leave()
	collected.Add(g.destroyAll())
}

// destroyAll destroys the buffers not yet destroyed and counts them.
func (g *group) destroyAll() (n int64) {
	for i := range g.bufs {
		if _, last := g.bufs[i].close(); last {
			_ = g.end(i) // nobody is left to tell
			n++
		}
	}
	return n
}

// end destroys buffer i, whose life must be over.
func (g *group) end(i int) error {
	liveBuffers.Add(-1)
	err := g.c.p.bufferDestroy(&bufferDestroyArgs{buffer: g.bufs[i].h})
	if g.alive.Add(-1) == 0 {
		g.c.mu.Lock()
		g.c.unlink(g)
		g.c.mu.Unlock()
	}
	return err
}

// enter begins a use of the buffer and of its client; the handle is valid until leave.
func (b *Buffer) enter() (bufferHandle, error) {
	if b == nil {
		return 0, fmt.Errorf("pjrt: buffer is nil")
	}
	if err := b.g.c.enter(); err != nil {
		return 0, err
	}
	r := &b.g.bufs[b.i]
	if !r.life.enter() {
		b.g.c.leave()
		return 0, fmt.Errorf("%w: buffer", ErrDestroyed)
	}
	return r.h, nil
}

// leave ends a use.
func (b *Buffer) leave() {
	b.drop()
	b.g.c.leave()
}

// drop ends a use of the buffer alone, inside one of the client.
func (b *Buffer) drop() {
	if b.g.bufs[b.i].leave() {
		_ = b.g.end(b.i) // nobody is left to tell
	}
}

// Destroy frees the buffer, if need be when the calls that use it have returned. Programs already
// launched on it are not disturbed. Destroying nil, or twice, does nothing.
func (b *Buffer) Destroy() error {
	if b == nil || b.g.c.enter() != nil {
		return nil // the client's Destroy has freed it
	}
	defer b.g.c.leave()
	if _, last := b.g.bufs[b.i].close(); last {
		return b.g.end(b.i)
	}
	return nil
}

// Delete frees the device memory when work already launched is done with it. The buffer is to be
// destroyed all the same.
func (b *Buffer) Delete() error {
	h, err := b.enter()
	if err != nil {
		return err
	}
	defer b.leave()
	return b.g.c.p.bufferDelete(&bufferDeleteArgs{buffer: h})
}

// Deleted says whether the memory is gone: by Delete, by donation or by Destroy.
func (b *Buffer) Deleted() bool {
	h, err := b.enter()
	if err != nil {
		return true
	}
	defer b.leave()
	a := bufferIsDeletedArgs{buffer: h}
	return b.g.c.p.bufferIsDeleted(&a) != nil || a.isDeleted
}

// Type is the element type; BufferTypeINVALID after Destroy.
func (b *Buffer) Type() BufferType {
	h, err := b.enter()
	if err != nil {
		return BufferTypeINVALID
	}
	defer b.leave()
	a := bufferElementTypeArgs{buffer: h}
	if b.g.c.p.bufferElementType(&a) != nil {
		return BufferTypeINVALID
	}
	return a.type_
}

// Dims are the dimensions, outermost first; nil after Destroy.
func (b *Buffer) Dims() []int64 {
	h, err := b.enter()
	if err != nil {
		return nil
	}
	defer b.leave()
	a := bufferDimensionsArgs{buffer: h}
	if b.g.c.p.bufferDimensions(&a) != nil {
		return nil
	}
	return goSlice[int64](a.dims, a.numDims)
}

// DeviceSize is the memory the buffer takes on its device, in bytes.
func (b *Buffer) DeviceSize() (int, error) {
	h, err := b.enter()
	if err != nil {
		return 0, err
	}
	defer b.leave()
	a := bufferOnDeviceSizeInBytesArgs{buffer: h}
	err = b.g.c.p.bufferOnDeviceSizeInBytes(&a)
	return a.onDeviceSizeInBytes, err
}

// Device is where the buffer is.
func (b *Buffer) Device() (*Device, error) {
	h, err := b.enter()
	if err != nil {
		return nil, err
	}
	defer b.leave()
	a := bufferDeviceArgs{buffer: h}
	if err := b.g.c.p.bufferDevice(&a); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(b.g.c.devices, func(d *Device) bool { return d.h == a.device })
	if i < 0 {
		return nil, fmt.Errorf("pjrt: the buffer is on a device of another process")
	}
	return b.g.c.devices[i], nil
}

// Client is the client the buffer belongs to.
func (b *Buffer) Client() *Client { return b.g.c }
