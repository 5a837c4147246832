package composite

import (
	"fmt"
	"strconv"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Layer is the body of a scan: from the carried values and slice l of each stacked input to the next
// carried values and slice l of each stacked output. shared are the same in every layer.
type Layer func(carry, shared, slices []*Node) (next, outs []*Node)

// Scan applies layer L times, compile time independent of L. It has no gradient: see ScanForGradient.
//
//	carry   any shapes, kept by layer
//	shared  any shapes; no gradient flows to them
//	stacked [L, …] one slice a layer
//	outs    shapes of one layer's outputs
//
// It returns the last carry, and the outputs of all layers stacked, [L, …].
func Scan(carry, shared, stacked []*Node, outs []shapes.Shape, layer Layer) (last, all []*Node) {
	return scan(carry, shared, stacked, outs, layer, false)
}

// ScanForGradient is Scan that also keeps the carry before each layer, from which the gradient computes
// the layer again: memory grows by one carry a layer, not by all that a layer computes inside.
func ScanForGradient(carry, shared, stacked []*Node, outs []shapes.Shape, layer Layer) (last, all []*Node) {
	return scan(carry, shared, stacked, outs, layer, true)
}

// scanState is what the gradient of a scan needs beside the call's inputs and outputs.
type scanState struct {
	layer                  Layer
	layers                 int
	carry, shared, stacked int // how many of the inputs are which
	outs                   []shapes.Shape
	keep                   bool
	kept                   []*Node // [L, …] the carry before each layer
}

func scan(carry, shared, stacked []*Node, outs []shapes.Shape, layer Layer, keep bool) (last, all []*Node) {
	if len(carry) == 0 || len(stacked) == 0 {
		panic(fmt.Errorf("scan: %d carried and %d stacked values, want at least one of each", len(carry), len(stacked)))
	}
	st := &scanState{layer: layer, layers: stacked[0].Shape().Dim(0), carry: len(carry), shared: len(shared), stacked: len(stacked),
		outs: outs, keep: keep}
	for i, s := range stacked {
		if s.Shape().Dim(0) != st.layers {
			panic(fmt.Errorf("scan: stacked value %d is %s, want %d layers", i, s.Shape(), st.layers))
		}
	}
	in := append(append(append([]*Node{}, carry...), shared...), stacked...)
	as := attrs{{"layers", strconv.Itoa(st.layers)}, {"carry", strconv.Itoa(len(carry))}, {"shared", strconv.Itoa(len(shared))}}
	if keep {
		as = append(as, [2]string{"keep", "true"})
	}
	results := call(ScanName, as, in, st, st.forward)
	n := len(carry)
	st.kept = results[n+len(outs):]
	return results[:n], results[n : n+len(outs)]
}

// forward is the meaning of Scan. Results: last carry, stacked outputs, and the kept carries if any.
func (st *scanState) forward(in []*Node) []*Node {
	g := in[0].Graph()
	n, o := st.carry, len(st.outs)
	var buffers []*Node // [L, …] outputs and kept carries, written a slice a layer
	for _, s := range st.outs {
		buffers = append(buffers, zeros(g, s.DType, append([]int{st.layers}, s.Dimensions...)))
	}
	if st.keep {
		for _, c := range in[:n] {
			buffers = append(buffers, zeros(g, c.DType(), append([]int{st.layers}, c.Shape().Dimensions...)))
		}
	}
	// State: l, carry, buffers, shared, stacked.
	init := append([]*Node{Const(g, int32(0))}, in[:n]...)
	init = append(append(init, buffers...), in[n:]...)
	b := len(buffers)
	out := loop(g, st.layers, init, func(s []*Node) []*Node {
		l, carry, bufs := s[0], s[1:1+n], s[1+n:1+n+b]
		shared, stacked := s[1+n+b:1+n+b+st.shared], s[1+n+b+st.shared:]
		next, outs := st.layer(carry, shared, slicesAt(stacked, l))
		if len(next) != n || len(outs) != o {
			panic(fmt.Errorf("scan: the layer gave %d carried and %d outputs, want %d and %d", len(next), len(outs), n, o))
		}
		if st.keep {
			outs = append(outs[:o:o], carry...)
		}
		written := make([]*Node, b)
		for i := range bufs {
			written[i] = setSlice(bufs[i], outs[i], l)
		}
		return append(append(append([]*Node{}, next...), written...), s[1+n+b:]...)
	})
	return out[1 : 1+n+b]
}

func scanVJP(in, dys []*Node, state any) []*Node {
	st := state.(*scanState)
	if !st.keep {
		panic(fmt.Errorf("scan: gradient of a Scan, want ScanForGradient"))
	}
	n, o := st.carry, len(st.outs)
	carry, shared, stacked := in[:n], in[n:n+st.shared], in[n+st.shared:]
	args := append(append([]*Node{}, dys[:n+o]...), shared...)
	args = append(append(args, stacked...), st.kept...)
	as := attrs{{"layers", strconv.Itoa(st.layers)}, {"carry", strconv.Itoa(n)}, {"shared", strconv.Itoa(st.shared)}, {"outs", strconv.Itoa(o)}}
	results := call(ScanGradientName, as, args, nil, st.backward)

	out := make([]*Node, len(in))
	for i, x := range carry {
		if x.DType().IsFloat() {
			out[i], results = results[0], results[1:]
		}
	}
	for i, x := range stacked {
		if x.DType().IsFloat() {
			out[n+st.shared+i], results = results[0], results[1:]
		}
	}
	return out
}

// backward is the meaning of the scan's gradient: layers in reverse, each computed again from its kept
// carry. Inputs: gradients of last carry and outputs, shared, stacked, kept. Results: gradients of the
// float carries, then of the float stacked values.
func (st *scanState) backward(in []*Node) []*Node {
	g := in[0].Graph()
	n, o := st.carry, len(st.outs)
	rest := in[n+o:]
	stacked, kept := rest[st.shared:st.shared+st.stacked], rest[st.shared+st.stacked:]
	var grads []*Node // [L, …] gradients of the float stacked values
	for _, w := range stacked {
		if w.DType().IsFloat() {
			grads = append(grads, zeros(g, w.DType(), w.Shape().Dimensions))
		}
	}
	// State: step, gradient of the carry, grads, gradient of the outputs, shared, stacked, kept.
	init := append([]*Node{Const(g, int32(0))}, in[:n]...)
	init = append(append(init, grads...), in[n:]...)
	ng := len(grads)
	out := loop(g, st.layers, init, func(s []*Node) []*Node {
		l := Sub(Const(g, int32(st.layers-1)), s[0]) // scalar
		dcarry, grads, douts := s[1:1+n], s[1+n:1+n+ng], s[1+n+ng:1+n+ng+o]
		rest := s[1+n+ng+o:]
		shared := rest[:st.shared]
		ws := slicesAt(rest[st.shared:st.shared+st.stacked], l)
		xs := slicesAt(rest[st.shared+st.stacked:], l)
		dys := append(append([]*Node{}, dcarry...), slicesAt(douts, l)...)
		dxs := throughBody(append(append([]*Node{}, xs...), ws...), dys, func(in []*Node) []*Node {
			next, outs := st.layer(in[:n], shared, in[n:])
			return append(append([]*Node{}, next...), outs...)
		})
		next := make([]*Node, n)
		for i := range next {
			if next[i] = dxs[i]; next[i] == nil { // not a float: its gradient is carried along unread
				next[i] = dcarry[i]
			}
		}
		var written []*Node
		for _, d := range dxs[n:] {
			if d != nil {
				written = append(written, setSlice(grads[len(written)], d, l))
			}
		}
		return append(append(next, written...), s[1+n+ng:]...)
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
