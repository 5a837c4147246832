package pass

import (
	"mix/lower/ir"
	"mix/sharding"
)

// meshName is the symbol of the mesh in modules.
const meshName = "mesh"

// MeshOp declares a mesh of more than one device to Shardy: its axes of more than one device.
func MeshOp(m sharding.Mesh) *ir.Op {
	var names []string
	var sizes []int
	for _, a := range m.Axes() {
		names, sizes = append(names, string(a.Name)), append(sizes, a.Size)
	}
	return ir.MeshOp(meshName, names, sizes, nil)
}

// ShardingAttr lays a tensor out by spec and leaves nothing to the partitioner.
func ShardingAttr(spec sharding.Spec) ir.Attr { return ir.ShardingAttr(shardingOf(spec, nil)) }

// shardingOf writes spec; axes for which open is true may be split further by the partitioner.
func shardingOf(spec sharding.Spec, open []bool) string { return ir.Sharding(meshName, spec, open) }
