package ir

import (
	"fmt"
	"strings"
)

// MeshOp declares a mesh to Shardy by names and sizes of its axes. devices is empty, or a device for each place, not in
// their order.
func MeshOp(name string, axes []string, sizes, devices []int) *Op {
	parts := make([]string, len(axes))
	for i, a := range axes {
		parts[i] = fmt.Sprintf("%s=%d", quote(a), sizes[i])
	}
	text := "#sdy.mesh<[" + strings.Join(parts, ", ") + "]"
	if len(devices) > 0 {
		text += ", device_ids=[" + join(devices) + "]"
	}
	return NewOp("sdy.mesh", nil, Attrs{"sym_name": String(name), "mesh": Attr(text + ">")})
}

// Sharding is how Shardy writes the place of one value on a mesh, "<@mesh, [{\"data\"}, {}]>": the mesh axes that split each
// of its own. Those for which open is true may be split further by the partitioner.
func Sharding[A ~string](mesh string, split [][]A, open []bool) string {
	dims := make([]string, len(split))
	for i, axes := range split {
		names := make([]string, len(axes))
		for j, a := range axes {
			names[j] = quote(string(a))
		}
		if i < len(open) && open[i] {
			names = append(names, "?")
		}
		dims[i] = "{" + strings.Join(names, ", ") + "}"
	}
	return "<" + string(Symbol(mesh)) + ", [" + strings.Join(dims, ", ") + "]>"
}

// ShardingAttr is the attribute of a value's Sharding.
func ShardingAttr(sharding string) Attr { return Attr("#sdy.sharding" + sharding) }

// Manual appends a region of one device's work over some axes of a mesh. Shardings of operands and results are as Sharding
// writes them. The arguments of body are a device's parts of the operands, its sdy.return gives those of the results; nothing
// else from outside is visible in it.
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
