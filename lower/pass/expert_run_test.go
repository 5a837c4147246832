package pass

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/ir"
	"mix/lower/pjrt"
	"mix/lower/plugin"
	"mix/sharding"
)

// two is a CPU client of two devices.
var two = sync.OnceValues(func() (*pjrt.Client, error) {
	path, err := plugin.Ensure(context.Background(), plugin.Options{Platform: "cpu"})
	if err != nil {
		return nil, err
	}
	p, err := pjrt.Load(path)
	if err != nil {
		return nil, err
	}
	return p.NewClient(pjrt.ClientOptions{Options: map[string]any{"cpu_device_count": int64(2)}})
})

// onTwo lowers m for a mesh of two devices. The program takes arguments and gives results of f32, whole on both.
func onTwo(t *testing.T, m *ir.Module, ctx Context) func(args []tensor) (results [][]float32) {
	t.Helper()
	c, err := two()
	if err != nil {
		t.Skipf("needs the CPU plugin: %v", err)
	}
	main := m.Func("main")
	m.Globals = append(m.Globals, MeshOp(ctx.Mesh))
	whole := func(types []ir.Type) (attrs []ir.Attrs) {
		for _, typ := range types {
			_, dims, _ := typ.Split()
			attrs = append(attrs, ir.Attrs{"sdy.sharding": ShardingAttr(make(sharding.Spec, len(dims)))})
		}
		return attrs
	}
	main.ParamAttrs, main.ResultAttrs = whole(ir.Types(main.Params())), whole(main.Results)
	_, err = Run(m, ctx, All(), Hooks{Verify: true})
	require.NoError(t, err)
	copts, err := pjrt.CompileOptions{Partitions: 2, Shardy: true}.Marshal()
	require.NoError(t, err)
	m.Attrs = ir.Attrs{"mhlo.num_partitions": ir.I32(2), "mhlo.num_replicas": ir.I32(1)}
	exec, err := c.Compile([]byte(m.String()), copts)
	require.NoError(t, err)
	t.Cleanup(func() { exec.Destroy() })
	return func(args []tensor) [][]float32 { return launchOnTwo(t, c, exec, main.Results, args) }
}

func launchOnTwo(t *testing.T, c *pjrt.Client, exec *pjrt.LoadedExecutable, types []ir.Type, args []tensor) (results [][]float32) {
	bufs := make([][]*pjrt.Buffer, 2)
	for d := range bufs {
		for _, a := range args {
			elem, dims, _ := a.typ.Split()
			sizes := make([]int64, len(dims))
			for i := range sizes {
				sizes[i] = int64(dims[i])
			}
			buf, _, err := c.BufferFromHost(a.bytes(), bufferTypes[elem], sizes, c.Devices()[d], pjrt.HostBufferSemanticsKImmutableOnlyDuringCall, nil)
			require.NoError(t, err)
			defer buf.Destroy()
			bufs[d] = append(bufs[d], buf)
		}
	}
	outs, events, err := exec.Execute(bufs, pjrt.ExecOptions{})
	require.NoError(t, err)
	for d, e := range events {
		require.NoError(t, e.Wait())
		for i, out := range outs[d] {
			_, dims, _ := types[i].Split()
			raw := make([]byte, 4*elements(dims))
			require.NoError(t, out.ToHost(raw))
			out.Destroy()
			got := make([]float32, len(raw)/4)
			for j := range got {
				got[j] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*j:]))
			}
			if d == 0 {
				results = append(results, got)
			} else {
				require.Equal(t, results[i], got, "result %d of both devices", i)
			}
		}
	}
	return results
}

func elements(dims []int) int {
	n := 1
	for _, d := range dims {
		n *= d
	}
	return n
}

// drops tells which rows find no room: of each device's tokens those of an expert after the first room.
func drops(chosen []float32, devices, room int) []bool {
	dropped := make([]bool, len(chosen))
	for d := range devices {
		share, seen := len(chosen)/devices, map[float32]int{}
		for i := d * share; i < (d+1)*share; i++ {
			dropped[i] = seen[chosen[i]] >= room
			seen[chosen[i]]++
		}
	}
	return dropped
}

// TestCapacityDrops holds a layer with a capacity to one that drops nothing and is given weight zero for the rows that are
// to be dropped: result and gradients are equal, but that dropped rows' weights have gradient zero.
func TestCapacityDrops(t *testing.T) {
	l, ctx := layer{"f32", 24, 2, 8, 4, 6, true}, on(t, "expert=2", "")
	dropless := onTwo(t, l.gradientModule(false), ctx)
	for _, test := range []struct {
		factor float64
		room   int // of 12 tokens a device, 24 rows, 4 experts
	}{{1.25, 8}, {0.01, 1}, {100, 12}} {
		ctx.Capacity = test.factor
		program := onTwo(t, l.gradientModule(false), ctx)
		for name, route := range map[string]routing{"even": uniform, "ragged": ragged} {
			t.Run(fmt.Sprint(name, " ", test.factor), func(t *testing.T) {
				r := rand.New(rand.NewPCG(3, 4))
				args := append(l.args(r, route), random(r, l.types()[0], 1))
				got := program(args)
				count, dropped := 0, drops(args[1].data, 2, test.room)
				for i, d := range dropped {
					if d {
						args[2].data[i] = 0
						count++
					}
				}
				require.Equal(t, test.factor == 100, count == 0, "the test drops rows")
				want := dropless(args)
				for i, d := range dropped {
					if d {
						want[2][i] = 0
					}
				}
				for i := range want {
					diff, scale := apart(got[i], want[i])
					t.Logf("%d rows dropped, result %d: largest difference %.2g of %.2g", count, i, diff, scale)
					require.LessOrEqual(t, diff, 1e-6*scale, "result %d", i)
				}
			})
		}
	}
}
