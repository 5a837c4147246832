package aot

import (
	"testing"

	"github.com/stretchr/testify/require"

	"mix/sharding"
)

func TestExchangesAlongAxes(t *testing.T) {
	mesh, err := sharding.ParseMesh("pipe=2 data=2 tensor=2")
	require.NoError(t, err)
	m := &Module{Devices: 8}
	for _, tt := range []struct{ op, attr, groups, along string }{
		{"all-reduce", "replica_groups={{0,1},{2,3},{4,5},{6,7}}", "{{0,1},{2,3},{4,5},{6,7}}", "tensor"},
		{"all-gather", "replica_groups=[4,2]<=[8]", "{{0,1},{2,3},{4,5},{6,7}}", "tensor"},
		{"all-to-all", "replica_groups=[4,2]<=[2,2,2]T(0,2,1)", "{{0,2},{1,3},{4,6},{5,7}}", "data"},
		{"all-reduce", "replica_groups=[2,4]<=[2,4]T(0,1)", "{{0,1,2,3},{4,5,6,7}}", "data+tensor"},
		{"all-reduce", "replica_groups=[2,4]<=[2,2,2]T(1,0,2)", "{{0,1,4,5},{2,3,6,7}}", "pipe+tensor"},
		{"all-reduce", "replica_groups=mesh['axis_0'=2,'axis_1'=2,'axis_2'=2] {'axis_1'}", "{{0,2},{1,3},{4,6},{5,7}}", "data"},
		{"all-gather", "replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}", "{{0,2,4,6},{1,3,5,7}}", "pipe+data"},
		{"all-gather", "replica_groups=mesh['axis_0'=8] {'axis_0':(1)2}", "{}", ""},
		{"all-reduce", "replica_groups={}", "{{0,1,2,3,4,5,6,7}}", "pipe+data+tensor"},
		{"all-reduce", "replica_groups={{0,3},{1,2},{4,7},{5,6}}", "{{0,3},{1,2},{4,7},{5,6}}", ""},
		{"collective-permute", "source_target_pairs={{0,4},{4,0},{1,5}}", "{{0,4},{4,0},{1,5}}", "pipe"},
		{"all-reduce", "replica_groups=[4,2]<=[9]", "{}", ""},
		{"all-reduce", "replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_1'}", "{{0,1},{2,3},{4,5},{6,7}}", "tensor"},
		{"all-gather", "replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, dimensions={0}", "{{0,2,4,6},{1,3,5,7}}", "pipe+data"},
		{"all-gather", "replica_groups=mesh['x'=2,'y'=2,'z'=2] {'x','z'}", "{{0,1,4,5},{2,3,6,7}}", "pipe+tensor"},
		{"all-reduce", "replica_groups=mesh['axis_0'=8] {'axis_0':(1)2}", "{}", ""},
		{"all-reduce", "replica_groups=mesh['axis_0'=4] {'axis_0'}", "{}", ""},
	} {
		in, _, err := parseInstr("  %x = f32[4]{0} " + tt.op + "(%y), channel_id=1, " + tt.attr + ", use_global_device_ids=true")
		require.NoError(t, err)
		groups := groupText(m.groups(in))
		require.Equal(t, tt.groups, groups, tt.attr)
		require.Equal(t, tt.along, Collective{Op: tt.op, Groups: groups}.Along(mesh), tt.attr)
	}
}
