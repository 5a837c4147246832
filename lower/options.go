package lower

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"

	"mix/internal/knob"
	"mix/lower/pass"
	"mix/lower/target"
	"mix/sharding"
)

// Options of a backend. The zero value is the CPU with one device and all defaults.
type Options struct {
	Platform string         // one of target.Platforms; "" is the CPU
	Devices  int            // CPU devices to make; 0 is 1. Not for CUDA
	Mesh     sharding.Mesh  // of the devices that programs run on; the zero value is one device
	Rules    sharding.Rules // what the axis notes in programs mean on the mesh; derived from it by default

	Ordinal int // the GPU to use, of those that CUDA_VISIBLE_DEVICES leaves, on a mesh the first of them; others are not touched
	// MemoryFraction is how much of a GPU's memory is taken when the client is made, in (0, 1]; 0 is 0.95. The rest
	// is left to the driver, libraries and communicators. Not for the CPU.
	MemoryFraction float64

	PluginPath string    // the PJRT plugin; "" finds or installs one
	Progress   io.Writer // shows the installation of a plugin; nil is silent

	CacheDir   string // where compiled programs are kept; "" is mix/programs in the user's cache folder, if there is one
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
// separated by commas. Options: devices=N, ordinal=N, memory=FRACTION, plugin=FILE, cache=DIR, nocache, dump=DIR, verify.
func ParseConfig(config string) (Options, error) {
	o := Options{Progress: os.Stderr}
	for i, f := range strings.Split(config, ",") {
		k, v, _ := strings.Cut(f, "=")
		switch {
		case f == "":
		case i == 0 && slices.Contains(target.Platforms(), f):
			o.Platform = f
		case k == "devices":
			n, err := strconv.Atoi(v)
			if err != nil || n < 1 {
				return o, fmt.Errorf("lower: configuration %q: devices %q, want a number from 1", config, v)
			}
			o.Devices = n
		case k == "ordinal":
			n, err := strconv.Atoi(v)
			if err != nil || n < 0 {
				return o, fmt.Errorf("lower: configuration %q: ordinal %q, want a number from 0", config, v)
			}
			o.Ordinal = n
		case k == "memory":
			x, err := strconv.ParseFloat(v, 64)
			if err != nil || !(x > 0) || x > 1 {
				return o, fmt.Errorf("lower: configuration %q: memory %q, want a fraction above 0, at most 1", config, v)
			}
			o.MemoryFraction = x
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
			return o, fmt.Errorf("lower: configuration %q: unknown option %q, want %s, devices=N, ordinal=N, memory=FRACTION, plugin=FILE, cache=DIR, nocache, dump=DIR or verify", config, f, strings.Join(target.Platforms(), ", "))
		}
	}
	return o, nil
}

// check refuses what is out of range and fills in defaults.
func (o Options) check() (Options, error) {
	if o.Platform == "" {
		o.Platform = target.CPU
	}
	if _, err := target.Lookup(o.Platform); err != nil {
		return o, fmt.Errorf("lower: %w", err)
	}
	switch cpu := o.Platform == target.CPU; {
	case o.Devices < 0 || o.Devices > 0 && !cpu:
		return o, fmt.Errorf("lower: %d devices on %s, want at least 1 on the CPU and none elsewhere", o.Devices, o.Platform)
	case o.Devices > 0 && o.Devices < o.Mesh.Devices():
		return o, fmt.Errorf("lower: mesh %s of %d devices, there are %d", o.Mesh, o.Mesh.Devices(), o.Devices)
	case o.Ordinal < 0 || o.Ordinal > 0 && cpu:
		return o, fmt.Errorf("lower: device %d on %s, want one from 0, and 0 on the CPU", o.Ordinal, o.Platform)
	case !(o.MemoryFraction >= 0 && o.MemoryFraction <= 1) || o.MemoryFraction > 0 && cpu:
		return o, fmt.Errorf("lower: memory fraction %v on %s, want above 0, at most 1, and none on the CPU", o.MemoryFraction, o.Platform)
	}
	if o.MemoryFraction == 0 && o.Platform != target.CPU {
		o.MemoryFraction = usualFraction
	}
	if o.Devices == 0 && o.Platform == target.CPU {
		o.Devices = o.Mesh.Devices()
	}
	if o.Rules.String() == (sharding.Rules{}).String() {
		o.Rules = sharding.Derive(o.Mesh)
	}
	for _, name := range slices.Concat(o.Diff, o.Skip) {
		if _, err := pass.Named(name); err != nil {
			return o, fmt.Errorf("lower: %w", err)
		}
	}
	if o.DiffTo == nil {
		o.DiffTo = os.Stderr
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return o, nil
}

// usualFraction leaves a H100 4 GB and a H200 7 GB, and gives programs the 80 and 141 GB that plans count with.
const usualFraction = 0.95

// client are the options of the PJRT client.
func (o Options) client() map[string]any {
	if o.Platform == target.CPU {
		return map[string]any{"cpu_device_count": max(o.Devices, 1)}
	}
	visible := make([]int64, o.Mesh.Devices())
	for i := range visible {
		visible[i] = int64(o.Ordinal + i)
	}
	return map[string]any{"visible_devices": visible, "memory_fraction": float32(o.MemoryFraction)}
}
