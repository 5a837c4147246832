package ir

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAttributesReadBack(t *testing.T) {
	for _, s := range []string{"", "plain", `a "b" \ c`, "line\nend\t\x00", "é"} {
		got, ok := String(s).Text()
		require.True(t, ok, "%q", s)
		require.Equal(t, s, got)
	}
	for _, name := range []string{"main", "mix.attention(window=4;scale=0.5).3", "0", "a b"} {
		got, ok := Symbol(name).Symbol()
		require.True(t, ok, "%q", name)
		require.Equal(t, name, got)
	}
	for _, vs := range [][]int{{}, {3}, {-1, 0, 7}} {
		got, ok := Ints(vs...).Ints()
		require.True(t, ok)
		require.Equal(t, vs, got)
	}
	require.Equal(t, Attr("-4 : i32"), I32(-4))
	require.Equal(t, Attr("[1 : i64, true]"), List(Int(1), Bool(true)))
}

func TestAttributesOfAnotherKindAreRefused(t *testing.T) {
	_, ok := Attr("1 : i64").Text()
	require.False(t, ok)
	_, ok = Attr(`"x\Q"`).Text()
	require.False(t, ok)
	_, ok = Attr("[1]").Ints()
	require.False(t, ok)
	_, ok = Attr(`"main"`).Symbol()
	require.False(t, ok)
}

func TestEntryOfADictionary(t *testing.T) {
	d := Dictionary(Attrs{"experts": String("8"), "a b": Ints(1, 2), "flag": Unit})
	require.Equal(t, Attr(`{"a b" = array<i64: 1, 2>, experts = "8", flag}`), d)
	for name, want := range map[string]Attr{"experts": `"8"`, "a b": "array<i64: 1, 2>", "flag": Unit} {
		got, ok := d.Entry(name)
		require.True(t, ok)
		require.Equal(t, want, got)
	}
	_, ok := d.Entry("form")
	require.False(t, ok)
	_, ok = Attr("[1]").Entry("x")
	require.False(t, ok)
}

func TestTensorTypesSplit(t *testing.T) {
	tests := []struct {
		typ  Type
		elem string
		dims []int
		ok   bool
	}{
		{Tensor("f32"), "f32", nil, true},
		{Tensor("bf16", 8, 0, 16), "bf16", []int{8, 0, 16}, true},
		{Tensor("complex<f32>", 2), "complex<f32>", []int{2}, true},
		{"tensor<?x4xf32>", "", nil, false},
		{"tensor<*xf32>", "", nil, false},
		{"!stablehlo.token", "", nil, false},
	}
	for _, test := range tests {
		elem, dims, ok := test.typ.Split()
		require.Equal(t, test.ok, ok, "%s", test.typ)
		if ok {
			require.Equal(t, test.elem, elem)
			require.Equal(t, test.dims, dims)
		}
	}
}
