package pjrt

import (
	"fmt"
	"unsafe"
)

// How long BufferFromHost uses the caller's memory.
const (
	// CopyDuringCall copies before the call returns.
	CopyDuringCall = HostBufferSemanticsKImmutableOnlyDuringCall
	// UntilTransferred may copy later; the memory must not change until the event.
	UntilTransferred = HostBufferSemanticsKImmutableUntilTransferCompletes
	// ImmutableZeroCopy lets the device read the memory itself, if it can, until the buffer and
	// all work on it are done; nobody may write it before the event.
	ImmutableZeroCopy = HostBufferSemanticsKImmutableZeroCopy
	// MutableZeroCopy lets the device also write it, so that the buffer can be donated.
	MutableZeroCopy = HostBufferSemanticsKMutableZeroCopy
)

// HostAlignment is the alignment in bytes that host memory needs for zero copy on the CPU. The
// plugin copies memory that is aligned less.
const HostAlignment = 64

// AlignedBytes makes n bytes of zeroed Go memory without pointers, aligned for zero copy.
func AlignedBytes(n int) []byte {
	b := make([]byte, n+HostAlignment-1)
	o := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (HostAlignment - 1))
	return b[o : o+n : o+n]
}

// noData stands in for the data of an array without elements.
var noData [HostAlignment]byte

// BufferFromHost makes a buffer of type t and dims on device d (nil: the first) from data, which
// is dense, row-major, in the machine's byte order; types under 8 bits take one byte an element.
// data must be Go memory without pointers, or C memory, of exactly that size.
//
// With CopyDuringCall the event is nil, which all methods of Event take as complete. With the
// other semantics data stays pinned until the event. release, if not nil, runs once when the
// plugin is done with data, perhaps on a thread of the plugin: it must be quick and must not call
// Destroy of the client. It does not run if BufferFromHost fails.
func (c *Client) BufferFromHost(data []byte, t BufferType, dims []int64, d *Device, sem HostBufferSemantics, release func()) (*Buffer, *Event, error) {
	if want, err := hostSize(t, dims); err != nil {
		return nil, nil, err
	} else if len(data) != want {
		return nil, nil, fmt.Errorf("pjrt: %d bytes of host data for %v%v, want %d", len(data), t, dims, want)
	}
	if err := c.enter(); err != nil {
		return nil, nil, err
	}
	defer c.leave()
	dev, err := c.device(d)
	if err != nil {
		return nil, nil, err
	}
	ps := new(pins)
	a := clientBufferFromHostBufferArgs{client: c.h, type_: t, hostBufferSemantics: sem, device: dev}
	a.dims, a.numDims = pinSlice(ps, dims)
	a.data, _ = pinSlice(ps, data)
	if a.data == nil {
		a.data = unsafe.Pointer(&noData)
	}
	if err := c.p.clientBufferFromHostBuffer(&a); err != nil {
		ps.Unpin()
		return nil, nil, err
	}
	done := func() {
		ps.Unpin()
		if release != nil {
			release()
		}
	}
	if sem == CopyDuringCall {
		if a.doneWithHostBuffer != 0 {
			_ = c.p.eventDestroy(&eventDestroyArgs{event: a.doneWithHostBuffer}) // cannot fail on a valid event
		}
		done()
		return c.newBuffer(a.buffer), nil, nil
	}
	ev := c.newEvent("host to device", a.doneWithHostBuffer, done)
	ev.subscribeInside() // so that the pins live in the table of callbacks, even if nobody waits
	return c.newBuffer(a.buffer), ev, nil
}

// ToHost copies the buffer into dst, dense and row-major, and waits; so does a Destroy of the client
// that comes meanwhile. dst must have HostSize bytes or more.
func (b *Buffer) ToHost(dst []byte) error {
	h, err := b.enter()
	if err != nil {
		return err
	}
	defer b.leave()
	var ps pins
	defer ps.Unpin()
	event, err := b.toHost(&ps, h, dst)
	if err != nil || event == 0 {
		return err
	}
	ev := Event{c: b.g.c, op: toHostOp}
	err = ev.await(event)
	_ = b.g.c.p.eventDestroy(&eventDestroyArgs{event: event}) // cannot fail on a valid event
	return err
}

// ToHostAsync starts the copy of ToHost. dst stays pinned until the event completes, which need
// not be waited for.
func (b *Buffer) ToHostAsync(dst []byte) (*Event, error) {
	h, err := b.enter()
	if err != nil {
		return nil, err
	}
	defer b.leave()
	ps := new(pins)
	event, err := b.toHost(ps, h, dst)
	if err != nil {
		ps.Unpin()
		return nil, err
	}
	ev := b.g.c.newEvent(toHostOp, event, ps.Unpin)
	ev.subscribeInside() // a Pinner that is collected while it pins panics
	return ev, nil
}

const toHostOp = "device to host"

// toHost starts the copy of h, the buffer's own handle, whose user the caller is.
func (b *Buffer) toHost(ps *pins, h bufferHandle, dst []byte) (eventHandle, error) {
	p := b.g.c.p
	layout, err := p.rowMajor(ps, h)
	if err != nil {
		return 0, err
	}
	a := bufferToHostBufferArgs{src: h, hostLayout: unsafe.Pointer(layout)}
	if len(dst) == 0 { // a null pointer would ask for the size
		if err := p.bufferToHostBuffer(&a); err != nil {
			return 0, err
		}
		if a.dstSize != 0 {
			return 0, fmt.Errorf("pjrt: 0 bytes to copy a buffer of %d bytes into", a.dstSize)
		}
		a.dst = unsafe.Pointer(&noData)
	} else {
		a.dst, a.dstSize = pinSlice(ps, dst)
	}
	err = p.bufferToHostBuffer(&a)
	return a.event, err
}

// rowMajor makes the layout to ask for: without one the plugin would give the device's.
func (p *Plugin) rowMajor(ps *pins, h bufferHandle) (*bufferMemoryLayout, error) {
	d := bufferDimensionsArgs{buffer: h}
	if err := p.bufferDimensions(&d); err != nil {
		return nil, err
	}
	order := make([]int64, d.numDims)
	for i := range order {
		order[i] = int64(d.numDims - 1 - i)
	}
	l := &bufferMemoryLayout{structSize: sizeBufferMemoryLayout, type_: BufferMemoryLayoutTypeTiled}
	l.tiled.structSize = sizeBufferMemoryLayoutTiled
	l.tiled.minorToMajor, l.tiled.minorToMajorSize = pinSlice(ps, order)
	ps.Pin(l)
	return l, nil
}

// HostSize is the number of bytes that ToHost needs.
func (b *Buffer) HostSize() (int, error) {
	h, err := b.enter()
	if err != nil {
		return 0, err
	}
	defer b.leave()
	var ps pins
	defer ps.Unpin()
	layout, err := b.g.c.p.rowMajor(&ps, h)
	if err != nil {
		return 0, err
	}
	a := bufferToHostBufferArgs{src: h, hostLayout: unsafe.Pointer(layout)}
	err = b.g.c.p.bufferToHostBuffer(&a)
	return a.dstSize, err
}

// Ready returns an event that completes when the contents are there.
func (b *Buffer) Ready() (*Event, error) {
	h, err := b.enter()
	if err != nil {
		return nil, err
	}
	defer b.leave()
	a := bufferReadyEventArgs{buffer: h}
	if err := b.g.c.p.bufferReadyEvent(&a); err != nil {
		return nil, err
	}
	return b.g.c.newEvent("buffer", a.event, nil), nil
}

// UnsafePointer is the address of the data on the device, on the CPU an address of this process.
// The contents are there once Ready says so. It is valid until the buffer is destroyed, deleted
// or donated, which the caller must prevent while the address is used.
func (b *Buffer) UnsafePointer() (uintptr, error) {
	h, err := b.enter()
	if err != nil {
		return 0, err
	}
	defer b.leave()
	a := bufferUnsafePointerArgs{buffer: h}
	err = b.g.c.p.bufferUnsafePointer(&a)
	return a.bufferPointer, err
}

// CopyToDevice copies the buffer to another device of its client. The plugin refuses a copy to
// the device it is on.
func (b *Buffer) CopyToDevice(d *Device) (*Buffer, error) {
	h, err := b.enter()
	if err != nil {
		return nil, err
	}
	defer b.leave()
	c := b.g.c
	dev, err := c.device(d)
	if err != nil {
		return nil, err
	}
	a := bufferCopyToDeviceArgs{buffer: h, dstDevice: dev}
	if err := c.p.bufferCopyToDevice(&a); err != nil {
		return nil, err
	}
	return c.newBuffer(a.dstBuffer), nil
}
