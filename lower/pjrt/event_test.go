package pjrt

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/ebitengine/purego"
	"github.com/stretchr/testify/require"
)

// start launches work that takes a while and returns its event and result.
func start(t testing.TB, c *Client, n, k int) (*Event, *Buffer) {
	t.Helper()
	l := compile(t, c, products(n, k), CompileOptions{})
	in := put(t, c, 0, fill(n*n, 0), int64(n), int64(n))
	outs, ev, err := l.ExecuteOne([]*Buffer{in}, ExecOptions{})
	require.NoError(t, err)
	require.NoError(t, in.Destroy(), "an argument can go while the program runs")
	return ev, outs[0]
}

// All ways of waiting, at once on one event, agree.
func TestWait(t *testing.T) {
	c := client(t)
	ways := []func(*Event) error{
		(*Event).Wait,
		(*Event).Err,
		func(e *Event) error { return e.WaitContext(context.Background()) },
		func(e *Event) error { <-e.Done(); return e.Err() },
		func(e *Event) error {
			for !e.Ready() {
				runtime.Gosched()
			}
			return e.Wait()
		},
	}
	for first := range ways {
		ev, out := start(t, c, 128, 10)
		var wg sync.WaitGroup
		for i := range ways {
			wg.Go(func() {
				if err := ways[(first+i)%len(ways)](ev); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.True(t, ev.Ready())
		ready, err := out.Ready()
		require.NoError(t, err)
		require.NoError(t, ready.Wait())
	}
	require.Zero(t, PendingCallbacks())
}

// awaiting is sent to when a stubbed PJRT_Event_Await is entered; awaited lets it return.
var awaiting, awaited = make(chan struct{}), make(chan struct{})

var stubAwait = purego.NewCallback(func(*eventAwaitArgs) uintptr {
	awaiting <- struct{}{}
	<-awaited
	return 0
})

// While a Wait is inside C the event can be asked, and waited for by others.
func TestWaitDoesNotHoldTheLock(t *testing.T) {
	c := client(t)
	table := *c.p.api
	table.fns[fnEventAwait] = stubAwait
	stubbed := &Plugin{api: &table, n: c.p.n}
	a := bufferReadyEventArgs{buffer: put(t, c, 0, f32(1)).g.bufs[0].h}
	require.NoError(t, c.p.bufferReadyEvent(&a))
	ev := (&Client{p: stubbed}).newEvent("test", a.event, nil)
	done := make(chan error, 2)
	go func() { done <- ev.Wait() }()
	<-awaiting
	require.False(t, ev.Ready())
	select {
	case <-ev.Done():
		t.Fatal("done before C is")
	default:
	}
	go func() { done <- ev.WaitContext(context.Background()) }()
	awaited <- struct{}{}
	require.NoError(t, <-done)
	require.NoError(t, <-done)
	require.True(t, ev.Ready())
}

func TestEventError(t *testing.T) {
	c := client(t)
	b := poisoned(t, c, ErrorCodeDATALOSS, "made by the test")
	for name, wait := range map[string]func(*Event) error{"Wait": (*Event).Wait, "Err": (*Event).Err} {
		ev, err := b.Ready()
		require.NoError(t, err)
		err = wait(ev)
		require.ErrorIs(t, err, &Error{Code: ErrorCodeDATALOSS}, name)
		require.EqualError(t, err, "buffer: data loss: made by the test", name)
	}
}

func TestWaitContextGivesUp(t *testing.T) {
	c := client(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b, ev, err := c.BufferFromHost(AlignedBytes(64), BufferTypeF32, []int64{16}, nil, ImmutableZeroCopy, nil)
	require.NoError(t, err)
	require.ErrorIs(t, ev.WaitContext(ctx), context.Canceled, "the buffer still uses its memory")
	require.NoError(t, b.Destroy())
	require.NoError(t, ev.WaitContext(t.Context()))
}

func TestNilEvent(t *testing.T) {
	var e *Event
	require.True(t, e.Ready())
	require.NoError(t, e.Wait())
	require.NoError(t, e.Err())
	require.NoError(t, e.WaitContext(t.Context()))
	<-e.Done()
	require.NoError(t, All([]*Event{e, nil}))
}

// Events that nobody waits for are destroyed once they are garbage.
func TestForgottenEvents(t *testing.T) {
	c := client(t)
	runtime.GC()
	l := compile(t, c, addOne(4, false), CompileOptions{})
	in := put(t, c, 0, fill(4, 1), 4)
	eventually(t, func() bool { return liveEvents.Load() == 0 }, "events of other tests are gone")
	for range 100 {
		_, _, err := l.ExecuteOne([]*Buffer{in}, ExecOptions{})
		require.NoError(t, err)
	}
	require.NotZero(t, liveEvents.Load())
	eventually(t, func() bool { return liveEvents.Load() == 0 }, "forgotten events are destroyed")
}

// Callbacks come on threads that Go did not make, and may call into C and Go again.
func TestNestedCallbacks(t *testing.T) {
	c := client(t)
	l := compile(t, c, products(128, 8), CompileOptions{})
	one := put(t, c, 0, f32(1))
	for i := range 20 {
		released := make(chan struct{})
		data := AlignedBytes(4 * 128 * 128)
		in, _, err := c.BufferFromHost(data, BufferTypeF32, []int64{128, 128}, nil, ImmutableZeroCopy, func() {
			defer close(released)
			var grow [64 << 10]byte // the goroutine's stack grows in the callback
			grow[i*1000] = 1
			e, err := one.Ready()
			if err != nil {
				t.Error(err)
				return
			}
			<-e.Done()
			if _, err := c.Compile([]byte("module {"), nil); err == nil {
				t.Error("compiled")
			}
		})
		require.NoError(t, err)
		outs, ev, err := l.ExecuteOne([]*Buffer{in}, ExecOptions{})
		require.NoError(t, err)
		require.NoError(t, in.Destroy()) // the program still runs: the release comes from its thread
		require.NoError(t, ev.Wait())
		select {
		case <-released:
		case <-time.After(time.Minute):
			t.Fatal("not released in a minute")
		}
		require.NoError(t, outs[0].Destroy())
	}
}
