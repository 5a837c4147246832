package gpu

import (
	"context"
	"fmt"
	"slices"
	"time"

	"mix/cmd/internal/programs"
	"mix/graph"
	"mix/lower"
	"mix/lower/ir"
	"mix/lower/pjrt"
)

// config is the model that is measured: 8x7B with fewer layers, or a tiny one.
func (o Options) config(layers int) graph.Config {
	c := graph.Mixtral8x7B
	if o.Small {
		c = graph.Config{Vocab: 256, Width: 64, Hidden: 96, Heads: 4, KVHeads: 2, HeadDim: 16, Experts: 4, TopK: 2, Context: 512,
			RopeTheta: 1e4, NormEps: 1e-5, InitStd: 0.02, BOS: 1, EOS: []int{2}, DType: "bfloat16"}
	}
	c.Layers = layers
	return c
}

// runner is a program of the model with its arguments on the device, some of which each run replaces.
type runner struct {
	name    string
	p       *Program
	compile float64 // seconds it took
	aliases []int   // by parameter: the result in its place, or -1
	args    []*pjrt.Buffer
	last    []*pjrt.Buffer // results of the latest run that replace nothing
}

// load emits and compiles a program of the model. Its arguments are still to come.
func (s *Session) load(ctx context.Context, j programs.Job) (*runner, error) {
	e, _, err := j.Emit(ctx, lower.Options{Platform: s.d.Platform})
	if err != nil {
		return nil, err
	}
	start := time.Now()
	m, err := ir.Parse(e.Text)
	if err != nil {
		return nil, fmt.Errorf("program %s: %w", e.Name, err)
	}
	main := m.Func("main")
	if main == nil {
		return nil, fmt.Errorf("program %s has no main", e.Name)
	}
	r := &runner{name: e.Name, aliases: slices.Repeat([]int{-1}, len(main.Params()))}
	for i, attrs := range main.ParamAttrs {
		if a, ok := attrs["tf.aliasing_output"]; ok {
			if _, err := fmt.Sscanf(string(a), "%d : i32", &r.aliases[i]); err != nil {
				return nil, fmt.Errorf("program %s: parameter %d is donated to %s, want a number", e.Name, i, a)
			}
		}
	}
	x, err := s.d.client.Compile([]byte(e.Text), e.Options)
	if err != nil {
		return nil, fmt.Errorf("program %s: %w", e.Name, err)
	}
	r.p, r.compile = &Program{Params: ir.Types(main.Params()), d: s.d, x: x}, time.Since(start).Seconds()
	fmt.Fprintf(s.o.Log, "%s of %d layers: compiled in %.1f s\n", e.Name, j.Model.Layers, r.compile)
	return r, nil
}

// close frees the program, and the arguments from number from on.
func (r *runner) close(from int) {
	r.p.Close()
	free(r.last...)
	if from < len(r.args) {
		free(r.args[from:]...)
	}
}

// step runs once.
func (r *runner) step() error {
	outs, err := r.p.Run(r.args...)
	if err != nil {
		return err
	}
	free(r.last...)
	r.last = nil
	placed := make([]bool, len(outs))
	for i, out := range r.aliases {
		if out >= 0 {
			r.args[i].Destroy()
			r.args[i], placed[out] = outs[out], true
		}
	}
	for i, b := range outs {
		if !placed[i] {
			r.last = append(r.last, b)
		}
	}
	return nil
}

// time is the seconds of a step, as average measures them.
func (r *runner) time(about time.Duration) (float64, error) {
	return average(about, func(n int) error {
		for range n {
			if err := r.step(); err != nil {
				return err
			}
		}
		return wait(r.last[0])
	})
}

// weights makes random weights of those types on the device: vectors, which scale norms, are around 1.
func (d *Device) weights(types []ir.Type) (all []*pjrt.Buffer, err error) {
	for i, t := range types {
		_, dims, _ := t.Split()
		mean, scale := 0.0, 0.02
		if len(dims) == 1 {
			mean, scale = 1, 0.01
		}
		b, err := d.Random(t, int32(i), mean, scale)
		if err != nil {
			return all, err
		}
		all = append(all, b)
		// One after the other: a program's temporaries are then those of one.
		if err := wait(b); err != nil {
			return all, err
		}
	}
	return all, nil
}

// ints makes a tensor whose element i is f(i).
func (d *Device) ints(t ir.Type, f func(i int) int) (*pjrt.Buffer, error) {
	elem, dims, ok := t.Split()
	if !ok || elem != "i32" {
		return nil, fmt.Errorf("parameter %s, want i32", t)
	}
	n := 1
	shape := make([]int64, len(dims))
	for i, d := range dims {
		n, shape[i] = n*d, int64(d)
	}
	values := make([]int32, n)
	for i := range values {
		values[i] = int32(f(i))
	}
	return d.Upload(shape, values...)
}

// isInt tells an i32 parameter.
func isInt(t ir.Type) bool {
	elem, _, _ := t.Split()
	return elem == "i32"
}

// token is the ith of a text without sense.
func token(i, vocab int) int { return (i*2654435761 + 12345) % vocab }
