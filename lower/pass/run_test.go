package pass

import (
	"context"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/ir"
	"mix/lower/pjrt"
	"mix/lower/plugin"
)

// cpu and two are CPU clients of one device and of two.
var cpu, two = cpuClient(1), cpuClient(2)

func cpuClient(devices int64) func() (*pjrt.Client, error) {
	return sync.OnceValues(func() (*pjrt.Client, error) {
		path, err := plugin.Ensure(context.Background(), plugin.Options{Platform: "cpu"})
		if err != nil {
			return nil, err
		}
		p, err := pjrt.Load(path)
		if err != nil {
			return nil, err
		}
		return p.NewClient(pjrt.ClientOptions{Options: map[string]any{"cpu_device_count": devices}})
	})
}

// client skips the test on a machine where the CPU plugin is neither there nor can be installed.
func client(t testing.TB) *pjrt.Client {
	c, err := cpu()
	if err != nil {
		t.Skipf("needs the CPU plugin: %v", err)
	}
	return c
}

// tensor is a value for a parameter or from a result, with f32, bf16, i32 or i1 elements.
type tensor struct {
	typ  ir.Type
	data []float32
}

// random draws a tensor of normal values times scale, rounded to its elements.
func random(r *rand.Rand, typ ir.Type, scale float64) tensor {
	elem, dims, _ := typ.Split()
	t := tensor{typ, make([]float32, elements(dims))}
	for i := range t.data {
		t.data[i] = float32(r.NormFloat64() * scale)
		if elem == "bf16" {
			t.data[i] = math.Float32frombits(bf16(t.data[i]) << 16)
		}
	}
	return t
}

func bf16(f float32) uint32 {
	b := math.Float32bits(f)
	return (b + 0x7fff + b>>16&1) >> 16
}

func (t tensor) bytes() []byte {
	elem, _, _ := t.typ.Split()
	var b []byte
	for _, v := range t.data {
		switch elem {
		case "bf16":
			b = binary.LittleEndian.AppendUint16(b, uint16(bf16(v)))
		case "i1":
			b = append(b, byte(v))
		case "i32":
			b = binary.LittleEndian.AppendUint32(b, uint32(int32(v)))
		default:
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
	}
	return b
}

var bufferTypes = map[string]pjrt.BufferType{"f32": pjrt.BufferTypeF32, "bf16": pjrt.BufferTypeBF16, "i32": pjrt.BufferTypeS32, "i1": pjrt.BufferTypePRED}

// program is a compiled module of one result.
type program struct {
	exec *pjrt.LoadedExecutable
	out  ir.Type
}

func compile(t testing.TB, m *ir.Module) *program {
	c := client(t)
	exec, err := c.Compile([]byte(m.String()), nil)
	require.NoError(t, err)
	t.Cleanup(func() { exec.Destroy() })
	return &program{exec, m.Func("main").Results[0]}
}

func upload(t testing.TB, args []tensor) (bufs []*pjrt.Buffer) {
	c := client(t)
	return uploadTo(t, c, c.Devices()[0], args)
}

func uploadTo(t testing.TB, c *pjrt.Client, device *pjrt.Device, args []tensor) (bufs []*pjrt.Buffer) {
	for _, a := range args {
		elem, dims, _ := a.typ.Split()
		d := make([]int64, len(dims))
		for i := range d {
			d[i] = int64(dims[i])
		}
		buf, _, err := c.BufferFromHost(a.bytes(), bufferTypes[elem], d, device, pjrt.HostBufferSemanticsKImmutableOnlyDuringCall, nil)
		require.NoError(t, err)
		t.Cleanup(func() { buf.Destroy() })
		bufs = append(bufs, buf)
	}
	return bufs
}

// launch executes once and waits.
func (p *program) launch(t testing.TB, args []*pjrt.Buffer) *pjrt.Buffer {
	outs, done, err := p.exec.ExecuteOne(args, pjrt.ExecOptions{})
	require.NoError(t, err)
	require.NoError(t, done.Wait())
	return outs[0]
}

// run executes once and returns the result.
func (p *program) run(t testing.TB, args []tensor) []float32 {
	out := p.launch(t, upload(t, args))
	defer out.Destroy()
	elem, dims, _ := p.out.Split()
	n, width := elements(dims), 4
	switch elem {
	case "bf16":
		width = 2
	case "i1":
		width = 1
	}
	raw := make([]byte, n*width)
	require.NoError(t, out.ToHost(raw))
	got := make([]float32, n)
	for i := range got {
		switch width {
		case 1:
			got[i] = float32(raw[i])
		case 2:
			got[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(raw[2*i:])) << 16)
		default:
			got[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
	}
	return got
}
