package gpu

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/lower/ir"
	"mix/lower/pass"
	"mix/lower/pjrt"
	"mix/lower/target"
	"mix/lower/triton"
	"mix/lower/triton/interp"
)

func cpu(t *testing.T) *Device {
	d, err := Open(t.Context(), target.CPU, 0, io.Discard)
	require.NoError(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

// staged runs the kernels of a case on the host, one after the other, and everything else on a device.
type staged struct {
	d    *Device
	done [][]*interp.Array // results of the kernels so far
}

// build makes the program that the next kernel's operands come from, or the case's own if there is no kernel left.
func (s *staged) build(c kernelCase, table triton.Table) (m *ir.Module, next *triton.Call, pairs []pair, err error) {
	params := []ir.Type{ir.Tensor("i32")}
	for _, results := range s.done {
		for _, a := range results {
			elem := "i32"
			if a.Elem.Float() {
				elem = "f32"
			}
			params = append(params, ir.Tensor(elem, a.Dims...))
		}
	}
	m = module("staged", params, func(b ir.Builder, in []*ir.Value) []*ir.Value {
		calls, at := 0, 1
		var operands []*ir.Value
		k := &kit{Builder: b, table: table, seed: in[0], emit: func(b ir.Builder, c triton.Call, given ...*ir.Value) (out []*ir.Value, err error) {
			for i, a := range c.Operands {
				if given[i].Type != ir.Type(a.String()) {
					return nil, fmt.Errorf("%s takes %s, is given %s", c.Name, a, given[i].Type)
				}
			}
			calls++
			if calls == len(s.done)+1 {
				next = &c
				for _, v := range given {
					if elem, _, _ := v.Type.Split(); elem != "i32" {
						v = b.Convert(v, "f32")
					}
					operands = append(operands, v)
				}
			}
			for _, a := range c.Results {
				if calls <= len(s.done) {
					out = append(out, b.Convert(in[at], stable(a.Elem)))
					at++
					continue
				}
				out = append(out, b.Convert(b.Const(ir.Tensor("i32", a.Dims...), "0"), stable(a.Elem)))
			}
			return out, nil
		}}
		c.build(k)
		pairs, err = k.pairs, k.err
		if operands != nil {
			return operands
		}
		var all []*ir.Value
		for _, p := range k.pairs {
			all = append(all, k.Reshape(distance(b, p.got, p.want), 1))
		}
		return []*ir.Value{k.Concat(0, all...)}
	})
	ir.RemoveDead(m)
	return m, next, pairs, err
}

func (s *staged) upload(t *testing.T, a *interp.Array) *pjrt.Buffer {
	kind, raw := pjrt.BufferTypeS32, []byte{}
	for _, v := range a.Ints {
		raw = binary.LittleEndian.AppendUint32(raw, uint32(v))
	}
	if a.Elem.Float() {
		kind = pjrt.BufferTypeF32
		for _, v := range a.Floats {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
		}
	}
	var dims []int64
	for _, d := range a.Dims {
		dims = append(dims, int64(d))
	}
	b, _, err := s.d.client.BufferFromHost(raw, kind, dims, s.d.device, pjrt.CopyDuringCall, nil)
	require.NoError(t, err)
	return b
}

// run gives the distances of a case.
func (s *staged) run(t *testing.T, c kernelCase, table triton.Table) ([]float32, []pair) {
	for {
		m, next, pairs, err := s.build(c, table)
		require.NoError(t, err)
		require.NoError(t, ir.Verify(m))
		p, err := s.d.Compile(m)
		require.NoError(t, err)
		seed, err := s.d.Upload(nil, 7)
		require.NoError(t, err)
		args := []*pjrt.Buffer{seed}
		for _, results := range s.done {
			for _, a := range results {
				args = append(args, s.upload(t, a))
			}
		}
		outs, err := p.Run(args...)
		require.NoError(t, err)
		var operands []*interp.Array
		for i, out := range outs {
			words, err := s.d.words(out)
			require.NoError(t, err)
			var floats []float32
			var ints []int64
			for _, w := range words {
				floats, ints = append(floats, math.Float32frombits(w)), append(ints, int64(int32(w)))
			}
			switch {
			case next == nil:
				require.Len(t, floats, len(pairs))
				return floats, pairs
			case next.Operands[i].Elem.Float():
				operands = append(operands, interp.Floats(next.Operands[i].Elem, floats, next.Operands[i].Dims...))
			default:
				operands = append(operands, interp.Ints(next.Operands[i].Elem, ints, next.Operands[i].Dims...))
			}
		}
		p.Close()
		results, err := interp.RunPartial(*next, operands...)
		require.NoError(t, err)
		s.done = append(s.done, results)
	}
}

// tiny is a table whose tiles cut small shapes into several programs.
func tiny(split int) (table triton.Table) {
	for _, k := range []string{"up", "grouped", "transposed", "outer", "decode_up", "decode_down", "linear", "flash", "flash_dq", "flash_dkv", "paged", "fp8"} {
		tile := triton.Tile{M: 16, N: 16, K: 16, Group: 2, Split: 1, Warps: 4, Stages: 2}
		switch k {
		case "decode_up", "decode_down", "linear", "paged":
			tile.Split = split
		case "fp8":
			tile.K = 64
		}
		table = append(table, triton.Choice{Kernel: k, Tile: tile})
	}
	return table
}

// TestCasesHoldOfTheKernelsMeaning runs what bench gpu runs on a GPU with the kernels on the host: the plain forms are
// right, and their tolerances wide enough for sums in another order.
func TestCasesHoldOfTheKernelsMeaning(t *testing.T) {
	d := cpu(t)
	for i, c := range kernelCases(true) {
		if c.elem == triton.F16 || testing.Short() && (c.elem == triton.F32 || i%2 > 0) {
			continue
		}
		t.Run(fmt.Sprintf("%s %s %s", c.name, c.elem, c.shape), func(t *testing.T) {
			errs, pairs := (&staged{d: d}).run(t, c, tiny(2))
			require.NotEmpty(t, pairs)
			for i, p := range pairs {
				require.LessOrEqual(t, float64(errs[i]), p.tolerance, p.what)
			}
		})
	}
}

// TestCasesFindAWrongKernel breaks the last kernel of cases.
func TestCasesFindAWrongKernel(t *testing.T) {
	d := cpu(t)
	found := map[string]bool{}
	for i, c := range kernelCases(true) {
		if c.elem != triton.BF16 && c.elem != triton.F8 || found[c.name] || testing.Short() && i%3 > 0 {
			continue
		}
		found[c.name] = true
		s := &staged{d: d}
		s.run(t, c, tiny(1))
		last := s.done[len(s.done)-1]
		for _, a := range last {
			n := len(a.Floats) - 1
			if n >= 0 {
				a.Floats[n] += 0.5
			}
		}
		errs, pairs := s.run(t, c, tiny(1))
		wrong := false
		for i, p := range pairs {
			wrong = wrong || !(float64(errs[i]) <= p.tolerance)
		}
		require.True(t, wrong, c.name)
	}
}

// TestAllCasesBuild makes the programs for a GPU, at full size, with the default tiles.
func TestAllCasesBuild(t *testing.T) {
	names := map[string]bool{}
	for _, c := range kernelCases(false) {
		m, pairs, err := caseModule(c, triton.Default(), pass.EmitCall)
		require.NoError(t, err, "%s %s %s", c.name, c.elem, c.shape)
		require.NotEmpty(t, pairs)
		require.NoError(t, ir.Verify(m))
		ir.Walk(m.Func("main").Body, func(op *ir.Op) {
			if op.Name == "stablehlo.custom_call" {
				config := string(op.Attrs["backend_config"])
				_, after, _ := strings.Cut(config, `name = "`)
				name, _, _ := strings.Cut(after, `"`)
				names[name] = true
			}
		})
	}
	require.Greater(t, len(names), 12, "kernels in programs: %v", names)
}
