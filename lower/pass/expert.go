package pass

import (
	"fmt"
	"slices"

	"mix/lower/ir"
	"mix/lower/target"
	"mix/sharding"
	"mix/sharding/axis"
)

const (
	routedName         = "mix.routed_experts"
	routedGradientName = "mix.routed_experts_gradient"
)

// expert spreads routed experts over the mesh: composites mix.routed_experts and mix.routed_experts_gradient become
// regions of one device's work over the axes data, expert and tensor, as far as the mesh has them. The rules for weights
// say which axes split the experts and their hidden width.
//
//	tokens → rows to the devices of their experts → grouped products → back → sum over the choices
//	         all-to-all                                               all-to-all  all-reduce where the hidden width is split
//
// A device sends as many rows as could ever be meant for another, so none is dropped and the result is that of one
// device; how many are real, the ids that travel along tell. Where tokens do not divide over the devices, all have all
// tokens, compute the rows of their own experts, and an all-reduce brings together results of which all but one are zero.
//
// With a capacity an expert has room for so many rows of a device's own tokens, which are its group, as in Megatron-LM: the
// result depends on the mesh. A device then sends that many rows an expert, where this is less. Rows without room count as
// results of zero, and how many they are is added up over the devices.
//
// What a forward pass keeps for the gradient is a device's own, the parts of all devices behind each other: only the
// gradient reads it, which is rewritten along. A gradient whose forward pass is elsewhere, or is there for it alone, computes
// it in its own region.
//
// After: on a mesh no mix.routed_experts_gradient is left, and no mix.routed_experts but those whose kept results others
// than gradients read. The regions hold composites mix.grouped_gemm and mix.grouped_outer, the rows of whose
// groups may be fewer than all: results of the others are zero and not read.
func expert(m *ir.Module, ctx Context) (changed bool, err error) {
	if len(regionAxes(ctx.Mesh)) == 0 {
		return false, nil
	}
	ops, funcs := ir.RemoveDead(m) // what only dead operations read is not read
	merged, err := mergeKept(m)
	if err != nil {
		return false, err
	}
	changed = merged || ops+funcs > 0
	e := &spreader{ctx: ctx, products: newProducts(m), channel: m.NextChannel(), owners: ownersOf(m, ctx.Mesh)}
	for _, f := range slices.Clone(m.Funcs) { // products adds functions
		did, err := e.function(f)
		if err != nil {
			return false, fmt.Errorf("@%s: %w", f.Name, err)
		}
		changed = changed || did
	}
	ops, funcs = ir.RemoveDead(m)
	return changed || ops+funcs > 0, nil
}

// regionAxes are the mesh axes over which the regions are one device's work. A pipeline is none of them: the region may
// stand in a stage.
func regionAxes(m sharding.Mesh) []axis.Mesh {
	return more(m, []axis.Mesh{axis.Data, axis.Expert, axis.Tensor})
}

// more are those of axes that have more than one device.
func more(m sharding.Mesh, axes []axis.Mesh) (found []axis.Mesh) {
	for _, a := range axes {
		if m.Size(a) > 1 {
			found = append(found, a)
		}
	}
	return found
}

// spreader rewrites the functions of a module.
type spreader struct {
	ctx      Context
	products *products
	channel  int // of the next collective
	owners   *owners
}

// function rewrites f.
func (e *spreader) function(f *ir.Func) (changed bool, err error) {
	by, readers := map[*ir.Value]*ir.Value{}, readersOf(f.Body)
	err = ir.WalkRegions(f.Body, func(r *ir.Region) error {
		if !slices.ContainsFunc(r.Ops, isRouted) {
			return nil
		}
		out := &ir.Region{}
		kept := map[*ir.Op][]*ir.Value{} // of forward passes in this region
		for _, op := range r.Ops {
			results, err := e.op(ir.At(out), r, op, readers, kept)
			if err != nil {
				return fmt.Errorf("%s: %w", composite(op), err)
			}
			if results == nil {
				out.Add(op)
			}
			for i, v := range results {
				if v.Type != op.Results[i].Type {
					return fmt.Errorf("%s: result %d is %s, wanted %s", composite(op), i, op.Results[i].Type, v.Type)
				}
				by[op.Results[i]] = v
			}
		}
		r.Ops = out.Ops
		return nil
	})
	if err != nil {
		return false, err
	}
	ir.ReplaceAll(f.Body, by)
	return len(by) > 0, nil
}

func isRouted(op *ir.Op) bool {
	name := composite(op)
	return name == routedName || name == routedGradientName
}

// readersOf lists the operations that read a value.
func readersOf(r *ir.Region) map[*ir.Value][]*ir.Op {
	readers := map[*ir.Value][]*ir.Op{}
	ir.Walk(r, func(op *ir.Op) {
		for _, v := range op.Operands {
			readers[v] = append(readers[v], op)
		}
	})
	return readers
}

// op emits what stands for an operation of region r, nil for one that stays. Of a forward pass that keeps it gives the answers
// and writes down what is kept.
func (e *spreader) op(b ir.Builder, r *ir.Region, op *ir.Op, readers map[*ir.Value][]*ir.Op, kept map[*ir.Op][]*ir.Value) ([]*ir.Value, error) {
	switch composite(op) {
	case routedName:
		x, err := readExperts(op)
		if err != nil {
			return nil, err
		}
		n := answers(op)
		if len(op.Results) < n || n == 2 && op.Results[1].Type != ir.Tensor("f32") {
			return nil, fmt.Errorf("results %v, wanted a scalar of f32 behind the first, the rows dropped", ir.Types(op.Results))
		}
		here := false // a gradient of this region reads what is kept
		for _, v := range op.Results[n:] {
			for _, reader := range readers[v] {
				if composite(reader) != routedGradientName {
					return nil, nil
				}
				here = here || slices.Contains(r.Ops, reader)
			}
		}
		read := func(v *ir.Value) bool { return len(readers[v]) > 0 }
		if here && !slices.ContainsFunc(op.Results[:n], read) { // the gradient computes it, without the sums that make y of it
			return nil, nil
		}
		s, err := e.split(op, x)
		if err != nil {
			return nil, err
		}
		results := s.forward(b, here)
		kept[op] = results[n:]
		return results[:n], nil
	case routedGradientName:
		g, err := readGradient(op)
		if err != nil {
			return nil, err
		}
		s, err := e.split(op, g.experts)
		if err != nil {
			return nil, err
		}
		return s.gradient(b, g, kept[g.forward]), nil
	}
	return nil, nil
}

// gradientOf is a mix.routed_experts_gradient taken apart.
type gradientOf struct {
	experts
	dy      *ir.Value
	forward *ir.Op // the forward pass that kept what the gradient reads; nil for none
	frozen  bool
	types   []ir.Type
}

// keptValues is how many results of a forward pass behind its answers the gradient reads: rows, places, sizes, the products by
// gate, up and down.
const keptValues = 6

func readGradient(op *ir.Op) (g gradientOf, err error) {
	frozen, _ := op.Attrs["composite_attributes"].Entry("frozen")
	g.frozen, g.types = frozen == ir.String("true"), ir.Types(op.Results)
	n := len(op.Operands) - 1 - keptValues
	if n < 6 || len(op.Results) < 2 {
		return g, fmt.Errorf("%d operands and %d results, wanted at least 13 and 2", len(op.Operands), len(op.Results))
	}
	forward := &ir.Op{Operands: op.Operands[:n], Results: op.Results[:1], Attrs: op.Attrs}
	if g.experts, err = readExperts(forward); err != nil {
		return g, err
	}
	matrices := n - 3
	if g.frozen {
		matrices = 0
	}
	if len(op.Results) != 2+matrices {
		return g, fmt.Errorf("%d results, wanted those of x, weights and %d matrices", len(op.Results), matrices)
	}
	for _, t := range g.types {
		if elem, _, _ := t.Split(); !floats[elem] {
			return g, fmt.Errorf("result %s, wanted a tensor of floats", t)
		}
	}
	if g.dy = op.Operands[n]; g.dy.Type != g.x.Type {
		return g, fmt.Errorf("dy %s, wanted the type of x, %s", g.dy.Type, g.x.Type)
	}
	g.forward = op.Operands[n+1].Def
	for i, v := range op.Operands[n+1:] {
		if v.Def == nil || v.Def != g.forward || composite(v.Def) != routedName {
			g.forward = nil
			break
		}
		if first := answers(v.Def); len(v.Def.Results) != first+keptValues || v != v.Def.Results[first+i] {
			g.forward = nil
			break
		}
	}
	return g, nil
}

// split lays the experts of op out on the mesh, or says why they do not fit.
func (e *spreader) split(op *ir.Op, x experts) (s expertSplit, err error) {
	m := e.ctx.Mesh
	if !x.stacked {
		return s, fmt.Errorf("%d matrices of a tensor each, wanted one tensor of all experts to split over mesh %v", 3*x.e, m)
	}
	row := e.ctx.Rules.Table(sharding.Weights).Split
	s = expertSplit{spreader: e, x: x, axes: regionAxes(m), experts: more(m, row[axis.Experts]), hidden: more(m, row[axis.FFN])}
	for _, a := range slices.Concat(s.experts, s.hidden) {
		if !slices.Contains(s.axes, a) {
			return s, fmt.Errorf("rules %v split experts over %s, wanted other axes", e.ctx.Rules, a)
		}
	}
	s.owners = m.Size(s.experts...)
	if x.e%s.owners != 0 {
		return s, fmt.Errorf("%d experts do not divide over %d shards %v", x.e, s.owners, s.experts)
	}
	if n := m.Size(s.hidden...); x.f%n != 0 {
		return s, fmt.Errorf("hidden width of %d does not divide over %d shards %v", x.f, n, s.hidden)
	}
	data := more(m, []axis.Mesh{axis.Data})
	for _, tokens := range [][]axis.Mesh{slices.Concat(data, s.experts), data, nil} {
		if x.t%m.Size(tokens...) == 0 {
			s.tokens = tokens
			break
		}
	}
	s.exchange = len(s.experts) > 0 && len(s.tokens) >= len(s.experts) && slices.Contains(s.tokens, s.experts[0])
	s.t, s.e, s.f = x.t/m.Size(s.tokens...), x.e/s.owners, x.f/m.Size(s.hidden...)
	s.rows = s.t * min(x.k, s.e)
	if x.capacity > 0 {
		if s.most = axis.Capacity(x.capacity, s.t, x.k, x.e); s.most == s.t {
			s.most = 0
		}
	}
	switch {
	case s.exchange && s.most > 0 && x.e*s.most < s.owners*s.rows:
		s.bins, s.room = x.e, s.most
		s.rows = s.bins * s.room
	case s.exchange:
		s.bins, s.room = s.owners, s.rows
		s.rows = s.bins * s.room
	case s.most > 0:
		s.rows = min(s.rows, s.e*s.most)
	}
	s.chunks = 1
	if s.exchange && s.most == 0 && e.alone(op) {
		s.ragged, s.chunks = true, chunksOf(s.t, x.k)
	}
	if s.rows > maxSize {
		return s, fmt.Errorf("%d rows a device, wanted at most %d", s.rows, maxSize)
	}
	return s, nil
}

// alone tells whether regions in the place of op are one device's work along all axes, on a platform that has ragged exchanges:
// nobody could take one apart.
func (e *spreader) alone(op *ir.Op) bool {
	shared, met := e.owners.shared(op)
	return e.ctx.Platform == target.CUDA && met && !slices.ContainsFunc(shared, func(a axis.Mesh) bool {
		return e.ctx.Mesh.Size(a) > 1 && !slices.Contains(regionAxes(e.ctx.Mesh), a)
	})
}

// chunksOf is in how many parts a device's tokens are exchanged and computed: two, where each leaves products so many rows that
// reading their matrices twice costs little.
func chunksOf(tokens, choices int) int {
	if tokens%2 != 0 || tokens*choices < 2*chunkRows {
		return 1
	}
	return 2
}

// chunkRows are the fewest rows of a part.
const chunkRows = 2048
