package lower

import (
	"fmt"
	"slices"

	"mix/lower/ir"
	"mix/lower/pass"
	"mix/lower/pjrt"
	"mix/lower/trace"
	"mix/sharding"
	"mix/sharding/axis"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
)

// Mesh is the mesh that the backend's programs run on; one device unless the options had one.
func (b *Backend) Mesh() sharding.Mesh { return b.o.Mesh }

// ShardingRules are the rules by which the notes in programs become shardings.
func (b *Backend) ShardingRules() sharding.Rules { return b.o.Rules }

// meshed tells whether a trace is to run on the backend's mesh: it is, unless it brings a mesh of its own.
func (b *Backend) meshed(t *trace.Builder) bool {
	return b.o.Mesh.Devices() > 1 && t.Replicas()*t.Partitions() == 1 && t.Devices() == nil
}

// spread puts a module onto the mesh: it declares the mesh to Shardy and gives every parameter and result its
// place. Parameters lie as the options say, or whole on every device. A result that takes over a parameter's memory
// lies as that does, others are whole. It returns the places.
func (b *Backend) spread(t *trace.Builder, o ProgramOptions, aliases []int) (params, results []sharding.Spec, err error) {
	m := t.Module()
	m.Globals = append(m.Globals, pass.MeshOp(b.o.Mesh))
	main := m.Func("main")
	mark := func(attrs []ir.Attrs, i int, spec sharding.Spec) {
		if attrs[i] == nil {
			attrs[i] = ir.Attrs{}
		}
		attrs[i]["sdy.sharding"] = pass.ShardingAttr(spec)
	}
	ps, outs := t.Params(), t.Outputs()
	if main.ParamAttrs == nil {
		main.ParamAttrs = make([]ir.Attrs, len(ps))
	}
	if main.ResultAttrs == nil {
		main.ResultAttrs = make([]ir.Attrs, len(outs))
	}
	params, results = make([]sharding.Spec, len(ps)), make([]sharding.Spec, len(outs))
	for i, p := range ps {
		spec, ok := o.Shard[p.Name]
		if !ok {
			spec = make(sharding.Spec, p.Shape.Rank())
		}
		if _, err := spec.Local(b.o.Mesh, p.Shape.Dimensions); err != nil {
			return nil, nil, fmt.Errorf("lower: program %q: parameter %q %s: %w", t.Name(), p.Name, p.Shape, err)
		}
		params[i] = spec
		mark(main.ParamAttrs, i, spec)
	}
	for name := range o.Shard {
		if !slices.ContainsFunc(ps, func(p trace.Param) bool { return p.Name == name }) {
			return nil, nil, fmt.Errorf("lower: program %q: sharded parameter %q does not exist", t.Name(), name)
		}
	}
	for i, out := range outs {
		results[i] = make(sharding.Spec, out.Rank())
		if p := slices.Index(aliases, i); p >= 0 {
			results[i] = params[p]
		}
		mark(main.ResultAttrs, i, results[i])
	}
	return params, results, nil
}

// parts are the buffers of a tensor that lies on a mesh, one a device.
type parts struct {
	bufs []*pjrt.Buffer
	spec sharding.Spec
}

// destroy frees all parts and returns the first error.
func (p *parts) destroy() (err error) {
	for _, b := range p.bufs {
		if b == nil {
			continue // hollow, or not made yet
		}
		if e := b.Destroy(); e != nil && err == nil {
			err = e
		}
	}
	return err
}

// wait returns when all parts are there, or with the error of one of them.
func (p *parts) wait() error {
	for _, b := range p.bufs {
		if err := wait(b); err != nil {
			return err
		}
	}
	return nil
}

// read copies the tensor's elements into dst, each box from one of the devices that hold it.
func (p *parts) read(m sharding.Mesh, shape shapes.Shape, dst []byte) error {
	boxes, err := sharding.Boxes(p.spec, m, shape.Dimensions)
	if err != nil {
		return err
	}
	width := int(shape.DType.Size())
	whole := axis.Piece{Offset: make([]int, shape.Rank()), Size: shape.Dimensions}
	for d, box := range boxes {
		if box.Replica != 0 {
			continue
		}
		if box.Elements() == shape.Size() {
			return p.bufs[d].ToHost(dst)
		}
		part := make([]byte, width*box.Elements())
		if err := p.bufs[d].ToHost(part); err != nil {
			return err
		}
		c, _ := axis.Intersect(box.Offset, box.Size, whole)
		for run := range c.Count {
			from, to := c.Run(run)
			copy(dst[width*to:width*(to+c.Length)], part[width*from:])
		}
	}
	return nil
}

// MakeSharded makes a tensor on the mesh, laid out by spec. fill writes the elements of a box, row-major, into zeroed
// memory, and is called once for each distinct box; nil leaves zeros. On one device it is Make.
func (b *Backend) MakeSharded(what string, shape shapes.Shape, spec sharding.Spec, fill func(box sharding.Box, dst []byte) error) (*Buffer, error) {
	boxes, err := sharding.Boxes(spec, b.o.Mesh, shape.Dimensions)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if len(boxes) == 1 {
		if fill == nil {
			return b.Make(what, shape, nil)
		}
		return b.Make(what, shape, func(dst []byte) error { return fill(boxes[0], dst) })
	}
	if shape.DType.IsPacked() {
		return nil, fmt.Errorf("%s: %s: elements under 8 bits cannot be made on a mesh", what, shape)
	}
	if b.emit != nil {
		return b.hollow(shape, spec), nil
	}
	p := &parts{bufs: make([]*pjrt.Buffer, len(boxes)), spec: spec}
	fail := func(err error) (*Buffer, error) {
		_ = p.destroy()
		return nil, err
	}
	for d, box := range boxes {
		if p.bufs[d] != nil {
			continue
		}
		local := shapes.Make(shape.DType, box.Size...)
		block := new(HostBlock) // of no elements
		if n := int64(local.ByteSize()); n > 0 {
			if block, err = b.Alloc(n); err != nil {
				return fail(fmt.Errorf("%s: %w", what, err))
			}
		}
		if fill != nil {
			if err := fill(box, block.Bytes()); err != nil {
				block.Free()
				return fail(err)
			}
		}
		for e := d; e < len(boxes); e++ {
			if !slices.Equal(boxes[e].Offset, box.Offset) {
				continue
			}
			x, err := b.fromHost(compute.DeviceNum(e), block.Bytes(), local, pjrt.CopyDuringCall, nil)
			if err != nil {
				block.Free()
				return fail(fmt.Errorf("%s: %w", what, err))
			}
			p.bufs[e] = x.b
		}
		block.Free()
	}
	return &Buffer{be: b, b: p.bufs[0], parts: p, shape: shape.Clone()}, nil
}

// MakePiece makes a piece of a weight where it lies, on one device or on the mesh: read fills each distinct box once.
func (b *Backend) MakePiece(what string, q axis.Piece, spec sharding.Spec, place sharding.Placement, read func(q axis.Piece, dst []byte) error) (*Buffer, error) {
	shape := shapes.Make(q.DType, q.Shape...)
	if place.OneDevice() {
		return b.Make(what, shape, func(dst []byte) error { return read(q, dst) })
	}
	return b.MakeSharded(what, shape, spec, func(box sharding.Box, dst []byte) error {
		for _, part := range place.Parts(q, box) {
			n := part.Bytes()
			if err := read(part, dst[:n]); err != nil {
				return err
			}
			dst = dst[n:]
		}
		return nil
	})
}

// replicate makes a tensor that is whole on every device.
func (b *Backend) replicate(raw []byte, shape shapes.Shape) (*Buffer, error) {
	return b.MakeSharded("upload of "+shape.String(), shape, make(sharding.Spec, shape.Rank()), func(_ sharding.Box, dst []byte) error {
		copy(dst, raw)
		return nil
	})
}

// sameSpec tells whether two specs lay a tensor out alike.
func sameSpec(a, b sharding.Spec) bool {
	return slices.EqualFunc(a, b, func(x, y []axis.Mesh) bool { return slices.Equal(x, y) })
}
