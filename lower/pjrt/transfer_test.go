package pjrt

import (
	"errors"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

func TestHostMemory(t *testing.T) {
	c := client(t)
	const n = 1 << 16
	l := compile(t, c, addOne(n, false), CompileOptions{})
	tests := []struct {
		name   string
		sem    HostBufferSemantics
		offset int // bytes off the alignment
		alias  bool
	}{
		{"copied during the call", CopyDuringCall, 0, false},
		{"zero copy of aligned memory", ImmutableZeroCopy, 0, true},
		{"zero copy of misaligned memory copies", ImmutableZeroCopy, 4, false},
		{"mutable zero copy", MutableZeroCopy, 0, true},
		{"until transferred", UntilTransferred, 4, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data := AlignedBytes(4*n + HostAlignment)[tt.offset : tt.offset+4*n]
			copy(data, fill(n, 41))
			released := make(chan struct{})
			b, ev, err := c.BufferFromHost(data, BufferTypeF32, []int64{n}, nil, tt.sem, func() { close(released) })
			require.NoError(t, err)
			addr, err := b.UnsafePointer()
			require.NoError(t, err)
			require.Equal(t, tt.alias, addr == uintptr(unsafe.Pointer(unsafe.SliceData(data))))
			if tt.sem == CopyDuringCall {
				<-released
				clear(data)
			}
			runtime.GC()
			outs, _, err := l.ExecuteOne([]*Buffer{b}, ExecOptions{})
			require.NoError(t, err)
			require.Equal(t, float32(42), fetch(t, outs[0])[n-1])
			if tt.alias {
				require.False(t, ev.Ready(), "the buffer uses the memory")
			}
			require.NoError(t, outs[0].Destroy())
			require.NoError(t, b.Destroy())
			require.NoError(t, ev.Wait())
			<-released
		})
	}
}

func TestBufferQueries(t *testing.T) {
	c := client(t)
	data := make([]byte, 2*3*2)
	b, _, err := c.BufferFromHost(data, BufferTypeBF16, []int64{2, 3}, c.Devices()[3], CopyDuringCall, nil)
	require.NoError(t, err)
	require.Equal(t, BufferTypeBF16, b.Type())
	require.Equal(t, []int64{2, 3}, b.Dims())
	n, err := b.HostSize()
	require.NoError(t, err)
	require.Equal(t, 12, n)
	n, err = b.DeviceSize()
	require.NoError(t, err)
	require.GreaterOrEqual(t, n, 12)
	d, err := b.Device()
	require.NoError(t, err)
	require.Same(t, c.Devices()[3], d)
	require.Same(t, c, b.Client())

	require.False(t, b.Deleted())
	require.NoError(t, b.Delete())
	require.True(t, b.Deleted())
	require.Equal(t, []int64{2, 3}, b.Dims(), "deleted, not destroyed")
	require.Error(t, b.ToHost(make([]byte, 12)))
	require.NoError(t, b.Destroy())
	require.ErrorIs(t, b.Delete(), ErrDestroyed)
}

func TestScalarAndEmpty(t *testing.T) {
	c := client(t)
	scalar := put(t, c, 0, f32(7))
	require.Empty(t, scalar.Dims())
	require.Equal(t, []float32{7}, fetch(t, scalar))
	empty := put(t, c, 0, nil, 3, 0)
	require.Equal(t, []int64{3, 0}, empty.Dims())
	require.Empty(t, fetch(t, empty))
	require.NoError(t, empty.ToHost(nil))
	var none *Buffer
	require.NoError(t, none.Destroy())
	require.ErrorContains(t, none.ToHost(nil), "nil")
}

// The result comes row-major whatever the layout on the device is.
func TestToHostIsRowMajor(t *testing.T) {
	c := client(t)
	l := compile(t, c, []byte(`module @t {
  func.func public @main(%a: tensor<2x3xf32>) -> tensor<3x2xf32> {
    %r = stablehlo.transpose %a, dims = [1, 0] : (tensor<2x3xf32>) -> tensor<3x2xf32>
    return %r : tensor<3x2xf32>
  }
}`), CompileOptions{})
	outs, _, err := l.ExecuteOne([]*Buffer{put(t, c, 0, f32(1, 2, 3, 4, 5, 6), 2, 3)}, ExecOptions{})
	require.NoError(t, err)
	require.Equal(t, []float32{1, 4, 2, 5, 3, 6}, fetch(t, outs[0]))
}

func TestToHostAsync(t *testing.T) {
	c := client(t)
	b := put(t, c, 0, f32(1, 2, 3), 3)
	dst := make([]byte, 16) // larger than needed
	ev, err := b.ToHostAsync(dst)
	require.NoError(t, err)
	<-ev.Done()
	require.NoError(t, ev.Err())
	require.Equal(t, []float32{1, 2, 3, 0}, floats(dst))
	_, err = b.ToHostAsync(make([]byte, 4))
	require.Error(t, err)
}

func TestCopyToDevice(t *testing.T) {
	c := client(t)
	b := put(t, c, 0, f32(1, 2), 2)
	there, err := b.CopyToDevice(c.Devices()[6])
	require.NoError(t, err)
	d, err := there.Device()
	require.NoError(t, err)
	require.Same(t, c.Devices()[6], d)
	require.Equal(t, []float32{1, 2}, fetch(t, there))
	_, err = b.CopyToDevice(newClient(t, ClientOptions{}).Devices()[1])
	require.ErrorContains(t, err, "device 1 is of another client")
}

func TestTransferRefuses(t *testing.T) {
	c := client(t)
	b := put(t, c, 0, f32(1, 2), 2)
	require.ErrorContains(t, b.ToHost(nil), "0 bytes to copy a buffer of 8 bytes into")
	require.Error(t, b.ToHost(make([]byte, 4)))
	other := newClient(t, ClientOptions{}).Devices()[0]
	tests := []struct {
		name string
		n    int
		t    BufferType
		dims []int64
		d    *Device
		want string
	}{
		{"too little data", 12, BufferTypeF32, []int64{2, 2}, nil, "12 bytes of host data for f32[2 2], want 16"},
		{"too much data", 20, BufferTypeF32, []int64{2, 2}, nil, "20 bytes of host data"},
		{"negative dimension", 0, BufferTypeF32, []int64{-4}, nil, "dimensions [-4], want none negative"},
		{"overflow", 0, BufferTypeF32, []int64{1 << 40, 1 << 40}, nil, "more than 2^63 bytes"},
		{"token", 0, BufferTypeTOKEN, nil, nil, "no host form"},
		{"unknown type", 0, 99, nil, nil, "element type type 99"},
		{"another client's device", 4, BufferTypeF32, []int64{1}, other, "device 0 is of another client"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := c.BufferFromHost(make([]byte, tt.n), tt.t, tt.dims, tt.d, CopyDuringCall, func() { t.Error("released") })
			require.ErrorContains(t, err, tt.want)
		})
	}
}

// Every element type that is not refused survives a round trip of its bytes.
func TestElementTypes(t *testing.T) {
	c := client(t)
	for ty, x := range types {
		data := make([]byte, 4*x.bytes)
		for i := range data {
			data[i] = byte(i % 2)
		}
		b, _, err := c.BufferFromHost(data, ty, []int64{4}, nil, CopyDuringCall, nil)
		if err != nil {
			var e *Error
			require.ErrorAs(t, err, &e, "%v", ty)
			t.Logf("%v is not supported: %v", ty, err)
			continue
		}
		got := make([]byte, len(data))
		require.NoError(t, b.ToHost(got), "%v", ty)
		require.Equal(t, data, got, "%v", ty)
		require.Equal(t, ty, b.Type())
	}
	require.Equal(t, "f32[2,3]", Shape{BufferTypeF32, []int64{2, 3}}.String())
	require.Equal(t, "pred[]", Shape{BufferTypePRED, nil}.String())
}

// A release callback that panics is an error of the event, not the end of the process.
func TestPanicInRelease(t *testing.T) {
	c := client(t)
	b, ev, err := c.BufferFromHost(AlignedBytes(64), BufferTypeF32, []int64{16}, nil, ImmutableZeroCopy, func() { panic("in release") })
	require.NoError(t, err)
	require.NoError(t, b.Destroy())
	require.ErrorContains(t, ev.Wait(), "panic in a callback: in release")
	require.ErrorContains(t, ev.Err(), "in release")
}

func TestForgottenBuffers(t *testing.T) {
	c := client(t)
	live, before := LiveBuffers(), Collected()
	for range 200 {
		put(t, c, 0, fill(16, 1), 16)
	}
	eventually(t, func() bool { return LiveBuffers() <= live && Collected() >= before+200 }, "forgotten buffers are destroyed")
}

// One result that is kept keeps the others of its launch from the collector, not from Destroy.
func TestForgottenResults(t *testing.T) {
	c := client(t)
	l := compile(t, c, []byte(swap), CompileOptions{})
	live := LiveBuffers()
	kept := func() *Buffer {
		outs, _, err := l.ExecuteOne([]*Buffer{put(t, c, 0, f32(1, 2, 3), 3), put(t, c, 0, f32(4, 5), 2)}, ExecOptions{NoEvents: true})
		require.NoError(t, err)
		require.NoError(t, outs[0].Destroy())
		return outs[2]
	}()
	eventually(t, func() bool { return LiveBuffers() <= live+2 }, "arguments are collected")
	require.Equal(t, []float32{2, 4, 6}, fetch(t, kept))
	kept = nil
	_ = kept
	eventually(t, func() bool { return LiveBuffers() <= live }, "results are collected")
}

func TestErrorsCarryCode(t *testing.T) {
	c := client(t)
	_, err := c.Compile([]byte("module { func.func @main() { oops } }"), options(t, CompileOptions{}))
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "PJRT_Client_Compile", e.Op)
	require.NotEmpty(t, e.Message)
	require.True(t, errors.Is(err, &Error{Code: e.Code}))
	require.False(t, errors.Is(err, &Error{Code: ErrorCodeDATALOSS}))
	require.False(t, errors.Is(err, &Error{Code: e.Code, Message: "other"}))
	_, err = c.Compile(addOne(4, false), []byte{0xff, 0xff})
	require.ErrorAs(t, err, &e)
	_, err = c.Compile(addOne(4, false), options(t, CompileOptions{Overrides: map[string]any{"xla_no_such_flag": true}}))
	require.ErrorContains(t, err, "xla_no_such_flag")
	require.Equal(t, "not found", ErrorCodeNOTFOUND.String())
	require.Equal(t, "code 99", ErrorCode(99).String())
	require.NotEmpty(t, os.Getenv(LogEnv), "set by Load")
}
