package lower

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"mix/internal/knob"
	"mix/lower/pjrt"
	"mix/lower/plugin"
	"mix/lower/target"
	"mix/lower/trace"
	"mix/sharding"

	"github.com/gomlx/compute"
)

// BackendName is the name under which compute knows the backend, as in GOMLX_BACKEND=mix:cpu.
const BackendName = "mix"

func init() {
	compute.Register(BackendName, func(config string) (compute.Backend, error) {
		o, err := ParseConfig(config)
		if err != nil {
			return nil, err
		}
		knobs, err := knob.Read(slog.Default())
		if err != nil {
			return nil, err
		}
		return New(context.Background(), o.WithKnobs(knobs))
	})
}

// Backend runs GoMLX programs through a PJRT client. Its methods are safe for concurrent use.
type Backend struct {
	o       Options
	client  *pjrt.Client
	devices []*pjrt.Device
	cache   *cache // nil without one
	version string // of the plugin: what compiled programs depend on
	log     *slog.Logger
	closed  atomic.Bool
	unkept  sync.Once           // says that programs are not kept
	emit    func(Emitted) error // takes programs instead of XLA: then there is no client; nil compiles

	mu     sync.Mutex
	dumped map[string]int // programs of each name dumped so far
}

var _ compute.Backend = (*Backend)(nil)

// New finds or installs the plugin and what it needs on this machine, loads it and makes a client. Finalize ends it. The end of ctx
// interrupts the installation, nothing later.
func New(ctx context.Context, o Options) (*Backend, error) {
	o, err := o.check()
	if err != nil {
		return nil, err
	}
	b := &Backend{o: o, log: o.Log, dumped: map[string]int{}}
	if b.cache, err = b.openCache(); err != nil {
		return nil, err
	}
	path := o.PluginPath
	if path == "" {
		if path, err = plugin.Ensure(ctx, plugin.Options{Platform: o.Platform, Progress: o.Progress}); err != nil {
			return nil, fmt.Errorf("lower: %w", err)
		}
	}
	if o.Platform == target.CUDA {
		if err := plugin.EnsureLibraries(ctx, path, plugin.Options{Platform: o.Platform, Progress: o.Progress}); err != nil {
			return nil, fmt.Errorf("lower: %w", err)
		}
	}
	fingerprint, err := plugin.Fingerprint(path)
	if err != nil {
		return nil, fmt.Errorf("lower: %w", err)
	}
	p, err := pjrt.Load(path)
	if err != nil {
		return nil, fmt.Errorf("lower: %w", err)
	}
	if b.client, err = p.NewClient(pjrt.ClientOptions{Options: o.client()}); err != nil {
		return nil, fmt.Errorf("lower: %w", err)
	}
	b.devices = b.client.Devices()
	b.version = version(fingerprint, b.devices[0].Kind)
	return b, nil
}

// openCache makes the folder of compiled programs, nil for none. Only a folder that was asked for
// must be there.
func (b *Backend) openCache() (*cache, error) {
	if b.o.NoCache {
		return nil, nil
	}
	c, err := openCache(b.o.CacheDir, b.o.CacheBytes)
	if err == nil {
		return c, nil
	}
	if b.o.CacheDir != "" {
		return nil, fmt.Errorf("lower: cache of compiled programs: %w", err)
	}
	b.log.Warn("compiled programs are not kept", "reason", err)
	return nil, nil
}

// Name is BackendName.
func (b *Backend) Name() string { return BackendName }

// String is BackendName.
func (b *Backend) String() string { return BackendName }

// Description names platform and devices.
func (b *Backend) Description() string {
	if b.client == nil {
		return fmt.Sprintf("%s: programs for %s", BackendName, b.o.Platform)
	}
	name, version := b.client.Platform()
	return fmt.Sprintf("%s: %d × %s (%s)", BackendName, len(b.devices), name, version)
}

// Platform is one of target.Platforms.
func (b *Backend) Platform() string { return b.o.Platform }

// NumDevices counts the devices of this process.
func (b *Backend) NumDevices() int { return len(b.devices) }

// DeviceDescription names one device; unknown numbers give a description that says so.
func (b *Backend) DeviceDescription(n compute.DeviceNum) string {
	if n < 0 || int(n) >= len(b.devices) {
		return fmt.Sprintf("no device %d of %d", n, len(b.devices))
	}
	return fmt.Sprintf("%s %d", b.devices[n].Kind, b.devices[n].ID)
}

// Capabilities lists what traces can hold.
func (b *Backend) Capabilities() compute.Capabilities { return capabilities }

var capabilities = trace.Capabilities()

// Builder starts a program with no options.
func (b *Backend) Builder(name string) compute.Builder { return b.builder(name, ProgramOptions{}) }

func (b *Backend) builder(name string, o ProgramOptions) compute.Builder {
	return trace.New(name, func(t *trace.Builder) (compute.Executable, error) {
		e, err := b.compile(t, o)
		if err != nil {
			return nil, err // not a nil *Executable
		}
		return e, nil
	})
}

// ProgramOptions are settings of a program that GoMLX has no words for.
type ProgramOptions struct {
	// Donate maps parameters, by name, to the output that takes over their memory: the update of a
	// cache or of weights in place. Shapes must be equal. A buffer given for such a parameter is
	// gone after the run.
	Donate map[string]int

	// Shard maps parameters, by name, to their layout on the backend's mesh; others are whole on every device.
	Shard map[string]sharding.Spec

	// Rules are those of this program, nil for the backend's.
	Rules *sharding.Rules

	// Overrides sets XLA's debug options, such as "xla_cpu_enable_fast_math".
	Overrides map[string]any
}

// With is the backend for programs with options: what its Builder compiles has them. Buffers and
// programs of the two are the same backend's.
func (b *Backend) With(o ProgramOptions) compute.Backend { return &configured{b, o} }

// configured is a backend whose programs have options.
type configured struct {
	*Backend
	o ProgramOptions
}

// Builder starts a program that has the options.
func (c *configured) Builder(name string) compute.Builder { return c.builder(name, c.o) }

// Finalize destroys the client with all its buffers and programs.
func (b *Backend) Finalize() {
	if b.closed.Swap(true) || b.client == nil {
		return
	}
	if err := b.client.Destroy(); err != nil {
		b.log.Warn("destroying the PJRT client", "error", err)
	}
}

// IsFinalized says whether Finalize was called.
func (b *Backend) IsFinalized() bool { return b.closed.Load() }

var errFinalized = errors.New("the backend is finalized")

// device returns device n of this process.
func (b *Backend) device(n compute.DeviceNum) (*pjrt.Device, error) {
	if b.closed.Load() {
		return nil, fmt.Errorf("lower: %w", errFinalized)
	}
	if n < 0 || int(n) >= len(b.devices) {
		return nil, fmt.Errorf("lower: device %d, want 0 to %d", n, len(b.devices)-1)
	}
	return b.devices[n], nil
}
