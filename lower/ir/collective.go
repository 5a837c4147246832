package ir

import (
	"fmt"
	"strconv"
	"strings"
)

// Collectives stand in regions of one device's work. Groups list the devices of the whole program that work
// together, all groups of one size, every device in one of them; each collective of a module has a channel of its own.

// AllReduce adds up x, element by element, over the devices of a group: each has the sum.
func (b Builder) AllReduce(x *Value, groups [][]int, channel int) *Value {
	elem, _ := shape(x)
	scalar := Tensor(elem)
	r := NewRegion(scalar, scalar)
	in := At(r)
	in.Return(in.Add(r.Args[0], r.Args[1]))
	op := NewOp("stablehlo.all_reduce", []*Value{x}, collective(groups, channel, Attrs{"use_global_device_ids": Unit}), x.Type)
	op.Regions = []*Region{r}
	return b.Region.Add(op).Result()
}

// AllToAll sends slice x[i, …] to device i of the group, of n devices; slice j of the result [n, …] is what device j sent.
// The first axis of x is n.
func (b Builder) AllToAll(x *Value, groups [][]int, channel int) *Value {
	attrs := Attrs{"split_dimension": Int(0), "concat_dimension": Int(0), "split_count": Int(len(groups[0]))}
	return b.Emit("all_to_all", collective(groups, channel, attrs), x.Type, x)
}

// collective is attrs with what all collectives have.
func collective(groups [][]int, channel int, attrs Attrs) Attrs {
	rows := make([]string, len(groups))
	for i, g := range groups {
		rows[i] = "[" + join(g) + "]"
	}
	attrs["replica_groups"] = Attr(fmt.Sprintf("dense<[%s]> : tensor<%dx%dxi64>", strings.Join(rows, ", "), len(groups), len(groups[0])))
	attrs["channel_handle"] = Attr(fmt.Sprintf("#stablehlo.channel_handle<handle = %d, type = 1>", channel))
	return attrs
}

// NextChannel is a channel number larger than those of m's collectives, at least 1.
func (m *Module) NextChannel() int {
	next := 1
	for _, f := range m.Funcs {
		Walk(f.Body, func(op *Op) {
			_, s, found := strings.Cut(string(op.Attrs["channel_handle"]), "handle = ")
			if end := strings.IndexAny(s, ",> "); found && end >= 0 {
				if n, err := strconv.Atoi(s[:end]); err == nil && n >= next {
					next = n + 1
				}
			}
		})
	}
	return next
}

// Manual appends a region of one device's work over some axes of a mesh. Shardings of operands and results are written as
// Shardy writes them for one value, "<@mesh, [{\"data\"}, {}]>". The arguments of body are a device's parts of the operands,
// its sdy.return gives those of the results; nothing else from outside is visible in it.
func (b Builder) Manual(axes []string, operands []*Value, in, out []string, body *Region, results ...Type) []*Value {
	names := make([]string, len(axes))
	for i, a := range axes {
		names[i] = quote(a)
	}
	op := NewOp("sdy.manual_computation", operands, Attrs{
		"in_shardings":  Attr("#sdy.sharding_per_value<[" + strings.Join(in, ", ") + "]>"),
		"out_shardings": Attr("#sdy.sharding_per_value<[" + strings.Join(out, ", ") + "]>"),
		"manual_axes":   Attr("#sdy<manual_axes{" + strings.Join(names, ", ") + "}>"),
	}, results...)
	op.Regions = []*Region{body}
	return b.Region.Add(op).Results
}
