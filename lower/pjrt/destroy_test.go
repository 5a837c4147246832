package pjrt

import (
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/ebitengine/purego"
	"github.com/stretchr/testify/require"
)

// destroying is the client that a wrapped C function begins to destroy, once, after it has done its
// work and before it returns; destroyed tells when that has ended.
var (
	destroying atomic.Pointer[Client]
	destroyed  = make(chan error, 1)
	wrapped    [2]uintptr // the C functions
	wrappers   = [2]uintptr{
		purego.NewCallback(func(a uintptr) uintptr { return thenDestroy(0, a) }),
		purego.NewCallback(func(a uintptr) uintptr { return thenDestroy(1, a) }),
	}
)

func thenDestroy(i int, args uintptr) uintptr {
	r := call1(wrapped[i], ptr(args))
	// PJRT_Buffer_ToHostBuffer is also called for the size, with no destination.
	if i == 1 && (*bufferToHostBufferArgs)(ptr(args)).dst == nil {
		return r
	}
	if c := destroying.Swap(nil); c != nil {
		go func() { destroyed <- c.Destroy() }()
		for c.life.n.Load() >= 0 {
			runtime.Gosched()
		}
	}
	return r
}

// ending makes a client whose transfer functions are wrapped.
func ending(t *testing.T) *Client {
	t.Helper()
	p := cpu(t)
	table := *p.api
	for i, f := range []fn{fnClientBufferFromHostBuffer, fnBufferToHostBuffer} {
		wrapped[i], table.fns[f] = p.fn(f), wrappers[i]
	}
	c, err := (&Plugin{api: &table, n: p.n}).NewClient(ClientOptions{Options: map[string]any{"cpu_device_count": 1}})
	require.NoError(t, err)
	return c
}

// Memory that a call has handed over stays pinned and unreleased until XLA is done with it, though the
// client's Destroy begins while the call is inside.
func TestDestroyDuringBufferFromHost(t *testing.T) {
	c := ending(t)
	destroying.Store(c)
	inside := make(chan int64, 1)
	data := AlignedBytes(1 << 12)
	_, ev, err := c.BufferFromHost(data, BufferTypeF32, []int64{1 << 10}, nil, MutableZeroCopy, func() {
		inside <- c.life.n.Load() - closedBit // calls inside the client
	})
	require.NoError(t, err)
	require.NoError(t, <-destroyed)
	require.NoError(t, ev.Wait())
	require.Zero(t, <-inside, "released before Destroy could free the buffer")
	require.Zero(t, PendingCallbacks())
}

func TestDestroyDuringToHost(t *testing.T) {
	want := fill(1<<20, 7)
	for name, read := range map[string]func(b *Buffer, dst []byte) error{
		"waiting": (*Buffer).ToHost,
		"asynchronous": func(b *Buffer, dst []byte) error {
			ev, err := b.ToHostAsync(dst)
			if err != nil {
				return err
			}
			return ev.Wait()
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := ending(t)
			b := put(t, c, 0, want, 1<<20)
			got := make([]byte, 4<<20)
			destroying.Store(c)
			require.NoError(t, read(b, got), "the copy was started before Destroy")
			require.Equal(t, want, got)
			require.NoError(t, <-destroyed)
			require.ErrorIs(t, read(b, got), ErrDestroyed)
			require.Zero(t, PendingCallbacks())
		})
	}
}
