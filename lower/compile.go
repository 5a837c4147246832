// Package lower turns GoMLX programs into XLA executables and runs them.
//
//	GoMLX → trace → passes → emit → [cache] → PJRT → Program
//	         ir       ir     text   program          arguments, donation, results
//
// It is GoMLX's backend "mix": a Builder records (package trace), passes rewrite the module (package
// pass), emit adds donation and prints StableHLO, and PJRT compiles it unless the cache on disk has
// the result. An Executable runs as GoMLX wants it; a Program runs the same with arguments that stay
// on the device, without waiting. An error of compilation names the file with the module.
package lower

import (
	"fmt"
	"slices"
	"time"

	"mix/lower/ir"
	"mix/lower/pass"
	"mix/lower/pjrt"
	"mix/lower/trace"
	"mix/sharding"
)

// compile takes a trace to an executable.
func (b *Backend) compile(t *trace.Builder, o ProgramOptions) (*Executable, error) {
	start := time.Now()
	text, low, err := b.lower(t, o)
	if err != nil {
		return nil, err
	}
	passes := time.Since(start)
	copts, devices, err := b.compileOptions(t, o)
	if err != nil {
		return nil, err
	}
	e := &Executable{be: b, name: t.Name(), params: t.Params(), outs: t.Outputs(), local: t.Outputs(), aliases: low.aliases, devices: devices,
		specs: low.params, outSpecs: low.results}
	if b.emit != nil {
		if err := b.emit(Emitted{Name: e.name, Text: text, Options: copts, Passes: passes}); err != nil {
			return nil, err
		}
		return e, nil
	}
	if e.l, e.stats, err = b.load(e.name, text, copts); err != nil {
		return nil, low.dump.failure(err, text)
	}
	if err := e.outputs(t.Partitions() > 1); err != nil {
		return nil, low.dump.failure(err, text)
	}
	return e, nil
}

// lowered is what belongs to a program's text.
type lowered struct {
	aliases         []int           // by parameter: the output in its place, or -1; nil without any
	params, results []sharding.Spec // on the backend's mesh; nil on one device or a mesh of the trace's own
	dump            *dump
}

// lower takes a trace to the text that XLA compiles.
func (b *Backend) lower(t *trace.Builder, o ProgramOptions) (text string, l lowered, err error) {
	if b.closed.Load() {
		return "", l, fmt.Errorf("lower: program %q: %w", t.Name(), errFinalized)
	}
	if l.aliases, err = resolveDonations(t, o.Donate); err != nil {
		return "", l, err
	}
	if b.meshed(t) {
		if l.params, l.results, err = b.spread(t, o, l.aliases); err != nil {
			return "", l, err
		}
	}
	l.dump = b.newDump(t.Name())
	if err := b.passes(t, o, l.dump); err != nil {
		return "", l, l.dump.failure(fmt.Errorf("lower: program %q: %w", t.Name(), err), t.Module().String())
	}
	replicas, partitions := b.grid(t)
	if text, err = emit(t, l.aliases, replicas, partitions); err != nil {
		return "", l, err
	}
	return text, l, l.dump.write("emit", func() string { return text })
}

// passes rewrites the module in place.
func (b *Backend) passes(t *trace.Builder, o ProgramOptions, d *dump) error {
	m := t.Module()
	if err := d.write("trace", m.String); err != nil {
		return err
	}
	before := ""
	if len(b.o.Diff) > 0 {
		before = m.String()
	}
	ctx := pass.Context{Platform: b.o.Platform, Devices: t.Partitions(), Skip: b.o.Skip}
	if b.meshed(t) {
		ctx.Mesh, ctx.Rules = b.o.Mesh, b.o.Rules
		if o.Rules != nil {
			ctx.Rules = *o.Rules
		}
	}
	_, err := pass.Run(m, ctx, pass.All(), pass.Hooks{
		Verify: b.o.Verify,
		Changed: func(name string, m *ir.Module) (string, error) {
			if len(b.o.Diff) > 0 {
				after := m.String()
				if slices.Contains(b.o.Diff, name) {
					if _, err := fmt.Fprintf(b.o.DiffTo, "%s: pass %s\n%s", t.Name(), name, diff(before, after)); err != nil {
						return "", err
					}
				}
				before = after
			}
			err := d.write(name, m.String)
			return d.last, err
		},
	})
	return err
}

// compileOptions are PJRT's options of a program, and the devices it is compiled for, nil when it
// runs on any.
func (b *Backend) compileOptions(t *trace.Builder, o ProgramOptions) (copts []byte, devices []int, err error) {
	replicas, partitions := b.grid(t)
	n := replicas * partitions
	if n > len(b.devices) {
		return nil, nil, fmt.Errorf("lower: program %q wants %d devices, there are %d", t.Name(), n, len(b.devices))
	}
	c := pjrt.CompileOptions{Replicas: replicas, Partitions: partitions, Shardy: partitions > 1, Overrides: b.overrides(o)}
	if assigned := t.Devices(); n > 1 || assigned != nil {
		for i := range n {
			num := i
			if assigned != nil {
				num = int(assigned[i])
			}
			if num < 0 || num >= len(b.devices) {
				return nil, nil, fmt.Errorf("lower: program %q is assigned device %d, want 0 to %d", t.Name(), num, len(b.devices)-1)
			}
			devices = append(devices, num)
			c.Devices = append(c.Devices, b.devices[num].ID)
		}
	}
	copts, err = c.Marshal()
	return copts, devices, err
}

// grid is the number of replicas and partitions that a trace runs on.
func (b *Backend) grid(t *trace.Builder) (replicas, partitions int) {
	if b.meshed(t) {
		return 1, b.o.Mesh.Devices()
	}
	return t.Replicas(), t.Partitions()
}

// Stats tells how a program came about.
type Stats struct {
	Compile   time.Duration // in XLA, or reading it from the cache
	FromCache bool
}

// load compiles text, or takes the result from the cache.
func (b *Backend) load(name, text string, copts []byte) (*pjrt.LoadedExecutable, Stats, error) {
	start := time.Now()
	key := cacheKey(text, b.version, b.o.Platform, copts)
	if stored := b.cache.get(key); stored != nil {
		l, err := b.client.Deserialize(stored, nil)
		if err == nil {
			return l, Stats{time.Since(start), true}, nil
		}
		b.log.Debug("a stored program does not load and is compiled again", "program", name, "error", err)
	}
	l, err := b.client.Compile([]byte(text), copts)
	if err != nil {
		return nil, Stats{}, fmt.Errorf("lower: program %q does not compile: %w", name, err)
	}
	stats := Stats{time.Since(start), false}
	if b.cache != nil {
		if err := b.store(key, l); err != nil {
			b.unkept.Do(func() { b.log.Warn("compiled programs are not kept and every start compiles again", "error", err) })
		}
	}
	return l, stats, nil
}

func (b *Backend) store(key string, l *pjrt.LoadedExecutable) error {
	program, err := l.Exec.Serialize()
	if err != nil {
		return err
	}
	return b.cache.put(key, program)
}
