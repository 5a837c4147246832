package pass

import (
	"fmt"
	"strings"

	"mix/lower/ir"
	"mix/sharding"
	"mix/sharding/axis"
)

// meshName is the symbol of the mesh in modules.
const meshName = "mesh"

// MeshOp declares a mesh of more than one device to Shardy: its axes of more than one device.
func MeshOp(m sharding.Mesh) *ir.Op {
	var axes []string
	for _, a := range m.Axes() {
		axes = append(axes, fmt.Sprintf("%s=%d", ir.String(string(a.Name)), a.Size))
	}
	mesh := ir.Attr("#sdy.mesh<[" + strings.Join(axes, ", ") + "]>")
	return ir.NewOp("sdy.mesh", nil, ir.Attrs{"sym_name": ir.String(meshName), "mesh": mesh})
}

// ShardingAttr lays a tensor out by spec and leaves nothing to the partitioner.
func ShardingAttr(spec sharding.Spec) ir.Attr {
	return ir.Attr("#sdy.sharding<" + shardingOf(spec, nil) + ">")
}

// shardingOf writes spec; axes for which open is true may be split further by the partitioner.
func shardingOf(spec sharding.Spec, open []bool) string {
	dims := make([]string, len(spec))
	for i, axes := range spec {
		names := quoted(axes)
		if i < len(open) && open[i] {
			names = append(names, "?")
		}
		dims[i] = "{" + strings.Join(names, ", ") + "}"
	}
	return string(ir.Symbol(meshName)) + ", [" + strings.Join(dims, ", ") + "]"
}

func quoted(axes []axis.Mesh) []string {
	names := make([]string, len(axes))
	for i, a := range axes {
		names[i] = string(ir.String(string(a)))
	}
	return names
}
