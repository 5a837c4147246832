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
