package pjrt

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// times scales the work of a stress test: a tenth with -short or -race.
func times(n int) int {
	if testing.Short() || raceEnabled {
		return max(n/10, 1)
	}
	return n
}

// rss is the resident memory of the process in MiB; 0 where it cannot be read.
func rss() int {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var all, resident int
	fmt.Sscan(string(b), &all, &resident)
	return resident * os.Getpagesize() >> 20
}

// Compile, run, destroy, with the collector as busy as it can be, leaves nothing behind.
func TestCycles(t *testing.T) {
	c := client(t)
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				runtime.GC()
			}
		}
	})
	live := LiveBuffers()
	for i := range times(200) {
		n := 64 + i%7
		l, err := c.Compile(addOne(n, true), options(t, CompileOptions{}))
		require.NoError(t, err)
		b := put(t, c, 0, fill(n, float32(i)), int64(n))
		for range 3 {
			outs, ev, err := l.ExecuteOne([]*Buffer{b}, ExecOptions{})
			require.NoError(t, err)
			require.NoError(t, b.Destroy())
			b = outs[0]
			if i%2 == 0 {
				<-ev.Done()
			}
			require.NoError(t, ev.Wait())
		}
		got := make([]byte, 4*n)
		ev, err := b.ToHostAsync(got)
		require.NoError(t, err)
		require.NoError(t, ev.Wait())
		require.Equal(t, float32(i)+3, floats(got)[n-1])
		require.NoError(t, b.Destroy())
		require.NoError(t, l.Destroy())
	}
	close(stop)
	wg.Wait()
	eventually(t, func() bool { return LiveBuffers() <= live && PendingCallbacks() == 0 }, "nothing is left")
	t.Logf("RSS %d MiB", rss())
}

// 32 goroutines launch, transfer and wait in every way at once.
func TestGoroutines(t *testing.T) {
	c := client(t)
	l := compile(t, c, addOne(1000, true), CompileOptions{})
	var wg sync.WaitGroup
	for g := range 32 {
		wg.Go(func() {
			for i := range times(300) {
				want := float32(g*1000 + i)
				if got, err := roundTrip(c, l, want, i); err != nil || got != want+1 {
					t.Errorf("goroutine %d: %v, %v, want %v", g, got, err, want+1)
					return
				}
			}
		})
	}
	wg.Wait()
	eventually(t, func() bool { return PendingCallbacks() == 0 }, "no callback is pending")
}

// roundTrip sends v to the device, adds one there and fetches the result.
func roundTrip(c *Client, l *LoadedExecutable, v float32, way int) (float32, error) {
	data := AlignedBytes(4000)
	copy(data, fill(1000, v))
	b, _, err := c.BufferFromHost(data, BufferTypeF32, []int64{1000}, nil, HostBufferSemantics(way%4), nil)
	if err != nil {
		return 0, err
	}
	defer b.Destroy()
	outs, run, err := l.ExecuteOne([]*Buffer{b}, ExecOptions{})
	if err != nil {
		return 0, err
	}
	defer outs[0].Destroy()
	got := make([]byte, 4000)
	ev, err := outs[0].ToHostAsync(got)
	if err != nil {
		return 0, err
	}
	if way%2 == 0 {
		<-ev.Done()
		err = run.Wait()
	} else {
		err = run.WaitContext(context.Background())
	}
	if err == nil {
		err = ev.Wait()
	}
	return floats(got)[999], err
}

// Clients come and go, and with them their threads, which have called into Go.
func TestClientsComeAndGo(t *testing.T) {
	for range times(40) {
		c, err := cpu(t).NewClient(ClientOptions{Options: map[string]any{"cpu_device_count": 2}})
		require.NoError(t, err)
		l, err := c.Compile(products(128, 6), options(t, CompileOptions{}))
		require.NoError(t, err)
		in := put(t, c, 0, fill(128*128, 0), 128, 128)
		for range 20 {
			outs, ev, err := l.ExecuteOne([]*Buffer{in}, ExecOptions{})
			require.NoError(t, err)
			<-ev.Done()
			require.NoError(t, ev.Err())
			require.NoError(t, outs[0].Destroy())
		}
		require.NoError(t, c.Destroy())
	}
}

// Threads that the Go runtime made and that have called into XLA end cleanly.
func TestThreadsEnd(t *testing.T) {
	c := client(t)
	b := put(t, c, 0, f32(1))
	for range times(20) {
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				runtime.LockOSThread() // the thread ends with the goroutine
				e, err := b.Ready()
				if err != nil {
					t.Error(err)
					return
				}
				<-e.Done()
				if err := b.ToHost(make([]byte, 4)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
}

// Programs with long chains compile on the stacks of threads that the Go runtime made.
func TestDeepCompile(t *testing.T) {
	c := client(t)
	var wg sync.WaitGroup
	for g := range 3 {
		wg.Go(func() {
			runtime.LockOSThread() // a thread of its own
			l, err := c.Compile(deep(times(1200)+g), nil)
			if err != nil {
				t.Error(err)
				return
			}
			_ = l.Destroy()
		})
	}
	wg.Wait()
}

// deep is a chain of n operations that XLA cannot fold: sines and products with a parameter.
func deep(n int) []byte {
	var b bytes.Buffer
	b.WriteString("module @deep {\n func.func public @main(%v0: tensor<8xf32>, %p: tensor<8xf32>) -> tensor<8xf32> {\n")
	for i := range n {
		if i%2 == 0 {
			fmt.Fprintf(&b, "  %%v%d = stablehlo.multiply %%v%d, %%p : tensor<8xf32>\n", i+1, i)
		} else {
			fmt.Fprintf(&b, "  %%v%d = stablehlo.sine %%v%d : tensor<8xf32>\n", i+1, i)
		}
	}
	fmt.Fprintf(&b, "  return %%v%d : tensor<8xf32>\n }\n}\n", n)
	return b.Bytes()
}
