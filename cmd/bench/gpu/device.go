// Package gpu measures a device from inside: its kernels against plain ones, and the model's programs at full width.
//
//	kernel or program → StableHLO → PJRT → results and seconds → rows of a report
//
// All tensors are made on the device by programs; the host sends seeds and group sizes, and reads errors.
package gpu

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"mix/lower/ir"
	"mix/lower/pjrt"
	"mix/lower/plugin"
	"mix/lower/target"
)

// Device is the device that is measured.
type Device struct {
	Platform string
	Kind     string      // what PJRT calls it
	Chip     target.Chip // what is known of it; without a name where nothing is

	client  *pjrt.Client
	device  *pjrt.Device
	options []byte // of compilation
	random  map[ir.Type]*Program
}

// share is the part of a GPU's memory that the client takes; the rest is for the driver and cuBLAS.
const share = 0.94

// Open finds or installs the plugin and makes a client for the device. Close ends it.
func Open(ctx context.Context, platform string, ordinal int, progress io.Writer) (*Device, error) {
	t, err := target.Lookup(platform)
	if err != nil {
		return nil, err
	}
	path, err := plugin.Ensure(ctx, plugin.Options{Platform: platform, Progress: progress})
	if err != nil {
		return nil, err
	}
	if platform == target.CUDA {
		if err := plugin.EnsureLibraries(ctx, path, plugin.Options{Platform: platform, Progress: progress}); err != nil {
			return nil, err
		}
	}
	p, err := pjrt.Load(path)
	if err != nil {
		return nil, err
	}
	options := map[string]any{"cpu_device_count": 1}
	if platform == target.CUDA {
		options = map[string]any{"visible_devices": []int64{int64(ordinal)}, "memory_fraction": float32(share)}
	}
	d := &Device{Platform: platform, random: map[ir.Type]*Program{}}
	if d.options, err = (pjrt.CompileOptions{Overrides: t.Overrides}).Marshal(); err != nil {
		return nil, err
	}
	if d.client, err = p.NewClient(pjrt.ClientOptions{Options: options}); err != nil {
		return nil, err
	}
	d.device = d.client.Devices()[0]
	d.Kind, d.Chip = d.device.Kind, chipOf(platform, d.device.Kind)
	return d, nil
}

// Close ends the client with all that it has.
func (d *Device) Close() error { return d.client.Destroy() }

// chipOf is what is known of a device: the chip of that kind, or of the family that the kind names.
func chipOf(platform, kind string) target.Chip {
	var near target.Chip
	for _, name := range target.Chips() {
		c, err := target.LookupChip(name)
		switch {
		case err != nil || c.Platform != platform:
		case c.Kind == kind:
			return c
		case near.Name == "" && platform == target.CUDA && strings.Contains(kind, strings.ToUpper(name)):
			near = c
		}
	}
	return near
}

// Program is a compiled program.
type Program struct {
	Params []ir.Type
	d      *Device
	x      *pjrt.LoadedExecutable
}

// Compile compiles a module whose main has those parameters.
func (d *Device) Compile(m *ir.Module) (*Program, error) {
	main := m.Func("main")
	if main == nil {
		return nil, fmt.Errorf("program %s has no main", m.Name)
	}
	x, err := d.client.Compile([]byte(m.String()), d.options)
	if err != nil {
		return nil, fmt.Errorf("program %s: %w", m.Name, err)
	}
	return &Program{Params: ir.Types(main.Params()), d: d, x: x}, nil
}

// Close frees the program.
func (p *Program) Close() { p.x.Destroy() }

// Run starts the program. Its results are in the making.
func (p *Program) Run(args ...*pjrt.Buffer) ([]*pjrt.Buffer, error) {
	outs, _, err := p.x.ExecuteOne(args, pjrt.ExecOptions{Device: p.d.device, NoEvents: true})
	return outs, err
}

// wait returns when a buffer is there, or the program that was to make it has failed.
func wait(b *pjrt.Buffer) error {
	e, err := b.Ready()
	if err != nil {
		return err
	}
	return e.Wait()
}

// free destroys buffers.
func free(all ...*pjrt.Buffer) {
	for _, b := range all {
		b.Destroy()
	}
}

// Time is the seconds of a run, as average measures them.
func (p *Program) Time(about time.Duration, args ...*pjrt.Buffer) (float64, error) {
	return average(about, func(n int) error {
		var last []*pjrt.Buffer
		for range n {
			outs, err := p.Run(args...)
			if err != nil {
				return err
			}
			free(last...)
			last = outs
		}
		defer free(last...)
		return wait(last[0])
	})
}

// average is the seconds of one of the runs that run does n of: of as many as take about the given time, least 3. Two
// before are not counted.
func average(about time.Duration, run func(n int) error) (float64, error) {
	timed := func(n int) (time.Duration, error) {
		start := time.Now()
		err := run(n)
		return time.Since(start), err
	}
	if _, err := timed(1); err != nil {
		return 0, err
	}
	one, err := timed(1)
	if err != nil {
		return 0, err
	}
	n := min(max(int(about/max(one, time.Microsecond)), 3), 1000)
	all, err := timed(n)
	return all.Seconds() / float64(n), err
}

// Upload makes a tensor of a few numbers.
func (d *Device) Upload(dims []int64, values ...int32) (*pjrt.Buffer, error) {
	b := make([]byte, 0, 4*len(values))
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	out, _, err := d.client.BufferFromHost(b, pjrt.BufferTypeS32, dims, d.device, pjrt.CopyDuringCall, nil)
	return out, err
}

// Random makes a tensor of t on the device: floats of that mean and variance scale².
func (d *Device) Random(t ir.Type, seed int32, mean, scale float64) (*pjrt.Buffer, error) {
	p := d.random[t]
	if p == nil {
		elem, dims, ok := t.Split()
		if !ok {
			return nil, fmt.Errorf("random %s, want a tensor of static sizes", t)
		}
		m := module("random", []ir.Type{ir.Tensor("i32"), ir.Tensor("f32"), ir.Tensor("f32")}, func(b ir.Builder, in []*ir.Value) []*ir.Value {
			x := b.Mul(uniform(b, in[0], dims...), b.Broadcast(in[2], dims))
			return []*ir.Value{b.Convert(b.Add(x, b.Broadcast(in[1], dims)), elem)}
		})
		var err error
		if p, err = d.Compile(m); err != nil {
			return nil, err
		}
		d.random[t] = p
	}
	var args []*pjrt.Buffer
	defer func() { free(args...) }()
	s, err := d.Upload(nil, seed)
	if err != nil {
		return nil, err
	}
	args = append(args, s)
	for _, v := range []float64{mean, scale} {
		f, err := d.Float(v)
		if err != nil {
			return nil, err
		}
		args = append(args, f)
	}
	outs, err := p.Run(args...)
	if err != nil {
		return nil, err
	}
	return outs[0], nil
}

// Float makes an f32 scalar.
func (d *Device) Float(v float64) (*pjrt.Buffer, error) {
	b := binary.LittleEndian.AppendUint32(nil, math.Float32bits(float32(v)))
	out, _, err := d.client.BufferFromHost(b, pjrt.BufferTypeF32, nil, d.device, pjrt.CopyDuringCall, nil)
	return out, err
}

// words copies a tensor of 32-bit elements to the host.
func (d *Device) words(b *pjrt.Buffer) ([]uint32, error) {
	n, err := b.HostSize()
	if err != nil {
		return nil, err
	}
	raw := make([]byte, n)
	if err := b.ToHost(raw); err != nil {
		return nil, err
	}
	out := make([]uint32, n/4)
	for i := range out {
		out[i] = binary.LittleEndian.Uint32(raw[4*i:])
	}
	return out, nil
}
