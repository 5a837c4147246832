package triton

import "fmt"

// Norm is the root mean square norm of few rows, with what comes before and after it in a decoder layer: the sum of the
// residual stream and what was computed beside it, and the logits of a router.
type Norm struct {
	Tokens, Width int // T, D
	Eps           float64
	Elem          Elem // of rows, scale and results

	// What is added to the rows first: for each, Choices rows of Splits partial sums. Choices 0 is nothing.
	Choices, Splits int
	Weighted        bool // each of the choices has a weight
	Parts           Elem

	Experts int    // E of a router, 0 for none
	Route   *Route // of a single token: its experts are chosen too, as Route does
}

// Call is the kernel, a program a row.
//
//	x       [T, D]
//	parts   [S, T·K, D]   with Choices; [T·K, D] for one split
//	weights [T, K] f32    with Weighted
//	scale   [D]
//	router  [E, D] f32    with Experts
//	sum     [T, D]        x + Σᵢ weights[t,i]·Σₛ parts[s, t·K+i], with Choices: both are rounded to Elem
//	y       [T, D]        r/√(mean(r²)+Eps)·scale of r = sum or x: the quotient is rounded to Elem, then the product
//	logits  [T, E] f32    y·routerᵀ, with Experts: products and sums in f32
//	weights, chosen, place, order, sizes, offsets, blocks  with Route
func (n Norm) Call() (Call, error) {
	const name = "norm"
	if err := n.check(name); err != nil {
		return Call{}, err
	}
	width := powerOfTwo(n.Width)
	k := newKernel(name, Tile{Warps: max(1, min(width/256, 16)), Stages: 1})
	x := k.operand("x", n.Elem, n.Tokens, n.Width)
	var parts, weights, router *Value
	if n.Choices > 0 {
		parts = k.operand("parts", n.Parts, splits(n.Splits, n.Tokens*n.Choices, n.Width)...)
	}
	if n.Weighted {
		weights = k.operand("weights", F32, n.Tokens, n.Choices)
	}
	scale := k.operand("scale", n.Elem, n.Width)
	if n.Experts > 0 {
		router = k.operand("router", F32, n.Experts, n.Width)
	}
	var sum, y, logits *Value
	if n.Choices > 0 {
		sum = k.result("sum", n.Elem, n.Tokens, n.Width)
	}
	y = k.result("y", n.Elem, n.Tokens, n.Width)
	if n.Experts > 0 {
		logits = k.result("logits", F32, n.Tokens, n.Experts)
	}
	var to routed
	if n.Route != nil {
		to = k.routedResults(*n.Route)
	}
	token := k.Program(0)
	cols, inside := k.span(k.Int(0), width, n.Width) // [D]
	at := k.Add(k.Convert(cols, I64), k.long(token, n.Width))
	row := k.Convert(k.Load(k.Ptr(x, at), inside), F32) // [D]
	if n.Choices > 0 {
		row = k.rounded(k.Add(row, k.rounded(k.beside(n, parts, weights, token, cols, inside), n.Elem)), n.Elem)
		k.Store(k.Ptr(sum, at), row, inside)
	}
	mean := k.Mul(k.Sum(k.Mul(row, row), 0), k.Float(1/float64(n.Width)))
	normal := k.rounded(k.Div(row, k.Sqrt(k.Add(mean, k.Float(n.Eps)))), n.Elem)
	normal = k.rounded(k.Mul(normal, k.Convert(k.Load(k.Ptr(scale, cols), inside), F32)), n.Elem)
	k.Store(k.Ptr(y, at), normal, inside)
	if n.Experts > 0 {
		all := k.logits(n, router, logits, token, normal, cols, inside)
		if n.Route != nil {
			k.routeOne(*n.Route, all, to)
		}
	}
	return k.finish(n.Tokens, 1, 1)
}

// beside is what is added to row token, [D] f32: a sum of choices in order, as Combine has it.
func (k *kernel) beside(n Norm, parts, weights, token, cols, inside *Value) (sum *Value) {
	for i := range n.Choices {
		r := k.Add(k.Mul(token, k.Int(n.Choices)), k.Int(i))
		v := k.partial(parts, k.Add(k.Convert(cols, I64), k.long(r, n.Width)), inside, n.Splits, n.Tokens*n.Choices*n.Width)
		if n.Weighted {
			v = k.Mul(v, k.Load(k.Ptr(weights, r), nil))
		}
		if sum == nil {
			sum = v
		} else {
			sum = k.Add(sum, v)
		}
	}
	return sum
}

// logits stores y·routerᵀ, as many experts at a time as registers hold, and returns it, [E].
func (k *kernel) logits(n Norm, router, to, token, y, cols, inside *Value) *Value {
	const atOnce = 1 << 15 // elements of the router
	width := powerOfTwo(n.Experts)
	some := min(width, max(1, atOnce/cols.Type.Size()))
	if inside != nil {
		inside = k.Row(inside)
	}
	all := k.Zeros(F32, width)
	for first := 0; first < n.Experts; first += some {
		experts := k.Add(k.Range(some), k.Int(first))
		known := k.Less(experts, k.Int(n.Experts))                                                                      // [some]
		w := k.Load(k.Ptr(router, k.cells(experts, cols, n.Width)), k.both(k.Column(known), inside))                    // [some, D]
		logit := k.Sum(k.Mul(w, k.Row(y)), 1)                                                                           // [some]
		own := k.Equal(k.Column(experts), k.Row(k.Range(width)))                                                        // [some, E]
		all = k.Add(all, k.Sum(k.Select(own, k.Broadcast(k.Column(logit), some, width), k.Zeros(F32, some, width)), 0)) // [E]
	}
	experts := k.Range(width)
	k.Store(k.Ptr(k.Ptr(to, k.long(token, n.Experts)), experts), all, k.Less(experts, k.Int(n.Experts)))
	return all
}

// rounded is x, f32, as elements of e can hold it.
func (k *kernel) rounded(x *Value, e Elem) *Value { return k.Convert(k.Convert(x, e), F32) }

const (
	maxRow    = 1 << 14 // wide, that one program holds
	maxRouted = 64      // experts of a router, that one program multiplies by
)

func (n Norm) check(name string) error {
	if err := positive(name, "tokens", n.Tokens, "width", n.Width); err != nil {
		return err
	}
	if n.Width > maxRow || n.Choices < 0 || n.Choices > maxChoices || n.Experts < 0 || n.Experts > maxRouted {
		return fmt.Errorf("triton: %s: width %d, %d choices and %d experts, wanted at most %d, %d and %d", name, n.Width, n.Choices, n.Experts,
			maxRow, maxChoices, maxRouted)
	}
	if r := n.Route; r != nil {
		if r.Tokens != 1 || n.Tokens != 1 || r.Experts != n.Experts {
			return fmt.Errorf("triton: %s: %d tokens and %d experts, of which %d and %d are routed, wanted one token and all experts", name, n.Tokens,
				n.Experts, r.Tokens, r.Experts)
		}
		if err := Permute(*r).check(name); err != nil {
			return err
		}
	}
	if n.Choices == 0 && n.Weighted {
		return fmt.Errorf("triton: %s: weights of no choices", name)
	}
	elems := []Elem{n.Elem}
	if n.Choices > 0 {
		if err := positive(name, "splits", n.Splits); err != nil {
			return err
		}
		if err := checkSplits(name, n.Splits); err != nil {
			return err
		}
		elems = append(elems, n.Parts)
	}
	for _, e := range elems {
		if err := dotElem(name, e); err != nil {
			return err
		}
	}
	return nil
}
