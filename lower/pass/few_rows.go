package pass

import (
	"slices"

	"mix/lower/ir"
	"mix/lower/target"
	"mix/lower/triton"
)

// fewRows puts a kernel that reads a weight once in the place of products of few rows by it, and one kernel in the place of a
// norm of few rows, with the sum before it and the router's product behind it, and in that of what ends the projections of attention.
//
// Of one row of bf16 XLA converts the whole weight to f32 in memory, and it joins weights that multiply the same rows, which
// copies them: each time more bytes than the product has to read.
//
// A product is taken where one side has at most fewRowsMost rows and the other is an argument of the program, in any shape, with
// at least leastWeight elements that lie in memory as [N, K], K being summed over. Products of the same rows in one region are
// one launch, at the place of the first. A norm adds up the partial sums of the product or of the experts that are added to the
// residual stream before it: for a single row XLA takes two launches for the norm, and one each for those and the router.
//
// After: on cuda no such product of bf16 or f16 and no such norm is left where the program is one device's work. Sums are f32,
// values keep their types.
func fewRows(m *ir.Module, ctx Context) (changed bool, err error) {
	main := m.Func("main")
	if ctx.Platform != target.CUDA || main == nil {
		return false, nil
	}
	may := takeable(m, ctx)
	by, parts := map[*ir.Value]*ir.Value{}, map[*ir.Value]*ir.Value{}
	err = ir.WalkRegions(main.Body, func(region *ir.Region) error {
		groups, err := productsOf(region, main.Body.Args, may)
		if err != nil {
			return err
		}
		norms, heads := normsOf(region, main.Body.Args, may), headsOf(region, groups, main.Body.Args)
		if len(groups) == 0 && len(norms) == 0 {
			return nil
		}
		out := &ir.Region{}
		for _, op := range region.Ops {
			if g := groups[op]; g != nil {
				if err := g.emit(ir.At(out), by, parts); err != nil {
					return err
				}
			}
			if n := norms[op]; n != nil {
				if err := n.emit(ir.At(out), by, parts); err != nil {
					return err
				}
			}
			if h := heads[op]; h != nil {
				if err := h.emit(ir.At(out), by, parts); err != nil {
					return err
				}
			}
			if len(op.Results) == 0 || by[op.Results[0]] == nil {
				out.Add(op)
			}
		}
		region.Ops = out.Ops
		return nil
	})
	ir.ReplaceAll(main.Body, by)
	return len(by) > 0, err
}

const (
	fewRowsMost = 64      // rows that one block of a kernel holds
	leastWeight = 1 << 16 // elements: below, a product is fused with what follows
	together    = 4       // products of a launch, at most
)

// fewProduct is y [T, N] = x [T, K]·wᵀ, taken apart.
type fewProduct struct {
	op      *ir.Op
	x, w    *ir.Value // before they were reshaped
	t, k, n int
	elem    triton.Elem
}

// fewProducts are products of the same rows.
type fewProducts []fewProduct

// productsOf finds the products of a region that are taken, by the first of those that multiply the same rows.
func productsOf(region *ir.Region, args []*ir.Value, may func(op *ir.Op) bool) (map[*ir.Op]fewProducts, error) {
	all := map[*ir.Op]fewProducts{}
	var firsts []*ir.Op
	for _, op := range region.Ops {
		if op.Name != "stablehlo.dot_general" || !may(op) {
			continue
		}
		p, ok, err := readFew(op, args)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		i := slices.IndexFunc(firsts, func(first *ir.Op) bool {
			q := all[first][0]
			return q.x == p.x && q.t == p.t && q.k == p.k && resultElem(q.op) == resultElem(op) && len(all[first]) < together
		})
		if i < 0 {
			firsts = append(firsts, op)
			all[op] = fewProducts{p}
			continue
		}
		all[firsts[i]] = append(all[firsts[i]], p)
	}
	return all, nil
}

// readFew takes a product apart, if it is one of few rows by a weight.
func readFew(op *ir.Op, args []*ir.Value) (p fewProduct, ok bool, err error) {
	if !narrowProduct(op) {
		return p, false, nil
	}
	d, err := ir.ReadDot(op)
	if err != nil || len(d.LeftBatch) > 0 {
		return p, false, err
	}
	left, right := op.Operands[0].Dims(), op.Operands[1].Dims()
	p = fewProduct{op: op, x: unshaped(op.Operands[0]), w: unshaped(op.Operands[1]), k: product(left, d.LeftContracted),
		t: product(left, d.LeftFree), n: product(right, d.RightFree)}
	if slices.Contains(args, p.x) && !slices.Contains(args, p.w) {
		if p.n > 1 { // the result has the columns first
			return p, false, nil
		}
		p.x, p.w, p.t, p.n = p.w, p.x, p.n, p.t
	}
	elem, _, _ := op.Operands[0].Type.Split()
	other, _, _ := op.Operands[1].Type.Split()
	p.elem = kernelElems[elem]
	ok = elem == other && slices.Contains(args, p.w) && p.t >= 1 && p.t <= fewRowsMost && p.n*p.k >= leastWeight &&
		summedLast(left, d.LeftContracted) && summedLast(right, d.RightContracted) && kernelElems[resultElem(op)] != 0
	return p, ok, nil
}

// unshaped is what v was before it was reshaped.
func unshaped(v *ir.Value) *ir.Value {
	for v.Def != nil && v.Def.Name == "stablehlo.reshape" {
		v = v.Def.Operands[0]
	}
	return v
}

// summedLast tells whether axes come in order, and behind them none but those of size 1: as in a matrix [N, K].
func summedLast(dims, axes []int) bool {
	if len(axes) == 0 || !slices.IsSorted(axes) {
		return false
	}
	behind := 1
	for a := axes[0]; a < len(dims); a++ {
		if !slices.Contains(axes, a) {
			behind *= dims[a]
		}
	}
	return behind == 1
}

func resultElem(op *ir.Op) string {
	elem, _, _ := op.Results[0].Type.Split()
	return elem
}

// emit emits the kernel, and notes what stands for the results and what they are the sums of. Those are added up in order.
func (g fewProducts) emit(b ir.Builder, by, parts map[*ir.Value]*ir.Value) error {
	first := g[0]
	l := triton.Linear{Tokens: first.t, Width: first.k, Elem: first.elem, Y: kernelElems[resultElem(first.op)]}
	elem := l.Elem.String()
	operands := []*ir.Value{shaped(b, first.x, ir.Tensor(elem, l.Tokens, l.Width))}
	for _, p := range g {
		l.Outs = append(l.Outs, p.n)
		operands = append(operands, shaped(b, p.w, ir.Tensor(elem, p.n, p.k)))
	}
	tile, err := tiles().Choose("linear", l.Elem, l.Tokens)
	if err != nil {
		return err
	}
	call, err := l.Call(l.Fit(tile))
	if err != nil {
		return err
	}
	results, err := EmitCall(b, call, operands...)
	if err != nil {
		return err
	}
	for i, p := range g {
		y := results[i]
		parts[p.op.Results[0]] = y
		if len(y.Dims()) == 3 {
			y = b.Convert(addUp(b, y), resultElem(p.op))
		}
		by[p.op.Results[0]] = shaped(b, y, p.op.Results[0].Type)
	}
	return nil
}

// addUp is the sum over the first axis, in order.
func addUp(b ir.Builder, parts *ir.Value) (sum *ir.Value) {
	d := parts.Dims()
	for i := range d[0] {
		start, limit := make([]int, len(d)), slices.Clone(d)
		start[0], limit[0] = i, i+1
		part := b.Reshape(b.Slice(parts, start, limit), d[1:]...)
		if sum == nil {
			sum = part
		} else {
			sum = b.Add(sum, part)
		}
	}
	return sum
}

// shaped is v as type t, which has as many of the same elements.
func shaped(b ir.Builder, v *ir.Value, t ir.Type) *ir.Value {
	if v.Type == t {
		return v
	}
	return b.Emit("reshape", nil, t, v)
}
