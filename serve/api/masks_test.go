package api

import (
	"encoding/json"
	"math/rand/v2"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace/noop"

	"mix/serve/grammar"
	"mix/serve/infer"
)

// masked draws any of the ids that the mask allows, and prefers to end.
func masked(f *fake) func(r infer.Request) []int32 {
	return func(r infer.Request) []int32 {
		if r.Mask == nil {
			return []int32{f.t.EOS()}
		}
		random := rand.New(rand.NewPCG(r.Sampling.Seed, 0))
		bits := make([]uint32, (f.t.VocabSize()+31)/32)
		var ids []int32
		for len(ids) < r.Max {
			r.Mask.Allowed(bits)
			var may []int32
			for id := range int32(f.t.VocabSize()) {
				if bits[id/32]>>(id%32)&1 != 0 {
					may = append(may, id)
				}
			}
			id := may[random.IntN(len(may))]
			if eos := f.t.EOS(); bits[eos/32]>>(eos%32)&1 != 0 {
				id = eos
			}
			ids = append(ids, id)
			if id == f.t.EOS() || r.Mask.Accept(id) != nil {
				break
			}
		}
		return ids
	}
}

func TestMasks(t *testing.T) {
	f := newFake(t)
	c, err := grammar.New(f.t, f.t.VocabSize())
	require.NoError(t, err)
	o := options(f)
	o.Grammar, o.Tracer = Masks(c), noop.NewTracerProvider()
	s := newServer(t, o)
	f.script = masked(f)
	for field, want := range map[string]string{
		`"structured_outputs":{"regex":"[0-9]{3}-[ab]"}`:                                                           `^[0-9]{3}-[ab]$`,
		`"structured_outputs":{"choice":["yes","no way"]}`:                                                         `^(yes|no way)$`,
		`"structured_outputs":{"grammar":"root ::= \"x\" [yz]"}`:                                                   `^x[yz]$`,
		`"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"enum":[1,"a"]}}}`:            `^(1|"a")$`,
		`"structured_outputs":{"json":{"type":"object","properties":{"a":{"const":1}},"required":["a"]}},"seed":3`: `^\{\s*"a"\s*:\s*1\s*\}$`,
	} {
		got := s.ask(t, "POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"q"}],`+field+`}`)
		require.Equal(t, 200, got.status, got.body)
		require.Regexp(t, regexp.MustCompile(want), got.at(t, "choices", 0, "message", "content"))
		got = s.ask(t, "POST", "/v1/completions", `{"prompt":"q","max_tokens":100,`+field+`}`)
		require.Regexp(t, regexp.MustCompile(want), got.at(t, "choices", 0, "text"))
	}
	tool := `"tools":[{"type":"function","function":{"name":"f","strict":true,"parameters":{"type":"object","properties":{"n":{"enum":[1,2]}},"required":["n"]}}}]`
	got := s.ask(t, "POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"q"}],"tool_choice":"required","parallel_tool_calls":false,`+tool+`}`)
	require.Equal(t, "tool_calls", got.at(t, "choices", 0, "finish_reason"), got.body)
	var arguments struct{ N int }
	require.NoError(t, json.Unmarshal([]byte(got.at(t, "choices", 0, "message", "tool_calls", 0, "function", "arguments").(string)), &arguments))
	require.Contains(t, []int{1, 2}, arguments.N)

	got = s.ask(t, "POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"q"}],`+tool+`}`)
	require.Equal(t, 200, got.status, got.body)
	all := f.requests()
	require.NotNil(t, all[len(all)-1].Mask, "calls of a strict tool are held to its schema")
	got = s.ask(t, "POST", "/v1/completions", `{"prompt":"q","structured_outputs":{"json":{"type":"object","not":{}}}}`)
	require.Equal(t, 400, got.status)
	require.Contains(t, got.at(t, "error", "message"), "not")
}
