package pass

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/aot"
	"mix/lower/ir"
	"mix/lower/pjrt"
	"mix/lower/plugin"
	"mix/lower/target"
	"mix/sharding"
)

// TestMain is also the worker that compiles ahead of time.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "work" {
		if err := aot.Work(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// ahead compiles m for H200s that need not be here, after all passes.
func ahead(t *testing.T, m *ir.Module, mesh string) *aot.Result {
	t.Helper()
	if testing.Short() {
		t.Skip("compiles kernels of full size: not in short mode")
	}
	path, err := plugin.Find(plugin.CUDA)
	if errors.Is(err, plugin.ErrNotFound) {
		t.Skip("needs the CUDA plugin, which cmd/compile installs: " + err.Error())
	}
	require.NoError(t, err)
	tools, err := plugin.EnsureTools(t.Context(), path, plugin.Options{Platform: plugin.CUDA})
	if errors.Is(err, plugin.ErrDownload) {
		t.Skip("needs the tools of the CUDA plugin: " + err.Error())
	}
	require.NoError(t, err)
	ctx := Context{Platform: target.CUDA}
	ctx.Mesh, err = sharding.ParseMesh(mesh)
	require.NoError(t, err)
	ctx.Rules = sharding.Derive(ctx.Mesh)
	devices := ctx.Mesh.Devices()
	if devices > 1 {
		m.Globals = append(m.Globals, MeshOp(ctx.Mesh))
		m.Attrs = ir.Attrs{"mhlo.num_partitions": ir.I32(devices), "mhlo.num_replicas": ir.I32(1)}
	}
	_, err = Run(m, ctx, All(), Hooks{})
	require.NoError(t, err)
	require.NoError(t, ir.Verify(m), "a composite was not taken, or badly")
	chip, err := target.LookupChip("h200")
	require.NoError(t, err)
	platform, err := target.Lookup(target.CUDA)
	require.NoError(t, err)
	options, err := pjrt.CompileOptions{Partitions: devices, Shardy: devices > 1, Overrides: platform.Overrides}.Marshal()
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	x, err := aot.Compile(t.Context(), aot.Request{Program: "kernels", Text: m.String(), Options: options, Chip: chip, Devices: devices,
		Plugin: path, Tools: tools, Command: []string{self, "work"}})
	require.NoError(t, err)
	return x
}

// holds checks that the kernels are there, wide ones on the matrix unit, that none of ours keeps registers in memory, and that
// XLA has no product of its own: a body of experts would be one of E times the work.
func holds(t *testing.T, x *aot.Result, wide, other []string) {
	t.Helper()
	found := map[string]bool{}
	for _, k := range x.Kernels {
		name, _, _ := strings.Cut(k.Name, "__") // XLA numbers kernels of equal names
		if !slices.Contains(wide, name) && !slices.Contains(other, name) {
			require.False(t, k.Ours, k.Name)
			continue
		}
		found[name] = true
		require.True(t, k.Assembled, k.Name)
		require.Zero(t, k.Spilled, k.Name)
		if slices.Contains(wide, name) {
			require.Positive(t, k.WGMMA, k.Name)
		}
	}
	require.Len(t, found, len(wide)+len(other), "%v", found)
	require.Zero(t, x.Module.Cost().FLOPs, "XLA's own products")
	for _, c := range x.Module.CustomCalls() {
		require.False(t, strings.HasPrefix(c.Target, "__cublas"), c.Target)
	}
}

// TestKernelsCompile compiles what the layers of 8x7B are made of: experts of a decode step, of a prompt's part and of a step of
// training, and attention with its gradient.
func TestKernelsCompile(t *testing.T) {
	const width, hidden, heads, groups, head, keys = 4096, 14336, 32, 8, 128, 4096
	var types []ir.Type
	bf16 := func(dims ...int) ir.Type { return ir.Tensor("bf16", dims...) }
	main := ir.NewRegion()
	arg := func(typ ir.Type) *ir.Value {
		v := &ir.Value{Type: typ}
		main.Args, types = append(main.Args, v), append(types, typ)
		return v
	}
	matrices := []*ir.Value{arg(bf16(8, hidden, width)), arg(bf16(8, hidden, width)), arg(bf16(8, width, hidden))}
	var out []*ir.Value
	for _, tokens := range []int{16, 512, 4096} {
		x := []*ir.Value{arg(bf16(tokens, width)), arg(ir.Tensor("i32", tokens, 2)), arg(ir.Tensor("f32", tokens, 2))}
		x = append(x, matrices...)
		if tokens < 4096 {
			out = append(out, composed(main, routedName, x, x[0].Type)...)
			continue
		}
		read, err := readExperts(&ir.Op{Operands: x, Results: x[:1]})
		require.NoError(t, err)
		forward := composed(main, routedName, x, append([]ir.Type{x[0].Type}, read.keptTypes()...)...)
		x = append(x, arg(x[0].Type))
		gradient := composed(main, routedGradientName, append(x, forward[1:]...), x[0].Type, x[2].Type, x[3].Type, x[4].Type, x[5].Type)
		out = append(append(out, forward[0]), gradient...)
	}
	attended := func(name string, operands ...*ir.Value) *ir.Value {
		results := []ir.Type{operands[0].Type, operands[1].Type, operands[2].Type}
		if name != attentionGradientName {
			results = results[:1]
		}
		y := composed(main, name, operands, results...)
		y[0].Def.Attrs["composite_attributes"] = `{window = "0"}`
		out = append(out, y...)
		return y[0]
	}
	k, v := arg(bf16(1, groups, keys, head)), arg(bf16(1, groups, keys, head))
	positions := arg(ir.Tensor("i32", 1, keys))
	q, count := arg(bf16(1, heads, keys, head)), ir.At(main).Iota(1, "i32", 1, keys)
	y := attended(attentionName, q, k, v, positions, count)
	attended(attentionGradientName, q, k, v, positions, count, y, arg(q.Type))
	pool := []*ir.Value{arg(bf16(1<<16, groups, head)), arg(bf16(1<<16, groups, head))}
	attended(pagedAttentionName, arg(bf16(16, heads, 1, head)), pool[0], pool[1], arg(ir.Tensor("i32", 16, 1)), arg(ir.Tensor("i32", 16, keys)))
	main.Emit("func.return", out, nil)
	m := &ir.Module{Name: "kernels", Funcs: []*ir.Func{{Name: "main", Body: main, Results: ir.Types(out)}}}
	holds(t, ahead(t, m, ""), []string{"experts_up", "experts_down", "grouped_gemm", "grouped_gemm_transposed", "grouped_outer", "flash_attention", "flash_dq", "flash_dkv"},
		[]string{"experts_permute", "experts_combine", "decode_up", "decode_down", "group_blocks", "paged_attention", "paged_combine"})
}

// TestAttentionCompiles compiles attention with its gradient where it is not that of 8x7B: registers hold all of it.
func TestAttentionCompiles(t *testing.T) {
	main := ir.NewRegion()
	arg := func(elem string, dims ...int) *ir.Value {
		v := &ir.Value{Type: ir.Tensor(elem, dims...)}
		main.Args = append(main.Args, v)
		return v
	}
	var out []*ir.Value
	for _, c := range []struct {
		elem               string
		s, c, a, window    int
		segments, shuffled bool
	}{
		{elem: "bf16", s: 4096, c: 4096, a: 128, window: 1000},
		{elem: "f16", s: 4096, c: 4096, a: 128, segments: true, shuffled: true},
		{elem: "bf16", s: 1000, c: 3000, a: 128},
		{elem: "bf16", s: 4095, c: 4095, a: 96},
		{elem: "bf16", s: 2048, c: 2048, a: 256},
	} {
		q, k, v := arg(c.elem, 2, 8, c.s, c.a), arg(c.elem, 2, 2, c.c, c.a), arg(c.elem, 2, 2, c.c, c.a)
		in := []*ir.Value{q, k, v, arg("i32", 2, c.s), ir.At(main).Iota(1, "i32", 2, c.c)}
		if c.shuffled {
			in[keyPositions] = arg("i32", 2, c.c)
		}
		if c.segments {
			in = append(in, arg("i32", 2, c.s), arg("i32", 2, c.c))
		}
		y := composed(main, attentionName, in, q.Type)
		gradient := composed(main, attentionGradientName, append(in, y[0], arg(c.elem, q.Dims()...)), q.Type, k.Type, v.Type)
		for _, v := range []*ir.Value{y[0], gradient[0]} {
			v.Def.Attrs["composite_attributes"] = ir.Dictionary(ir.Attrs{"window": ir.String(strconv.Itoa(c.window))})
		}
		out = append(append(out, y...), gradient...)
	}
	main.Emit("func.return", out, nil)
	m := &ir.Module{Name: "attention", Funcs: []*ir.Func{{Name: "main", Body: main, Results: ir.Types(out)}}}
	holds(t, ahead(t, m, ""), []string{"flash_attention", "flash_dq", "flash_dkv"}, nil)
}

// TestKernelsCompileInRegions compiles experts that lie on eight devices.
func TestKernelsCompileInRegions(t *testing.T) {
	x := ahead(t, layer{"bf16", 8 * chunkRows, 2, 4096, 8, 14336, true}.module(), "expert=8")
	holds(t, x, []string{"experts_up", "grouped_gemm"}, []string{"group_blocks"})
	for _, c := range x.Module.Collectives() {
		if c.Op == "ragged-all-to-all" { // of two parts, there and back: one's way there beside the other's products, and back
			require.EqualValues(t, 4, c.Runs)
			require.EqualValues(t, 2, c.Beside, "exchanges beside products")
			return
		}
	}
	require.Fail(t, "no ragged exchange")
}
