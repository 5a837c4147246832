package api

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/graph/token"
	"mix/serve/infer"
)

func TestChat(t *testing.T) {
	f := newFake(t)
	f.says("Paris, of course.")
	s := newServer(t, options(f))
	got := s.ask(t, "POST", "/v1/chat/completions", `{"model":"mistralai/Mixtral","messages":[{"role":"system","content":"Be brief."},
		{"role":"user","content":[{"type":"text","text":"Capital of France?"}]}],"logprobs":true,"top_logprobs":2,"n":2,"max_completion_tokens":9}`)
	require.Equal(t, 200, got.status, got.body)
	require.Equal(t, "mistralai/Mixtral", got.at(t, "model"))
	require.Equal(t, map[string]any{"role": "assistant", "content": "Paris, of course.", "refusal": nil}, got.at(t, "choices", 1, "message"))
	require.Len(t, got.at(t, "choices", 0, "logprobs", "content"), len(f.requests()[0].Prompt[:0])+int(got.at(t, "usage", "completion_tokens").(float64))/2)
	want, err := f.t.EncodeChat([]token.Message{{Role: token.System, Content: "Be brief."}, {Role: token.User, Content: "Capital of France?"}}, token.V3)
	require.NoError(t, err)
	require.Equal(t, want, f.requests()[0].Prompt)
	require.Equal(t, 9, f.requests()[0].Max)
	require.Equal(t, f.requests()[0].Sampling.Seed+1, f.requests()[1].Sampling.Seed)
	require.EqualValues(t, len(want), got.at(t, "usage", "prompt_tokens"), "the prompt counts once")
}

func TestConversationsAreRepaired(t *testing.T) {
	calls := []token.ToolCall{{ID: "abcdefghi", Name: "f", Arguments: "{}"}}
	tests := []struct {
		name string
		in   string
		want []token.Message
	}{
		{"developer is system", `[{"role":"developer","content":"x"},{"role":"user","content":"y"}]`,
			[]token.Message{{Role: "system", Content: "x"}, {Role: "user", Content: "y"}}},
		{"a late system message joins the prompt", `[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"system","content":"s"},{"role":"user","content":"c"}]`,
			[]token.Message{{Role: "system", Content: "s"}, {Role: "user", Content: "a"}, {Role: "assistant", Content: "b"}, {Role: "user", Content: "c"}}},
		{"and comes behind what was said before", `[{"role":"system","content":"first"},{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"system","content":"late"},{"role":"user","content":"c"}]`,
			[]token.Message{{Role: "system", Content: "first"}, {Role: "system", Content: "late"}, {Role: "user", Content: "a"}, {Role: "assistant", Content: "b"}, {Role: "user", Content: "c"}}},
		{"an empty answer is left out", `[{"role":"user","content":"a"},{"role":"assistant","content":null},{"role":"user","content":"c"}]`,
			[]token.Message{{Role: "user", Content: "a"}, {Role: "user", Content: "c"}}},
		{"calls win over text", `[{"role":"user","content":"a"},{"role":"assistant","content":"let me see","tool_calls":[{"id":"abcdefghi","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"abcdefghi","content":"1"}]`,
			[]token.Message{{Role: "user", Content: "a"}, {Role: "assistant", ToolCalls: calls}, {Role: "tool", Content: "1", ToolCallID: "abcdefghi"}}},
		{"calls win over a neighbour's text", `[{"role":"user","content":"a"},{"role":"assistant","content":"let me see"},{"role":"assistant","tool_calls":[{"id":"abcdefghi","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"abcdefghi","content":"1"}]`,
			[]token.Message{{Role: "user", Content: "a"}, {Role: "assistant", ToolCalls: calls}, {Role: "tool", Content: "1", ToolCallID: "abcdefghi"}}},
		{"the model goes on from a last answer", `[{"role":"user","content":"a"},{"role":"assistant","content":"Sure:"}]`,
			[]token.Message{{Role: "user", Content: "a"}, {Role: "assistant", Content: "Sure:", Prefix: true}}},
	}
	for _, x := range tests {
		t.Run(x.name, func(t *testing.T) {
			var in []chatMessage
			require.NoError(t, json.Unmarshal([]byte(x.in), &in))
			got, err := conversation(in)
			require.NoError(t, err)
			require.Equal(t, x.want, got)
			_, err = load(t, "tokenizer.model.v3").EncodeChat(got, token.V3)
			require.NoError(t, err)
		})
	}
}

func TestToolCallIDs(t *testing.T) {
	require.Equal(t, "a1B2c3D4e", nine("a1B2c3D4e"))
	require.Equal(t, nine("call_1234567890"), nine("call_1234567890"))
	require.NotEqual(t, nine("call_1"), nine("call_2"))
	require.Regexp(t, "^[a-zA-Z0-9]{9}$", nine(""))
}

const weather = `"tools":[{"type":"function","function":{"name":"weather","description":"d","parameters":{"type":"object","properties":{"city":{"type":"string"}}}}}]`

func TestToolCalls(t *testing.T) {
	f := newFake(t)
	s := newServer(t, options(f))
	body := `{"messages":[{"role":"user","content":"Weather?"}],` + weather
	f.says("[TOOL_CALLS]", `[{"name": "weather", "arguments": {"city": "Zürich }"}}, {"name": "weather", "arguments": {"city": "Bern"}}]`)

	got := s.ask(t, "POST", "/v1/chat/completions", body+`}`)
	require.Equal(t, 200, got.status, got.body)
	require.Equal(t, "tool_calls", got.at(t, "choices", 0, "finish_reason"))
	require.Nil(t, got.at(t, "choices", 0, "message", "content"))
	require.Equal(t, `{"city":"Zürich }"}`, got.at(t, "choices", 0, "message", "tool_calls", 0, "function", "arguments"))
	require.Equal(t, "weather", got.at(t, "choices", 0, "message", "tool_calls", 1, "function", "name"))
	require.Regexp(t, "^[a-zA-Z0-9]{9}$", got.at(t, "choices", 0, "message", "tool_calls", 1, "id"))
	require.Contains(t, f.t.DecodeWithControls(f.requests()[0].Prompt), "[AVAILABLE_TOOLS]")

	stream := s.ask(t, "POST", "/v1/chat/completions", body+`,"stream":true}`)
	var arguments [2]string
	finish := ""
	for _, data := range chunks(stream.body) {
		var a chatAnswer
		require.NoError(t, json.Unmarshal([]byte(data), &a))
		for _, c := range a.Choices[0].Delta.Calls {
			arguments[*c.Index] += c.Function.Arguments
		}
		if a.Choices[0].Finish != nil {
			finish = *a.Choices[0].Finish
		}
	}
	require.Equal(t, [2]string{`{"city":"Zürich }"}`, `{"city":"Bern"}`}, arguments)
	require.Equal(t, "tool_calls", finish)

	got = s.ask(t, "POST", "/v1/chat/completions", body+`,"tool_choice":"none"}`)
	require.Equal(t, 200, got.status, got.body)
	require.NotContains(t, f.t.DecodeWithControls(f.requests()[2].Prompt), "[AVAILABLE_TOOLS]")

	f.says("[TOOL_CALLS]", "no list")
	got = s.ask(t, "POST", "/v1/chat/completions", body+`}`)
	require.Equal(t, "no list", got.at(t, "choices", 0, "message", "content"), "what is no call is shown as it came")
	require.Equal(t, "stop", got.at(t, "choices", 0, "finish_reason"))
}

// anyMask allows everything.
type anyMask struct{}

func (anyMask) Allowed(bits []uint32) {
	for i := range bits {
		bits[i] = ^uint32(0)
	}
}
func (anyMask) Accept(int32) error { return nil }
func (anyMask) Done() bool         { return true }

func TestConstraints(t *testing.T) {
	f := newFake(t)
	f.says("x")
	var asked []Constraint
	o := options(f)
	o.Grammar = func(c Constraint) (func() infer.Mask, error) {
		asked = append(asked, c)
		if c.Text == "(" {
			return nil, errors.New("missing )")
		}
		return func() infer.Mask { return anyMask{} }, nil
	}
	s := newServer(t, o)
	tests := []struct {
		field string
		want  Constraint
	}{
		{`"response_format":{"type":"json_object"}`, Constraint{Kind: JSONObject}},
		{`"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"type":"object"}}}`, Constraint{Kind: JSONSchema, Schema: json.RawMessage(`{"type":"object"}`)}},
		{`"structured_outputs":{"regex":"a+"}`, Constraint{Kind: Regex, Text: "a+"}},
		{`"structured_outputs":{"choice":["a","b"]}`, Constraint{Kind: Choice, Choices: []string{"a", "b"}}},
		{`"structured_outputs":{"grammar":"root ::= \"a\""}`, Constraint{Kind: Grammar, Text: `root ::= "a"`}},
		{`"structured_outputs":{"json":"{}"},"response_format":{"type":"text"}`, Constraint{Kind: JSONSchema, Schema: json.RawMessage(`{}`)}},
		{weather + `,"tool_choice":"required","parallel_tool_calls":false`, Constraint{Kind: ToolCalls}},
		{weather + `,"tool_choice":{"type":"function","function":{"name":"weather"}}`, Constraint{Kind: ToolCalls, Parallel: true}},
	}
	for _, x := range tests {
		asked = nil
		if x.want.Kind == ToolCalls {
			f.says(`[{"name":"weather","arguments":{}}]`)
		}
		got := s.ask(t, "POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"q"}],`+x.field+`}`)
		require.Equal(t, 200, got.status, got.body)
		require.Len(t, asked, 1)
		all := f.requests()
		require.NotNil(t, all[len(all)-1].Mask)
		if x.want.Kind == ToolCalls {
			require.Len(t, asked[0].Tools, 1)
			asked[0].Tools = nil
			require.Equal(t, "tool_calls", got.at(t, "choices", 0, "finish_reason"), got.body)
			p := all[len(all)-1].Prompt
			require.Equal(t, "[TOOL_CALLS]", f.t.Piece(p[len(p)-1]))
		}
		require.Equal(t, x.want, asked[0])
	}
	got := s.ask(t, "POST", "/v1/completions", `{"prompt":"q","structured_outputs":{"regex":"("}}`)
	require.Equal(t, 400, got.status)
	require.Equal(t, "structured_outputs", got.at(t, "error", "param"))
	got = s.ask(t, "POST", "/v1/completions", `{"prompt":"q","structured_outputs":{"regex":"a","choice":["a"]}}`)
	require.Equal(t, 400, got.status)
	got = newServer(t, options(f)).ask(t, "POST", "/v1/completions", `{"prompt":"q","response_format":{"type":"json_object"}}`)
	require.Equal(t, 400, got.status)
	require.Equal(t, "response_format", got.at(t, "error", "param"))
}

func TestToolsNeedTheirTemplate(t *testing.T) {
	f := newFake(t)
	f.t = load(t, "tokenizer.model")
	got := newServer(t, options(f)).ask(t, "POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"q"}],`+weather+`}`)
	require.Equal(t, 400, got.status)
	require.Equal(t, "tools", got.at(t, "error", "param"))
}

func TestCallReader(t *testing.T) {
	tests := []struct {
		text string
		want []function
	}{
		{`[{"name":"f","arguments":{"a":"}\"{"}}]`, []function{{"f", `{"a":"}\"{"}`}}},
		{` [ {"name":"f"} , {"name":"g","arguments":"{\"x\":1}"}]`, []function{{"f", "{}"}, {"g", `{"x":1}`}}},
		{`{"name":"f","arguments":{}}`, []function{{"f", "{}"}}},
		{`[{"nom":"f"}]`, nil},
		{`}{`, nil},
		{`hello {"name":"f"}`, nil},
		{`[{"name":"f","arguments":{`, nil},
	}
	for _, x := range tests {
		for _, size := range []int{1, 2, 7, 1000} {
			var r callReader
			var got []function
			for rest := x.text; rest != ""; {
				n := min(size, len(rest))
				got = append(got, r.push(rest[:n])...)
				rest = rest[n:]
			}
			require.Equal(t, x.want, got, x.text)
			if got == nil {
				require.Equal(t, x.text, r.rest())
			}
		}
	}
}

func TestMessages(t *testing.T) {
	f := newFake(t)
	s := newServer(t, options(f))
	f.says("Bonjour STOP more")
	got := s.ask(t, "POST", "/v1/messages", `{"model":"mixtral","max_tokens":50,"system":[{"type":"text","text":"French."}],
		"messages":[{"role":"user","content":"Hi"}],"stop_sequences":["STOP"],"metadata":{"user_id":"u"}}`)
	require.Equal(t, 200, got.status, got.body)
	require.Equal(t, []any{map[string]any{"type": "text", "text": "Bonjour "}}, got.at(t, "content"))
	require.Equal(t, "stop_sequence", got.at(t, "stop_reason"))
	require.Equal(t, "STOP", got.at(t, "stop_sequence"))

	f.says("[TOOL_CALLS]", `[{"name":"weather","arguments":{"city":"Bern"}}]`)
	body := `{"model":"mixtral","max_tokens":50,"tools":[{"name":"weather","input_schema":{"type":"object"}}],"messages":[
		{"role":"user","content":"Weather?"},
		{"role":"assistant","content":[{"type":"text","text":"I look."},{"type":"tool_use","id":"toolu_1","name":"weather","input":{"city":"Ulm"}}]},
		{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_1","content":[{"type":"text","text":"rain"}]},{"type":"text","text":"And Bern?"}]}]`
	got = s.ask(t, "POST", "/v1/messages", body+`}`)
	require.Equal(t, 200, got.status, got.body)
	require.Equal(t, "tool_use", got.at(t, "stop_reason"))
	require.Equal(t, map[string]any{"city": "Bern"}, got.at(t, "content", 0, "input"))
	prompt := f.t.DecodeWithControls(f.requests()[1].Prompt)
	require.Contains(t, prompt, `[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Ulm"}, "id": "`+nine("toolu_1")+`"}]</s>`)
	require.Contains(t, prompt, `"call_id": "`+nine("toolu_1")+`"`)

	count := s.ask(t, "POST", "/v1/messages/count_tokens", strings.Replace(body, `"max_tokens":50,`, "", 1)+`}`)
	require.EqualValues(t, len(f.requests()[1].Prompt), count.at(t, "input_tokens"))

	stream := s.ask(t, "POST", "/v1/messages", body+`,"stream":true}`)
	var kinds []string
	for line := range strings.Lines(stream.body) {
		if kind, ok := strings.CutPrefix(strings.TrimSpace(line), "event: "); ok {
			kinds = append(kinds, kind)
		}
	}
	require.Equal(t, []string{"message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop"}, kinds)

	for body, kind := range map[string]string{
		`{"model":"gpt","max_tokens":1,"messages":[{"role":"user","content":"x"}]}`:     "not_found_error",
		`{"model":"mixtral","messages":[{"role":"user","content":"x"}]}`:                "invalid_request_error",
		`{"max_tokens":5,"messages":[{"role":"user","content":[{"type":"image"}]}]}`:    "invalid_request_error",
		`{"max_tokens":5,"messages":[{"role":"assistant","content":""}]}`:               "invalid_request_error",
		`{"max_tokens":5,"messages":[]}`:                                                "invalid_request_error",
		`{"max_tokens":5,"messages":[{"role":"boss","content":"x"}]}`:                   "invalid_request_error",
		`{"max_tokens":5000,"messages":[{"role":"user","content":"x"}],"stream":true}`:  "invalid_request_error",
		`{"max_tokens":5,"messages":[{"role":"user","content":"x"}],"tool_choice":{}}`:  "invalid_request_error",
		`{"max_tokens":5,"messages":[{"role":"user","content":"x"}],"temperature":101}`: "invalid_request_error",
	} {
		got := s.ask(t, "POST", "/v1/messages", body)
		require.Equal(t, kind, got.at(t, "error", "type"), body)
		require.Equal(t, "error", got.at(t, "type"))
	}
}
