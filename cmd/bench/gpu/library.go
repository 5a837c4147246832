package gpu

import (
	"context"
	"fmt"

	"mix/lower/ir"
	"mix/lower/pass"
	"mix/lower/triton"
)

// libraryCases are attention and its gradient by cuDNN, as the table may choose it: queries and keys in order.
func libraryCases(small bool) []kernelCase {
	shapes := []triton.Flash{
		{Sequences: 2, Heads: 8, KeyHeads: 2, Width: 128, Queries: 333, Keys: 333},
		{Sequences: 1, Heads: 8, KeyHeads: 2, Width: 64, Queries: 512, Keys: 512, Window: 100},
	}
	if small {
		shapes = []triton.Flash{{Sequences: 2, Heads: 4, KeyHeads: 2, Width: 24, Queries: 40, Keys: 40, Window: 7}}
	}
	var all []kernelCase
	for _, f := range shapes {
		f.InOrder, f.Elem = true, triton.BF16
		all = append(all, libraryCase(f))
	}
	return all
}

// libraryCase is y without and with what the gradient reads, and the gradient.
func libraryCase(f triton.Flash) kernelCase {
	name, shape := flashName("cuDNN's attention and gradient", f)
	return kernelCase{name, shape, f.Elem, func(k *kit) {
		x := k.attended(f)
		dy := k.scaled(f.Elem, 1, x.q.Dims()...)
		alone := k.made(pass.EmitCuDNN(k.Builder, f, x.q, x.keys, x.values))
		k.check("y alone", alone[0], k.attention(x.q, x.keys, x.values, x.seen), 2*tolerance(f.Elem))
		got, want := k.byCuDNN(f, x, dy), k.attentionGradient(x, dy)
		k.check("y", got[0], k.attention(x.q, x.keys, x.values, x.seen), 2*tolerance(f.Elem))
		for i, name := range []string{"dq", "dk", "dv"} {
			k.check(name, got[1+i], want[i], 2*tolerance(f.Elem))
		}
	}}
}

// byCuDNN is y, dq, dk and dv by the library.
func (k *kit) byCuDNN(f triton.Flash, x attended, dy *ir.Value) []*ir.Value {
	f.LSE = true
	y := k.made(pass.EmitCuDNN(k.Builder, f, x.q, x.keys, x.values))
	return append(y[:1:1], k.made(pass.EmitCuDNNGradient(k.Builder, f, x.q, x.keys, x.values, y[1], dy, y[0]))...)
}

// byKernels is the same by ours.
func (k *kit) byKernels(f triton.Flash, x attended, dy *ir.Value) []*ir.Value {
	f.LSE = true
	c, err := k.tiled("flash", f, f.Call)
	out := k.call(c, err, append([]*ir.Value{x.q, x.keys, x.values}, x.places...)...)
	y, lse := out[0], out[1]
	delta := k.Reduce("add", k.Mul(k.Convert(y, "f32"), k.Convert(dy, "f32")), "0.0", 3)
	in := append([]*ir.Value{x.q, x.keys, x.values, dy, lse, delta}, x.places...)
	c, err = k.tiled("flash_dq", f, triton.FlashGradient(f).OfQueries)
	dq := k.call(c, err, in...)[0]
	c, err = k.tiled("flash_dkv", f, triton.FlashGradient(f).OfKeys)
	return append([]*ir.Value{y, dq}, k.call(c, err, in...)[:2]...)
}

// made keeps the first error, and then has something in the place of results.
func (k *kit) made(out []*ir.Value, err error) []*ir.Value {
	if k.err == nil {
		k.err = err
	}
	if err != nil {
		return slack(k)
	}
	return out
}

// library measures attention with its gradient by cuDNN beside that of the tiles that the table has, at the heads of 8x7B, and
// puts the faster one into the table: cuDNN only where its results agree with those of a plain program.
func (s *Session) library(ctx context.Context) error {
	f := libraryShape(s.o.Small)
	tile, err := s.table.Choose("flash", f.Elem, f.Queries)
	if err != nil {
		return err
	}
	t := Tuned{Kernel: "flash and gradient", Was: tile, Is: tile, Tried: 1}
	if p := s.d.comparison(libraryCase(f), s.table).run(s.d); !p.Pass {
		t.Failed++
		s.line("parity\t%s", p)
	}
	q, kv := ir.Tensor("bf16", f.Sequences, f.Heads, f.Queries, f.Width), ir.Tensor("bf16", f.Sequences, f.KeyHeads, f.Keys, f.Width)
	types := []ir.Type{q, kv, kv, q}
	args, err := s.d.operands(types, nil)
	defer free(args...)
	if err != nil {
		return err
	}
	if t.Before, err = s.d.timed(types, s.table, libraryForm(f, (*kit).byKernels), args); err != nil {
		return fmt.Errorf("our attention and gradient: %w", err)
	}
	t.Seconds = t.Before
	if t.Failed == 0 && ctx.Err() == nil {
		seconds, err := s.d.timed(types, s.table, libraryForm(f, (*kit).byCuDNN), args)
		switch {
		case err != nil:
			t.Failed++
			fmt.Fprintf(s.o.Log, "cuDNN: %s\n", firstLine(err))
		case seconds < gain*t.Before:
			t.Library, t.Seconds = triton.CuDNN, seconds
		}
	}
	return s.tuned(t, triton.Choice{Kernel: "flash", Tile: tile, Library: t.Library})
}

// libraryShape is attention at the heads of 8x7B.
func libraryShape(small bool) triton.Flash {
	f := triton.Flash{Sequences: 1, Heads: 32, KeyHeads: 8, Width: 128, Queries: 4096, Keys: 4096, InOrder: true, Elem: triton.BF16}
	if small {
		f.Queries, f.Keys = 64, 64
	}
	return f
}

// libraryForm is a program of one of the forms. It gives an element of each result, so that all are computed.
func libraryForm(f triton.Flash, form func(k *kit, f triton.Flash, x attended, dy *ir.Value) []*ir.Value) func(k *kit, in []*ir.Value) *ir.Value {
	return func(k *kit, in []*ir.Value) *ir.Value {
		x := attended{q: in[0], keys: in[1], values: in[2], places: []*ir.Value{k.Iota(1, "i32", f.Sequences, f.Queries)}}
		var all []*ir.Value
		for _, v := range form(k, f, x, in[3])[:4] {
			n := len(v.Dims())
			ones := make([]int, n)
			for i := range ones {
				ones[i] = 1
			}
			all = append(all, k.Convert(k.Reshape(k.Slice(v, make([]int, n), ones), 1), "f32"))
		}
		return k.Concat(0, all...)
	}
}
