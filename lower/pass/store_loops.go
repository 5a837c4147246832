package pass

import (
	"slices"

	"mix/lower/ir"
)

// The loops of a stored scan. Their state is a counter, what is written or carried, and the inputs.

// loop is the scan: last carry, outputs and carries before each layer stacked, and behind these what is kept.
func (s *stored) loop(b ir.Builder) []*ir.Value {
	in, n := s.forward.Operands, len(s.carry)
	var stackedTypes []ir.Type // [L, …]
	for _, v := range s.forward.Results[n:] {
		stackedTypes = append(stackedTypes, v.Type)
	}
	for _, t := range s.stores {
		stackedTypes = append(stackedTypes, s.ofLayers(t))
	}
	state := []*ir.Value{b.Index(0)}
	for _, t := range stackedTypes {
		state = append(state, zeroOf(b, t))
	}
	at := len(state)
	out := b.While(append(state, in...), s.more, func(b ir.Builder, vs []*ir.Value) []*ir.Value {
		l, buffers, all := vs[0], vs[1:at], vs[at:]
		y := s.call(b, s.layer, s.first, s.sliced(b, all, l))
		next, written := y[:n], slices.Concat(y[n:n+s.outs], all[:n], y[n+s.outs:])
		result := []*ir.Value{b.Add(l, b.Index(1))}
		for i, v := range written {
			result = append(result, put(b, buffers[i], v, l))
		}
		return slices.Concat(result, next, all[n:])
	})
	return slices.Concat(out[at:at+n], out[1:at])
}

// sliced is all, inputs of a layer, with slice l of what is stacked.
func (s *stored) sliced(b ir.Builder, all []*ir.Value, l *ir.Value) []*ir.Value {
	fixed := len(s.carry) + len(s.shared) + len(s.weights)
	return append(all[:fixed:fixed], takeAll(b, all[fixed:], []*ir.Value{l})...)
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
	weights, stacked := floatValues(s.weights), floatValues(s.stacked)
	state := append([]*ir.Value{b.Index(0)}, given(s.carry)...)
	for _, v := range slices.Concat(weights, stacked) {
		state = append(state, zeroOf(b, v.Type))
	}
	n, carry := len(state), len(s.carry)
	sums := carry + 1
	fixed := slices.Concat(given(s.shared), given(s.weights), given(s.stacked), given(s.frozen))
	each := slices.Concat(given(s.douts), given(s.kept), buffers) // [L, …]
	out := b.While(slices.Concat(state, each, fixed), s.more, func(b ir.Builder, vs []*ir.Value) []*ir.Value {
		l, rest := b.Binary("subtract", b.Index(s.layers-1), vs[0]), vs[n:]
		one := takeAll(b, rest[:len(each)], []*ir.Value{l})
		inputs := s.sliced(b, slices.Concat(one[s.outs:s.outs+carry], rest[len(each):]), l)
		y := s.call(b, s.gradient, s.second, slices.Concat(inputs, vs[1:sums], one[:s.outs], one[s.outs+carry:]))
		next := []*ir.Value{b.Add(vs[0], b.Index(1))}
		for _, v := range vs[1:sums] {
			if len(floatValues([]*ir.Value{v})) > 0 {
				v, y = y[0], y[1:]
			}
			next = append(next, v)
		}
		for i, v := range vs[sums:n] {
			if i < len(weights) {
				next = append(next, b.Add(v, y[i]))
			} else {
				next = append(next, put(b, v, y[i], l))
			}
		}
		return append(next, rest...)
	})
	return append(floatValues(out[1:sums]), out[sums:n]...)
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
