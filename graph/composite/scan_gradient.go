package composite

import (
	"fmt"
	"slices"

	. "github.com/gomlx/gomlx/core/graph"

	"mix/sharding/axis"
)

func scanVJP(inputs, dys []*Node, state any) []*Node {
	st := state.(*scanState)
	if !st.keep {
		panic(fmt.Errorf("scan: gradient of a Scan, want ScanForGradient"))
	}
	in := st.in.like(inputs)
	n, o := len(in.Carry), len(st.outs)
	args := slices.Concat(dys[:n+o], in.Each, in.Shared, in.Weights, in.Stacked, in.Frozen, st.kept)
	results := call(ScanGradientName, st.attrs(), args, nil, st.backward)

	next := func(like []*Node) []*Node { // the gradients of the floats among like, nil for the others
		out := make([]*Node, len(like))
		for i, x := range like {
			if x.DType().IsFloat() {
				out[i], results = results[0], results[1:]
			}
		}
		return out
	}
	carry, weights, stacked := next(in.Carry), next(in.Weights), next(in.Stacked)
	return slices.Concat(carry, make([]*Node, len(in.Each)+len(in.Shared)), weights, stacked, make([]*Node, len(in.Frozen)))
}

// onceGradient is the gradient of one layer on one microbatch, a composite like once: from its inputs and the gradients
// of its results those of the float carries, weights and stacked values. Of a stored scan it gives the layer's results too, behind
// these: nobody reads them but the compiler.
func (st *scanState) onceGradient(in Scanned, dys []*Node) []*Node {
	all := in.all()
	return call(LayerGradientName, nil, append(all, dys...), nil, func(xs []*Node) []*Node {
		in, n, nw := in.like(xs[:len(all)]), len(in.Carry), len(in.Weights)
		var results []*Node
		dxs := throughBody(slices.Concat(in.Carry, in.Weights, in.Stacked), xs[len(all):], func(ys []*Node) []*Node {
			in.Carry, in.Weights, in.Stacked = ys[:n], ys[n:n+nw], ys[n+nw:]
			next, outs := st.layer(in)
			results = append(slices.Clone(next), outs...)
			return results
		})
		dxs = slices.DeleteFunc(dxs, func(x *Node) bool { return x == nil })
		if st.store {
			dxs = append(dxs, results...)
		}
		return dxs
	})
}

// acrossGradient is the gradient of one layer on all microbatches: of its float carries, and of the float weights and
// stacked values, summed.
func (st *scanState) acrossGradient(in Scanned, dys []*Node) (dcarry, dweights []*Node) {
	c := len(floatsOf(in.Carry))
	if in.Micro == 0 {
		results := st.onceGradient(in, dys)
		return results[:c], results[c : c+len(floatsOf(in.Weights))+len(floatsOf(in.Stacked))]
	}
	g, all := in.Carry[0].Graph(), in.all()
	init := []*Node{Const(g, int32(0))} // and gradients of carries [M, …], of stacked values, inputs, dys
	for _, x := range slices.Concat(floatsOf(in.Carry), floatsOf(in.Stacked)) {
		init = append(init, zeros(g, x.DType(), x.Shape().Dimensions))
	}
	k := len(init) - 1
	out := loop(g, in.Micro, slices.Concat(init, all, dys), func(s []*Node) []*Node {
		m, rest := s[0], s[1+k:]
		results := st.onceGradient(in.like(rest[:len(all)]).of(m), slicesAt(rest[len(all):], m))
		written := setSlices(s[1:1+c], results[:c], m)
		for i, x := range results[c:] {
			written = append(written, Add(s[1+c+i], x))
		}
		return append(written, rest...)
	})
	return out[1 : 1+c], out[1+c : 1+k]
}

// backward is the meaning of the scan's gradient: layers in reverse, each computed again from its kept
// carry. Inputs: gradients of last carry and outputs, each, shared, weights, stacked, frozen, kept. Results:
// gradients of the float carries, then of the float weights and stacked values.
func (st *scanState) backward(inputs []*Node) []*Node {
	g := inputs[0].Graph()
	n, o := len(st.in.Carry), len(st.outs)
	layers, lead := axis.Count(st.lead), len(st.lead)
	rest := inputs[n+o:]                        // each, shared, weights, stacked, frozen, kept
	kept := flattened(rest[len(rest)-n:], lead) // [L, …]
	// The carries' place in the list of inputs is taken by those of the last layer, which only give their shapes.
	in := st.in.like(slices.Concat(inputs[:n], rest[:len(rest)-n])).flat()
	for i := range n {
		in.Carry[i] = slicesAt(kept[i:i+1], Const(g, int32(0)))[0]
	}
	nw := len(floatsOf(in.Weights))
	init := append([]*Node{Const(g, int32(0))}, inputs[:n]...) // and gradients of weights, of stacked values [L, …]; rest
	for _, w := range slices.Concat(floatsOf(in.Weights), floatsOf(in.Stacked)) {
		init = append(init, zeros(g, w.DType(), w.Shape().Dimensions))
	}
	ng := len(init) - 1 - n
	fixed := in.all()[n:]
	init = slices.Concat(init, flattened(inputs[n:n+o], lead), kept, fixed)
	out := loop(g, layers, init, func(s []*Node) []*Node {
		l := Sub(Const(g, int32(layers-1)), s[0]) // []
		dcarry, grads, rest := s[1:1+n], s[1+n:1+n+ng], s[1+n+ng:]
		here := in.like(slices.Concat(slicesAt(rest[o:o+n], l), rest[o+n:])).at(l)
		next, dweights := st.acrossGradient(here, append(slices.Clone(dcarry), slicesAt(rest[:o], l)...))
		written := make([]*Node, ng)
		for i, d := range dweights {
			if i < nw {
				written[i] = Add(grads[i], d)
			} else {
				written[i] = setSlice(grads[i], d, l)
			}
		}
		return slices.Concat(merged(dcarry, next), written, rest)
	})
	results := floatsOf(out[1 : 1+n])
	results = append(results, out[1+n:1+n+nw]...)
	return append(results, st.unflat(out[1+n+nw:1+n+ng])...)
}

// floatsOf are the floats among xs.
func floatsOf(xs []*Node) (floats []*Node) {
	for _, x := range xs {
		if x.DType().IsFloat() {
			floats = append(floats, x)
		}
	}
	return floats
}

// merged is xs with the floats among them replaced, in order; the gradient of others is carried along unread.
func merged(xs, floats []*Node) []*Node {
	out := slices.Clone(xs)
	for i, x := range xs {
		if x.DType().IsFloat() {
			out[i], floats = floats[0], floats[1:]
		}
	}
	return out
}
