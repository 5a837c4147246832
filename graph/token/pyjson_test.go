package token

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPythonJSON(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"spaces after , and :", `{"a":[1,2],"b":{}}`, `{"a": [1, 2], "b": {}}`},
		{"the last of equal keys, in the first place", `{"a":1,"b":2,"a":3}`, `{"a": 3, "b": 2}`},
		{"integers as written", `123456789012345678901234567890`, `123456789012345678901234567890`},
		{"no negative integer zero", `-0`, `0`},
		{"negative float zero", `-0.0`, `-0.0`},
		{"a float that is whole", `1e3`, `1000.0`},
		{"the last float without exponent", `9999999999999998.0`, `9999999999999998.0`},
		{"the first float with exponent", `1e16`, `1e+16`},
		{"small floats", `[0.0001, 0.00001]`, `[0.0001, 1e-05]`},
		{"out of range", `[1e999, -1e999]`, `[Infinity, -Infinity]`},
		{"Python's words", `[NaN,Infinity,-Infinity]`, `[NaN, Infinity, -Infinity]`},
		{"escapes", `"\u00e9\u4f60\ud83d\ude00\/\n\u001f\u007f\u2028"`, "\"é你😀/\\n\\u001f\x7f\u2028\""},
		{"constants", ` [ true , false , null ] `, `[true, false, null]`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v, err := parseJSON(test.text)
			require.NoError(t, err)
			require.Equal(t, test.want, writeJSON(v))
		})
	}
}

func TestNotJSON(t *testing.T) {
	for _, text := range []string{"", "01", "1.", ".5", "1e", "1e+", "-", "+1", "nul", "{a:1}", `{"a"}`, `{"a":}`, `{"a":1,}`, "[1,]", "[", "{", `"`, `"\`, `"\x"`, `"\u12"`, `"\u+123"`, "\"\n\"", "1 2", "\ufeff1", `{"a":1]`} {
		_, err := parseJSON(text)
		require.ErrorIs(t, err, errNotJSON, "%q", text)
	}
	_, err := parseJSON(strings.Repeat("[", 1_000_000))
	require.ErrorContains(t, err, "nested more than 500 deep")
	require.NotErrorIs(t, err, errNotJSON)
	_, err = parseJSON(`"\ud83d\u0041"`)
	require.ErrorContains(t, err, "half a surrogate pair")
}

// FuzzJSONText: what is parsed and written parses to the same again.
func FuzzJSONText(f *testing.F) {
	f.Add(`{"a":[1.50,"x\u00e9"],"b":{"c":null}}`)
	f.Add(`1e22`)
	f.Fuzz(func(t *testing.T, text string) {
		v, err := parseJSON(text)
		if err != nil {
			return
		}
		again, err := parseJSON(writeJSON(v))
		require.NoError(t, err)
		require.Equal(t, v, again)
	})
}
