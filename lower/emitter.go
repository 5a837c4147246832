package lower

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"mix/lower/pass"
	"mix/lower/pjrt"
	"mix/lower/target"
	"mix/sharding"

	"github.com/gomlx/compute/shapes"
)

// Emitted is a program as XLA is to compile it.
type Emitted struct {
	Name    string
	Text    string // StableHLO
	Options []byte // what PJRT compiles it with
	Passes  time.Duration
}

// ErrHollow says that a backend from NewEmitter was asked to run a program or to read a tensor.
var ErrHollow = errors.New("the backend only emits programs")

// NewEmitter makes a backend that has no client: emit takes each program where XLA would compile it. Tensors
// have a shape and no memory, and nothing fills them; programs can be bound, not run. So whoever compiles programs
// for a Backend emits the same ones, for devices that are not here too. Of the options those of platform, mesh,
// passes and dumps count.
func NewEmitter(o Options, emit func(Emitted) error) (*Backend, error) {
	o, err := o.check()
	if err != nil {
		return nil, err
	}
	b := &Backend{o: o, log: o.Log, dumped: map[string]int{}, emit: emit}
	for i := range max(o.Mesh.Devices(), 1) {
		b.devices = append(b.devices, &pjrt.Device{ID: i, Kind: o.Platform})
	}
	return b, nil
}

// hollow is a tensor without memory, laid out by spec where the backend has a mesh.
func (b *Backend) hollow(shape shapes.Shape, spec sharding.Spec) *Buffer {
	h := &Buffer{be: b, shape: shape.Clone()}
	if n := b.o.Mesh.Devices(); n > 1 {
		h.parts = &parts{bufs: make([]*pjrt.Buffer, n), spec: spec}
	}
	return h
}

// overrides are XLA's options of a program: the target's, and its own over them.
func (b *Backend) overrides(o ProgramOptions) map[string]any {
	t, err := target.Lookup(b.o.Platform)
	if err != nil || len(t.Overrides) == 0 {
		return o.Overrides
	}
	all := maps.Clone(t.Overrides)
	maps.Copy(all, o.Overrides)
	return all
}

// Keep puts a program that was compiled elsewhere into the cache of compiled programs, where a backend with a
// plugin of that fingerprint finds it when its devices are of that kind. It returns the file, "" for a program that only a
// compilation on the device makes whole, which is not kept.
func Keep(o Options, fingerprint, kind string, e Emitted, program []byte) (path string, err error) {
	if o, err = o.check(); err != nil {
		return "", err
	}
	if pass.CallsCuDNN(e.Text) {
		return "", nil
	}
	c, err := openCache(o.CacheDir, o.CacheBytes)
	if err != nil {
		return "", fmt.Errorf("lower: cache of compiled programs: %w", err)
	}
	key := cacheKey(e.Text, version(fingerprint, kind), o.Platform, e.Options)
	if err := c.put(key, program); err != nil {
		return "", fmt.Errorf("lower: cache of compiled programs: %w", err)
	}
	return c.path(key), nil
}

// version is what compiled programs depend on of a plugin and its devices.
func version(fingerprint, kind string) string { return fingerprint + " " + kind }
