package composite

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"

	"mix/sharding/axis"
)

// Scanned are the inputs of a scan, or of one of its layers: then Stacked and Frozen are slices, and so are Carry and
// Each if there are microbatches.
type Scanned struct {
	Carry   []*Node // any shapes, kept by the layer
	Shared  []*Node // the same in every layer; no gradient flows to them
	Weights []*Node // the same in every layer; their gradients sum over the layers. Not with Micro
	Stacked []*Node // [L, …] one slice a layer
	Frozen  []*Node // [L, …] one slice a layer; no gradient flows to them

	// Micro is the number of microbatches M that go through each layer one by one, 0 for none. Then Carry is [M, …], and
	// so is Each, which has what belongs to a microbatch and is the same in every layer; no gradient flows to it.
	// Gradients of slices sum over the microbatches. It is the unit that pipeline parallelism rewrites.
	Micro int
	Each  []*Node
	// Lead is how many leading axes of Stacked and Frozen, and of what is stacked by the scan, count the layers, row-major:
	// 0 is one, L. A pipeline has three, rounds, stages and depth.
	Lead int
}

// all lists the inputs, and like cuts such a list up again.
func (in Scanned) all() []*Node {
	return slices.Concat(in.Carry, in.Each, in.Shared, in.Weights, in.Stacked, in.Frozen)
}

func (in Scanned) like(all []*Node) Scanned {
	out := Scanned{Micro: in.Micro, Lead: in.Lead}
	for _, part := range []struct {
		to *[]*Node
		n  int
	}{{&out.Carry, len(in.Carry)}, {&out.Each, len(in.Each)}, {&out.Shared, len(in.Shared)}, {&out.Weights, len(in.Weights)},
		{&out.Stacked, len(in.Stacked)}, {&out.Frozen, len(in.Frozen)}} {
		*part.to, all = all[:part.n:part.n], all[part.n:]
	}
	return out
}

// lead are the sizes of the axes that count layers.
func (in Scanned) lead() []int { return in.Stacked[0].Shape().Dimensions[:max(in.Lead, 1)] }

// flat is in with one axis of layers.
func (in Scanned) flat() Scanned {
	if in.Lead > 1 {
		in.Stacked, in.Frozen = flattened(in.Stacked, in.Lead), flattened(in.Frozen, in.Lead)
		in.Lead = 1
	}
	return in
}

// flattened are values with their first lead axes as one, [L, …].
func flattened(xs []*Node, lead int) (ys []*Node) {
	for _, x := range xs {
		ys = append(ys, Reshape(x, append([]int{-1}, x.Shape().Dimensions[lead:]...)...))
	}
	return ys
}

// at is layer l of in, without axes of layers.
func (in Scanned) at(l *Node) Scanned {
	in.Stacked, in.Frozen, in.Lead = slicesAt(in.Stacked, l), slicesAt(in.Frozen, l), 0
	return in
}

// of is microbatch m of in.
func (in Scanned) of(m *Node) Scanned {
	in.Carry, in.Each, in.Micro = slicesAt(in.Carry, m), slicesAt(in.Each, m), 0
	return in
}

// Layer is the body of a scan: the next carried values, and slice l of each stacked output.
type Layer func(in Scanned) (next, outs []*Node)

// Scan applies layer L times, compile time independent of L. It has no gradient: see ScanForGradient.
//
// outs are the shapes of one layer's outputs, for one microbatch if there are any. It returns the last carry, and the
// outputs of all layers stacked, [L, …], or [L, M, …] with microbatches.
func Scan(in Scanned, outs []shapes.Shape, layer Layer) (last, all []*Node) {
	return scan(in, outs, layer, noGradient)
}

// ScanForGradient is Scan that also keeps the carry before each layer, from which the gradient computes
// the layer again: memory grows by one carry a layer, not by all that a layer computes inside.
func ScanForGradient(in Scanned, outs []shapes.Shape, layer Layer) (last, all []*Node) {
	return scan(in, outs, layer, keepCarry)
}

// ScanStored is ScanForGradient whose gradient need not compute the costly parts of a layer again where the compiler keeps
// them: memory grows by their results. Not with microbatches.
func ScanStored(in Scanned, outs []shapes.Shape, layer Layer) (last, all []*Node) {
	if in.Micro > 0 || in.Lead > 1 {
		panic(fmt.Errorf("scan: %d microbatches and %d axes of layers, want none and one where layers are stored", in.Micro, in.Lead))
	}
	return scan(in, outs, layer, keepAll)
}

// keeping is what a scan keeps for its gradient.
type keeping int

const (
	noGradient keeping = iota
	keepCarry
	keepAll // where the compiler can
)

// scanState is what the gradient of a scan needs beside the call's inputs and outputs.
type scanState struct {
	layer Layer
	lead  []int
	in    Scanned // as called, for the number of each
	outs  []shapes.Shape
	keep  bool
	store bool
	kept  []*Node // [L, …] the carry before each layer
}

func scan(in Scanned, outs []shapes.Shape, layer Layer, what keeping) (last, all []*Node) {
	if len(in.Carry) == 0 || len(in.Stacked) == 0 {
		panic(fmt.Errorf("scan: %d carried and %d stacked values, want at least one of each", len(in.Carry), len(in.Stacked)))
	}
	if in.Micro > 0 && len(in.Weights) > 0 || in.Micro == 0 && len(in.Each) > 0 {
		panic(fmt.Errorf("scan: %d microbatches, %d values of each and %d weights, want no weights with microbatches and none of each without", in.Micro, len(in.Each), len(in.Weights)))
	}
	keep := what != noGradient
	st := &scanState{layer: layer, lead: in.lead(), in: in, outs: outs, keep: keep, store: what == keepAll}
	for i, s := range slices.Concat(in.Stacked, in.Frozen) {
		if s.Rank() < len(st.lead) || !slices.Equal(s.Shape().Dimensions[:len(st.lead)], st.lead) {
			panic(fmt.Errorf("scan: stacked value %d is %s, want %v layers", i, s.Shape(), st.lead))
		}
	}
	for i, x := range slices.Concat(in.Carry, in.Each) {
		if in.Micro > 0 && (x.Rank() < 1 || x.Shape().Dim(0) != in.Micro) {
			panic(fmt.Errorf("scan: carried value or one of each %d is %s, want %d microbatches", i, x.Shape(), in.Micro))
		}
	}
	as := st.attrs()
	if keep {
		as = append(as, [2]string{"keep", "true"})
	}
	if st.store {
		as = append(as, [2]string{"store", "true"})
	}
	results := call(ScanName, as, in.all(), st, st.forward)
	n := len(in.Carry)
	st.kept = results[n+len(outs):]
	return results[:n], results[n : n+len(outs)]
}

// attrs tell a pass which inputs are which.
func (st *scanState) attrs() (as attrs) {
	as = attrs{{"layers", strconv.Itoa(axis.Count(st.lead))}, {"carry", strconv.Itoa(len(st.in.Carry))}, {"shared", strconv.Itoa(len(st.in.Shared))}}
	for _, a := range []struct {
		name string
		n    int
	}{{"weights", len(st.in.Weights)}, {"frozen", len(st.in.Frozen)}, {"lead", st.in.Lead}, {"micro", st.in.Micro}, {"each", len(st.in.Each)}} {
		if a.n > 0 {
			as = append(as, [2]string{a.name, strconv.Itoa(a.n)})
		}
	}
	return append(as, [2]string{"outs", strconv.Itoa(len(st.outs))})
}

// once is one layer on one microbatch, a composite that a pass can call from elsewhere: next carry, then outputs.
func (st *scanState) once(in Scanned) []*Node {
	return call(LayerName, nil, in.all(), nil, func(all []*Node) []*Node {
		next, outs := st.layer(in.like(all))
		if len(next) != len(st.in.Carry) || len(outs) != len(st.outs) {
			panic(fmt.Errorf("scan: the layer gave %d carried and %d outputs, want %d and %d", len(next), len(outs), len(st.in.Carry), len(st.outs)))
		}
		return append(slices.Clone(next), outs...)
	})
}

// across is one layer on all microbatches.
func (st *scanState) across(in Scanned) (next, outs []*Node) {
	n, o := len(in.Carry), len(st.outs)
	if in.Micro == 0 {
		results := st.once(in)
		return results[:n], results[n:]
	}
	g := in.Carry[0].Graph()
	init := []*Node{Const(g, int32(0))} // and outputs [M, …], inputs
	for _, s := range st.outs {
		init = append(init, zeros(g, s.DType, append([]int{in.Micro}, s.Dimensions...)))
	}
	out := loop(g, in.Micro, append(init, in.all()...), func(s []*Node) []*Node {
		m, all := s[0], s[1+o:]
		results := st.once(in.like(all).of(m))
		return slices.Concat(setSlices(s[1:1+o], results[n:], m), setSlices(all[:n], results[:n], m), all[n:])
	})
	return out[1+o : 1+o+n], out[1 : 1+o]
}

// forward is the meaning of Scan. Results: last carry, stacked outputs, and the kept carries if any.
func (st *scanState) forward(inputs []*Node) []*Node {
	g, in := inputs[0].Graph(), st.in.like(inputs).flat()
	n, layers := len(in.Carry), axis.Count(st.lead)
	each := []int{layers} // and [M] of the outputs
	if in.Micro > 0 {
		each = append(each, in.Micro)
	}
	init := []*Node{Const(g, int32(0))} // and buffers, written a slice a layer; inputs
	for _, s := range st.outs {
		init = append(init, zeros(g, s.DType, slices.Concat(each, s.Dimensions)))
	}
	if st.keep {
		for _, c := range in.Carry {
			init = append(init, zeros(g, c.DType(), slices.Concat(each[:1], c.Shape().Dimensions)))
		}
	}
	b := len(init) - 1
	out := loop(g, layers, append(init, in.all()...), func(s []*Node) []*Node {
		l, all := s[0], s[1+b:]
		here := in.like(all)
		next, outs := st.across(here.at(l))
		if st.keep {
			outs = append(outs[:len(outs):len(outs)], here.Carry...)
		}
		return slices.Concat(setSlices(s[1:1+b], outs, l), next, all[n:])
	})
	return slices.Concat(out[1+b:1+b+n], st.unflat(out[1:1+b]))
}

// unflat gives stacked values [L, …] the axes of layers that the inputs have.
func (st *scanState) unflat(xs []*Node) (ys []*Node) {
	for _, x := range xs {
		ys = append(ys, Reshape(x, slices.Concat(st.lead, x.Shape().Dimensions[1:])...))
	}
	return ys
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

// setSlices writes vs over slices l of ss.
func setSlices(ss, vs []*Node, l *Node) []*Node {
	out := make([]*Node, len(ss))
	for i := range ss {
		out[i] = setSlice(ss[i], vs[i], l)
	}
	return out
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
