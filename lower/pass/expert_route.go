package pass

import (
	"strconv"

	"mix/lower/ir"
)

// route is how rows go to the devices of their experts and back.
type route struct {
	expertSplit
	from  *ir.Value // [N] the row of the sender in this place, R for none: of what is sent, or without an exchange of what is computed
	slot  *ir.Value // [R] the place of a row in what is sent; beyond the end for one that is dropped. Nil without an exchange
	fits  *ir.Value // [R] of i1: the row's expert has room. Nil if all have
	mine  *ir.Value // [R] of i1, without an exchange: this device has the row's expert, which has room. Nil for all
	place *ir.Value // the place of a row among those computed, by expert: [N] of those received, [R] without an exchange
	order *ir.Value // [N] its inverse, nil without an exchange
	sizes *ir.Value // [E] rows of each expert

	number         *ir.Value // [1] the device's number, nil where nobody asks
	sent, received *ir.Value // [O] rows for each device that shares the experts and from each, nil unless exchanges are ragged
}

// newRoute counts, from the parts of inputs. kept, if not nil, are place and sizes from an earlier one, and what it received if
// exchanges are ragged.
func (s expertSplit) newRoute(b ir.Builder, in, kept []*ir.Value) route {
	r := route{expertSplit: s, number: s.numberOf(in)}
	flat := b.Reshape(in[1], s.t*s.x.k) // [R]
	r.fits = s.fitting(b, flat, in[2])
	if !s.exchange {
		r.stay(b, flat)
		return r
	}
	r.send(b, flat)
	if kept == nil {
		none := b.Const(ir.Tensor("i32", s.rows), strconv.Itoa(s.e))
		full := b.Compare("LT", r.from, b.Const(r.from.Type, strconv.Itoa(s.t*s.x.k))) // [N]
		local := b.Binary("remainder", flat, b.Const(flat.Type, strconv.Itoa(s.e)))    // [R]
		ids := b.Select(full, b.Rows(local, r.from), none)                             // [N]
		ids = s.swap(b, ids)
		place, sizes := s.byExpert(b, ids)
		kept = []*ir.Value{place, sizes}
		if s.ragged {
			real := b.Convert(b.Compare("LT", ids, none), "i32")                                     // [N]
			kept = append(kept, b.Reduce("add", b.Reshape(real, s.owners, s.rows/s.owners), "0", 1)) // [O]
		}
	}
	r.place, r.sizes = kept[0], kept[1]
	if s.ragged {
		r.received = kept[2]
	}
	r.order = b.Inverse(r.place, s.rows, 0)
	return r
}

// stay finds the rows of the device's own experts among those of all its tokens.
func (r *route) stay(b ir.Builder, flat *ir.Value) {
	ids := flat
	if r.owners > 1 {
		none := b.Const(flat.Type, strconv.Itoa(r.e))
		first := b.Mul(b.Broadcast(b.Reshape(r.number), []int{r.t * r.x.k}), none)
		ids = b.Binary("subtract", flat, first)
		above := b.Compare("GE", ids, b.Const(flat.Type, "0"))
		r.mine = b.Binary("and", above, b.Compare("LT", ids, none))
	}
	switch {
	case r.mine == nil:
		r.mine = r.fits
	case r.fits != nil:
		r.mine = b.Binary("and", r.mine, r.fits)
	}
	if r.mine != nil {
		ids = b.Select(r.mine, ids, b.Const(flat.Type, strconv.Itoa(r.e)))
	}
	r.place, r.sizes = r.byExpert(b, ids)
	r.from = b.Inverse(r.place, r.rows, r.t*r.x.k)
}

// send gives each row a place in what is sent: in the part of its owner, or with a capacity of its expert, in the order of rows.
func (r *route) send(b ir.Builder, flat *ir.Value) {
	rows := r.t * r.x.k
	bin := b.Div(flat, b.Const(flat.Type, strconv.Itoa(r.x.e/r.bins)))
	own := oneHot(b, bin, r.bins) // [R, bins]
	if r.fits != nil {
		own = b.Mul(own, b.Broadcast(b.Convert(r.fits, "i32"), []int{rows, r.bins}, 0))
	}
	if r.ragged {
		r.sent = b.Reduce("add", own, "0", 0) // [O]
	}
	upTo := b.Reduce("add", b.Mul(own, b.CumSum(own, 0)), "0", 1) // [R] from 1
	at := b.Binary("subtract", upTo, b.Const(upTo.Type, "1"))     // [R]
	size := b.Const(bin.Type, strconv.Itoa(r.room))               // [R]
	r.slot = b.Add(b.Mul(bin, size), at)                          // [R]
	if r.fits != nil {
		beyond := b.Add(b.Iota(0, "i32", rows), b.Const(bin.Type, strconv.Itoa(r.rows)))
		r.slot = b.Select(r.fits, r.slot, beyond)
	}
	r.from = b.Inverse(r.slot, r.rows, rows)
}

// byExpert puts rows of one expert together, in their order, and counts them; ids [n] i32, E for none, which come last.
func (s expertSplit) byExpert(b ir.Builder, ids *ir.Value) (place, sizes *ir.Value) {
	dims := ids.Dims()
	n, groups := dims[0], s.e+1
	own := oneHot(b, ids, groups)                                              // [n, E+1]
	upTo := b.CumSum(own, 0)                                                   // [n, E+1]
	all := b.Reshape(b.Slice(upTo, []int{n - 1, 0}, []int{n, groups}), groups) // [E+1]
	before := b.Binary("subtract", b.CumSum(all, 0), all)                      // [E+1]
	at := b.Binary("subtract", b.Add(upTo, b.Broadcast(before, []int{n, groups}, 1)), own)
	place = b.Reduce("add", b.Mul(own, at), "0", 1) // [n]
	return place, b.Slice(all, []int{0}, []int{s.e})
}

// oneHot is [n, classes] i32 of ids [n].
func oneHot(b ir.Builder, ids *ir.Value, classes int) *ir.Value {
	dims := ids.Dims()
	all := []int{dims[0], classes}
	return b.Convert(b.Compare("EQ", b.Broadcast(ids, all, 0), b.Iota(1, "i32", all...)), "i32")
}

// there brings rows to their experts: x [T, W], a token's row for each of its choices, or [R, W]; the result [N, W] lies by
// expert.
func (r route) there(b ir.Builder, x *ir.Value) *ir.Value {
	dims := x.Dims()
	from := r.from
	if each := r.t * r.x.k / dims[0]; each > 1 {
		from = b.Div(from, b.Const(from.Type, strconv.Itoa(each)))
	}
	rows := b.Rows(x, from) // [N, W]; empty places hold the last row
	if !r.exchange {
		return rows
	}
	return b.Rows(r.trade(b, rows, r.sent, r.received, r.number), r.order)
}

// back brings results y [N, W] of rows to where they came from, [R, W].
func (r route) back(b ir.Builder, y *ir.Value) *ir.Value {
	y = b.Rows(y, r.place)
	here := r.mine
	if r.exchange {
		y, here = b.Rows(r.trade(b, y, r.received, r.sent, r.number), r.slot), r.fits
	}
	if here != nil {
		dims := y.Dims()
		y = b.Select(b.Broadcast(here, dims, 0), y, b.Const(y.Type, "0.0"))
	}
	if !r.exchange {
		y = r.sum(b, y, r.experts) // all but one are zero
	}
	return y
}
