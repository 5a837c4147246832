package grammar

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/graph/token"
)

var tools = []token.Tool{
	{Name: "weather", Parameters: json.RawMessage(`{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer","minimum":1,"maximum":9}},"required":["city"]}`)},
	{Name: "now"},
	{Name: "tree", Parameters: json.RawMessage(`{"properties":{"kids":{"type":"array","items":{"$ref":"#"}}}}`)},
}

func TestToolCalls(t *testing.T) {
	g := must(small().ToolCalls(tools, 2))
	for _, text := range []string{
		`[{"name": "weather", "arguments": {"city": "Paris", "days": 3}, "id": "a1B2c3D4e"}]`,
		`[{"name":"now","arguments":{}},{"name":"now","arguments":{"x":[1]}}]`,
		`[{"name": "tree", "arguments": {"kids": [{"kids": []}]}}]`,
	} {
		require.True(t, reads(g, text), text)
	}
	for _, text := range []string{
		`[]`, `{"name":"now","arguments":{}}`, `[{"name":"later","arguments":{}}]`, `[{"name":"weather","arguments":{}}]`, `[{"name":"now","arguments":[]}]`,
		`[{"name":"now","arguments":{},"id":"short"}]`, `[{"name":"now","arguments":{}},{"name":"now","arguments":{}},{"name":"now","arguments":{}}]`,
		`[{"name":"weather","arguments":{"city":"x","days":10}}]`,
	} {
		require.False(t, reads(g, text), text)
	}
	v := validator(t, string(tools[0].Parameters))
	r := rand.New(rand.NewPCG(21, 22))
	for range 40 {
		text := walk(t, smallT(), g.Mask(), r, r.IntN(80))
		var calls []struct {
			Name      string
			Arguments json.RawMessage
		}
		require.NoError(t, json.Unmarshal([]byte(text), &calls), text)
		require.NotEmpty(t, calls)
		require.LessOrEqual(t, len(calls), 2)
		for _, c := range calls {
			if c.Name == "weather" {
				validate(t, v, string(c.Arguments))
			}
		}
	}
}

func TestToolCallsRefuse(t *testing.T) {
	for want, tools := range map[string][]token.Tool{
		"0 tools, want 1 to 128":                                                  nil,
		`tool 0, "": want a name of 1 to 1024 bytes`:                              {{}},
		`tool 1, "b": parameters: #: it is a number, want an object`:              {{Name: "a"}, {Name: "b", Parameters: json.RawMessage(`3`)}},
		`tool 0, "a": parameters: #/properties/x: keyword "not" is not supported`: {{Name: "a", Parameters: json.RawMessage(`{"properties":{"x":{"not":{}}}}`)}},
		`tool 0, "a": parameters: it is not JSON`:                                 {{Name: "a", Parameters: json.RawMessage(`{`)}},
		"129 tools, want 1 to 128":                                                make([]token.Tool, 129),
		"matches no text":                                                         {{Name: "a", Parameters: json.RawMessage(`{"type":"string"}`)}},
	} {
		_, err := small().ToolCalls(tools, 0)
		require.ErrorIs(t, err, ErrGrammar)
		require.ErrorContains(t, err, want)
	}
	_, err := small().ToolCalls(tools, -1)
	require.ErrorContains(t, err, "at most -1 calls")
	require.False(t, reads(must(small().ToolCalls(tools[1:2], 1)), strings.Repeat(`[{"name":"now","arguments":{}}`, 2)))
}
