package gpu

import (
	"context"
	"fmt"
	"math"

	"mix/lower/ir"
	"mix/lower/pass"
	"mix/lower/triton"
)

// caseModule is the program of a case: a seed → the distance of each pair, [n] f32.
func caseModule(c kernelCase, table triton.Table, emit emitter) (m *ir.Module, pairs []pair, err error) {
	m = module("parity", []ir.Type{ir.Tensor("i32")}, func(b ir.Builder, in []*ir.Value) []*ir.Value {
		k := &kit{Builder: b, emit: emit, table: table, seed: in[0]}
		c.build(k)
		var all []*ir.Value
		for _, p := range k.pairs {
			all = append(all, k.Reshape(distance(k.Builder, p.got, p.want), 1))
		}
		if len(all) == 0 {
			all = append(all, k.Const(ir.Tensor("f32", 1), "0.0"))
		}
		pairs, err = k.pairs, k.err
		return []*ir.Value{k.Concat(0, all...)}
	})
	return m, pairs, err
}

// Parity is a kernel's result beside that of a plain program.
type Parity struct {
	Kernel    string  `json:"kernel"`
	Shape     string  `json:"shape"`
	Elem      string  `json:"elem"`
	Result    string  `json:"result"` // the one farthest from its tolerance
	Error     float64 `json:"error"`  // greatest |got-want| / (1+|want|); -1 where it is no number
	Tolerance float64 `json:"tolerance"`
	Pass      bool    `json:"pass"`
	Failure   string  `json:"failure,omitempty"` // why there is no result
}

// parity runs all cases until ctx ends.
func (s *Session) parity(ctx context.Context) error {
	if !s.kernels() {
		s.skip("parity", "kernels are for GPUs, this is "+s.d.Platform)
		return nil
	}
	cases := append(kernelCases(s.o.Small), libraryCases(s.o.Small)...)
	done := 0
	for made := range ahead(ctx, len(cases), func(i int) *comparison { return s.d.comparison(cases[i], s.table) }) {
		p := made.run(s.d)
		done++
		if !p.Pass {
			s.report.Failed = true
		}
		s.report.Parity = append(s.report.Parity, p)
		s.line("parity\t%s", p)
	}
	if done < len(cases) {
		s.skip("parity", fmt.Sprintf("the time was up after %d of %d kernels and shapes", done, len(cases)))
	}
	return nil
}

// comparison is a case's program, or why there is none.
type comparison struct {
	kernelCase
	program *Program
	pairs   []pair
	err     error
}

func (d *Device) comparison(c kernelCase, table triton.Table) *comparison {
	x := &comparison{kernelCase: c}
	var m *ir.Module
	if m, x.pairs, x.err = caseModule(c, table, pass.EmitCall); x.err == nil {
		x.program, x.err = d.Compile(m)
	}
	return x
}

// run is the verdict.
func (x *comparison) run(d *Device) (p Parity) {
	p = Parity{Kernel: x.name, Shape: x.shape, Elem: x.elem.String()}
	errs, err := x.distances(d)
	if err != nil {
		p.Failure = firstLine(err)
		return p
	}
	p.Pass = true
	worst := -1.0
	for i, pair := range x.pairs {
		e := float64(errs[i])
		p.Pass = p.Pass && e <= pair.tolerance
		if over := e / max(pair.tolerance, 1e-12); over > worst {
			worst, p.Result, p.Error, p.Tolerance = over, pair.what, e, pair.tolerance
		}
	}
	if math.IsInf(p.Error, 0) {
		p.Error = -1 // JSON has no infinity
	}
	return p
}

func (x *comparison) distances(d *Device) ([]float32, error) {
	if x.err != nil {
		return nil, x.err
	}
	defer x.program.Close()
	seed, err := d.Upload(nil, 7)
	if err != nil {
		return nil, err
	}
	defer free(seed)
	out, err := x.program.Run(seed)
	if err != nil {
		return nil, err
	}
	defer free(out...)
	words, err := d.words(out[0])
	errs := make([]float32, len(words))
	for i, w := range words {
		errs[i] = math.Float32frombits(w)
	}
	return errs, err
}

// String is a row for people.
func (p Parity) String() string {
	verdict := "PASS"
	if !p.Pass {
		verdict = "FAIL"
	}
	if p.Failure != "" {
		return fmt.Sprintf("%s\t%s\t%s\t%s\t%s", p.Kernel, p.Elem, p.Shape, verdict, p.Failure)
	}
	return fmt.Sprintf("%s\t%s\t%s\t%s\t%s: error %.2g, at most %.2g", p.Kernel, p.Elem, p.Shape, verdict, p.Result, p.Error, p.Tolerance)
}
