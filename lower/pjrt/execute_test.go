package pjrt

import (
	"errors"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// allReduce8 is x -> x + the sum of x over 8 replicas, over x itself.
const allReduce8 = `module @ar attributes {mhlo.num_replicas = 8 : i32} {
  func.func public @main(%a: tensor<16xf32> {tf.aliasing_output = 0 : i32}) -> tensor<16xf32> {
    %s = "stablehlo.all_reduce"(%a) ({
      ^bb0(%x: tensor<f32>, %y: tensor<f32>):
        %z = stablehlo.add %x, %y : tensor<f32>
        stablehlo.return %z : tensor<f32>
    }) {replica_groups = dense<[[0,1,2,3,4,5,6,7]]> : tensor<1x8xi64>} : (tensor<16xf32>) -> tensor<16xf32>
    %r = stablehlo.add %a, %s : tensor<16xf32>
    return %r : tensor<16xf32>
  }
}`

// swap is (a [3], b [2]) -> (b, a, a+a).
const swap = `module @swap {
  func.func public @main(%a: tensor<3xf32>, %b: tensor<2xf32>) -> (tensor<2xf32>, tensor<3xf32>, tensor<3xf32>) {
    %s = stablehlo.add %a, %a : tensor<3xf32>
    return %b, %a, %s : tensor<2xf32>, tensor<3xf32>, tensor<3xf32>
  }
}`

func TestExecuteDonates(t *testing.T) {
	c := client(t)
	l := compile(t, c, addOne(4, true), CompileOptions{})
	require.Equal(t, 1, l.NumOutputs)
	b := put(t, c, 0, f32(1, 2, 3, 4), 4)
	outs, evs, err := l.Execute([][]*Buffer{{b}}, ExecOptions{})
	require.NoError(t, err)
	require.NoError(t, All(evs))
	require.True(t, b.Deleted(), "a donated buffer is gone")
	require.Equal(t, []float32{2, 3, 4, 5}, fetch(t, outs[0][0]))

	kept := put(t, c, 0, f32(1, 2, 3, 4), 4)
	_, evs, err = l.Execute([][]*Buffer{{kept}}, ExecOptions{NonDonatable: []int64{0}})
	require.NoError(t, err)
	require.NoError(t, All(evs))
	require.False(t, kept.Deleted(), "one that must not be donated is not")

	_, _, err = l.Execute([][]*Buffer{{b}}, ExecOptions{})
	var e *Error
	require.ErrorAs(t, err, &e, "a donated buffer cannot be used again")
	require.Equal(t, "PJRT_LoadedExecutable_Execute", e.Op)
	require.NoError(t, b.Destroy())
	require.NoError(t, b.Destroy())
}

func TestExecuteOne(t *testing.T) {
	c := client(t)
	l := compile(t, c, []byte(swap), CompileOptions{})
	args := []*Buffer{put(t, c, 0, f32(1, 2, 3), 3), put(t, c, 0, f32(4, 5), 2)}
	for _, o := range []ExecOptions{{}, {NoEvents: true}, {LaunchID: 7}} {
		outs, ev, err := l.ExecuteOne(args, o)
		require.NoError(t, err)
		require.Equal(t, o.NoEvents, ev == nil)
		require.NoError(t, ev.Wait())
		require.Len(t, outs, 3)
		require.Equal(t, []float32{4, 5}, fetch(t, outs[0]))
		require.Equal(t, []float32{1, 2, 3}, fetch(t, outs[1]))
		require.Equal(t, []float32{2, 4, 6}, fetch(t, outs[2]))
	}
}

// A portable program runs on the device it is sent to, one with a device assignment on its own.
func TestExecuteDevice(t *testing.T) {
	c := client(t)
	portable := compile(t, c, addOne(2, false), CompileOptions{})
	fixed := compile(t, c, addOne(2, false), CompileOptions{Devices: []int{5}})
	d := c.Devices()[5]
	for name, run := range map[string]func(*Buffer) ([]*Buffer, *Event, error){
		"portable": func(b *Buffer) ([]*Buffer, *Event, error) {
			return portable.ExecuteOne([]*Buffer{b}, ExecOptions{Device: d})
		},
		"fixed": func(b *Buffer) ([]*Buffer, *Event, error) { return fixed.ExecuteOne([]*Buffer{b}, ExecOptions{}) },
	} {
		outs, _, err := run(put(t, c, 5, f32(1, 2), 2))
		require.NoError(t, err, name)
		got, err := outs[0].Device()
		require.NoError(t, err)
		require.Equal(t, d, got, name)
		require.Equal(t, []float32{2, 3}, fetch(t, outs[0]), name)
	}
}

func TestEightDevices(t *testing.T) {
	c := client(t)
	l := compile(t, c, []byte(allReduce8), CompileOptions{Replicas: 8})
	require.Equal(t, 8, l.NumDevices)
	cur, want := make([][]*Buffer, 8), make([]float32, 8)
	for d := range cur {
		cur[d] = []*Buffer{put(t, c, d, fill(16, float32(d+1)), 16)}
		want[d] = float32(d + 1)
	}
	for step := range 5 {
		outs, evs, err := l.Execute(cur, ExecOptions{LaunchID: step})
		require.NoError(t, err)
		require.NoError(t, All(evs))
		sum := float32(0)
		for _, w := range want {
			sum += w
		}
		for d := range want {
			want[d] += sum
			require.True(t, cur[d][0].Deleted())
			require.NoError(t, cur[d][0].Destroy())
		}
		cur = outs
	}
	for d := range cur {
		require.Equal(t, want[d], fetch(t, cur[d][0])[15], "device %d", d)
	}
}

func TestExecuteRefuses(t *testing.T) {
	c := client(t)
	l := compile(t, c, []byte(swap), CompileOptions{})
	a, b := put(t, c, 0, f32(1, 2, 3), 3), put(t, c, 0, f32(4, 5), 2)
	gone := put(t, c, 0, f32(4, 5), 2)
	require.NoError(t, gone.Destroy())
	foreign := put(t, newClient(t, ClientOptions{}), 0, f32(4, 5), 2)
	elsewhere := put(t, c, 3, f32(4, 5), 2)
	tests := []struct {
		name string
		args [][]*Buffer
		want string
	}{
		{"no device", nil, "arguments for 0 devices, want 1"},
		{"two devices", [][]*Buffer{{a, b}, {a, b}}, "arguments for 2 devices, want 1"},
		{"too few arguments", [][]*Buffer{{a}}, "invalid argument"},
		{"no argument", [][]*Buffer{{}}, "invalid argument"},
		{"wrong shape", [][]*Buffer{{b, b}}, "invalid argument"},
		{"nil", [][]*Buffer{{a, nil}}, "argument 1 of device 0 is nil"},
		{"destroyed", [][]*Buffer{{a, gone}}, "argument 1 of device 0"},
		{"another client", [][]*Buffer{{a, foreign}}, "argument 1 of device 0 is of another client"},
		{"another device", [][]*Buffer{{a, elsewhere}}, "invalid argument"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := l.Execute(tt.args, ExecOptions{})
			require.ErrorContains(t, err, tt.want)
		})
	}
	ar := compile(t, c, []byte(allReduce8), CompileOptions{Replicas: 8})
	rows := make([][]*Buffer, 8)
	for d := range rows {
		rows[d] = []*Buffer{put(t, c, d, fill(16, 0), 16)}
	}
	rows[6] = nil
	_, _, err := ar.Execute(rows, ExecOptions{})
	require.ErrorContains(t, err, "0 arguments for device 6, 1 for device 0")
	// Refused launches let go of their arguments.
	live := LiveBuffers()
	require.NoError(t, a.Destroy())
	require.NoError(t, b.Destroy())
	require.Equal(t, live-2, LiveBuffers())
}

// poisoned makes a buffer [4] of float32 that holds an error.
func poisoned(t testing.TB, c *Client, code ErrorCode, message string) *Buffer {
	t.Helper()
	m := deviceDefaultMemoryArgs{device: c.Devices()[0].h}
	require.NoError(t, c.p.deviceDefaultMemory(&m))
	a := clientCreateErrorBufferArgs{client: c.h, errorCode: code, shapeElementType: BufferTypeF32, memory: m.memory}
	var ps pins
	defer ps.Unpin()
	a.errorMessage, a.errorMessageSize = ps.str(message)
	a.shapeDims, a.shapeNumDims = pinSlice(&ps, []int64{4})
	require.NoError(t, c.p.clientCreateErrorBuffer(&a))
	return c.newBuffer(a.buffer)
}

// An error that is part of an argument comes out of the launch, its event or its result.
func TestPoisonedArgument(t *testing.T) {
	c := client(t)
	l := compile(t, c, addOne(4, false), CompileOptions{})
	outs, ev, err := l.ExecuteOne([]*Buffer{poisoned(t, c, ErrorCodeDATALOSS, "made by the test")}, ExecOptions{})
	if err == nil {
		err = errors.Join(ev.Wait(), outs[0].ToHost(make([]byte, 16)))
	}
	var e *Error
	require.ErrorAs(t, err, &e)
	require.ErrorContains(t, err, "made by the test")
}

// A launch with no events makes the same few allocations however many results it has.
func TestExecuteAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("needs a build without -race, which allocates too")
	}
	c := client(t)
	one := compile(t, c, addOne(4, false), CompileOptions{})
	three := compile(t, c, []byte(swap), CompileOptions{})
	count := func(l *LoadedExecutable, args ...*Buffer) float64 {
		const runs = 100
		made := make([][]*Buffer, 0, runs+1)
		n := testing.AllocsPerRun(runs, func() {
			outs, _, err := l.ExecuteOne(args, ExecOptions{NoEvents: true})
			if err != nil {
				t.Error(err)
			}
			made = append(made, outs)
		})
		for _, outs := range made {
			for _, o := range outs {
				require.NoError(t, o.Destroy())
			}
		}
		return n
	}
	n1 := count(one, put(t, c, 0, fill(4, 0), 4))
	n3 := count(three, put(t, c, 0, f32(1, 2, 3), 3), put(t, c, 0, f32(4, 5), 2))
	t.Logf("%v allocations for one result, %v for three", n1, n3)
	require.LessOrEqual(t, n3, n1+1)
}

func BenchmarkExecuteOne(b *testing.B) {
	c := client(b)
	l := compile(b, c, []byte(swap), CompileOptions{})
	args := []*Buffer{put(b, c, 0, f32(1, 2, 3), 3), put(b, c, 0, f32(4, 5), 2)}
	for _, o := range []struct {
		name string
		o    ExecOptions
	}{{"events", ExecOptions{}}, {"no events", ExecOptions{NoEvents: true}}} {
		b.Run(o.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				outs, ev, err := l.ExecuteOne(args, o.o)
				if err != nil || ev.Wait() != nil {
					b.Fatal(err)
				}
				for _, x := range outs {
					_ = x.Destroy()
				}
			}
		})
	}
	runtime.KeepAlive(args)
}

// BenchmarkExecuteWide launches a program of 200 arguments and results, as a decode step has.
func BenchmarkExecuteWide(b *testing.B) {
	c := client(b)
	l := compile(b, c, wide(200), CompileOptions{})
	args := make([]*Buffer, 200)
	for i := range args {
		args[i] = put(b, c, 0, f32(1, 2, 3, 4), 4)
	}
	b.ReportAllocs()
	for b.Loop() {
		outs, _, err := l.ExecuteOne(args, ExecOptions{NoEvents: true})
		if err != nil {
			b.Fatal(err)
		}
		for i, x := range args {
			_ = x.Destroy()
			args[i] = outs[i]
		}
	}
}
