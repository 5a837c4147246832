package pass

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/ir"
	"mix/lower/pjrt"
	"mix/sharding"
)

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
		bufs[d] = uploadTo(t, c, c.Devices()[d], args)
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
