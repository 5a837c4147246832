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
				if err := s.rewrite(f, r); err != nil {
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

// stored is a scan and its gradient, taken apart: the lists are those of the gradient.
type stored struct {
	scanOf
	m             *ir.Module
	forward, back *ir.Op // mix.scan and mix.scan_gradient
	layer         *ir.Op // mix.layer of the scan's body
	gradient      *ir.Op // mix.layer_gradient of the gradient's
	layers        int
	inputs        int // operands of mix.layer
	first, second *ir.Func
	stores        []ir.Type // what first gives second, of one layer
}

// readStored reads the gradient op of region r and its scan; nil if there is nothing to store.
func readStored(m *ir.Module, r *ir.Region, op *ir.Op) (*stored, error) {
	if len(op.Operands) == 0 {
		return nil, nil
	}
	scan := op.Operands[len(op.Operands)-1].Def
	if scan == nil || composite(scan) != scanName || !slices.Contains(r.Ops, scan) || entryText(scan, "store") != "true" {
		return nil, nil
	}
	x, err := readScan(op)
	if err != nil {
		return nil, err
	}
	n := len(x.carry)
	if n < 1 || len(scan.Results) != 2*n+x.outs || !slices.Equal(x.kept, scan.Results[n+x.outs:]) {
		return nil, nil
	}
	if x.micro != 0 || len(x.each) > 0 || x.lead > 1 {
		return nil, fmt.Errorf("microbatches or several axes of layers, wanted neither where results are stored")
	}
	s := &stored{scanOf: x, m: m, forward: scan, back: op, layers: entry(op, "layers")}
	if s.layers < 1 || s.layers > maxSize {
		return nil, fmt.Errorf("%d layers, wanted 1 to %d", s.layers, maxSize)
	}
	s.inputs = n + len(s.shared) + len(s.weights) + len(s.stacked) + len(s.frozen)
	s.layer, s.gradient = inBody(m, scan, layerName), inBody(m, op, layerGradientName)
	if s.layer == nil || s.gradient == nil {
		return nil, fmt.Errorf("no %s and %s in the bodies", layerName, layerGradientName)
	}
	if want := s.inputs + n + s.outs; len(s.gradient.Operands) != want || len(s.layer.Operands) != s.inputs || len(s.gradient.Results) < n+s.outs {
		return nil, fmt.Errorf("%d operands and %d results of %s, wanted %d, and results of the layer behind gradients", len(s.gradient.Operands), len(s.gradient.Results), layerGradientName, want)
	}
	return s, s.check()
}

// check holds operands and results to each other: what is stacked has an axis of layers before what a layer takes and gives.
func (s *stored) check() error {
	n := len(s.carry)
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
	carried := slices.Concat(results[:n], ir.Types(s.carry))
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

// gradients is how many results of mix.layer_gradient are gradients.
func (s *stored) gradients() int { return len(s.gradient.Results) - len(s.carry) - s.outs }

// rewrite puts two loops in the place of both composites, in region r of f.
func (s *stored) rewrite(f *ir.Func, r *ir.Region) error {
	g := s.m.Func(callee(s.gradient))
	if g == nil || len(g.Body.Args) != len(s.gradient.Operands) || g.Body.Terminator() == nil || len(g.Body.Terminator().Operands) != len(s.gradient.Results) {
		return fmt.Errorf("no body of %s for its operands and results", layerGradientName)
	}
	c := cutAt(g.Body, len(s.carry), s.inputs, s.gradients())
	s.first, s.second = c.functions(s.m, g.Name)
	if s.stores = ir.Types(c.kept); slices.ContainsFunc(s.stores, func(t ir.Type) bool { _, _, ok := t.Split(); return !ok }) {
		return fmt.Errorf("kept values %v, wanted tensors of static sizes", s.stores)
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
	ir.ReplaceAll(f.Body, by)
	return nil
}
