package pjrt

import (
	"fmt"
	"runtime"
	"unsafe"
)

// ExecOptions of one launch.
type ExecOptions struct {
	LaunchID     int     // tells launches of a multi-process program apart
	NonDonatable []int64 // parameters the launch must not take, though the program aliases them
	Device       *Device // where a portable executable runs; nil: on the first device
	NoEvents     bool    // make no completion events; the results' own Ready still tells
}

// scratch is one heap object that holds everything an Execute call points to: the structs, and in
// tab the handle arrays and the arrays of their addresses. tab has no pointers that the collector
// knows, so it may hold addresses of itself; it is pinned during the call.
type scratch struct {
	args loadedExecutableExecuteArgs
	opts executeOptions
	nd   []int64
	tab  []uintptr
	pin  runtime.Pinner
}

// Execute starts the program on every addressable device of it: args[device][parameter], in the
// order of the device assignment. It returns with buffers that are being made, outs[device][result],
// and one event a device, or none with NoEvents. Failures while the program runs come by the
// events and the buffers.
func (l *LoadedExecutable) Execute(args [][]*Buffer, o ExecOptions) (outs [][]*Buffer, evs []*Event, err error) {
	flat, ev, err := l.launch(args, &o)
	if err != nil {
		return nil, nil, err
	}
	outs = make([][]*Buffer, len(args))
	for d := range outs {
		outs[d] = flat[d*l.NumOutputs : (d+1)*l.NumOutputs : (d+1)*l.NumOutputs]
	}
	return outs, ev, nil
}

// ExecuteOne is Execute for one device, the quick way for a program that runs often. The event is
// nil with NoEvents.
func (l *LoadedExecutable) ExecuteOne(args []*Buffer, o ExecOptions) ([]*Buffer, *Event, error) {
	rows := [1][]*Buffer{args}
	outs, evs, err := l.launch(rows[:], &o)
	if err != nil || o.NoEvents {
		return outs, nil, err
	}
	return outs, evs[0], nil
}

// launch runs the program once; outs are the results of device 0, then of device 1, and so on.
func (l *LoadedExecutable) launch(args [][]*Buffer, o *ExecOptions) (outs []*Buffer, evs []*Event, err error) {
	if err := l.held.enter(); err != nil {
		return nil, nil, err
	}
	defer l.held.leave()
	nd, na, no := len(args), 0, l.NumOutputs
	if want := max(l.NumDevices, 1); nd != want && (o.Device == nil || nd != 1) {
		return nil, nil, fmt.Errorf("pjrt: execute: arguments for %d devices, want %d", nd, want)
	}
	na = len(args[0])
	s, _ := l.pool.Get().(*scratch)
	if s == nil {
		s = new(scratch)
	}
	need := nd*(na+no) + 3*nd
	if cap(s.tab) < need {
		s.tab = make([]uintptr, need)
	}
	s.tab = s.tab[:need]
	clear(s.tab)
	s.pin.Pin(unsafe.SliceData(s.tab))
	s.pin.Pin(s)
	defer func() {
		s.pin.Unpin()
		l.pool.Put(s)
	}()
	entered, err := l.use(args, s.tab)
	defer release(args, entered)
	if err != nil {
		return nil, nil, err
	}
	if err := l.prepare(s, nd, na, o); err != nil {
		return nil, nil, err
	}
	if err := l.c.p.loadedExecutableExecute(&s.args); err != nil {
		return nil, nil, err
	}
	results := s.tab[nd*na : nd*(na+no)]
	bs := l.c.newBuffers(results)
	outs = make([]*Buffer, len(bs))
	for i := range bs {
		outs[i] = &bs[i]
	}
	if !o.NoEvents {
		evs = make([]*Event, nd)
		for d := range evs {
			evs[d] = l.c.newEvent("execute", eventHandle(s.tab[need-nd+d]), nil)
		}
	}
	return outs, evs, nil
}

// use enters every argument and writes its handle to tab. entered says how many are to be
// released.
func (l *LoadedExecutable) use(args [][]*Buffer, tab []uintptr) (entered int, err error) {
	na := len(args[0])
	for d, row := range args {
		if len(row) != na {
			return entered, fmt.Errorf("pjrt: execute: %d arguments for device %d, %d for device 0", len(row), d, na)
		}
		for i, b := range row {
			switch {
			case b == nil:
				return entered, fmt.Errorf("pjrt: execute: argument %d of device %d is nil", i, d)
			case b.g.c != l.c:
				return entered, fmt.Errorf("pjrt: execute: argument %d of device %d is of another client", i, d)
			}
			r := &b.g.bufs[b.i]
			if !r.enter() {
				return entered, fmt.Errorf("%w: argument %d of device %d", ErrDestroyed, i, d)
			}
			tab[entered] = uintptr(r.h)
			entered++
		}
	}
	return entered, nil
}

// release leaves the first n arguments.
func release(args [][]*Buffer, n int) {
	for _, row := range args {
		for _, b := range row[:min(n, len(row))] {
			b.drop()
		}
		n -= min(n, len(row))
	}
}

// prepare fills the structs of a launch. tab holds the argument handles, then room for the result
// handles, then for each device the address of its arguments, of its results, and its event.
func (l *LoadedExecutable) prepare(s *scratch, nd, na int, o *ExecOptions) error {
	no, tab := l.NumOutputs, s.tab
	base := unsafe.Pointer(unsafe.SliceData(tab))
	at := func(i int) uintptr { return uintptr(base) + uintptr(i)*8 }
	results, argRows := nd*na, nd*(na+no)
	resultRows, events := argRows+nd, argRows+2*nd
	for d := range nd {
		tab[argRows+d], tab[resultRows+d] = at(d*na), at(results+d*no)
	}
	s.opts = executeOptions{structSize: sizeExecuteOptions, launchId: int32(o.LaunchID)}
	if len(o.NonDonatable) > 0 {
		s.nd = append(s.nd[:0], o.NonDonatable...)
		s.pin.Pin(unsafe.SliceData(s.nd))
		s.opts.nonDonatableInputIndices, s.opts.numNonDonatableInputIndices = unsafe.Pointer(unsafe.SliceData(s.nd)), len(s.nd)
	}
	s.args = loadedExecutableExecuteArgs{executable: l.h, options: unsafe.Pointer(&s.opts), numDevices: nd, numArgs: na,
		argumentLists: unsafe.Add(base, argRows*8), outputLists: unsafe.Add(base, resultRows*8)}
	if !o.NoEvents {
		s.args.deviceCompleteEvents = unsafe.Add(base, events*8)
	}
	if o.Device != nil || l.NumDevices == 0 { // portable: compiled for no device in particular
		dev, err := l.c.device(o.Device)
		if err != nil {
			return err
		}
		s.args.executeDevice = dev
	}
	return nil
}
