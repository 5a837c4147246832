package lower

import (
	"fmt"
	"sync"

	"mix/lower/pjrt"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
)

// Param is a parameter of a program.
type Param struct {
	Name  string
	Shape shapes.Shape
}

// Program is the quick way to run an executable of one device, or of the backend's mesh, again and again: arguments that do
// not change are bound once, a run takes the others, starts the program and returns.
type Program struct {
	e  *Executable
	mu sync.Mutex
	o  pjrt.ExecOptions

	device compute.DeviceNum
	bound  []*Buffer        // by parameter, nil when given by each run
	free   []int            // parameters given by each run, in order
	args   []*pjrt.Buffer   // of one device
	rows   [][]*pjrt.Buffer // of a mesh, [device][parameter]; nil on one device
}

// ProgramOf is a program of an executable of this backend, usually g.Executable() of a compiled
// graph. Programs of the same executable share nothing but the code.
func ProgramOf(e compute.Executable) (*Program, error) {
	x, ok := e.(*Executable)
	if !ok {
		return nil, fmt.Errorf("lower: executable of type %T, want one of backend %q", e, BackendName)
	}
	if len(x.devices) > 1 && x.specs == nil {
		return nil, fmt.Errorf("lower: program %q runs on %d devices, want one", x.name, len(x.devices))
	}
	p := &Program{e: x, bound: make([]*Buffer, len(x.params)), args: make([]*pjrt.Buffer, len(x.params))}
	p.o.NoEvents = true
	p.device = x.deviceOf(0, 0)
	if x.devices == nil {
		p.o.Device = x.be.devices[0]
	}
	if x.specs != nil {
		p.rows = make([][]*pjrt.Buffer, len(x.devices))
		for d := range p.rows {
			p.rows[d] = make([]*pjrt.Buffer, len(x.params))
		}
	}
	p.relist()
	return p, nil
}

func (p *Program) relist() {
	p.free = p.free[:0]
	for i, b := range p.bound {
		if b == nil {
			p.free = append(p.free, i)
		}
	}
}

// Name is the name of the program.
func (p *Program) Name() string { return p.e.name }

// Params are all parameters in order, bound ones too.
func (p *Program) Params() []Param {
	ps := make([]Param, len(p.e.params))
	for i, q := range p.e.params {
		ps[i] = Param{q.Name, q.Shape}
	}
	return ps
}

// Outputs are the shapes of the results.
func (p *Program) Outputs() []shapes.Shape { return p.e.outs }

// Index is the parameter called name, -1 if there is none.
func (p *Program) Index(name string) int {
	for i, q := range p.e.params {
		if q.Name == name {
			return i
		}
	}
	return -1
}

// Bind gives parameter i the same buffer in every run; nil makes it an argument of Run again. A
// parameter that the program updates in place cannot be bound: its buffer is gone after one run.
func (p *Program) Bind(i int, b *Buffer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i < 0 || i >= len(p.bound) {
		return fmt.Errorf("lower: program %q has no parameter %d, want 0 to %d", p.e.name, i, len(p.bound)-1)
	}
	if b != nil {
		if p.donated(i) {
			return fmt.Errorf("lower: program %q updates parameter %d (%s) in place, which cannot be bound", p.e.name, i, p.e.params[i].Name)
		}
		if _, err := p.e.input(b, i, 0, p.device); err != nil {
			return err
		}
		p.set(i, b)
	}
	p.bound[i] = b
	p.relist()
	p.forget()
	return nil
}

func (p *Program) donated(i int) bool { return p.e.aliases != nil && p.e.aliases[i] >= 0 }

// Run starts the program on the bound buffers and args, one for every parameter that is not bound,
// in order, and returns the results in the making. Reading a result, or passing it to another run,
// waits for it as needed; an error of the run appears there. Donated arguments are gone when Run
// returns without an error.
func (p *Program) Run(args ...*Buffer) ([]*Buffer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.forget()
	if len(args) != len(p.free) {
		return nil, fmt.Errorf("lower: program %q is given %d arguments, want %d", p.e.name, len(args), len(p.free))
	}
	for k, b := range args {
		i := p.free[k]
		if b == nil {
			return nil, fmt.Errorf("lower: program %q, input %d (%s) is nil", p.e.name, i, p.e.params[i].Name)
		}
		if _, err := p.e.input(b, i, 0, p.device); err != nil {
			return nil, err
		}
		p.set(i, b)
	}
	results, err := p.start()
	if err != nil {
		return nil, fmt.Errorf("lower: program %q: %w", p.e.name, err)
	}
	for k, b := range args {
		if i := p.free[k]; p.donated(i) {
			if err := b.Finalize(); err != nil {
				return nil, fmt.Errorf("lower: program %q: donated input %d: %w", p.e.name, i, err)
			}
		}
	}
	return results, nil
}

// set makes b argument i of the next run.
func (p *Program) set(i int, b *Buffer) {
	p.args[i] = b.b
	for d := range p.rows {
		p.rows[d][i] = b.parts.bufs[d]
	}
}

// start runs the program on the arguments that are set.
func (p *Program) start() ([]*Buffer, error) {
	if p.e.l == nil {
		return nil, ErrHollow
	}
	all := make([]Buffer, len(p.e.outs))
	results := make([]*Buffer, len(p.e.outs))
	for i := range all {
		r := &all[i]
		r.be, r.shape, r.device = p.e.be, p.e.outs[i], p.device
		results[i] = r
	}
	if p.rows == nil {
		outs, _, err := p.e.l.ExecuteOne(p.args, p.o)
		if err != nil {
			return nil, err
		}
		for i, o := range outs {
			results[i].b = o
		}
		return results, nil
	}
	outs, _, err := p.e.l.Execute(p.rows, p.o)
	if err != nil {
		return nil, err
	}
	for i, r := range results {
		r.parts = &parts{bufs: make([]*pjrt.Buffer, len(outs)), spec: p.e.outSpecs[i]}
		for d := range outs {
			r.parts.bufs[d] = outs[d][i]
		}
		r.b = r.parts.bufs[0]
	}
	return results, nil
}

// forget lets go of the arguments of a run.
func (p *Program) forget() {
	for _, i := range p.free {
		p.args[i] = nil
		for d := range p.rows {
			p.rows[d][i] = nil
		}
	}
}

// Finalize frees the code on the device, for all programs of the executable: a later Run is an error.
// Runs already started and bound buffers are not disturbed. Twice does nothing.
func (p *Program) Finalize() { p.e.Finalize() }

// Stats tells how the program came about.
func (p *Program) Stats() Stats { return p.e.stats }

// OptimizedHLO is what XLA made of the program; for the format "hlo_with_config" the bytes are an
// HloModuleProtoWithConfig.
func (p *Program) OptimizedHLO() (format string, code []byte, err error) {
	if p.e.l == nil {
		return "", nil, fmt.Errorf("lower: program %q: %w", p.e.name, ErrHollow)
	}
	return p.e.l.Exec.OptimizedHLO()
}

// MemoryStats are the bytes that a run needs on the device.
func (p *Program) MemoryStats() (pjrt.MemoryStats, error) {
	if p.e.l == nil {
		return pjrt.MemoryStats{}, fmt.Errorf("lower: program %q: %w", p.e.name, ErrHollow)
	}
	return p.e.l.Exec.MemoryStats()
}
