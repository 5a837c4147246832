package gpu

import (
	"fmt"
	"slices"

	"mix/lower/ir"
	"mix/lower/triton"
)

// attentionCases are attention over whole sequences and over a pool.
func attentionCases(small bool, e triton.Elem) (all []kernelCase) {
	flash := []triton.Flash{
		{Sequences: 2, Heads: 8, KeyHeads: 2, Width: 128, Queries: 333, Keys: 333, InOrder: true},
		{Sequences: 1, Heads: 8, KeyHeads: 2, Width: 128, Queries: 200, Keys: 456, Window: 100, InOrder: true},
		{Sequences: 2, Heads: 4, KeyHeads: 4, Width: 64, Queries: 150, Keys: 150, Segments: true, InOrder: true},
		{Sequences: 2, Heads: 4, KeyHeads: 2, Width: 64, Queries: 150, Keys: 200, Window: 70},
	}
	paged := []triton.Paged{
		{Sequences: 5, Heads: 32, KeyHeads: 8, Width: 128, Positions: 8000, Context: 1200, Page: 1},
		{Sequences: 64, Heads: 32, KeyHeads: 8, Width: 128, Positions: 40000, Context: 512, Page: 16, Window: 200},
	}
	if small {
		flash = []triton.Flash{{Sequences: 2, Heads: 4, KeyHeads: 2, Width: 24, Queries: 33, Keys: 33, InOrder: true},
			{Sequences: 1, Heads: 4, KeyHeads: 2, Width: 24, Queries: 20, Keys: 40, Window: 7, Segments: true}}
		paged = []triton.Paged{{Sequences: 3, Heads: 4, KeyHeads: 2, Width: 24, Positions: 200, Context: 48, Page: 4, Window: 21}}
	}
	for _, f := range flash {
		f.Elem = e
		all = append(all, flashCase(f), flashGradientCase(f))
	}
	for _, p := range paged {
		p.Elem = e
		all = append(all, pagedCase(p))
	}
	return all
}

// pagedCase has sequences from no key to all.
func pagedCase(p triton.Paged) kernelCase {
	shape := fmt.Sprintf("B %d, H %d, G %d, A %d, C %d, page %d", p.Sequences, p.Heads, p.KeyHeads, p.Width, p.Context, p.Page)
	return kernelCase{"paged attention", shape, p.Elem, func(k *kit) {
		pages := p.Context / p.Page
		var lengths, table, where []int
		for b := range p.Sequences {
			lengths = append(lengths, []int{1, p.Context, 0, p.Context/2 + 1, 17}[b%5])
			for i := range pages {
				table = append(table, ((b*pages+i)*7919+13)%(p.Positions/p.Page))
			}
			for c := range p.Context {
				where = append(where, table[b*pages+c/p.Page]*p.Page+c%p.Page)
			}
		}
		q := k.scaled(p.Elem, 1, p.Sequences, p.Heads, p.Width)
		keys, values := k.scaled(p.Elem, 1, p.Positions, p.KeyHeads, p.Width), k.scaled(p.Elem, 1, p.Positions, p.KeyHeads, p.Width)
		n := k.ints(lengths)
		each := []int{p.Sequences, 1, p.Context}
		at, end := k.Iota(2, "i32", each...), k.Broadcast(n, each, 0)
		seen := k.Compare("LT", at, end)
		if p.Window > 0 {
			near := k.Compare("GE", at, k.Binary("subtract", end, k.Const(end.Type, fmt.Sprint(p.Window))))
			seen = k.Binary("and", seen, near)
		}
		of := func(pool *ir.Value) *ir.Value { // [B, G, C, A]
			rows := k.Reshape(k.Rows(pool, k.ints(where)), p.Sequences, p.Context, p.KeyHeads, p.Width)
			return k.Emit("transpose", ir.Attrs{"permutation": ir.Ints(0, 2, 1, 3)}, ir.Tensor(stable(p.Elem), p.Sequences, p.KeyHeads, p.Context, p.Width), rows)
		}
		want := k.attention(k.Reshape(q, p.Sequences, p.Heads, 1, p.Width), of(keys), of(values), seen)
		tile, err := k.table.Choose("paged", p.Elem, p.Sequences)
		c, failed := p.Call(tile)
		if err == nil {
			err = failed
		}
		out := k.call(c, err, q, keys, values, k.Reshape(k.ints(table), p.Sequences, pages), n)
		if tile.Split > 1 {
			c, err = triton.PagedCombine{Sequences: p.Sequences, Heads: p.Heads, Width: p.Width, Splits: tile.Split, Elem: p.Elem}.Call()
			out = k.call(c, err, out[:3]...)
		}
		k.check("y", out[0], want, 2*tolerance(p.Elem))
	}}
}

// scaleRows repeats scales [R, ⌈n/128⌉] along the second axis to [R, n].
func (k *kit) scaleRows(scales *ir.Value, n int) *ir.Value {
	r, deep := scales.Dims()[0], scales.Dims()[1]
	wide := k.Reshape(k.Broadcast(scales, []int{r, deep, triton.ScaleBlock}, 0, 1), r, deep*triton.ScaleBlock)
	return k.Slice(wide, []int{0, 0}, []int{r, n})
}

func fp8Case(s shape, blocks bool) kernelCase {
	name := "fp8 product, a scale a tensor"
	if blocks {
		name = "fp8 product, a scale a block"
	}
	return kernelCase{name, s.String(), triton.F8, func(k *kit) {
		ceil := func(n int) int { return (n + triton.ScaleBlock - 1) / triton.ScaleBlock }
		rows, n, m := s.tokens*s.choices, s.width, s.hidden
		r := k.route(s.tokens, s.experts, s.choices)
		x, w := k.scaled(triton.F8, 1, rows, n), k.scaled(triton.F8, 1, s.experts, m, n)
		positive := func(dims ...int) *ir.Value { // about 1/√n, products of unit size
			v := k.scaled(triton.F32, 0.2, dims...)
			return k.Mul(k.Add(v, k.Const(v.Type, "1.0")), k.Const(v.Type, decimal(1/float64(n))))
		}
		xs, ws := positive(1), k.Mul(positive(s.experts), k.Const(ir.Tensor("f32", s.experts), decimal(float64(n))))
		var xw *ir.Value
		ww := k.Broadcast(ws, []int{s.experts, m, n}, 0)
		if blocks {
			xs = positive(rows, ceil(n))
			ws = k.scaled(triton.F32, 0.2, s.experts, ceil(m), ceil(n))
			ws = k.Add(ws, k.Const(ws.Type, "1.0"))
			xw = k.scaleRows(xs, n)
			tall := k.Reshape(k.Broadcast(ws, []int{s.experts, ceil(m), triton.ScaleBlock, ceil(n)}, 0, 1, 3), s.experts, ceil(m)*triton.ScaleBlock, ceil(n))
			tall = k.Slice(tall, []int{0, 0, 0}, []int{s.experts, m, ceil(n)})
			ww = k.Reshape(k.scaleRows(k.Reshape(tall, s.experts*m, ceil(n)), n), s.experts, m, n)
		} else {
			xw = k.Broadcast(k.Reshape(xs), []int{rows, n})
		}
		want := k.grouped(k.Mul(k.Convert(x, "f32"), xw), k.Mul(k.Convert(w, "f32"), ww), r.group, false)
		tile, err := k.table.Choose("fp8", triton.F8, triton.Groups{Rows: rows, Experts: s.experts}.Average())
		c, failed := triton.Permute{Tokens: s.tokens, Experts: s.experts, Choices: s.choices, Block: max(tile.M, 16)}.Call()
		if err == nil {
			err = failed
		}
		out := k.call(c, err, r.chosen) // place, order, sizes, offsets, blocks
		c, err = triton.FP8{Groups: triton.Groups{Rows: rows, Experts: s.experts}, In: n, Out: m, BlockScales: blocks, Y: triton.F32}.Call(tile)
		k.check("y", k.call(c, err, x, w, xs, ws, out[4], out[3])[0], want, tolerance(triton.F8))
	}}
}

// quantizeCase holds elements times scales to what was quantized: of the 3 bits below the block's greatest, half of the
// last may be lost.
func quantizeCase(s shape, e triton.Elem) kernelCase {
	return kernelCase{"quantize", fmt.Sprintf("R %d, D %d", s.tokens, s.width), e, func(k *kit) {
		x := k.scaled(e, 1, s.tokens, s.width)
		c, err := triton.Quantize{Rows: s.tokens, Width: s.width, Elem: e}.Call()
		out := k.call(c, err, x)
		if k.err != nil {
			return
		}
		wide := k.Convert(x, "f32")
		var most []*ir.Value
		for at := 0; at < s.width; at += triton.ScaleBlock {
			block := k.Slice(wide, []int{0, at}, []int{s.tokens, min(at+triton.ScaleBlock, s.width)})
			most = append(most, k.Reshape(k.Reduce("maximum", k.Unary("abs", block), "0.0", 1), s.tokens, 1))
		}
		greatest := k.Concat(1, slices.Clone(most)...)
		k.check("scales", k.Div(out[1], k.Div(greatest, k.Const(greatest.Type, "448.0"))), k.Const(greatest.Type, "1.0"), tolerance(triton.F32))
		unit := k.scaleRows(greatest, s.width)
		back := k.Mul(k.Convert(out[0], "f32"), k.scaleRows(out[1], s.width))
		k.check("y", k.Div(back, unit), k.Div(wide, unit), 1.0/28)
	}}
}
