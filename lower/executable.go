package lower

import (
	"fmt"

	"mix/lower/pjrt"
	"mix/lower/trace"
	"mix/sharding"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
)

// Executable is a compiled program as GoMLX runs it. It is safe for concurrent use.
type Executable struct {
	be      *Backend
	name    string
	l       *pjrt.LoadedExecutable // nil of a backend that emits
	params  []trace.Param
	outs    []shapes.Shape
	aliases []int          // output a parameter is donated to, or -1; nil when none is
	devices []int          // device numbers it is compiled for; nil: any one
	local   []shapes.Shape // outs as one device holds them
	stats   Stats

	specs, outSpecs []sharding.Spec // on the backend's mesh; nil elsewhere
}

var _ compute.Executable = (*Executable)(nil)

// outputs holds the compiled program's results to the traced ones. Those of a partitioned trace are as XLA shards them.
func (e *Executable) outputs(partitioned bool) error {
	if e.l.NumOutputs != len(e.outs) {
		return fmt.Errorf("lower: program %q has %d outputs compiled, %d traced", e.name, e.l.NumOutputs, len(e.outs))
	}
	if !partitioned {
		return nil
	}
	got, err := e.l.Exec.Outputs() // XLA chooses the sharding of outputs that have none
	if err != nil {
		return fmt.Errorf("lower: program %q: %w", e.name, err)
	}
	e.local = make([]shapes.Shape, len(e.outs))
	for i, o := range e.outs {
		e.local[i] = o.Clone()
		for d := range o.Dimensions {
			e.local[i].Dimensions[d] = int(got[i].Dims[d])
		}
	}
	return nil
}

// Finalize frees the code on the device: a later run is an error. Runs already started are not
// disturbed. Twice does nothing.
func (e *Executable) Finalize() {
	if e.l == nil { // emitted
		return
	}
	if err := e.l.Destroy(); err != nil {
		e.be.log.Warn("destroying a program", "program", e.name, "error", err)
	}
}

// Inputs are the parameters in order.
func (e *Executable) Inputs() (names []string, inputShapes []shapes.Shape) {
	for _, p := range e.params {
		names = append(names, p.Name)
		inputShapes = append(inputShapes, p.Shape)
	}
	return names, inputShapes
}

// Outputs are the shapes of the results in order.
func (e *Executable) Outputs() []shapes.Shape { return e.outs }

// Execute starts the program and returns the results in the making: reading one waits for it. Of the
// inputs marked in donate those that the program was configured to update in place hand their memory
// over; the others are freed. inputs are parameter by parameter for the first device, then for the
// next; so are the results.
func (e *Executable) Execute(inputs []compute.Buffer, donate []bool, defaultDevice compute.DeviceNum) ([]compute.Buffer, error) {
	if e.l == nil {
		return nil, fmt.Errorf("lower: program %q: %w", e.name, ErrHollow)
	}
	if e.specs != nil {
		return nil, fmt.Errorf("lower: program %q runs on the mesh %s, want it run as a Program", e.name, e.be.o.Mesh)
	}
	nd := max(len(e.devices), 1)
	np := len(e.params)
	if len(inputs) != nd*np {
		return nil, fmt.Errorf("lower: program %q is given %d inputs, want %d for %d devices", e.name, len(inputs), nd*np, nd)
	}
	if len(donate) != 0 && len(donate) != len(inputs) {
		return nil, fmt.Errorf("lower: program %q is given %d inputs and %d donate flags", e.name, len(inputs), len(donate))
	}
	o := pjrt.ExecOptions{NoEvents: true}
	if e.devices == nil {
		d, err := e.be.device(defaultDevice)
		if err != nil {
			return nil, err
		}
		o.Device = d
	}
	bufs := make([]*Buffer, len(inputs))
	args := make([]*pjrt.Buffer, len(inputs))
	for i, in := range inputs {
		b, err := e.input(in, i%max(np, 1), i/max(np, 1), defaultDevice)
		if err != nil {
			return nil, err
		}
		bufs[i], args[i] = b, b.b
	}
	o.NonDonatable = e.kept(donate, np, nd)
	rows := make([][]*pjrt.Buffer, nd)
	for d := range rows {
		rows[d] = args[d*np : (d+1)*np]
	}
	outs, _, err := e.l.Execute(rows, o)
	if err != nil {
		return nil, fmt.Errorf("lower: program %q: %w", e.name, err)
	}
	for i := range donate {
		if donate[i] {
			if err := bufs[i].Finalize(); err != nil {
				return nil, fmt.Errorf("lower: program %q: donated input %d: %w", e.name, i, err)
			}
		}
	}
	results := make([]compute.Buffer, 0, nd*len(e.outs))
	for d, row := range outs {
		for i, b := range row {
			results = append(results, &Buffer{be: e.be, b: b, shape: e.local[i], device: e.deviceOf(d, defaultDevice)})
		}
	}
	return results, nil
}

func (e *Executable) deviceOf(i int, defaultDevice compute.DeviceNum) compute.DeviceNum {
	if e.devices == nil {
		return defaultDevice
	}
	return compute.DeviceNum(e.devices[i])
}

// kept lists the parameters that the program would take over but that are not donated in this run.
// The list holds for all devices, so one device that keeps its input makes all keep it.
func (e *Executable) kept(donate []bool, np, nd int) (list []int64) {
	for p, out := range e.aliases {
		if out < 0 {
			continue
		}
		for d := range nd {
			if len(donate) == 0 || !donate[d*np+p] {
				list = append(list, int64(p))
				break
			}
		}
	}
	return list
}

// input checks one argument: parameter p of device d.
func (e *Executable) input(in compute.Buffer, p, d int, defaultDevice compute.DeviceNum) (*Buffer, error) {
	b, ok := in.(*Buffer)
	if !ok || b == nil || b.be != e.be {
		return nil, fmt.Errorf("lower: program %q, input %d (%s): a buffer of type %T, want one of this backend", e.name, p, e.params[p].Name, in)
	}
	if err := b.alive(); err != nil {
		return nil, fmt.Errorf("lower: program %q, input %d (%s): %w", e.name, p, e.params[p].Name, err)
	}
	if e.specs != nil {
		return b, e.placed(b, p)
	}
	if !sameShape(b.shape, e.params[p].Local) {
		return nil, fmt.Errorf("lower: program %q, input %d (%s) is %s, want %s", e.name, p, e.params[p].Name, b.shape, e.params[p].Local)
	}
	if want := e.deviceOf(d, defaultDevice); b.device != want {
		return nil, fmt.Errorf("lower: program %q, input %d (%s) is on device %d, want %d", e.name, p, e.params[p].Name, b.device, want)
	}
	return b, nil
}

// placed checks that a buffer lies on the mesh as parameter p does.
func (e *Executable) placed(b *Buffer, p int) error {
	switch {
	case !sameShape(b.shape, e.params[p].Shape):
		return fmt.Errorf("lower: program %q, input %d (%s) is %s, want %s", e.name, p, e.params[p].Name, b.shape, e.params[p].Shape)
	case b.parts == nil:
		return fmt.Errorf("lower: program %q, input %d (%s) is on one device, want the mesh %s", e.name, p, e.params[p].Name, e.be.o.Mesh)
	case !sameSpec(b.parts.spec, e.specs[p]):
		return fmt.Errorf("lower: program %q, input %d (%s) lies as %v on the mesh %s, want %v", e.name, p, e.params[p].Name, b.parts.spec, e.be.o.Mesh, e.specs[p])
	}
	return nil
}

func sameShape(a, b shapes.Shape) bool {
	if a.DType != b.DType || len(a.Dimensions) != len(b.Dimensions) {
		return false
	}
	for i, d := range a.Dimensions {
		if d != b.Dimensions[i] {
			return false
		}
	}
	return true
}
