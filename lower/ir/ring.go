package ir

import (
	"fmt"
	"strings"
)

// Permute sends x from device to device, by pairs of source and target; a device that nothing is sent to has zeros.
func (b Builder) Permute(x *Value, pairs [][2]int, channel int) *Value {
	rows := make([]string, len(pairs))
	for i, p := range pairs {
		rows[i] = fmt.Sprintf("[%d, %d]", p[0], p[1])
	}
	return b.Emit("collective_permute", Attrs{
		"source_target_pairs": Attr(fmt.Sprintf("dense<[%s]> : tensor<%dx2xi64>", strings.Join(rows, ", "), len(pairs))),
		"channel_handle":      Attr(fmt.Sprintf("#stablehlo.channel_handle<handle = %d, type = 1>", channel)),
	}, x.Type, x)
}

// ReduceScatter adds up x over the devices of a group, n of them: device i has part i of the sum along the first axis.
func (b Builder) ReduceScatter(x *Value, groups [][]int, channel int) *Value {
	elem, dims := shape(x)
	scalar := Tensor(elem)
	r := NewRegion(scalar, scalar)
	in := At(r)
	in.Return(in.Add(r.Args[0], r.Args[1]))
	part := append([]int{dims[0] / len(groups[0])}, dims[1:]...)
	attrs := collective(groups, channel, Attrs{"scatter_dimension": Int(0), "use_global_device_ids": Unit})
	op := NewOp("stablehlo.reduce_scatter", []*Value{x}, attrs, Tensor(elem, part...))
	op.Regions = []*Region{r}
	return b.Region.Add(op).Result()
}
