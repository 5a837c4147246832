package pjrt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"mix/lower/plugin"
)

// load returns the CPU plugin, installing it if need be.
var load = sync.OnceValues(func() (*Plugin, error) {
	path, err := plugin.Ensure(context.Background(), plugin.Options{Progress: os.Stderr})
	if err != nil {
		return nil, err
	}
	return Load(path)
})

func cpu(t testing.TB) *Plugin {
	t.Helper()
	p, err := load()
	if err != nil {
		t.Skip("needs the CPU plugin: ", err)
	}
	return p
}

var eight = sync.OnceValues(func() (*Client, error) {
	p, err := load()
	if err != nil {
		return nil, err
	}
	return p.NewClient(ClientOptions{Options: map[string]any{"cpu_device_count": 8}})
})

// client returns the 8-device client that all tests share.
func client(t testing.TB) *Client {
	t.Helper()
	cpu(t)
	c, err := eight()
	require.NoError(t, err)
	return c
}

// newClient makes a client of one test.
func newClient(t testing.TB, o ClientOptions) *Client {
	t.Helper()
	if o.Options == nil {
		o.Options = map[string]any{"cpu_device_count": 2}
	}
	c, err := cpu(t).NewClient(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Destroy()) })
	return c
}

func options(t testing.TB, o CompileOptions) []byte {
	t.Helper()
	b, err := o.Marshal()
	require.NoError(t, err)
	return b
}

func compile(t testing.TB, c *Client, code []byte, o CompileOptions) *LoadedExecutable {
	t.Helper()
	l, err := c.Compile(code, options(t, o))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Destroy()) })
	return l
}

func put(t testing.TB, c *Client, d int, data []byte, dims ...int64) *Buffer {
	t.Helper()
	b, _, err := c.BufferFromHost(data, BufferTypeF32, dims, c.Devices()[d], CopyDuringCall, nil)
	require.NoError(t, err)
	return b
}

// fetch reads a buffer of float32.
func fetch(t testing.TB, b *Buffer) []float32 {
	t.Helper()
	n, err := b.HostSize()
	require.NoError(t, err)
	got := make([]byte, n)
	require.NoError(t, b.ToHost(got))
	return floats(got)
}

func f32(v ...float32) []byte {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

func floats(b []byte) []float32 {
	v := make([]float32, len(b)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return v
}

func fill(n int, v float32) []byte { return bytes.Repeat(f32(v), n) }

// addOne is x [n] -> x+1, over x itself when it donates.
func addOne(n int, donate bool) []byte {
	attr := ""
	if donate {
		attr = " {tf.aliasing_output = 0 : i32}"
	}
	return fmt.Appendf(nil, `module @m {
  func.func public @main(%%a: tensor<%[1]dxf32>%[2]s) -> tensor<%[1]dxf32> {
    %%c = stablehlo.constant dense<1.0> : tensor<%[1]dxf32>
    %%r = stablehlo.add %%a, %%c : tensor<%[1]dxf32>
    return %%r : tensor<%[1]dxf32>
  }
}`, n, attr)
}

// products is k matrix products of [n, n] with one another.
func products(n, k int) []byte {
	var b bytes.Buffer
	ty := fmt.Sprintf("tensor<%dx%dxf32>", n, n)
	fmt.Fprintf(&b, "module @slow {\n func.func public @main(%%v0: %s) -> %s {\n", ty, ty)
	for i := range k {
		fmt.Fprintf(&b, "  %%v%d = stablehlo.dot_general %%v%d, %%v0, contracting_dims = [1] x [0] : (%s, %s) -> %s\n", i+1, i, ty, ty, ty)
	}
	fmt.Fprintf(&b, "  return %%v%d : %s\n }\n}\n", k, ty)
	return b.Bytes()
}

// eventually collects garbage until ok holds.
func eventually(t testing.TB, ok func() bool, what string) {
	t.Helper()
	for range 500 {
		runtime.GC()
		if ok() {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	t.Fatal("never: " + what)
}

func TestClient(t *testing.T) {
	c := client(t)
	name, version := c.Platform()
	require.Equal(t, "cpu", name)
	require.NotEmpty(t, version)
	require.Len(t, c.Devices(), 8)
	require.Equal(t, 8, c.NumDevices())
	require.Equal(t, 0, c.ProcessIndex())
	require.Equal(t, "cpu", c.Devices()[7].Kind)
	require.Equal(t, "device 7", c.Devices()[7].String())
	attrs, err := c.Plugin().Attributes()
	require.NoError(t, err)
	require.Contains(t, attrs, "stablehlo_current_version")
	require.Contains(t, c.Plugin().Extensions(), ExtensionTypeFFI)
}

func TestClientRefuses(t *testing.T) {
	p := cpu(t)
	_, err := p.NewClient(ClientOptions{Options: map[string]any{"cpu_device_count": 2.5}})
	require.ErrorContains(t, err, `option "cpu_device_count" has type float64`)
	_, err = Load("/nonexistent.so")
	require.ErrorContains(t, err, "/nonexistent.so")
}

// Every use after the client's end is an error, not a crash, and destroying is then no work.
func TestUseAfterClientDestroy(t *testing.T) {
	c, err := cpu(t).NewClient(ClientOptions{Options: map[string]any{"cpu_device_count": 2}})
	require.NoError(t, err)
	l, err := c.Compile(addOne(4, false), options(t, CompileOptions{}))
	require.NoError(t, err)
	b := put(t, c, 0, fill(4, 1), 4)
	outs, ev, err := l.ExecuteOne([]*Buffer{b}, ExecOptions{})
	require.NoError(t, err)
	top, err := c.Topology()
	require.NoError(t, err)
	before := LiveBuffers()
	require.NoError(t, c.Destroy())
	require.NoError(t, c.Destroy())
	require.Equal(t, before-2, LiveBuffers(), "the client destroys its buffers")

	require.ErrorIs(t, ev.Wait(), ErrDestroyed)
	require.ErrorIs(t, b.ToHost(make([]byte, 16)), ErrDestroyed)
	require.True(t, b.Deleted())
	require.Nil(t, b.Dims())
	require.Equal(t, BufferTypeINVALID, outs[0].Type())
	_, err = b.Ready()
	require.ErrorIs(t, err, ErrDestroyed)
	_, _, err = l.ExecuteOne([]*Buffer{b}, ExecOptions{})
	require.ErrorIs(t, err, ErrDestroyed)
	_, err = l.Exec.Serialize()
	require.ErrorIs(t, err, ErrDestroyed)
	_, err = top.CompileAOT(nil, nil)
	require.ErrorIs(t, err, ErrDestroyed)
	_, err = c.Compile(nil, nil)
	require.ErrorIs(t, err, ErrDestroyed)
	_, _, err = c.BufferFromHost(nil, BufferTypeF32, []int64{0}, nil, CopyDuringCall, nil)
	require.ErrorIs(t, err, ErrDestroyed)
	require.Zero(t, c.NumDevices())
	require.NoError(t, b.Destroy())
	require.NoError(t, outs[0].Destroy())
	require.NoError(t, l.Destroy())
}

// Destroy during use waits for the calls inside, whatever they are.
func TestDestroyDuringUse(t *testing.T) {
	for range times(20) {
		c, err := cpu(t).NewClient(ClientOptions{Options: map[string]any{"cpu_device_count": 1}})
		require.NoError(t, err)
		l, err := c.Compile(products(64, 8), options(t, CompileOptions{}))
		require.NoError(t, err)
		in := put(t, c, 0, fill(64*64, 0), 64, 64)
		var wg sync.WaitGroup
		started := make(chan struct{}, 16)
		for g := range 8 {
			wg.Go(func() {
				var err error
				defer func() { started <- struct{}{} }() // also if it fails early
				for i := 0; err == nil; i++ {
					if i == 2 {
						started <- struct{}{}
					}
					var outs []*Buffer
					var ev *Event
					if outs, ev, err = l.ExecuteOne([]*Buffer{in}, ExecOptions{}); err != nil {
						break
					}
					switch g % 4 {
					case 0:
						err = ev.Wait()
					case 1:
						err = ev.WaitContext(t.Context())
					case 2:
						err = outs[0].ToHost(make([]byte, 64*64*4))
					}
					if i%2 == 0 {
						_ = outs[0].Destroy()
					}
				}
				if !errorsIsDestroyed(err) {
					t.Errorf("goroutine %d: %v", g, err)
				}
			})
		}
		for range 8 {
			<-started
		}
		require.NoError(t, c.Destroy())
		wg.Wait()
	}
}

// A buffer or executable destroyed by one goroutine is an error for the others.
func TestDestroyOneDuringUse(t *testing.T) {
	c := client(t)
	for range times(50) {
		l, err := c.Compile(addOne(4, false), options(t, CompileOptions{}))
		require.NoError(t, err)
		b := put(t, c, 0, fill(4, 1), 4)
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for range 200 {
					outs, _, err := l.ExecuteOne([]*Buffer{b}, ExecOptions{NoEvents: true})
					if err != nil {
						if !errorsIsDestroyed(err) {
							t.Error(err)
						}
						return
					}
					_ = outs[0].Destroy()
				}
			})
			if g == 1 {
				wg.Go(func() { _ = b.Destroy() })
				wg.Go(func() { _ = l.Destroy() })
			}
		}
		wg.Wait()
	}
}

// Zero-copied memory is let go when the client goes.
func TestClientDestroyReleasesHostMemory(t *testing.T) {
	c, err := cpu(t).NewClient(ClientOptions{Options: map[string]any{"cpu_device_count": 1}})
	require.NoError(t, err)
	released := make(chan struct{})
	_, ev, err := c.BufferFromHost(AlignedBytes(4096), BufferTypeF32, []int64{1024}, nil, ImmutableZeroCopy, func() { close(released) })
	require.NoError(t, err)
	require.NoError(t, c.Destroy())
	require.NoError(t, ev.Wait())
	<-released
}

func errorsIsDestroyed(err error) bool { return errors.Is(err, ErrDestroyed) }

// wide is n arrays [4], each returned in its own place.
func wide(n int) []byte {
	var in, types, out bytes.Buffer
	for i := range n {
		sep := ", "
		if i == 0 {
			sep = ""
		}
		fmt.Fprintf(&in, "%s%%a%d: tensor<4xf32> {tf.aliasing_output = %d : i32}", sep, i, i)
		fmt.Fprintf(&types, "%stensor<4xf32>", sep)
		fmt.Fprintf(&out, "%s%%a%d", sep, i)
	}
	return fmt.Appendf(nil, "module @wide {\n  func.func public @main(%s) -> (%s) {\n    return %s : %s\n  }\n}\n", &in, &types, &out, &types)
}
