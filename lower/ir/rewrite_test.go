package ir

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReplaceAllReachesRegionsAndFollowsChains(t *testing.T) {
	m := example(t)
	body := m.Func("main").Body
	x := body.Args[0]
	a := NewOp("stablehlo.negate", []*Value{x}, nil, x.Type)
	b := NewOp("stablehlo.abs", []*Value{x}, nil, x.Type)
	body.InsertBefore(body.Ops[0], b)
	loop := body.Ops[2]
	loop.Regions[1].Ops[0].Operands[0] = a.Result() // a stands nowhere yet
	ReplaceAll(body, map[*Value]*Value{a.Result(): x, x: b.Result()})
	require.Same(t, b.Result(), loop.Operands[1])
	require.Same(t, b.Result(), loop.Regions[1].Ops[0].Operands[0])
	require.Panics(t, func() { ReplaceAll(body, map[*Value]*Value{x: loop.Results[0]}) })
}

func TestCloneSharesNothing(t *testing.T) {
	m := example(t)
	before := m.String()
	main := m.Func("main")
	c := &Module{Name: m.Name, Attrs: m.Attrs, Globals: m.Globals, Funcs: []*Func{
		{Name: "main", Attrs: main.Attrs, ParamAttrs: main.ParamAttrs, Results: main.Results, ResultAttrs: main.ResultAttrs, Body: main.Body.Clone(map[*Value]*Value{})},
		m.Funcs[1]}}
	require.NoError(t, Verify(c))
	require.Equal(t, before, c.String())
	Walk(c.Funcs[0].Body, func(op *Op) { op.Attrs, op.Operands = Attrs{"seen": Unit}, nil })
	c.Funcs[0].Body.Args[0].Type = "tensor<1xf32>"
	require.Equal(t, before, m.String())
}

func TestRemoveDead(t *testing.T) {
	m := example(t)
	body := m.Func("main").Body
	x := body.Args[0]
	first := body.Ops[0]
	a := NewOp("stablehlo.negate", []*Value{x}, nil, x.Type)
	b := NewOp("stablehlo.abs", []*Value{a.Result()}, nil, x.Type)
	pure := NewOp("stablehlo.custom_call", []*Value{x}, nil, x.Type)
	effect := NewOp("stablehlo.custom_call", []*Value{x}, Attrs{"has_side_effect": "true"}, x.Type)
	unknown := NewOp("other.op", []*Value{x}, nil, x.Type)
	body.InsertBefore(first, a, b, pure, effect, unknown)
	inner := body.Ops[6].Regions[1] // of the loop
	inner.InsertBefore(inner.Ops[0], NewOp("stablehlo.negate", []*Value{x}, nil, x.Type))
	double := *m.Func("mix.double(x=1).0")
	double.Name, double.Body = "nobody", double.Body.Clone(map[*Value]*Value{})
	m.Funcs = append(m.Funcs, &double)
	ops, funcs := RemoveDead(m)
	require.Equal(t, 4, ops)
	require.Equal(t, 1, funcs)
	require.Equal(t, []*Op{effect, unknown, first}, body.Ops[:3])
	require.NoError(t, Verify(m))
	ops, funcs = RemoveDead(m)
	require.Zero(t, ops+funcs)
}

func TestRemoveDeadTakesWholeLoops(t *testing.T) {
	m := example(t)
	body := m.Func("main").Body
	body.Terminator().Operands[0] = body.Args[0]
	ops, funcs := RemoveDead(m)
	require.Equal(t, 10, ops)
	require.Equal(t, 1, funcs)
	require.Len(t, body.Ops, 1)
	require.NoError(t, Verify(m))
}

func TestRemoveDeadKeepsCallsWithEffects(t *testing.T) {
	m := example(t)
	body := m.Func("main").Body
	body.Terminator().Operands[0] = body.Args[0]
	f := m.Func("mix.double(x=1).0").Body
	f.InsertBefore(f.Ops[0], NewOp("stablehlo.custom_call", nil, Attrs{"has_side_effect": "true"}))
	ops, _ := RemoveDead(m)
	require.Zero(t, ops)
}
