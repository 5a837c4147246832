package pass

import (
	"fmt"
	"slices"

	"mix/lower/ir"
)

// store lets the gradient of a scan read what its forward pass computed, where the scan says store = "true": results of
// products, composites and regions of one device's work that depend on what is carried become stacked results of the scan, one
// slice a layer, and the gradient computes only what is cheap again. What depends on weights alone, such as their conversion,
// is computed again too.
//
// The composite mix.layer_gradient of such a scan returns, behind the gradients, what the layer does: its next carry and
// outputs. Its body is cut in two, into what depends on gradients and what does not.
//
// After: of a scan with a gradient beside it no mix.layer_gradient computes again what store keeps. Others are left alone.
func store(m *ir.Module, _ Context) (changed bool, err error) {
	for _, f := range slices.Clone(m.Funcs) {
		err := ir.WalkRegions(f.Body, func(r *ir.Region) error {
			for _, op := range slices.Clone(r.Ops) {
				if composite(op) != scanGradientName {
					continue
				}
				s, err := readStored(m, r, op)
				if err != nil {
					return fmt.Errorf("@%s: %s: %w", f.Name, scanGradientName, err)
				}
				if s == nil {
					continue
				}
				if err := s.rewrite(r); err != nil {
					return fmt.Errorf("@%s: %s: %w", f.Name, scanGradientName, err)
				}
				changed = true
			}
			return nil
		})
		if err != nil {
			return false, err
		}
	}
	if changed {
		ir.RemoveDead(m)
	}
	return changed, nil
}

const (
	scanName          = "mix.scan"
	scanGradientName  = "mix.scan_gradient"
	layerName         = "mix.layer"
	layerGradientName = "mix.layer_gradient"
)

// stored is a scan and its gradient, taken apart. Every list is in the order of the operands.
type stored struct {
	m               *ir.Module
	forward, back   *ir.Op // mix.scan and mix.scan_gradient
	layer           *ir.Op // mix.layer of the scan's body
	gradient        *ir.Op // mix.layer_gradient of the gradient's
	layers          int
	carry, outs     int
	shared, weights []*ir.Value
	stacked, frozen []*ir.Value
	douts           []*ir.Value
	inputs          int // operands of mix.layer
	first, second   *ir.Func
	kept            []ir.Type // what first gives second, of one layer
}

// readStored reads the gradient op of region r and its scan; nil if there is nothing to store.
func readStored(m *ir.Module, r *ir.Region, op *ir.Op) (*stored, error) {
	n, outs := entry(op, "carry"), entry(op, "outs")
	if most := len(op.Operands); n < 1 || n > most || outs < 0 || outs > most || most < 2*n+outs {
		return nil, nil
	}
	scan := op.Operands[len(op.Operands)-1].Def
	if scan == nil || composite(scan) != scanName || !slices.Contains(r.Ops, scan) || entryText(scan, "store") != "true" {
		return nil, nil
	}
	for i, v := range op.Operands[len(op.Operands)-n:] {
		if len(scan.Results) != 2*n+outs || v != scan.Results[n+outs+i] {
			return nil, nil
		}
	}
	if entry(op, "micro") != 0 || entry(op, "each") != 0 || entry(op, "lead") > 1 {
		return nil, fmt.Errorf("microbatches or several axes of layers, wanted neither where results are stored")
	}
	if l := entry(op, "layers"); l < 1 || l > maxSize {
		return nil, fmt.Errorf("%d layers, wanted 1 to %d", l, maxSize)
	}
	s := &stored{m: m, forward: scan, back: op, layers: entry(op, "layers"), carry: n, outs: outs}
	s.douts = op.Operands[n : n+outs]
	rest := op.Operands[n+outs : len(op.Operands)-n]
	for _, part := range []struct {
		to *[]*ir.Value
		n  int
	}{{&s.shared, entry(op, "shared")}, {&s.weights, entry(op, "weights")}, {&s.stacked, len(rest) - entry(op, "shared") - entry(op, "weights") - entry(op, "frozen")}, {&s.frozen, entry(op, "frozen")}} {
		if part.n < 0 || part.n > len(rest) {
			return nil, fmt.Errorf("%d operands, fewer than its attributes say", len(op.Operands))
		}
		*part.to, rest = rest[:part.n], rest[part.n:]
	}
	s.inputs = n + len(s.shared) + len(s.weights) + len(s.stacked) + len(s.frozen)
	s.layer, s.gradient = inBody(m, scan, layerName), inBody(m, op, layerGradientName)
	if s.layer == nil || s.gradient == nil {
		return nil, fmt.Errorf("no %s and %s in the bodies", layerName, layerGradientName)
	}
	if want := s.inputs + n + outs; len(s.gradient.Operands) != want || len(s.layer.Operands) != s.inputs || len(s.gradient.Results) < n+outs {
		return nil, fmt.Errorf("%d operands and %d results of %s, wanted %d, and results of the layer behind gradients", len(s.gradient.Operands), len(s.gradient.Results), layerGradientName, want)
	}
	return s, s.check()
}

// check holds operands and results to each other: what is stacked has an axis of layers before what a layer takes and gives.
func (s *stored) check() error {
	n := s.carry
	before := s.inputs - len(s.stacked) - len(s.frozen)
	var in []ir.Type // of a layer
	for i, v := range s.forward.Operands {
		t := v.Type
		if i >= before {
			t = s.oneLayer(t)
		}
		in = append(in, t)
	}
	results := ir.Types(s.forward.Results)
	carried := slices.Concat(results[:n], ir.Types(s.back.Operands[:n]))
	outs := []ir.Type{}
	for _, t := range results[n : n+s.outs] {
		outs = append(outs, s.oneLayer(t))
	}
	for _, t := range results[n+s.outs:] {
		carried = append(carried, s.oneLayer(t))
	}
	layer := slices.Concat(in[:min(n, len(in))], outs)
	gradient := ir.Types(s.gradient.Results)
	var grads []ir.Type
	for i, t := range in {
		shared := i >= n && i < n+len(s.shared)
		if elem, _, _ := t.Split(); floats[elem] && !shared && i < s.inputs-len(s.frozen) {
			grads = append(grads, t)
		}
	}
	ok := len(s.forward.Operands) == s.inputs && slices.Equal(ir.Types(s.layer.Operands), in) && !slices.Contains(in, "") && !slices.Contains(outs, "") &&
		slices.Equal(carried, slices.Repeat(in[:min(n, len(in))], 3)) && slices.Equal(gradient, slices.Concat(grads, layer)) &&
		slices.Equal(ir.Types(s.gradient.Operands), slices.Concat(in, layer)) && slices.Equal(ir.Types(s.douts), results[n:n+s.outs]) &&
		slices.Equal(ir.Types(slices.Concat(s.shared, s.weights, s.stacked, s.frozen)), ir.Types(s.forward.Operands[n:]))
	if !ok {
		return fmt.Errorf("operands %v and results %v of a layer, and those of its gradient, do not fit the scan's", ir.Types(s.layer.Operands), ir.Types(s.layer.Results))
	}
	return nil
}

// oneLayer is the type of one of the layers of [L, …], "" where there are not so many.
func (s *stored) oneLayer(t ir.Type) ir.Type {
	elem, dims, ok := t.Split()
	if !ok || len(dims) == 0 || dims[0] != s.layers {
		return ""
	}
	return ir.Tensor(elem, dims[1:]...)
}

// inBody is the composite called name in the body of op, nil if there is none.
func inBody(m *ir.Module, op *ir.Op, name string) (found *ir.Op) {
	if f := m.Func(callee(op)); f != nil {
		ir.Walk(f.Body, func(inner *ir.Op) {
			if composite(inner) == name {
				found = inner
			}
		})
	}
	return found
}

// gradients is how many results of mix.layer_gradient are gradients.
func (s *stored) gradients() int { return len(s.gradient.Results) - s.carry - s.outs }

// rewrite puts two loops in the place of both composites.
func (s *stored) rewrite(r *ir.Region) error {
	g := s.m.Func(callee(s.gradient))
	if g == nil || len(g.Body.Args) != len(s.gradient.Operands) || g.Body.Terminator() == nil || len(g.Body.Terminator().Operands) != len(s.gradient.Results) {
		return fmt.Errorf("no body of %s for its operands and results", layerGradientName)
	}
	c := cutAt(g.Body, s.carry, s.inputs, s.gradients())
	s.first, s.second = c.functions(s.m, g.Name)
	if s.kept = ir.Types(c.kept); slices.ContainsFunc(s.kept, func(t ir.Type) bool { _, _, ok := t.Split(); return !ok }) {
		return fmt.Errorf("kept values %v, wanted tensors of static sizes", s.kept)
	}
	s.m.Funcs = append(s.m.Funcs, s.first, s.second)

	by := map[*ir.Value]*ir.Value{}
	var buffers []*ir.Value
	for _, part := range []struct {
		op   *ir.Op
		emit func(b ir.Builder) []*ir.Value
	}{
		{s.forward, func(b ir.Builder) []*ir.Value {
			results := s.loop(b)
			n := len(s.forward.Results)
			buffers = results[n:]
			return results[:n]
		}},
		{s.back, func(b ir.Builder) []*ir.Value { return s.reverse(b, by, buffers) }},
	} {
		emitted := &ir.Region{}
		results := part.emit(ir.At(emitted))
		for i, v := range results {
			if want := part.op.Results[i]; v.Type != want.Type {
				return fmt.Errorf("result %d of %s is %s, wanted %s", i, composite(part.op), v.Type, want.Type)
			}
			by[part.op.Results[i]] = v
		}
		r.InsertBefore(part.op, emitted.Ops...)
		r.Erase(part.op)
	}
	for _, f := range s.m.Funcs {
		if contains(f.Body, r) {
			ir.ReplaceAll(f.Body, by)
		}
	}
	return nil
}

// contains tells whether inner is outer or inside of it.
func contains(outer, inner *ir.Region) (found bool) {
	_ = ir.WalkRegions(outer, func(r *ir.Region) error {
		found = found || r == inner
		return nil
	})
	return found
}
