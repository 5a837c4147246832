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
	op := NewOp("stablehlo.all_reduce", []*Value{x}, collective(groups, channel, Attrs{"use_global_device_ids": Unit}), x.Type)
	op.Regions = []*Region{folding("add", elem)}
	return b.Region.Add(op).Result()
}

// AllToAll sends slice x[i, …] to device i of the group, of n devices; slice j of the result [n, …] is what device j sent.
// The first axis of x is n.
func (b Builder) AllToAll(x *Value, groups [][]int, channel int) *Value {
	attrs := Attrs{"split_dimension": Int(0), "concat_dimension": Int(0), "split_count": Int(len(groups[0]))}
	return b.Emit("all_to_all", collective(groups, channel, attrs), x.Type, x)
}

// Ragged is an exchange of runs of rows of [N, …], as many as each device says.
type Ragged struct {
	From, Send *Value // [n] i32: for device i of the group the first row that goes there, and how many
	To         *Value // [n] i32: where they lie there
	Receive    *Value // [n] i32: how many come from device i
}

// RaggedAllToAll is into [M, …] with the rows written that the devices of the group, of n, send of their x [N, …]. Only
// CUDA has it.
func (b Builder) RaggedAllToAll(x, into *Value, r Ragged, groups [][]int, channel int) *Value {
	config := Attrs{"replica_groups": table(groups, len(groups[0])), "channel_id": Int(channel)}
	return b.Emit("custom_call", Attrs{"call_target_name": String("ragged_all_to_all"), "api_version": I32(4), "backend_config": Dictionary(config)},
		into.Type, x, into, r.From, r.Send, r.To, r.Receive)
}

// Permute sends x from device to device, by pairs of source and target; a device that nothing is sent to has zeros.
func (b Builder) Permute(x *Value, pairs [][2]int, channel int) *Value {
	rows := make([][]int, len(pairs))
	for i := range pairs {
		rows[i] = pairs[i][:]
	}
	return b.Emit("collective_permute", Attrs{"source_target_pairs": table(rows, 2), "channel_handle": channelHandle(channel)}, x.Type, x)
}

// collective is attrs with what all collectives over groups have.
func collective(groups [][]int, channel int, attrs Attrs) Attrs {
	attrs["replica_groups"] = table(groups, len(groups[0]))
	attrs["channel_handle"] = channelHandle(channel)
	return attrs
}

// table is an attribute of rows of width integers each.
func table(rows [][]int, width int) Attr {
	texts := make([]string, len(rows))
	for i, r := range rows {
		texts[i] = "[" + join(r) + "]"
	}
	return Attr("dense<[" + strings.Join(texts, ", ") + "]> : " + string(Tensor("i64", len(rows), width)))
}

func channelHandle(channel int) Attr {
	return Attr(fmt.Sprintf("#stablehlo.channel_handle<handle = %d, type = 1>", channel))
}

// NextChannel is a channel number larger than those of m's collectives, at least 1.
func (m *Module) NextChannel() int {
	next := 1
	for _, f := range m.Funcs {
		Walk(f.Body, func(op *Op) {
			_, s, found := strings.Cut(string(op.Attrs["channel_handle"]), "handle = ")
			if !found {
				_, s, found = strings.Cut(string(op.Attrs["backend_config"]), "channel_id = ")
			}
			if end := strings.IndexAny(s, ",> "); found && end >= 0 {
				if n, err := strconv.Atoi(s[:end]); err == nil && n >= next {
					next = n + 1
				}
			}
		})
	}
	return next
}
