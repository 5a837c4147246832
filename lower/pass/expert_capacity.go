package pass

import (
	"fmt"
	"math"
	"strconv"

	"mix/lower/ir"
)

// readCapacity reads the attributes capacity, a factor above 0, and drop, which say how many rows an expert takes of a group
// of tokens and which of them; no attributes are no bound.
func readCapacity(op *ir.Op) (factor float64, byWeight bool, err error) {
	as := op.Attrs["composite_attributes"]
	given, bounded := as.Entry("capacity")
	drop, _ := as.Entry("drop")
	if !bounded {
		return 0, false, nil
	}
	text, _ := given.Text()
	factor, err = strconv.ParseFloat(text, 64)
	if err != nil || !(factor > 0) || math.IsInf(factor, 0) {
		return 0, false, fmt.Errorf("attribute capacity is %s, wanted a factor above 0", given)
	}
	switch byWeight = drop == ir.String("probs"); {
	case !byWeight && drop != ir.String("position"):
		return 0, false, fmt.Errorf("attribute drop is %s, wanted probs or position", drop)
	}
	return factor, byWeight, nil
}

// fitting tells which of a device's rows find room at their experts, [R] i1; nil if all do. flat are the experts of rows
// [R], weights [T, K].
func (s expertSplit) fitting(b ir.Builder, flat, weights *ir.Value) *ir.Value {
	if s.most == 0 {
		return nil
	}
	rows := s.t * s.x.k
	last := b.Const(flat.Type, strconv.Itoa(s.most))
	counted := func(experts *ir.Value) *ir.Value { // [R] the rows of the same expert up to each
		own := oneHot(b, experts, s.x.e)
		return b.Reduce("add", b.Mul(own, b.CumSum(own, 0)), "0", 1)
	}
	if !s.x.byWeight {
		return b.Compare("LE", counted(flat), last)
	}
	// The bits of floats that are not negative are in their order. Negated they sort from the greatest, equal ones by row.
	bits := b.Emit("bitcast_convert", nil, flat.Type, b.Reshape(b.Convert(weights, "f32"), rows))
	bits = b.Binary("maximum", bits, b.Const(bits.Type, "0"))
	_, order := b.SortBy(b.Unary("negate", bits), b.Iota(0, "i32", rows))
	at := counted(b.Rows(flat, order)) // of sorted rows
	return b.Compare("LE", b.Rows(at, b.Inverse(order, rows, 0)), last)
}

// dropped is how many rows of all devices found no room, [] f32.
func (r route) dropped(b ir.Builder) *ir.Value {
	if r.fits == nil {
		return b.Const(ir.Tensor("f32"), "0.0")
	}
	fit := b.Convert(r.fits, "f32")
	here := b.Reduce("add", b.Binary("subtract", b.Const(fit.Type, "1.0"), fit), "0.0", 0)
	return r.sum(b, here, r.tokens)
}
