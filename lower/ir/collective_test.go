package ir

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCollectivesInARegion builds one device's work, which the verifier accepts and the parser reads back.
func TestCollectivesInARegion(t *testing.T) {
	main := NewRegion(Tensor("f32", 8, 4))
	part := NewRegion(Tensor("f32", 4, 4))
	in := At(part)
	groups := [][]int{{0, 1}, {2, 3}}
	x := in.AllToAll(in.Reshape(part.Args[0], 2, 2, 4), groups, 5)
	sizes := in.Const("tensor<2xi32>", "1")
	x = in.RaggedAllToAll(in.Reshape(x, 4, 4), part.Args[0], Ragged{From: sizes, Send: sizes, To: sizes, Receive: sizes}, groups, 8)
	part.Emit("sdy.return", []*Value{in.AllReduce(x, groups, 6)}, nil)
	b := At(main)
	m := &Module{Funcs: []*Func{{Name: "main", Results: []Type{Tensor("f32", 8, 4)}, Body: main}}}
	require.Equal(t, 1, m.NextChannel())
	y := b.Manual([]string{"expert"}, main.Args, []string{`<@mesh, [{"expert"}, {}]>`}, []string{`<@mesh, [{"expert"}, {}]>`}, part, Tensor("f32", 8, 4))
	main.Emit("func.return", y, nil)
	require.NoError(t, Verify(m))
	require.Equal(t, 9, m.NextChannel())
	text := m.String()
	for _, want := range []string{
		`"stablehlo.all_to_all"(%1) {channel_handle = #stablehlo.channel_handle<handle = 5, type = 1>, concat_dimension = 0 : i64, replica_groups = dense<[[0, 1], [2, 3]]> : tensor<2x2xi64>, split_count = 2 : i64, split_dimension = 0 : i64} : (tensor<2x2x4xf32>) -> tensor<2x2x4xf32>`,
		`{api_version = 4 : i32, backend_config = {channel_id = 8 : i64, replica_groups = dense<[[0, 1], [2, 3]]> : tensor<2x2xi64>}, call_target_name = "ragged_all_to_all"} : (tensor<4x4xf32>, tensor<4x4xf32>, tensor<2xi32>, tensor<2xi32>, tensor<2xi32>, tensor<2xi32>) -> tensor<4x4xf32>`,
		`{channel_handle = #stablehlo.channel_handle<handle = 6, type = 1>, replica_groups = dense<[[0, 1], [2, 3]]> : tensor<2x2xi64>, use_global_device_ids} : (tensor<4x4xf32>) -> tensor<4x4xf32>`,
		`{in_shardings = #sdy.sharding_per_value<[<@mesh, [{"expert"}, {}]>]>, manual_axes = #sdy<manual_axes{"expert"}>, out_shardings = #sdy.sharding_per_value<[<@mesh, [{"expert"}, {}]>]>} : (tensor<8x4xf32>) -> tensor<8x4xf32>`,
	} {
		require.Contains(t, text, want)
	}
	again, err := Parse(text)
	require.NoError(t, err)
	require.Equal(t, text, again.String())
	ops, _ := RemoveDead(again)
	require.Zero(t, ops)
}

func TestCounting(t *testing.T) {
	main := NewRegion(Tensor("i32", 5, 3), Tensor("i32", 5))
	b := At(main)
	sum, inverse := b.CumSum(main.Args[0], 0), b.Inverse(main.Args[1], 7, 5)
	main.Emit("func.return", []*Value{sum, inverse}, nil)
	m := &Module{Funcs: []*Func{{Name: "main", Results: []Type{Tensor("i32", 5, 3), Tensor("i32", 7)}, Body: main}}}
	require.NoError(t, Verify(m))
	text := m.String()
	require.Contains(t, text, `{base_dilations = array<i64: 1, 1>, padding = dense<[[4, 0], [0, 0]]> : tensor<2x2xi64>, window_dilations = array<i64: 1, 1>, window_dimensions = array<i64: 5, 1>, window_strides = array<i64: 1, 1>}`)
	require.Contains(t, text, `dense<5> : tensor<7xi32>`)
	require.Equal(t, 1, strings.Count(text, "stablehlo.scatter\""))
}
