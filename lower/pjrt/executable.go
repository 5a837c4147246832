package pjrt

import (
	"errors"
	"runtime"
	"sync"
	"unsafe"
)

// Executable is a compiled program. It can be serialized and asked about, not run.
type Executable struct {
	p     *Plugin
	h     executableHandle
	held  *held
	owner *LoadedExecutable // that it is part of and keeps alive, or nil
}

// LoadedExecutable is a program ready to run on a client's devices. A forgotten one is destroyed
// after garbage collection. Its methods are safe for concurrent use.
type LoadedExecutable struct {
	c          *Client
	h          loadedExecutableHandle
	held       *held
	Exec       *Executable // lives as long as this one
	NumOutputs int         // results a device
	NumDevices int         // devices of this process it runs on; 0 if portable
	pool       sync.Pool   // *scratch
}

// newExecutable takes over the handle of a program that is not loaded.
func newExecutable(p *Plugin, h executableHandle) *Executable {
	x := &Executable{p: p, h: h}
	x.held = newHeld(nil, "executable", func() error { return p.executableDestroy(&executableDestroyArgs{executable: h}) })
	runtime.AddCleanup(x, func(h *held) { _ = h.close() }, x.held)
	return x
}

// loaded takes over a handle; the caller is inside the client.
func (c *Client) loaded(h loadedExecutableHandle) (*LoadedExecutable, error) {
	p := c.p
	g := loadedExecutableGetExecutableArgs{loadedExecutable: h}
	err := p.loadedExecutableGetExecutable(&g)
	destroy := func() (err error) {
		if g.executable != 0 { // first: it points into the loaded one
			err = p.executableDestroy(&executableDestroyArgs{executable: g.executable})
		}
		return errors.Join(err, p.loadedExecutableDestroy(&loadedExecutableDestroyArgs{executable: h}))
	}
	n := executableNumOutputsArgs{executable: g.executable}
	d := loadedExecutableAddressableDevicesArgs{executable: h}
	if err == nil {
		err = p.executableNumOutputs(&n)
	}
	if err == nil {
		err = p.loadedExecutableAddressableDevices(&d)
	}
	if err != nil {
		return nil, errors.Join(err, destroy())
	}
	l := &LoadedExecutable{c: c, h: h, NumOutputs: n.numOutputs, NumDevices: d.numAddressableDevices}
	l.held = newHeld(c, "loaded executable", destroy)
	l.Exec = &Executable{p: p, h: g.executable, held: l.held, owner: l}
	runtime.AddCleanup(l, func(h *held) { _ = h.close() }, l.held)
	return l, nil
}

// Destroy frees the executable, if need be when the calls that use it have returned. Runs already
// launched are not disturbed.
func (l *LoadedExecutable) Destroy() error { return l.held.close() }

// Destroy frees an executable that CompileAOT made; one that is part of a loaded executable ends
// with that.
func (x *Executable) Destroy() error {
	if x.owner != nil {
		return nil
	}
	return x.held.close()
}

// Name is the name of the module; empty after Destroy.
func (x *Executable) Name() string {
	if x.held.enter() != nil {
		return ""
	}
	defer x.held.leave()
	a := executableNameArgs{executable: x.h}
	if x.p.executableName(&a) != nil {
		return ""
	}
	return goString(a.executableName, a.executableNameSize)
}

// Fingerprint is the plugin's own; not every plugin has one.
func (x *Executable) Fingerprint() (string, error) {
	if err := x.held.enter(); err != nil {
		return "", err
	}
	defer x.held.leave()
	a := executableFingerprintArgs{executable: x.h}
	err := x.p.executableFingerprint(&a)
	return goString(a.executableFingerprint, a.executableFingerprintSize), err
}

// Serialize returns bytes for Client.Deserialize.
func (x *Executable) Serialize() ([]byte, error) {
	if err := x.held.enter(); err != nil {
		return nil, err
	}
	defer x.held.leave()
	a := executableSerializeArgs{executable: x.h}
	if err := x.p.executableSerialize(&a); err != nil {
		return nil, err
	}
	b := goBytes(a.serializedBytes, a.serializedBytesSize)
	if a.serializedExecutableDeleter != 0 {
		call3(a.serializedExecutableDeleter, uintptr(a.serializedExecutable), 0, 0)
	}
	return b, nil
}

// OptimizedHLO returns what XLA made of the program; for the format "hlo_with_config" the bytes
// are an HloModuleProtoWithConfig.
func (x *Executable) OptimizedHLO() (format string, code []byte, err error) {
	if err := x.held.enter(); err != nil {
		return "", nil, err
	}
	defer x.held.leave()
	var ps pins
	defer ps.Unpin()
	g := &program{structSize: sizeProgram}
	ps.Pin(g)
	a := executableOptimizedProgramArgs{executable: x.h, program: unsafe.Pointer(g)}
	if err := x.p.executableOptimizedProgram(&a); err != nil { // gives the size
		return "", nil, err
	}
	code = make([]byte, g.codeSize)
	g.code, _ = pinSlice(&ps, code)
	if err := x.p.executableOptimizedProgram(&a); err != nil {
		return "", nil, err
	}
	return goString(g.format, g.formatSize), code, nil
}

// Outputs are the shapes of the results on one device.
func (x *Executable) Outputs() ([]Shape, error) {
	if err := x.held.enter(); err != nil {
		return nil, err
	}
	defer x.held.leave()
	t := executableOutputElementTypesArgs{executable: x.h}
	if err := x.p.executableOutputElementTypes(&t); err != nil {
		return nil, err
	}
	d := executableOutputDimensionsArgs{executable: x.h}
	if err := x.p.executableOutputDimensions(&d); err != nil {
		return nil, err
	}
	ts, ranks := goSlice[BufferType](t.outputTypes, t.numOutputTypes), goSlice[int](d.dimSizes, d.numOutputs)
	shapes := make([]Shape, min(len(ts), len(ranks)))
	at := d.dims
	for i := range shapes {
		shapes[i] = Shape{ts[i], goSlice[int64](at, ranks[i])}
		at = unsafe.Add(at, 8*ranks[i])
	}
	return shapes, nil
}

// Cost is XLA's cost analysis, such as flops and bytes accessed; not every plugin has it.
func (x *Executable) Cost() (map[string]any, error) {
	if err := x.held.enter(); err != nil {
		return nil, err
	}
	defer x.held.leave()
	a := executableGetCostAnalysisArgs{executable: x.h}
	if err := x.p.executableGetCostAnalysis(&a); err != nil {
		return nil, err
	}
	return namedValues(a.properties, a.numProperties), nil
}

// MemoryStats are bytes on one device.
type MemoryStats struct{ Code, Argument, Output, Alias, Temp, Peak int64 }

// MemoryStats tells how much memory a run needs, as XLA planned it.
func (x *Executable) MemoryStats() (MemoryStats, error) {
	if err := x.held.enter(); err != nil {
		return MemoryStats{}, err
	}
	defer x.held.leave()
	a := executableGetCompiledMemoryStatsArgs{executable: x.h}
	err := x.p.executableGetCompiledMemoryStats(&a)
	return MemoryStats{a.generatedCodeSizeInBytes, a.argumentSizeInBytes, a.outputSizeInBytes, a.aliasSizeInBytes, a.tempSizeInBytes, a.peakMemoryInBytes}, err
}
