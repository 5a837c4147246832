package pass

import (
	"fmt"
	"slices"
	"strconv"

	"mix/lower/ir"
)

const (
	scanName          = "mix.scan"
	scanGradientName  = "mix.scan_gradient"
	layerName         = "mix.layer"
	layerGradientName = "mix.layer_gradient"
)

// scanOf is a mix.scan or a mix.scan_gradient taken apart. Every list is in the order of the operands.
type scanOf struct {
	gradient          bool
	outs, micro, lead int // numbers of stacked results, microbatches and axes that count layers

	carry, each, shared, weights, stacked, frozen []*ir.Value // carry: what enters, of the gradient those of the last carry
	douts, kept                                   []*ir.Value // of the gradient; stacked by the scan
}

func readScan(op *ir.Op) (x scanOf, err error) {
	x = scanOf{gradient: composite(op) == scanGradientName, outs: entry(op, "outs"), micro: entry(op, "micro"), lead: entry(op, "lead")}
	rest := op.Operands
	next := func(k int) (part []*ir.Value) {
		if k < 0 || k > len(rest) {
			err = fmt.Errorf("%d operands, fewer than its attributes say", len(op.Operands))
			return nil
		}
		part, rest = rest[:k], rest[k:]
		return part
	}
	n, last := entry(op, "carry"), entry(op, "frozen")
	x.carry = next(n)
	if x.gradient {
		x.douts = next(x.outs)
		last += n
	}
	x.each, x.shared, x.weights = next(entry(op, "each")), next(entry(op, "shared")), next(entry(op, "weights"))
	x.stacked, x.frozen = next(len(rest)-last), next(entry(op, "frozen"))
	if x.gradient {
		x.kept = next(n)
	}
	return x, err
}

// entry is a number among the attributes of a composite, 0 if it is not there.
func entry(op *ir.Op, name string) int {
	n, _ := strconv.Atoi(entryText(op, name))
	return n
}

// entryText is an attribute of a composite, "" if it is not there.
func entryText(op *ir.Op, name string) string {
	a, _ := op.Attrs["composite_attributes"].Entry(name)
	text, _ := a.Text()
	return text
}

// inBody is the composite called name in the body of op, nil if there is none.
func inBody(m *ir.Module, op *ir.Op, name string) (found *ir.Op) {
	if f := m.Func(callee(op)); f != nil {
		ir.Walk(f.Body, func(inner *ir.Op) {
			if composite(inner) == name {
				found = inner
			}
		})
	}
	return found
}

// floatValues are those of floats.
func floatValues(vs []*ir.Value) (fs []*ir.Value) {
	for _, v := range vs {
		if elem, _, _ := v.Type.Split(); floats[elem] {
			fs = append(fs, v)
		}
	}
	return fs
}

// take is the slice of x at indices of its first axes, without them.
func take(b ir.Builder, x *ir.Value, at ...*ir.Value) *ir.Value {
	d := x.Dims()
	starts, sizes := slices.Clone(at), slices.Clone(d)
	for i := range d {
		if i < len(at) {
			sizes[i] = 1
		} else {
			starts = append(starts, b.Index(0))
		}
	}
	return b.Reshape(b.DynamicSlice(x, starts, sizes...), d[len(at):]...)
}

func takeAll(b ir.Builder, xs []*ir.Value, at []*ir.Value) (out []*ir.Value) {
	for _, x := range xs {
		out = append(out, take(b, x, at...))
	}
	return out
}

// put is x with v over the slice at indices of its first axes.
func put(b ir.Builder, x, v *ir.Value, at ...*ir.Value) *ir.Value {
	starts, sizes := slices.Clone(at), x.Dims()
	for i := range sizes {
		if i < len(at) {
			sizes[i] = 1
		} else {
			starts = append(starts, b.Index(0))
		}
	}
	return b.DynamicUpdate(x, b.Reshape(v, sizes...), starts...)
}

// zero is the zero of an element type, as MLIR writes it.
func zero(elem string) string {
	switch {
	case floats[elem]:
		return "0.0"
	case elem == "i1":
		return "false"
	}
	return "0"
}

// zeroOf are zeros, or false.
func zeroOf(b ir.Builder, t ir.Type) *ir.Value {
	elem, _, _ := t.Split()
	return b.Const(t, zero(elem))
}
