package pass

import (
	"strings"

	"mix/lower/ir"
	"mix/lower/target"
	"mix/sharding"
	"mix/sharding/axis"
)

// takeable tells which composites the rules of ctx may take. On a mesh XLA does not know how to take a kernel
// apart: kernels may stand only where the program is one device's work along every axis.
func takeable(m *ir.Module, ctx Context) func(op *ir.Op) bool {
	if ctx.Platform != target.CUDA || ctx.Mesh.Devices() == 1 {
		return func(*ir.Op) bool { return true }
	}
	w := ownersOf(m, ctx.Mesh)
	return func(op *ir.Op) bool {
		shared, met := w.shared(op)
		return met && len(shared) == 0
	}
}

// owners knows along which axes of a mesh the operations of a program are one device's work.
type owners struct {
	m    *ir.Module
	axes []axis.Mesh
	own  map[*ir.Op]map[axis.Mesh]bool
	met  map[string]int // along how many axes a function is, where it is called along the fewest
}

func ownersOf(m *ir.Module, mesh sharding.Mesh) *owners {
	w := &owners{m: m, own: map[*ir.Op]map[axis.Mesh]bool{}, met: map[string]int{}}
	for _, a := range mesh.Axes() {
		w.axes = append(w.axes, a.Name)
	}
	if main := m.Func("main"); main != nil {
		w.function(main, map[axis.Mesh]bool{})
	}
	return w
}

// shared are the axes along which op is the work of all devices. Operations that main does not reach are met nowhere.
func (w *owners) shared(op *ir.Op) (axes []axis.Mesh, met bool) {
	own, met := w.own[op]
	for _, a := range w.axes {
		if !own[a] {
			axes = append(axes, a)
		}
	}
	return axes, met
}

// function visits f, called where own axes are one device's. Regions nest, so that fewer axes are a part of more.
func (w *owners) function(f *ir.Func, own map[axis.Mesh]bool) {
	if n, met := w.met[f.Name]; met && n <= len(own) {
		return
	}
	w.met[f.Name] = len(own)
	w.region(f.Body, own)
}

func (w *owners) region(r *ir.Region, own map[axis.Mesh]bool) {
	if r == nil {
		return
	}
	for _, op := range r.Ops {
		w.own[op] = own
		inner := own
		if op.Name == "sdy.manual_computation" {
			inner = map[axis.Mesh]bool{}
			for _, a := range w.axes {
				if own[a] || strings.Contains(string(op.Attrs["manual_axes"]), string(ir.String(string(a)))) {
					inner[a] = true
				}
			}
		}
		for _, in := range op.Regions {
			w.region(in, inner)
		}
		if f := w.m.Func(callee(op)); f != nil {
			w.function(f, own)
		}
	}
}
