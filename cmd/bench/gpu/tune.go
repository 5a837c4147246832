package gpu

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"

	"mix/lower/ir"
	"mix/lower/triton"
)

// Tuned is what trying tiles found for a kernel and a number of rows.
type Tuned struct {
	Kernel  string      `json:"kernel"`
	Rows    int         `json:"rows"` // in the average group; 0 for any number
	Was     triton.Tile `json:"was"`
	Is      triton.Tile `json:"is"`
	Tried   int         `json:"tried"`
	Failed  int         `json:"failed"` // of them, tiles that do not compile or run
	Before  float64     `json:"seconds_before"`
	Seconds float64     `json:"seconds"`
	Library string      `json:"library,omitempty"` // that is faster than the tile
}

func (t Tuned) String() string {
	is := tileText(t.Is)
	if t.Library != "" {
		is = t.Library
	}
	return fmt.Sprintf("%s\t%d\t%s\t%s\t%d\t%.1f\t%.1f", t.Kernel, t.Rows, tileText(t.Was), is, t.Tried, 1e6*t.Before, 1e6*t.Seconds)
}

func tileText(t triton.Tile) string {
	return fmt.Sprintf("%d×%d×%d g%d s%d w%d d%d", t.M, t.N, t.K, t.Group, t.Split, t.Warps, t.Stages)
}

// class is a kernel at a number of rows, for which a tile is chosen.
type class struct {
	kernel string
	rows   int // as the table has it: 0 for any number
	tokens int // that it is tried with
	types  []ir.Type
	build  func(k *kit, t triton.Tile, in []*ir.Value) *ir.Value
}

// classes are what the table tells apart, in bfloat16, those first on which most depends.
func classes(e experts, small bool) (all []class) {
	bf := func(dims ...int) ir.Type { return ir.Tensor("bf16", dims...) }
	sizes := ir.Tensor("i32", e.count)
	many := []struct{ rows, tokens int }{{0, 4096}, {64, 256}}
	few := []struct{ rows, tokens int }{{16, 1}, {0, 64}}
	if small {
		many, few = many[:1], few[:1]
		many[0].tokens = 64
	}
	for _, f := range few {
		rows := f.tokens * e.choices
		d := triton.Decode{Groups: triton.Groups{Rows: rows, Experts: e.count}, Tokens: f.tokens, Choices: e.choices, Width: e.width, Hidden: e.hidden, Elem: triton.BF16}
		all = append(all, class{"decode_up", f.rows, f.tokens, []ir.Type{bf(f.tokens, e.width), bf(e.count, e.hidden, e.width), bf(e.count, e.hidden, e.width)},
			func(k *kit, t triton.Tile, in []*ir.Value) *ir.Value {
				order, blocks, offsets := k.permuted(f.tokens, e, t.M)
				c, err := d.Up(t)
				out := k.call(c, err, in[0], order, in[1], in[2], blocks, offsets)
				if t.Split > 1 {
					c, err = triton.SwiGLU{Rows: rows, Hidden: e.hidden, Splits: t.Split, Elem: triton.BF16}.Call()
					out = k.call(c, err, out[0], out[1])
				}
				return out[0]
			}})
		all = append(all, class{"decode_down", f.rows, f.tokens, []ir.Type{bf(rows, e.hidden), bf(e.count, e.width, e.hidden)},
			func(k *kit, t triton.Tile, in []*ir.Value) *ir.Value {
				order, blocks, offsets := k.permuted(f.tokens, e, t.M)
				c, err := d.Down(t)
				y := k.call(c, err, in[0], in[1], order, blocks, offsets)[0]
				c, err = triton.Combine{Tokens: f.tokens, Choices: e.choices, Width: e.width, Splits: t.Split, Weighted: true, Rows: triton.F32, Elem: triton.BF16}.Call()
				return k.call(c, err, y, k.Const(ir.Tensor("f32", f.tokens, e.choices), "0.5"))[0]
			}})
		l := triton.Linear{Tokens: f.tokens, Width: e.width, Outs: []int{e.width, e.width / 4, e.width / 4}, Elem: triton.BF16, Y: triton.BF16}
		all = append(all, class{"linear", f.rows, f.tokens, []ir.Type{bf(f.tokens, e.width), bf(e.width, e.width), bf(e.width/4, e.width), bf(e.width/4, e.width)},
			func(k *kit, t triton.Tile, in []*ir.Value) *ir.Value {
				c, err := l.Call(t)
				return k.sum(k.call(c, err, in...)[0], t.Split)
			}})
	}
	for _, f := range many {
		rows := f.tokens * e.choices
		g := triton.Groups{Rows: rows, Experts: e.count}
		all = append(all, class{"grouped", f.rows, f.tokens, []ir.Type{bf(rows, e.hidden), bf(e.count, e.width, e.hidden), sizes},
			single("grouped", func(t triton.Table) (triton.Plan, error) {
				return triton.Grouped{Groups: g, In: e.hidden, Out: e.width, Elem: triton.BF16}.Plan(t)
			})})
		all = append(all, class{"up", f.rows, f.tokens, []ir.Type{bf(f.tokens, e.width), bf(e.count, e.hidden, e.width), bf(e.count, e.hidden, e.width)},
			func(k *kit, t triton.Tile, in []*ir.Value) *ir.Value {
				order, blocks, offsets := k.permuted(f.tokens, e, t.M)
				c, err := triton.Up{Groups: g, Tokens: f.tokens, Choices: e.choices, Width: e.width, Hidden: e.hidden, Elem: triton.BF16}.Call(t)
				return k.call(c, err, in[0], order, in[1], in[2], blocks, offsets)[0]
			}})
		all = append(all, class{"transposed", f.rows, f.tokens, []ir.Type{bf(rows, e.hidden), bf(e.count, e.hidden, e.width), sizes},
			single("transposed", func(t triton.Table) (triton.Plan, error) {
				return triton.Grouped{Groups: g, In: e.hidden, Out: e.width, Elem: triton.BF16, Transposed: true}.Plan(t)
			})})
		if f.rows == 0 {
			all = append(all, class{"outer", 0, f.tokens, []ir.Type{bf(rows, e.hidden), bf(rows, e.width), sizes},
				single("outer", func(t triton.Table) (triton.Plan, error) {
					return triton.Outer{Groups: g, N: e.hidden, M: e.width, Elem: triton.BF16}.Plan(t)
				})})
		}
	}
	return append(all, attentionClasses(small)...)
}

// lastOfFlash is the last kernel of attention over sequences and its gradient in attentionClasses.
const lastOfFlash = "flash_dq"

// attentionClasses are the kernels of attention, at the heads of 8x7B.
func attentionClasses(small bool) []class {
	bf := func(dims ...int) ir.Type { return ir.Tensor("bf16", dims...) }
	seq, batch, context := 4096, 8, 4096
	if small {
		seq, batch, context = 64, 2, 64
	}
	f := triton.Flash{Sequences: 1, Heads: 32, KeyHeads: 8, Width: 128, Queries: seq, Keys: seq, InOrder: true, LSE: true, Elem: triton.BF16}
	p := triton.Paged{Sequences: batch, Heads: 32, KeyHeads: 8, Width: 128, Positions: batch * context, Context: context, Page: 1, Elem: triton.BF16}
	back := func(call func(t triton.Tile) (triton.Call, error)) func(k *kit, t triton.Tile, in []*ir.Value) *ir.Value {
		return func(k *kit, t triton.Tile, in []*ir.Value) *ir.Value {
			c, err := call(t)
			sums := k.Const(ir.Tensor("f32", 1, 32, seq), "0.0") // of queries: what they are does not change the work
			return k.call(c, err, in[0], in[1], in[2], in[3], sums, sums, k.Iota(1, "i32", 1, seq))[0]
		}
	}
	attended := []ir.Type{bf(1, 32, seq, 128), bf(1, 8, seq, 128), bf(1, 8, seq, 128), bf(1, 32, seq, 128)}
	return []class{
		{"flash", 0, seq, attended[:3],
			func(k *kit, t triton.Tile, in []*ir.Value) *ir.Value {
				c, err := f.Call(t)
				return k.call(c, err, in[0], in[1], in[2], k.Iota(1, "i32", 1, seq))[0]
			}},
		{"flash_dkv", 0, seq, attended, back(triton.FlashGradient(f).OfKeys)},
		{"flash_dq", 0, seq, attended, back(triton.FlashGradient(f).OfQueries)},
		{"paged", 0, batch, []ir.Type{bf(batch, 32, 128), bf(batch*context, 8, 128), bf(batch*context, 8, 128)},
			func(k *kit, t triton.Tile, in []*ir.Value) *ir.Value {
				c, err := p.Call(t)
				table := k.Reshape(k.Iota(0, "i32", batch*context), batch, context)
				out := k.call(c, err, in[0], in[1], in[2], table, k.Const(ir.Tensor("i32", batch), fmt.Sprint(context)))
				if t.Split > 1 {
					c, err = triton.PagedCombine{Sequences: batch, Heads: 32, Width: 128, Splits: t.Split, Elem: triton.BF16}.Call()
					out = k.call(c, err, out[:3]...)
				}
				return out[0]
			}},
	}
}

// single builds a plan of one kernel with a table of one tile.
func single(kernel string, plan func(triton.Table) (triton.Plan, error)) func(k *kit, t triton.Tile, in []*ir.Value) *ir.Value {
	return func(k *kit, t triton.Tile, in []*ir.Value) *ir.Value {
		p, err := plan(triton.Table{{Kernel: kernel, Tile: t}})
		return k.planned(p, err, in)
	}
}

// permuted is the order of rows of random choices, and their blocks.
func (k *kit) permuted(tokens int, e experts, block int) (order, blocks, offsets *ir.Value) {
	k.seed = k.Index(3)
	r := k.route(tokens, e.count, e.choices)
	c, err := triton.Permute{Tokens: tokens, Experts: e.count, Choices: e.choices, Block: block}.Call()
	out := k.call(c, err, r.chosen)
	return out[1], out[4], out[3]
}

// tune tries tiles, class after class, and writes the table after each.
func (s *Session) tune(ctx context.Context) error {
	if !s.kernels() {
		s.skip("tune", "kernels are for GPUs, this is "+s.d.Platform)
		return nil
	}
	e, _ := s.o.sizes()
	for _, c := range classes(e, s.o.Small) {
		if ctx.Err() != nil {
			s.skip("tune", "the time was up before "+c.kernel)
			return nil
		}
		t, err := s.try(ctx, c, e)
		if err != nil {
			return fmt.Errorf("tile of %s: %w", c.kernel, err)
		}
		// A library stays until it is measured beside the new tiles.
		was := s.table.Library(c.kernel, triton.BF16, c.tokens)
		if err := s.tuned(t, triton.Choice{Kernel: c.kernel, Rows: c.rows, Tile: t.Is, Library: was}); err != nil {
			return err
		}
		if c.kernel == lastOfFlash && ctx.Err() == nil {
			if err := s.library(ctx); err != nil {
				return fmt.Errorf("cuDNN: %w", err)
			}
		}
	}
	return nil
}

// tuned puts a choice into the report, the table and the file.
func (s *Session) tuned(t Tuned, c triton.Choice) error {
	s.table = s.table.With(c)
	s.report.Tiles = append(s.report.Tiles, t)
	s.line("tile\t%s", t)
	text, err := s.table.JSON()
	if err != nil {
		return err
	}
	return os.WriteFile(s.o.Tune, text, 0o644)
}

// gain is how much faster a tile must be to take another's place: less is noise.
const gain = 0.99

// try measures the tile that is and the candidates, as many as there is time for.
func (s *Session) try(ctx context.Context, c class, e experts) (Tuned, error) {
	average := triton.Groups{Rows: c.tokens * e.choices, Experts: e.count}.Average()
	switch c.kernel {
	case "decode_up", "decode_down", "linear", "flash", "flash_dq", "flash_dkv", "paged":
		average = c.tokens
	}
	was, err := s.table.Choose(c.kernel, triton.BF16, average)
	if err != nil {
		return Tuned{}, err
	}
	t := Tuned{Kernel: c.kernel, Rows: c.rows, Was: was, Is: was}
	args, err := s.d.operands(c.types, uneven(c.tokens*e.choices, e.count))
	defer free(args...)
	if err != nil {
		return t, err
	}
	tiles := append([]triton.Tile{was}, ordered(triton.Candidates(c.kernel, triton.BF16, average), was)...)
	for p := range s.d.compileAll(ctx, c, s.table, tiles) {
		if p.err == nil {
			var seconds float64
			seconds, p.err = p.program.Time(about/3, args...)
			p.program.Close()
			switch {
			case p.err != nil:
			case p.tile == was:
				t.Before, t.Seconds = seconds, seconds
			case t.Seconds == 0 || seconds < gain*t.Seconds:
				t.Is, t.Seconds = p.tile, seconds
			}
		}
		t.Tried++
		if p.err != nil {
			t.Failed++
			fmt.Fprintf(s.o.Log, "%s %s: %s\n", c.kernel, tileText(p.tile), firstLine(p.err))
		}
	}
	return t, nil
}

// ordered are candidates, those most like a tile that is known to do first: there may be no time for all.
func ordered(all []triton.Tile, like triton.Tile) []triton.Tile {
	away := func(t triton.Tile) (n int) {
		for _, p := range [][2]int{{t.M, like.M}, {t.N, like.N}, {t.K, like.K}, {t.Warps, like.Warps}, {t.Split, like.Split}} {
			for a, b := min(p[0], p[1]), max(p[0], p[1]); a < b; a *= 2 {
				n += 2
			}
		}
		return n + max(t.Stages-like.Stages, like.Stages-t.Stages)
	}
	out := slices.DeleteFunc(slices.Clone(all), func(t triton.Tile) bool { return t == like })
	slices.SortStableFunc(out, func(a, b triton.Tile) int { return cmp.Compare(away(a), away(b)) })
	return out
}

// tried is a tile's program, or why there is none.
type tried struct {
	tile    triton.Tile
	program *Program
	err     error
}

// compileAll compiles the tiles of a class, the first before the others.
func (d *Device) compileAll(ctx context.Context, c class, table triton.Table, tiles []triton.Tile) <-chan tried {
	one := func(i int) tried {
		p, err := d.built(c.types, table, func(k *kit, in []*ir.Value) *ir.Value { return c.build(k, tiles[i], in) })
		return tried{tiles[i], p, err}
	}
	return ahead(ctx, len(tiles), one)
}
