package api

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// routesOfFuzz are the paths that take a body, each with one that is right.
var routesOfFuzz = []struct{ method, path, body string }{
	{"POST", "/v1/completions", `{"model":"mixtral","prompt":["a","b"],"max_tokens":3,"n":2,"best_of":2,"logprobs":1,"echo":true,"stop":["x"],"seed":1,"logit_bias":{"5":1},"top_k":4,"stream":false,"response_format":{"type":"text"},"prompt_logprobs":1,"return_token_ids":true}`},
	{"POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":[{"type":"text","text":"q"}]},{"role":"assistant","content":null,"tool_calls":[{"id":"abcdefghi","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"abcdefghi","content":"1"}],` + weather + `,"tool_choice":"auto","max_tokens":3,"n":2,"logprobs":true,"top_logprobs":2,"stream":true,"stream_options":{"include_usage":true}}`},
	{"POST", "/v1/messages", `{"model":"mixtral","max_tokens":3,"system":"s","messages":[{"role":"user","content":[{"type":"text","text":"q"}]}],"tools":[{"name":"f","input_schema":{"type":"object"}}],"tool_choice":{"type":"auto"},"stream":true,"stop_sequences":["x"]}`},
	{"POST", "/v1/messages/count_tokens", `{"messages":[{"role":"user","content":"q"}]}`},
	{"POST", "/tokenize", `{"prompt":"a","add_special_tokens":true}`},
	{"POST", "/detokenize", `{"tokens":[1,5]}`},
	{"PUT", "/api", `{"prompts":["a"],"tokens_to_generate":3,"logprobs":true,"temperature":1.0,"top_k":0,"top_p":0.5,"top_p_decay":0.5,"top_p_bound":0.1,"add_BOS":true,"stop_on_eol":false,"random_seed":1,"beam_width":2,"stop_token":2,"length_penalty":1.0}`},
}

// FuzzBodies sends anything: no answer is a 500, none breaks the document.
func FuzzBodies(f *testing.F) {
	for i, r := range routesOfFuzz {
		f.Add(uint8(i), r.body)
		f.Add(uint8(i), r.body[:len(r.body)/2])
	}
	s := newServer(f, options(newFake(f)))
	f.Fuzz(func(t *testing.T, route uint8, body string) {
		r := routesOfFuzz[int(route)%len(routesOfFuzz)]
		got := s.ask(t, r.method, r.path, body)
		require.NotEqual(t, 500, got.status, body)
		require.NotContains(t, got.body, "internal error")
	})
}

// TestManyWrongRequests changes right requests at random places.
func TestManyWrongRequests(t *testing.T) {
	s := newServer(t, options(newFake(t)))
	r := rand.New(rand.NewPCG(1, 2))
	n := 3000
	if testing.Short() {
		n = 300
	}
	good := 0
	for range n {
		x := routesOfFuzz[r.IntN(len(routesOfFuzz))]
		body := mutate(r, x.body)
		got := s.ask(t, x.method, x.path, body)
		if got.status == 200 {
			good++
		}
		require.Contains(t, []int{200, 400, 404, 413, 415}, got.status, "%s %s", x.path, body)
		require.NotContains(t, got.body, "internal error", "%s %s", x.path, body)
	}
	require.Greater(t, good, n/20, "some are still right")
}

// mutate replaces one value somewhere in a JSON text, or some of its bytes.
func mutate(r *rand.Rand, body string) string {
	if r.IntN(10) == 0 {
		b := []byte(body)
		b[r.IntN(len(b))] = byte(r.IntN(256))
		return string(b)
	}
	var v any
	if json.Unmarshal([]byte(body), &v) != nil {
		return body
	}
	b, _ := json.Marshal(change(r, v))
	return string(b)
}

func change(r *rand.Rand, v any) any {
	if r.IntN(4) == 0 {
		return odd[r.IntN(len(odd))]
	}
	switch x := v.(type) {
	case map[string]any:
		at := r.IntN(max(1, len(x)))
		for k := range x {
			if at--; at < 0 {
				x[k] = change(r, x[k])
				return x
			}
		}
	case []any:
		if len(x) > 0 {
			at := r.IntN(len(x))
			x[at] = change(r, x[at])
			return x
		}
	}
	return odd[r.IntN(len(odd))]
}

var odd = []any{nil, true, false, 0, 1, -1, 0.5, 1e300, -1e300, 1 << 40, "", "x", "5", "世界", "\x00", strings.Repeat("y", 3000),
	[]any{}, []any{nil}, []any{1}, []any{"a"}, []any{[]any{}}, map[string]any{}, map[string]any{"a": nil}, map[string]any{"type": "function"},
	json.Number("1e5"), json.Number("12345678901234567890123"), fmt.Sprint(1 << 40)}
