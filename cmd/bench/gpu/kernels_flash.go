package gpu

import (
	"fmt"
	"math"

	"mix/lower/ir"
	"mix/lower/triton"
)

// flashName names a case by what it has beside causal attention.
func flashName(name string, f triton.Flash) (full, shape string) {
	for _, w := range []struct {
		is   bool
		word string
	}{{f.Window > 0, ", window"}, {f.Segments, ", segments"}, {!f.InOrder, ", any order"}} {
		if w.is {
			name += w.word
		}
	}
	return name, fmt.Sprintf("B %d, H %d, G %d, A %d, S %d, C %d", f.Sequences, f.Heads, f.KeyHeads, f.Width, f.Queries, f.Keys)
}

// attended are operands of attention over sequences.
type attended struct {
	q, keys, values *ir.Value
	places          []*ir.Value // as the kernels take them
	seen            *ir.Value   // [B, S, C] i1
}

// attended has queries at the end of their keys; the second sequence's stand at its beginning, where they see few.
func (k *kit) attended(f triton.Flash) (x attended) {
	var queryAt, keyAt []int
	for b := range f.Sequences {
		shift := (f.Keys - f.Queries) * (1 - b%2)
		for i := range f.Queries {
			queryAt = append(queryAt, shift+i)
		}
		for c := range f.Keys {
			if !f.InOrder {
				c = (c*7 + 3) % f.Keys // a permutation, as 7 does not divide the sizes
			}
			keyAt = append(keyAt, c)
		}
	}
	at := func(all []int, n int) *ir.Value { return k.Reshape(k.ints(all), f.Sequences, n) }
	qp, kp := at(queryAt, f.Queries), at(keyAt, f.Keys)
	part := k.Const(ir.Tensor("i32"), "50")
	qs, ks := k.Div(qp, k.Broadcast(part, qp.Dims())), k.Div(kp, k.Broadcast(part, kp.Dims()))
	each := []int{f.Sequences, f.Queries, f.Keys}
	q3, k3 := k.Broadcast(qp, each, 0, 1), k.Broadcast(kp, each, 0, 2)
	x.seen = k.Compare("LE", k3, q3)
	if f.Window > 0 {
		near := k.Compare("LT", k.Binary("subtract", q3, k3), k.Const(q3.Type, fmt.Sprint(f.Window)))
		x.seen = k.Binary("and", x.seen, near)
	}
	x.q = k.scaled(f.Elem, 1, f.Sequences, f.Heads, f.Queries, f.Width)
	x.keys, x.values = k.scaled(f.Elem, 1, f.Sequences, f.KeyHeads, f.Keys, f.Width), k.scaled(f.Elem, 1, f.Sequences, f.KeyHeads, f.Keys, f.Width)
	x.places = []*ir.Value{qp}
	if !f.InOrder {
		x.places = append(x.places, kp)
	}
	if f.Segments {
		x.places = append(x.places, qs, ks)
		x.seen = k.Binary("and", x.seen, k.Compare("EQ", k.Broadcast(qs, each, 0, 1), k.Broadcast(ks, each, 0, 2)))
	}
	return x
}

// tiled makes a kernel with the tile that the table has.
func (k *kit) tiled(kernel string, f triton.Flash, call func(t triton.Tile) (triton.Call, error)) (triton.Call, error) {
	tile, err := k.table.Choose(kernel, f.Elem, f.Queries)
	if err != nil {
		return triton.Call{}, err
	}
	return call(tile)
}

func flashCase(f triton.Flash) kernelCase {
	name, shape := flashName("flash attention", f)
	return kernelCase{name, shape, f.Elem, func(k *kit) {
		x := k.attended(f)
		c, err := k.tiled("flash", f, f.Call)
		k.check("y", k.call(c, err, append([]*ir.Value{x.q, x.keys, x.values}, x.places...)...)[0], k.attention(x.q, x.keys, x.values, x.seen), 2*tolerance(f.Elem))
	}}
}

// flashGradientCase is the forward kernel, with what the gradient reads, and those of the gradient.
func flashGradientCase(f triton.Flash) kernelCase {
	name, shape := flashName("flash attention's gradient", f)
	return kernelCase{name, shape, f.Elem, func(k *kit) {
		x := k.attended(f)
		dy := k.scaled(f.Elem, 1, x.q.Dims()...)
		got, want := k.byKernels(f, x, dy), k.attentionGradient(x, dy)
		for i, name := range []string{"dq", "dk", "dv"} {
			k.check(name, got[1+i], want[i], 2*tolerance(f.Elem))
		}
	}}
}

// batched contracts axis i of x with axis j of y, both [B, G, …, …].
func (k *kit) batched(x *ir.Value, i int, y *ir.Value, j int) *ir.Value {
	xd, yd := x.Dims(), y.Dims()
	d := ir.Dot{LeftBatch: []int{0, 1}, RightBatch: []int{0, 1}, LeftContracted: []int{i}, RightContracted: []int{j}}
	return exact(k.Builder, d, x, y, xd[0], xd[1], xd[5-i], yd[5-j])
}

// shares are softmax(q·k/√A) in f32, [B, G, M·S, C], of q [B, H, S, A], k [B, G, C, A] and seen [B, S, C], zeros for what
// sees nothing; rows are the queries of each key head, [B, G, M·S, A].
func (k *kit) shares(q, keys, seen *ir.Value) (rows, p *ir.Value) {
	d, kd := q.Dims(), keys.Dims()
	b, h, s, a, g, c := d[0], d[1], d[2], d[3], kd[1], kd[2]
	rows = k.Reshape(q, b, g, h/g*s, a)
	each := []int{b, g, h / g, s, c}
	scores := k.batched(rows, 3, keys, 3)
	scores = k.Reshape(k.Mul(scores, k.Const(scores.Type, decimal(1/math.Sqrt(float64(a))))), each...)
	all := k.Broadcast(seen, each, 0, 3, 4)
	scores = k.Select(all, scores, k.Const(scores.Type, "-1.0e30"))
	top := k.Broadcast(k.Reduce("maximum", scores, "0xFF800000", 4), each, 0, 1, 2, 3)
	p = k.Select(all, k.Unary("exponential", k.Binary("subtract", scores, top)), k.Const(scores.Type, "0.0"))
	sum := k.Reduce("add", p, "0.0", 4)
	sum = k.Binary("maximum", sum, k.Const(sum.Type, "1.0e-30"))
	return rows, k.Reshape(k.Div(p, k.Broadcast(sum, each, 0, 1, 2, 3)), b, g, h/g*s, c)
}

// attention is softmax(q·k/√A)·v in f32, of v [B, G, C, A].
func (k *kit) attention(q, keys, values, seen *ir.Value) *ir.Value {
	_, p := k.shares(q, keys, seen)
	return k.Reshape(k.batched(p, 3, values, 2), q.Dims()...)
}

// attentionGradient is that of q, k and v in f32, from dy [B, H, S, A].
func (k *kit) attentionGradient(x attended, dy *ir.Value) []*ir.Value {
	rows, p := k.shares(x.q, x.keys, x.seen)
	dy = k.Reshape(dy, rows.Dims()...)
	dp := k.batched(dy, 3, x.values, 3)
	delta := k.Broadcast(k.Reduce("add", k.Mul(p, dp), "0.0", 3), p.Dims(), 0, 1, 2)
	ds := k.Mul(p, k.Binary("subtract", dp, delta))
	ds = k.Mul(ds, k.Const(ds.Type, decimal(1/math.Sqrt(float64(x.q.Dims()[3])))))
	return []*ir.Value{k.Reshape(k.batched(ds, 3, x.keys, 2), x.q.Dims()...), k.batched(ds, 2, rows, 2), k.batched(p, 2, dy, 2)}
}
