package pass

import (
	"slices"

	"mix/lower/ir"
	"mix/lower/triton"
	"mix/sharding/axis"
)

// fewHeads is what ends the projections of attention over a pool, with one query a sequence: queries and keys are rotated, keys and
// values put into the pool.
type fewHeads struct {
	q, k         rotation
	v            *ir.Value // a product of few rows
	keys, values *ir.Op    // mix.put_rows
	at           *ir.Value // argument of the program
}

// rotation is (a·cos - b·sin, b·cos + a·sin) of the halves a and b of heads.
type rotation struct {
	op       *ir.Op    // that joins the halves
	of       *ir.Value // a product of few rows, [T, N·A]
	cos, sin *ir.Value // f32, T·A/2 elements
	width    int       // A
}

// headsOf finds them in a region, by the operation in whose place the kernel stands, the first of those that it does away with.
func headsOf(region *ir.Region, groups map[*ir.Op]fewProducts, args []*ir.Value) map[*ir.Op]*fewHeads {
	launch := map[*ir.Value]*ir.Op{} // of products
	for op, g := range groups {
		for _, p := range g {
			launch[p.op.Results[0]] = op
		}
	}
	all := map[*ir.Op]*fewHeads{}
	rotated, queries := map[*ir.Value]rotation{}, map[*ir.Op]rotation{}
	keys := map[*ir.Op]*fewHeads{} // by launch
	for _, op := range region.Ops {
		if r, ok := readRotation(op, launch); ok {
			rotated[op.Results[0]] = r
			if _, second := queries[launch[r.of]]; !second {
				queries[launch[r.of]] = r
			}
			continue
		}
		if composite(op) != putRowsName || len(op.Operands) != 3 || len(op.Results) != 1 || !slices.Contains(args, op.Operands[0]) {
			continue
		}
		at, rows := unshaped(op.Operands[1]), unmoved(op.Operands[2])
		if !slices.Contains(args, at) {
			continue
		}
		if k, ok := rotated[rows]; ok {
			q := queries[launch[k.of]]
			if q.op != k.op && q.cos == k.cos && q.sin == k.sin && q.width == k.width {
				keys[launch[k.of]] = &fewHeads{q: q, k: k, keys: op, at: at}
			}
			continue
		}
		v := unmoved(converted(rows))
		if h := keys[launch[v]]; h != nil && h.values == nil && h.at == at && op.Results[0].Type == h.keys.Results[0].Type {
			h.v, h.values = v, op
			all[h.q.op] = h
		}
	}
	return all
}

// readRotation takes apart what joins the halves of rotated heads. Before them the product may have been rounded and reshaped.
func readRotation(op *ir.Op, launch map[*ir.Value]*ir.Op) (r rotation, ok bool) {
	if op.Name != "stablehlo.concatenate" || len(op.Operands) != 2 || len(op.Results) != 1 {
		return r, false
	}
	elem, dims, ok := op.Results[0].Type.Split()
	if !ok || kernelElems[elem] == 0 || len(dims) == 0 || op.Attrs["dimension"] != ir.Int(len(dims)-1) || dims[len(dims)-1]%2 != 0 {
		return r, false
	}
	r = rotation{op: op, width: dims[len(dims)-1]}
	left, right := operands(op.Operands[0], "subtract", 2), operands(op.Operands[1], "add", 2)
	if left == nil || right == nil {
		return r, false
	}
	var x, angle [4]*ir.Value // of a·cos, b·sin, b·cos, a·sin
	for i, term := range slices.Concat(left, right) {
		factors := operands(term, "multiply", 2)
		if factors == nil {
			return r, false
		}
		angle[i] = unshaped(converted(spread(factors[1], r.width/2)))
		if x[i] = halfOf(factors[0], i == 1 || i == 2); x[i] == nil || x[i] != x[0] {
			return r, false
		}
	}
	r.of, r.cos, r.sin = unmoved(converted(unmoved(x[0]))), angle[0], angle[1]
	if launch[r.of] == nil || angle[2] != r.cos || angle[3] != r.sin {
		return r, false
	}
	t := r.of.Dims()[0]
	for _, a := range []*ir.Value{r.cos, r.sin} {
		kind, d, ok := a.Type.Split()
		if !ok || kind != "f32" || axis.Count(d) != t*r.width/2 {
			return r, false
		}
	}
	return r, true
}

// halfOf is what v is the lower or upper half of along the last axis; nil if it is none.
func halfOf(v *ir.Value, upper bool) *ir.Value {
	in := operands(v, "slice", 1)
	if in == nil {
		return nil
	}
	limit := slices.Clone(in[0].Dims())
	start, strides := make([]int, len(limit)), slices.Repeat([]int{1}, len(limit))
	if len(limit) == 0 {
		return nil
	}
	last := len(limit) - 1
	if upper {
		start[last] = limit[last] / 2
	} else {
		limit[last] /= 2
	}
	want := []ir.Attr{ir.Ints(start...), ir.Ints(limit...), ir.Ints(strides...)}
	if a := v.Def.Attrs; !slices.Equal(want, []ir.Attr{a["start_indices"], a["limit_indices"], a["strides"]}) {
		return nil
	}
	return in[0]
}

// unmoved is what v was before it was reshaped, and transposed so that no element moved.
func unmoved(v *ir.Value) *ir.Value {
	for {
		from := before(v, "reshape")
		if turned := before(v, "transpose"); turned != v {
			order, ok := v.Def.Attrs["permutation"].Ints()
			dims := turned.Dims()
			order = slices.DeleteFunc(order, func(a int) bool { return a < 0 || a >= len(dims) || dims[a] == 1 })
			if ok && slices.IsSorted(order) {
				from = turned
			}
		}
		if from == v {
			return v
		}
		v = from
	}
}

// emit emits the kernel unless sizes do not fit it, and notes what stands for the results.
func (h *fewHeads) emit(b ir.Builder, by, parts map[*ir.Value]*ir.Value) error {
	q, k, v := parts[h.q.of], parts[h.k.of], parts[h.v]
	elem, pool, _ := h.keys.Results[0].Type.Split()
	sums, d, _ := q.Type.Split()
	if rotated, _, _ := h.q.op.Results[0].Type.Split(); rotated != elem || len(pool) != 3 || pool[2] != h.q.width {
		return nil
	}
	t, a := d[len(d)-2], h.q.width
	x := triton.Heads{Tokens: t, Width: a, Heads: d[len(d)-1] / a, KeyHeads: pool[1], Positions: pool[0], Splits: axis.Count(d[:len(d)-2]),
		Sums: kernelElems[sums], Elem: kernelElems[elem]}
	call, err := x.Call()
	if err != nil {
		return nil // a head too wide: XLA's operations stay
	}
	angle := ir.Tensor("f32", t, a/2)
	in := []*ir.Value{q, k, v, h.q.cos, h.q.sin, h.at, h.keys.Operands[0], h.values.Operands[0]}
	for _, i := range []int{0, 1, 2, 6, 7} {
		if in[i].Type != ir.Type(call.Operands[i].String()) {
			return nil
		}
	}
	in[3], in[4], in[5] = shaped(b, h.q.cos, angle), shaped(b, h.q.sin, angle), shaped(b, h.at, ir.Tensor("i32", t))
	results, err := EmitCall(b, call, in...)
	if err != nil {
		return err
	}
	for i, op := range []*ir.Op{h.q.op, h.keys, h.values} {
		by[op.Results[0]] = shaped(b, results[i], op.Results[0].Type)
	}
	return nil
}
