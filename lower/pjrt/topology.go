package pjrt

import (
	"runtime"
	"unsafe"
)

// Topology describes devices to compile for, present or not.
type Topology struct {
	p    *Plugin
	h    topologyDescriptionHandle
	held *held // nil: the client's own
	c    *Client
}

// Topology is the client's own. It lives as long as the client.
func (c *Client) Topology() (*Topology, error) {
	if err := c.enter(); err != nil {
		return nil, err
	}
	defer c.leave()
	a := clientTopologyDescriptionArgs{client: c.h}
	if err := c.p.clientTopologyDescription(&a); err != nil {
		return nil, err
	}
	return &Topology{p: c.p, h: a.topology, c: c}, nil
}

// NewTopology describes devices without a client. For the CUDA plugin the options are
// target_config (text of a GpuTargetConfigProto) and topology ("partitions x hosts x devices",
// such as "1x1x8").
func (p *Plugin) NewTopology(name string, opts map[string]any) (*Topology, error) {
	at, n, release, err := newNamedValues(opts)
	if err != nil {
		return nil, err
	}
	defer release()
	var ps pins
	defer ps.Unpin()
	a := topologyDescriptionCreateArgs{createOptions: at, numOptions: n}
	a.topologyName, a.topologyNameSize = ps.str(name)
	if err := p.topologyDescriptionCreate(&a); err != nil {
		return nil, err
	}
	h := newHeld(nil, "topology", func() error {
		return p.topologyDescriptionDestroy(&topologyDescriptionDestroyArgs{topology: a.topology})
	})
	t := &Topology{p: p, h: a.topology, held: h}
	runtime.AddCleanup(t, func(h *held) { _ = h.close() }, h)
	return t, nil
}

// Destroy ends a topology that NewTopology made; the client's own it leaves alone.
func (t *Topology) Destroy() error {
	if t.held == nil {
		return nil
	}
	return t.held.close()
}

// CompileAOT compiles without loading: the way to build executables for devices that are not
// here. options are those of CompileOptions.Marshal; nil is those of the zero CompileOptions.
func (t *Topology) CompileAOT(code, options []byte) (*Executable, error) {
	if len(options) == 0 {
		var err error
		if options, err = (CompileOptions{}).Marshal(); err != nil { // without any, XLA aborts
			return nil, err
		}
	}
	if t.held != nil {
		if err := t.held.enter(); err != nil {
			return nil, err
		}
		defer t.held.leave()
	} else {
		if err := t.c.enter(); err != nil {
			return nil, err
		}
		defer t.c.leave()
	}
	var ps pins
	defer ps.Unpin()
	a := compileArgs{topology: t.h, program: unsafe.Pointer(newProgram(&ps, code))}
	a.compileOptions, a.compileOptionsSize = pinSlice(&ps, options)
	if err := t.p.compile(&a); err != nil {
		return nil, err
	}
	return newExecutable(t.p, a.executable), nil
}
