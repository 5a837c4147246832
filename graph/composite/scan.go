package composite

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Scanned are the inputs of a scan, or of one of its layers: then Stacked and Frozen are slices.
type Scanned struct {
	Carry   []*Node // any shapes, kept by the layer
	Shared  []*Node // the same in every layer; no gradient flows to them
	Weights []*Node // the same in every layer; their gradients sum over the layers
	Stacked []*Node // [L, …] one slice a layer
	Frozen  []*Node // [L, …] one slice a layer; no gradient flows to them
}

// all lists the inputs, and like cuts such a list up again.
func (in Scanned) all() []*Node {
	return slices.Concat(in.Carry, in.Shared, in.Weights, in.Stacked, in.Frozen)
}

func (in Scanned) like(all []*Node) (out Scanned) {
	for _, part := range []struct {
		to *[]*Node
		n  int
	}{{&out.Carry, len(in.Carry)}, {&out.Shared, len(in.Shared)}, {&out.Weights, len(in.Weights)}, {&out.Stacked, len(in.Stacked)}, {&out.Frozen, len(in.Frozen)}} {
		*part.to, all = all[:part.n:part.n], all[part.n:]
	}
	return out
}

// Layer is the body of a scan: the next carried values, and slice l of each stacked output.
type Layer func(in Scanned) (next, outs []*Node)

// Scan applies layer L times, compile time independent of L. It has no gradient: see ScanForGradient.
//
// outs are the shapes of one layer's outputs. It returns the last carry, and the outputs of all layers
// stacked, [L, …].
func Scan(in Scanned, outs []shapes.Shape, layer Layer) (last, all []*Node) {
	return scan(in, outs, layer, false)
}

// ScanForGradient is Scan that also keeps the carry before each layer, from which the gradient computes
// the layer again: memory grows by one carry a layer, not by all that a layer computes inside.
func ScanForGradient(in Scanned, outs []shapes.Shape, layer Layer) (last, all []*Node) {
	return scan(in, outs, layer, true)
}

// scanState is what the gradient of a scan needs beside the call's inputs and outputs.
type scanState struct {
	layer  Layer
	layers int
	in     Scanned // as called, for the number of each
	outs   []shapes.Shape
	keep   bool
	kept   []*Node // [L, …] the carry before each layer
}

func scan(in Scanned, outs []shapes.Shape, layer Layer, keep bool) (last, all []*Node) {
	if len(in.Carry) == 0 || len(in.Stacked) == 0 {
		panic(fmt.Errorf("scan: %d carried and %d stacked values, want at least one of each", len(in.Carry), len(in.Stacked)))
	}
	st := &scanState{layer: layer, layers: in.Stacked[0].Shape().Dim(0), in: in, outs: outs, keep: keep}
	for i, s := range slices.Concat(in.Stacked, in.Frozen) {
		if s.Shape().Dim(0) != st.layers {
			panic(fmt.Errorf("scan: stacked value %d is %s, want %d layers", i, s.Shape(), st.layers))
		}
	}
	as := st.attrs()
	if keep {
		as = append(as, [2]string{"keep", "true"})
	}
	results := call(ScanName, as, in.all(), st, st.forward)
	n := len(in.Carry)
	st.kept = results[n+len(outs):]
	return results[:n], results[n : n+len(outs)]
}

// attrs tell a pass which inputs are which.
func (st *scanState) attrs() attrs {
	as := attrs{{"layers", strconv.Itoa(st.layers)}, {"carry", strconv.Itoa(len(st.in.Carry))}, {"shared", strconv.Itoa(len(st.in.Shared))}}
	if n := len(st.in.Weights); n > 0 {
		as = append(as, [2]string{"weights", strconv.Itoa(n)})
	}
	if n := len(st.in.Frozen); n > 0 {
		as = append(as, [2]string{"frozen", strconv.Itoa(n)})
	}
	return as
}

// at is layer l of in.
func (in Scanned) at(l *Node) Scanned {
	in.Stacked, in.Frozen = slicesAt(in.Stacked, l), slicesAt(in.Frozen, l)
	return in
}

// forward is the meaning of Scan. Results: last carry, stacked outputs, and the kept carries if any.
func (st *scanState) forward(inputs []*Node) []*Node {
	g, in := inputs[0].Graph(), st.in.like(inputs)
	n, o := len(in.Carry), len(st.outs)
	var buffers []*Node // [L, …] outputs and kept carries, written a slice a layer
	for _, s := range st.outs {
		buffers = append(buffers, zeros(g, s.DType, append([]int{st.layers}, s.Dimensions...)))
	}
	if st.keep {
		for _, c := range in.Carry {
			buffers = append(buffers, zeros(g, c.DType(), append([]int{st.layers}, c.Shape().Dimensions...)))
		}
	}
	// State: l, buffers, inputs.
	b := len(buffers)
	init := slices.Concat([]*Node{Const(g, int32(0))}, buffers, inputs)
	out := loop(g, st.layers, init, func(s []*Node) []*Node {
		l, bufs, in := s[0], s[1:1+b], st.in.like(s[1+b:])
		next, outs := st.layer(in.at(l))
		if len(next) != n || len(outs) != o {
			panic(fmt.Errorf("scan: the layer gave %d carried and %d outputs, want %d and %d", len(next), len(outs), n, o))
		}
		if st.keep {
			outs = append(outs[:o:o], in.Carry...)
		}
		written := make([]*Node, b)
		for i := range bufs {
			written[i] = setSlice(bufs[i], outs[i], l)
		}
		return slices.Concat(written, next, s[1+b+n:])
	})
	return slices.Concat(out[1+b:1+b+n], out[1:1+b])
}

func scanVJP(inputs, dys []*Node, state any) []*Node {
	st := state.(*scanState)
	if !st.keep {
		panic(fmt.Errorf("scan: gradient of a Scan, want ScanForGradient"))
	}
	in := st.in.like(inputs)
	n, o := len(in.Carry), len(st.outs)
	args := slices.Concat(dys[:n+o], in.Shared, in.Weights, in.Stacked, in.Frozen, st.kept)
	as := append(st.attrs(), [2]string{"outs", strconv.Itoa(o)})
	results := call(ScanGradientName, as, args, nil, st.backward)

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
	return slices.Concat(carry, make([]*Node, len(in.Shared)), weights, stacked, make([]*Node, len(in.Frozen)))
}

// backward is the meaning of the scan's gradient: layers in reverse, each computed again from its kept
// carry. Inputs: gradients of last carry and outputs, shared, weights, stacked, frozen, kept. Results:
// gradients of the float carries, then of the float weights and stacked values.
func (st *scanState) backward(inputs []*Node) []*Node {
	g := inputs[0].Graph()
	n, o := len(st.in.Carry), len(st.outs)
	rest := inputs[n+o:] // shared, weights, stacked, frozen, kept
	kept := rest[len(rest)-n:]
	in := st.in.like(slices.Concat(kept, rest[:len(rest)-n]))
	var grads []*Node // of the float weights, and [L, …] of the float stacked values
	for _, w := range slices.Concat(in.Weights, in.Stacked) {
		if w.DType().IsFloat() {
			grads = append(grads, zeros(g, w.DType(), w.Shape().Dimensions))
		}
	}
	// State: step, gradient of the carry, grads, gradient of the outputs, rest.
	init := slices.Concat([]*Node{Const(g, int32(0))}, inputs[:n], grads, inputs[n:])
	ng := len(grads)
	out := loop(g, st.layers, init, func(s []*Node) []*Node {
		l := Sub(Const(g, int32(st.layers-1)), s[0]) // []
		dcarry, grads, douts, rest := s[1:1+n], s[1+n:1+n+ng], s[1+n+ng:1+n+ng+o], s[1+n+ng+o:]
		kept := slicesAt(rest[len(rest)-n:], l)
		in := st.in.like(slices.Concat(kept, rest[:len(rest)-n])).at(l)
		// What is differentiated: carry, weights, stacked.
		nw := len(in.Weights)
		dys := append(slices.Clone(dcarry), slicesAt(douts, l)...)
		dxs := throughBody(slices.Concat(in.Carry, in.Weights, in.Stacked), dys, func(xs []*Node) []*Node {
			next, outs := st.layer(Scanned{xs[:n], in.Shared, xs[n : n+nw], xs[n+nw:], in.Frozen})
			return append(slices.Clone(next), outs...)
		})
		next := make([]*Node, n)
		for i := range next {
			if next[i] = dxs[i]; next[i] == nil { // not a float: its gradient is carried along unread
				next[i] = dcarry[i]
			}
		}
		var written []*Node
		for i, d := range dxs[n:] {
			switch at := len(written); {
			case d == nil:
			case i < nw:
				written = append(written, Add(grads[at], d))
			default:
				written = append(written, setSlice(grads[at], d, l))
			}
		}
		return slices.Concat(next, written, s[1+n+ng:])
	})
	var results []*Node
	for i := range n {
		if kept[i].DType().IsFloat() {
			results = append(results, out[1+i])
		}
	}
	return append(results, out[1+n:1+n+ng]...)
}

// loop runs body n times over state whose first value counts from 0; body returns the others.
func loop(g *Graph, n int, init []*Node, body func(state []*Node) []*Node) []*Node {
	more := NewClosure(g, func(g *Graph) []*Node {
		return isolated(g, func() []*Node { return []*Node{LessThan(parameters(g, init)[0], Const(g, int32(n)))} })
	})
	step := NewClosure(g, func(g *Graph) []*Node {
		return isolated(g, func() []*Node {
			s := parameters(g, init)
			return append([]*Node{Add(s[0], Const(g, int32(1)))}, body(s)...)
		})
	})
	return While(more, step, init...)
}

// slicesAt takes slice l of each [L, …] value.
func slicesAt(stacked []*Node, l *Node) []*Node {
	out := make([]*Node, len(stacked))
	for i, s := range stacked {
		dims := s.Shape().Dimensions
		one := DynamicSlice(s, at(l, len(dims)), append([]int{1}, dims[1:]...)) // [1, …]
		out[i] = Reshape(one, dims[1:]...)
	}
	return out
}

// setSlice writes v over slice l of s.
func setSlice(s, v, l *Node) *Node {
	dims := s.Shape().Dimensions
	return DynamicUpdateSlice(s, Reshape(v, append([]int{1}, dims[1:]...)...), at(l, len(dims)))
}

// at is the index (l, 0, …) of a tensor of that rank.
func at(l *Node, rank int) []*Node {
	index := []*Node{l}
	for range rank - 1 {
		index = append(index, Const(l.Graph(), int32(0)))
	}
	return index
}

// zeros avoids GoMLX's Zeros, whose scalar is cached across functions.
func zeros(g *Graph, dtype dtypes.DType, dims []int) *Node {
	return BroadcastToDims(ConstAsDType(g, dtype, 0), dims...)
}
