package lower

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"mix/internal/knob"
	"mix/lower/pass"
	"mix/lower/pjrt"
	"mix/lower/plugin"
	"mix/lower/trace"

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
		return New(o.WithKnobs(knobs))
	})
}

// Options of a backend. The zero value is the CPU with one device and all defaults.
type Options struct {
	Platform   string    // "cpu" or "cuda"; "" is "cpu"
	Devices    int       // CPU devices to make; 0 is 1. Other platforms have the devices they have
	PluginPath string    // the PJRT plugin; "" finds or installs one
	Progress   io.Writer // shows the installation of a plugin; nil is silent

	CacheDir   string // where compiled programs are kept; "" is mix/programs in the user's cache folder
	CacheBytes int64  // size the cache is kept under; 0 is 4 GiB
	NoCache    bool   // compile every program anew

	DumpDir string    // write the module after each pass that changed it; "" does not
	Diff    []string  // passes whose changes are shown
	DiffTo  io.Writer // where; nil is standard error
	Skip    []string  // passes to leave out
	Verify  bool      // check the module after every pass

	Log *slog.Logger // nil is slog.Default()
}

// WithKnobs is o with the developer switches that are set.
func (o Options) WithKnobs(v knob.Values) Options {
	if v.Dump != "" {
		o.DumpDir = v.Dump
	}
	if v.FakeDevices != 0 {
		o.Devices = v.FakeDevices
	}
	o.Diff = append(slices.Clip(o.Diff), v.Diff...)
	o.Skip = append(slices.Clip(o.Skip), v.Skip...)
	o.Verify = o.Verify || v.Verify
	return o
}

// ParseConfig reads the text that follows "mix:" in a GoMLX configuration: platform, then options,
// separated by commas. Options: devices=N, plugin=FILE, cache=DIR, nocache, dump=DIR, verify.
func ParseConfig(config string) (Options, error) {
	o := Options{Progress: os.Stderr}
	for i, f := range strings.Split(config, ",") {
		k, v, _ := strings.Cut(f, "=")
		switch {
		case f == "":
		case i == 0 && (f == plugin.CPU || f == plugin.CUDA):
			o.Platform = f
		case k == "devices":
			n, err := strconv.Atoi(v)
			if err != nil || n < 1 {
				return o, fmt.Errorf("lower: configuration %q: devices %q, want a number from 1", config, v)
			}
			o.Devices = n
		case k == "plugin":
			o.PluginPath = v
		case k == "cache":
			o.CacheDir = v
		case f == "nocache":
			o.NoCache = true
		case k == "dump":
			o.DumpDir = v
		case f == "verify":
			o.Verify = true
		default:
			return o, fmt.Errorf("lower: configuration %q: unknown option %q, want cpu, cuda, devices=N, plugin=FILE, cache=DIR, nocache, dump=DIR or verify", config, f)
		}
	}
	return o, nil
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

	mu     sync.Mutex
	dumped map[string]int // programs of each name dumped so far
}

var _ compute.Backend = (*Backend)(nil)

// New finds or installs the plugin, loads it and makes a client. Finalize ends it.
func New(o Options) (*Backend, error) {
	if o.Platform == "" {
		o.Platform = plugin.CPU
	}
	if o.Devices < 0 {
		return nil, fmt.Errorf("lower: %d devices, want at least 1", o.Devices)
	}
	b := &Backend{o: o, log: o.Log, dumped: map[string]int{}}
	if b.log == nil {
		b.log = slog.Default()
	}
	if o.DiffTo == nil {
		b.o.DiffTo = os.Stderr
	}
	for _, name := range slices.Concat(o.Diff, o.Skip) {
		if _, err := pass.Named(name); err != nil {
			return nil, fmt.Errorf("lower: %w", err)
		}
	}
	path := o.PluginPath
	if path == "" {
		var err error
		if path, err = plugin.Ensure(context.Background(), plugin.Options{Platform: o.Platform, Progress: o.Progress}); err != nil {
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
	co := pjrt.ClientOptions{}
	if o.Platform == plugin.CPU {
		co.Options = map[string]any{"cpu_device_count": max(o.Devices, 1)}
	}
	if b.client, err = p.NewClient(co); err != nil {
		return nil, fmt.Errorf("lower: %w", err)
	}
	b.devices = b.client.Devices()
	b.version = fingerprint + " " + b.devices[0].Kind
	if !o.NoCache {
		if b.cache, err = openCache(o.CacheDir, o.CacheBytes); err != nil {
			b.log.Warn("compiled programs are not kept", "reason", err)
		}
	}
	return b, nil
}

// Name is BackendName.
func (b *Backend) Name() string { return BackendName }

// String is BackendName.
func (b *Backend) String() string { return BackendName }

// Description names platform and devices.
func (b *Backend) Description() string {
	name, version := b.client.Platform()
	return fmt.Sprintf("%s: %d × %s (%s)", BackendName, len(b.devices), name, version)
}

// Platform is "cpu" or "cuda".
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
	if b.closed.Swap(true) {
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
