package pjrt

import (
	"fmt"
	"maps"
	"slices"
	"sync"
)

// Client owns the devices, buffers and loaded executables of one plugin in this process. Its
// methods are safe for concurrent use.
type Client struct {
	p       *Plugin
	h       clientHandle
	devices []*Device // addressable
	kv      uintptr   // registration of the key-value store, or 0

	life life
	idle chan struct{} // closed when the last call has left a closed client
	gone chan struct{} // closed at the end of Destroy

	mu     sync.Mutex
	groups *group             // list of all buffers alive
	held   map[*held]struct{} // executables alive
}

// ClientOptions says how a client is made.
type ClientOptions struct {
	// Options are the plugin's own, such as cpu_device_count, node_id and num_nodes. Values are
	// string, int, int64, []int64, bool or float32. Unknown names are the plugin's to refuse.
	Options map[string]any

	// KV connects the processes of one job; nil for a single process.
	KV KV
}

// NewClient makes a client. It must be destroyed.
func (p *Plugin) NewClient(o ClientOptions) (*Client, error) {
	at, n, release, err := newNamedValues(o.Options)
	if err != nil {
		return nil, err
	}
	defer release()
	c := &Client{p: p, idle: make(chan struct{}), gone: make(chan struct{}), held: map[*held]struct{}{}}
	a := clientCreateArgs{createOptions: at, numOptions: n}
	if o.KV != nil { // all three callbacks, or none
		c.kv = registerKV(o.KV)
		a.kvGetCallback, a.kvGetUserArg = cKVGet, c.kv
		a.kvPutCallback, a.kvPutUserArg = cKVPut, c.kv
		a.kvTryGetCallback, a.kvTryGetUserArg = cKVTryGet, c.kv
	}
	if err := p.clientCreate(&a); err != nil {
		unregisterKV(c.kv)
		return nil, err
	}
	c.h = a.client
	if c.devices, err = c.addressable(); err != nil {
		_ = c.Destroy() // the first error is the one to tell
		return nil, err
	}
	return c, nil
}

// Destroy waits for calls in progress, then destroys all buffers and executables of the client
// and the client itself. Uses of any of them return ErrDestroyed from then on. Another Destroy at
// the same time waits for the first. It must not be called from a callback.
func (c *Client) Destroy() error {
	first, last := c.life.close()
	if !first {
		<-c.gone
		return nil
	}
	defer close(c.gone)
	if !last {
		<-c.idle
	}
	// No call is inside any more and none can enter: no lock is needed but c.mu, for the lists.
	for {
		c.mu.Lock()
		g := c.groups
		if g != nil {
			c.unlink(g)
		}
		c.mu.Unlock()
		if g == nil {
			break
		}
		g.destroyAll()
	}
	c.mu.Lock()
	hs := slices.Collect(maps.Keys(c.held))
	c.mu.Unlock()
	for _, h := range hs {
		if _, last := h.life.close(); last {
			_ = h.end() // the client's error matters more
		}
	}
	err := c.p.clientDestroy(&clientDestroyArgs{client: c.h})
	unregisterKV(c.kv)
	return err
}

// enter begins a call that uses the client.
func (c *Client) enter() error {
	if !c.life.enter() {
		return fmt.Errorf("%w: client", ErrDestroyed)
	}
	return nil
}

// leave ends a call.
func (c *Client) leave() {
	if c.life.leave() {
		close(c.idle)
	}
}

// Devices are the devices of this process, in the plugin's order. The slice is the client's.
func (c *Client) Devices() []*Device { return c.devices }

// NumDevices counts the devices of all processes; 0 after Destroy.
func (c *Client) NumDevices() int {
	if c.enter() != nil {
		return 0
	}
	defer c.leave()
	a := clientDevicesArgs{client: c.h}
	if c.p.clientDevices(&a) != nil {
		return 0
	}
	return a.numDevices
}

// ProcessIndex is the rank of this process in its job, from 0; -1 after Destroy.
func (c *Client) ProcessIndex() int {
	if c.enter() != nil {
		return -1
	}
	defer c.leave()
	a := clientProcessIndexArgs{client: c.h}
	if c.p.clientProcessIndex(&a) != nil {
		return -1
	}
	return int(a.processIndex)
}

// Platform is the name of the platform, such as "cpu" or "cuda", and its version; empty after
// Destroy.
func (c *Client) Platform() (name, version string) {
	if c.enter() != nil {
		return "", ""
	}
	defer c.leave()
	n := clientPlatformNameArgs{client: c.h}
	v := clientPlatformVersionArgs{client: c.h}
	if c.p.clientPlatformName(&n) != nil || c.p.clientPlatformVersion(&v) != nil {
		return "", ""
	}
	return goString(n.platformName, n.platformNameSize), goString(v.platformVersion, v.platformVersionSize)
}

// Plugin is the plugin that the client was made from.
func (c *Client) Plugin() *Plugin { return c.p }
