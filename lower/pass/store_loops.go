package pass

import (
	"slices"

	"mix/lower/ir"
)

// The loops of a stored scan. Their state is a counter, what is written or carried, and the inputs.

// loop is the scan: last carry, outputs and carries before each layer stacked, and behind these what is kept.
func (s *stored) loop(b ir.Builder) []*ir.Value {
	in := s.forward.Operands
	var stackedTypes []ir.Type // [L, …]
	for _, v := range s.forward.Results[s.carry:] {
		stackedTypes = append(stackedTypes, v.Type)
	}
	for _, t := range s.kept {
		stackedTypes = append(stackedTypes, s.ofLayers(t))
	}
	state := []*ir.Value{b.Index(0)}
	for _, t := range stackedTypes {
		state = append(state, zerosOf(b, t))
	}
	n := len(state)
	out := b.While(append(state, in...), s.more, func(b ir.Builder, vs []*ir.Value) []*ir.Value {
		l, buffers, all := vs[0], vs[1:n], vs[n:]
		here := slices.Clone(all)
		for i := s.carry + len(s.shared) + len(s.weights); i < len(here); i++ {
			here[i] = sliceAt(b, all[i], l)
		}
		y := s.call(b, s.layer, s.first, here)
		next, written := y[:s.carry], slices.Concat(y[s.carry:s.carry+s.outs], all[:s.carry], y[s.carry+s.outs:])
		result := []*ir.Value{b.Add(l, b.Index(1))}
		for i, v := range written {
			result = append(result, writeAt(b, buffers[i], v, l))
		}
		return slices.Concat(result, next, all[s.carry:])
	})
	return slices.Concat(out[n:n+s.carry], out[1:n])
}

// reverse is the gradient: of the float carries, weights and stacked values. by has what stands for results of the scan.
func (s *stored) reverse(b ir.Builder, by map[*ir.Value]*ir.Value, buffers []*ir.Value) []*ir.Value {
	given := func(vs []*ir.Value) (out []*ir.Value) {
		for _, v := range vs {
			if w, found := by[v]; found {
				v = w
			}
			out = append(out, v)
		}
		return out
	}
	ops := s.back.Operands
	dcarry, kept := given(ops[:s.carry]), given(ops[len(ops)-s.carry:])
	weights, stacked := floatsAmong(s.weights), floatsAmong(s.stacked)
	state := append([]*ir.Value{b.Index(0)}, dcarry...)
	for _, v := range slices.Concat(weights, stacked) {
		state = append(state, zerosOf(b, v.Type))
	}
	n, sums := len(state), s.carry+1
	fixed := slices.Concat(given(s.shared), given(s.weights), given(s.stacked), given(s.frozen))
	each := slices.Concat(given(s.douts), kept, buffers) // [L, …]
	out := b.While(slices.Concat(state, each, fixed), s.more, func(b ir.Builder, vs []*ir.Value) []*ir.Value {
		l, rest := b.Binary("subtract", b.Index(s.layers-1), vs[0]), vs[n:]
		var one []*ir.Value
		for _, v := range rest[:len(each)] {
			one = append(one, sliceAt(b, v, l))
		}
		inputs := slices.Concat(one[s.outs:s.outs+s.carry], rest[len(each):])
		for i := s.carry + len(s.shared) + len(s.weights); i < len(inputs); i++ {
			inputs[i] = sliceAt(b, inputs[i], l)
		}
		y := s.call(b, s.gradient, s.second, slices.Concat(inputs, vs[1:sums], one[:s.outs], one[s.outs+s.carry:]))
		next := []*ir.Value{b.Add(vs[0], b.Index(1))}
		for _, v := range vs[1:sums] {
			if isFloat(v) {
				v, y = y[0], y[1:]
			}
			next = append(next, v)
		}
		for i, v := range vs[sums:n] {
			if i < len(weights) {
				next = append(next, b.Add(v, y[i]))
			} else {
				next = append(next, writeAt(b, v, y[i], l))
			}
		}
		return append(next, rest...)
	})
	return append(floatsAmong(out[1:sums]), out[sums:n]...)
}

func (s *stored) more(b ir.Builder, vs []*ir.Value) *ir.Value {
	return b.Compare("LT", vs[0], b.Index(s.layers))
}

// call calls f in the way of the composite like.
func (s *stored) call(b ir.Builder, like *ir.Op, f *ir.Func, operands []*ir.Value) []*ir.Value {
	attrs := ir.Attrs{"name": like.Attrs["name"], "version": like.Attrs["version"], "decomposition": ir.Symbol(f.Name)}
	return b.Region.Emit("stablehlo.composite", operands, attrs, f.Results...).Results
}

// ofLayers is [L, …] of one layer's type.
func (s *stored) ofLayers(t ir.Type) ir.Type {
	elem, dims, _ := t.Split()
	return ir.Tensor(elem, append([]int{s.layers}, dims...)...)
}

func isFloat(v *ir.Value) bool {
	elem, _, _ := v.Type.Split()
	return floats[elem]
}

func floatsAmong(vs []*ir.Value) (found []*ir.Value) {
	for _, v := range vs {
		if isFloat(v) {
			found = append(found, v)
		}
	}
	return found
}

// zerosOf is a tensor of zeros, or of false.
func zerosOf(b ir.Builder, t ir.Type) *ir.Value {
	switch elem, _, _ := t.Split(); {
	case floats[elem]:
		return b.Const(t, "0.0")
	case elem == "i1":
		return b.Const(t, "false")
	}
	return b.Const(t, "0")
}

// sliceAt is slice l of [L, …].
func sliceAt(b ir.Builder, v, l *ir.Value) *ir.Value {
	dims := v.Dims()
	starts := []*ir.Value{l}
	for range dims[1:] {
		starts = append(starts, b.Index(0))
	}
	return b.Reshape(b.DynamicSlice(v, starts, append([]int{1}, dims[1:]...)...), dims[1:]...)
}

// writeAt writes v over slice l of [L, …].
func writeAt(b ir.Builder, into, v, l *ir.Value) *ir.Value {
	dims := into.Dims()
	starts := []*ir.Value{l}
	for range dims[1:] {
		starts = append(starts, b.Index(0))
	}
	return b.DynamicUpdate(into, b.Reshape(v, append([]int{1}, dims[1:]...)...), starts...)
}
