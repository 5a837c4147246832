package gpu

import (
	"context"
	"fmt"
	"time"

	"mix/lower/ir"
	"mix/lower/pass"
	"mix/lower/pjrt"
	"mix/lower/triton"
)

// Rate is how fast a form of the experts' products is.
type Rate struct {
	What    string  `json:"what"`
	Form    string  `json:"form"` // kernel, dense (one product of the same work) or loop (a product an expert)
	Tokens  int     `json:"tokens"`
	Seconds float64 `json:"seconds"`
	FLOPs   float64 `json:"flops_per_second"`
	OfDense float64 `json:"of_dense"` // over the rate of the dense form; 0 when unknown
	OfPeak  float64 `json:"of_peak"`
}

func (r Rate) String() string {
	return fmt.Sprintf("%s, %s\t%d\t%.1f\t%s\t%s\t%.3f", r.What, r.Form, r.Tokens, r.FLOPs/1e12, percent(r.OfDense), percent(r.OfPeak), 1e3*r.Seconds)
}

// experts are the sizes of one layer's experts.
type experts struct{ width, hidden, count, choices int }

// sizes are those of 8x7B, or tiny ones.
func (o Options) sizes() (e experts, tokens []int) {
	if o.Small {
		return experts{64, 96, 4, 2}, []int{16, 64}
	}
	return experts{4096, 14336, 8, 2}, []int{512, 1024, 4096, 8192}
}

// uneven are sizes of groups that sum to rows and differ as a trained router's do: from two thirds of a share to four
// thirds.
func uneven(rows, experts int) []int {
	all := make([]int, experts)
	total := 0
	for i := range all {
		all[i] = rows / experts * (2*experts + 2*i) / (3*experts - 1)
		total += all[i]
	}
	for i := 0; total != rows; i = (i + 1) % experts {
		if total < rows {
			all[i], total = all[i]+1, total+1
		} else if all[i] > 0 {
			all[i], total = all[i]-1, total-1
		}
	}
	return all
}

// contest is a product in several forms, all of the same operands and work.
type contest struct {
	what   string
	flops  float64
	types  []ir.Type // of the operands; i32 is sizes
	forms  []string
	builds []func(k *kit, in []*ir.Value) *ir.Value
}

// groupedRates measures products of rows with the matrix of their expert at full width, in bfloat16.
func (s *Session) groupedRates(ctx context.Context) error {
	e, counts := s.o.sizes()
	for _, tokens := range counts {
		for _, c := range contests(e, tokens, s.kernels()) {
			if ctx.Err() != nil {
				s.skip("grouped", fmt.Sprintf("the time was up before %d tokens", tokens))
				return nil
			}
			if err := s.contest(ctx, c, e, tokens); err != nil {
				return fmt.Errorf("%s of %d tokens: %w", c.what, tokens, err)
			}
		}
	}
	return nil
}

// contests are the two products of the experts, both ways of their gradient, and the whole of a layer's experts.
func contests(e experts, tokens int, kernels bool) []contest {
	rows := tokens * e.choices
	bf := func(dims ...int) ir.Type { return ir.Tensor("bf16", dims...) }
	sizes := uneven(rows, e.count)
	groups := triton.Groups{Rows: rows, Experts: e.count}
	work := 2 * float64(rows) * float64(e.width) * float64(e.hidden)
	product := func(what string, n, m int) contest {
		c := contest{what: what, flops: work, types: []ir.Type{bf(rows, n), bf(e.count, m, n), ir.Tensor("i32", e.count)}, forms: []string{"dense", "loop"}}
		c.builds = append(c.builds, func(k *kit, in []*ir.Value) *ir.Value {
			return k.Dot(in[0], 1, k.Reshape(k.Slice(in[1], []int{0, 0, 0}, []int{1, m, n}), m, n), 1, "bf16")
		}, func(k *kit, in []*ir.Value) *ir.Value {
			var all []*ir.Value
			at := 0
			for i, size := range sizes {
				x := k.Slice(in[0], []int{at, 0}, []int{at + size, n})
				all = append(all, k.Dot(x, 1, k.Reshape(k.Slice(in[1], []int{i, 0, 0}, []int{i + 1, m, n}), m, n), 1, "bf16"))
				at += size
			}
			return k.Concat(0, all...)
		})
		if kernels {
			c.forms = append(c.forms, "kernel")
			c.builds = append(c.builds, func(k *kit, in []*ir.Value) *ir.Value {
				p, err := triton.Grouped{Groups: groups, In: n, Out: m, Elem: triton.BF16}.Plan(k.table)
				return k.planned(p, err, in)
			})
		}
		return c
	}
	all := []contest{product("gate, up", e.width, e.hidden), product("down", e.hidden, e.width)}
	if !kernels {
		return all
	}
	w := []ir.Type{bf(rows, e.hidden), bf(e.count, e.hidden, e.width), ir.Tensor("i32", e.count)}
	all = append(all, contest{what: "gradient of rows", flops: work, types: w, forms: []string{"kernel"}, builds: []func(k *kit, in []*ir.Value) *ir.Value{
		func(k *kit, in []*ir.Value) *ir.Value {
			p, err := triton.Grouped{Groups: groups, In: e.hidden, Out: e.width, Elem: triton.BF16, Transposed: true}.Plan(k.table)
			return k.planned(p, err, in)
		}}})
	w = []ir.Type{bf(rows, e.hidden), bf(rows, e.width), ir.Tensor("i32", e.count)}
	all = append(all, contest{what: "gradient of matrices", flops: work, types: w, forms: []string{"kernel"}, builds: []func(k *kit, in []*ir.Value) *ir.Value{
		func(k *kit, in []*ir.Value) *ir.Value {
			p, err := triton.Outer{Groups: groups, N: e.hidden, M: e.width, Elem: triton.BF16}.Plan(k.table)
			return k.planned(p, err, in)
		}}})
	w = []ir.Type{bf(tokens, e.width), bf(e.count, e.hidden, e.width), bf(e.count, e.hidden, e.width), bf(e.count, e.width, e.hidden)}
	return append(all, contest{what: "experts of a layer", flops: 3 * work, types: w, forms: []string{"kernel"}, builds: []func(k *kit, in []*ir.Value) *ir.Value{
		func(k *kit, in []*ir.Value) *ir.Value {
			// The choice is a part of the program: a route of random logits takes microseconds.
			k.seed = k.Index(3)
			r := k.route(tokens, e.count, e.choices)
			p, err := triton.Experts{Tokens: tokens, Choices: e.choices, Experts: e.count, Width: e.width, Hidden: e.hidden, Elem: triton.BF16}.Forward(k.table)
			v := map[string]*ir.Value{"x": in[0], "chosen": r.chosen, "weights": r.weights, "gate": in[1], "up": in[2], "down": in[3]}
			k.plan(p, err, v)
			return v["y"]
		}}})
}

// planned is the only result of a plan on its inputs in order.
func (k *kit) planned(p triton.Plan, err error, in []*ir.Value) *ir.Value {
	v := map[string]*ir.Value{}
	for i, name := range p.Inputs {
		v[name] = in[i]
	}
	if !k.plan(p, err, v) {
		return in[0]
	}
	return v[p.Outputs[0]]
}

// contest measures all forms, the dense one first.
func (s *Session) contest(ctx context.Context, c contest, e experts, tokens int) error {
	args, err := s.d.operands(c.types, uneven(tokens*e.choices, e.count))
	defer free(args...)
	if err != nil {
		return err
	}
	dense := 0.0
	for i, form := range c.forms {
		if ctx.Err() != nil {
			return nil
		}
		t, err := s.d.timed(c.types, s.table, c.builds[i], args)
		if err != nil {
			return fmt.Errorf("%s: %w", form, err)
		}
		r := Rate{What: c.what, Form: form, Tokens: tokens, Seconds: t, FLOPs: c.flops / t}
		if form == "dense" {
			dense = r.FLOPs
		}
		if dense > 0 {
			r.OfDense = r.FLOPs / dense
		}
		if s.d.Chip.BF16 > 0 {
			r.OfPeak = r.FLOPs / s.d.Chip.BF16
		}
		s.report.Rates = append(s.report.Rates, r)
		s.line("products\t%s", r)
	}
	return nil
}

// operands makes random tensors of those types; of i32 the sizes.
func (d *Device) operands(types []ir.Type, sizes []int) (all []*pjrt.Buffer, err error) {
	for i, t := range types {
		var b *pjrt.Buffer
		if isInt(t) {
			b, err = d.ints(t, func(i int) int { return sizes[i] })
		} else {
			b, err = d.Random(t, int32(i), 0, 0.05)
		}
		if err != nil {
			return all, err
		}
		all = append(all, b)
	}
	return all, nil
}

// about is how long a measurement takes.
const about = 150 * time.Millisecond

// timed is the seconds of a run of what build makes.
func (d *Device) timed(types []ir.Type, table triton.Table, build func(k *kit, in []*ir.Value) *ir.Value, args []*pjrt.Buffer) (float64, error) {
	p, err := d.built(types, table, build)
	if err != nil {
		return 0, err
	}
	defer p.Close()
	return p.Time(about, args...)
}

// built compiles what build makes.
func (d *Device) built(types []ir.Type, table triton.Table, build func(k *kit, in []*ir.Value) *ir.Value) (*Program, error) {
	m, err := programOf(types, table, build)
	if err != nil {
		return nil, err
	}
	return d.Compile(m)
}

func programOf(types []ir.Type, table triton.Table, build func(k *kit, in []*ir.Value) *ir.Value) (m *ir.Module, err error) {
	m = module("timed", types, func(b ir.Builder, in []*ir.Value) []*ir.Value {
		k := &kit{Builder: b, emit: pass.EmitCall, table: table}
		out := build(k, in)
		err = k.err
		if out == nil {
			out = in[0]
		}
		return []*ir.Value{out}
	})
	return m, err
}
