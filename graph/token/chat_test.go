package token

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// goldenMessage is a message as mistral-common takes it.
type goldenMessage struct {
	Role       string
	Content    string
	Prefix     bool
	ToolCallID string `json:"tool_call_id"`
	ToolCalls  []struct {
		ID       string
		Function struct{ Name, Arguments string }
	} `json:"tool_calls"`
}

type goldenChat struct {
	Template string
	Messages []goldenMessage
	Tools    []struct {
		Function struct {
			Name, Description string
			Parameters        json.RawMessage
		}
	}
	IDs   []int32
	Error string
}

func (c goldenChat) messages() (messages []Message, tools []Tool) {
	for _, g := range c.Messages {
		m := Message{Role: g.Role, Content: g.Content, Prefix: g.Prefix, ToolCallID: g.ToolCallID}
		for _, call := range g.ToolCalls {
			m.ToolCalls = append(m.ToolCalls, ToolCall{call.ID, call.Function.Name, call.Function.Arguments})
		}
		messages = append(messages, m)
	}
	for _, g := range c.Tools {
		tools = append(tools, Tool{g.Function.Name, g.Function.Description, g.Function.Parameters})
	}
	return messages, tools
}

func TestChatsV1(t *testing.T) {
	chats := golden[struct{ Chats []goldenChat }](t, "chats.json").Chats
	require.Len(t, chats, 9)
	for _, c := range chats {
		messages, _ := c.messages()
		for _, tok := range []*Tokenizer{mixtral(), fast()} {
			require.Equal(t, V1, TemplateFor(tok))
			ids, err := tok.EncodeChat(messages, V1)
			require.NoError(t, err)
			require.Equal(t, c.IDs, ids, "%+v", messages)
		}
	}
}

func TestChatsLikeMistralCommon(t *testing.T) {
	require.Equal(t, V3, TemplateFor(instruct()))
	chats := golden[struct{ Chats []goldenChat }](t, "v3.json").Chats
	require.Greater(t, len(chats), 120)
	done := map[string]int{}
	for _, c := range chats {
		tok, template := mixtral(), V1
		if c.Template == "v3" {
			tok, template = instruct(), V3
		}
		messages, tools := c.messages()
		ids, err := tok.EncodeChatWithTools(messages, tools, template)
		if c.Error != "" {
			require.ErrorIs(t, err, ErrChat, "%+v is refused there: %s", messages, c.Error)
			require.Nil(t, ids)
			done[c.Template+" refused"]++
			continue
		}
		require.NoError(t, err, "%+v", messages)
		require.Equal(t, c.IDs, ids, "%s\nwant %s\ngot  %s", c.Template, tok.DecodeWithControls(c.IDs), tok.DecodeWithControls(ids))
		done[c.Template]++
	}
	require.Greater(t, done["v1"], 15)
	require.Greater(t, done["v3"], 60)
	require.Greater(t, done["v1 refused"], 5)
	require.Greater(t, done["v3 refused"], 15)
}

func TestChatRefusals(t *testing.T) {
	user, answer := Message{Role: User, Content: "q"}, Message{Role: Assistant, Content: "a"}
	call := Message{Role: Assistant, ToolCalls: []ToolCall{{ID: "abcdefghi", Name: "f"}}}
	result := Message{Role: ToolRole, Content: "r", ToolCallID: "abcdefghi"}
	tests := []struct {
		name     string
		messages []Message
		template Template
		want     string
	}{
		{"nothing", nil, V1, "no messages"},
		{"an unknown role", []Message{user, {Role: "wizard"}}, V1, `message 1: role "wizard", want system, user, assistant or tool`},
		{"no role", []Message{{Content: "x"}}, V3, `message 0: role ""`},
		{"the assistant last", []Message{user, answer}, V1, "message 1: the last is the assistant's"},
		{"a late system prompt", []Message{user, answer, {Role: System, Content: "s"}, user}, V3, `message 2: role "system" after "assistant"`},
		{"a tool first", []Message{result, user}, V3, `message 0: role "tool" comes first`},
		{"a tool after the user", []Message{user, result}, V3, `message 1: role "tool" after "user"`},
		{"a call without result", []Message{user, call, user}, V3, "message 2: 1 tool calls without a result at the end"},
		{"a result too many", []Message{user, call, result, result, answer, user}, V3, "message 4: 1 tool results without a call before it"},
		{"tools in v1", []Message{user, call, result}, V1, "message 1: uses tools, but v1 has none"},
		{"a prefix that is not last", []Message{user, {Role: Assistant, Content: "a", Prefix: true}, user}, V1, "message 1: marked as a prefix, but not the last"},
		{"a prefix of the user", []Message{{Role: User, Content: "a", Prefix: true}}, V1, `message 0: role "user" is marked as a prefix`},
		{"calls of the user", []Message{{Role: User, ToolCalls: call.ToolCalls}}, V3, `message 0: role "user" has tool calls`},
		{"an answer of the user", []Message{{Role: User, ToolCallID: "abcdefghi"}}, V3, `message 0: role "user" answers tool call "abcdefghi"`},
		{"an empty answer", []Message{user, {Role: Assistant}, user}, V1, "message 1: the assistant has content of 0 bytes and 0 tool calls"},
		{"content joined with a call", []Message{user, answer, call, result}, V3, "message 2: joined with message 1"},
		{"broken text", []Message{user, answer, {Role: User, Content: "x\xff"}}, V1, "message 2: text of 2 bytes is not UTF-8 at byte 1 (0xff)"},
		{"broken arguments", []Message{user, {Role: Assistant, ToolCalls: []ToolCall{{"abcdefghi", "f", "\"\xff\""}}}, result}, V3, "message 1: arguments of tool call abcdefghi: text of 3 bytes is not UTF-8 at byte 1"},
		{"half a character in a result", []Message{user, call, {Role: ToolRole, Content: `"\udc00"`, ToolCallID: "abcdefghi"}}, V3, "message 2: result of tool call abcdefghi: half a surrogate pair"},
		{"no such template", []Message{user}, Template(7), "template Template(7): no such template, want V1 or V3"},
		{"the zero template", []Message{user}, Template(0), "no such template"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ids, err := instruct().EncodeChat(test.messages, test.template)
			require.ErrorIs(t, err, ErrChat)
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), "\n")
			require.Nil(t, ids)
		})
	}
}

func TestToolRefusals(t *testing.T) {
	ask := []Message{{Role: User, Content: "q"}}
	for want, tool := range map[string]Tool{
		"tool 0: function name \"a b\"":               {Name: "a b"},
		"tool 0, f: parameters \"[]\": not an object": {Name: "f", Parameters: json.RawMessage("[]")},
		"tool 0, f: parameters \"{\": not JSON":       {Name: "f", Parameters: json.RawMessage("{")},
	} {
		_, err := instruct().EncodeChatWithTools(ask, []Tool{tool}, V3)
		require.ErrorIs(t, err, ErrChat)
		require.ErrorContains(t, err, want)
	}
	_, err := mixtral().EncodeChatWithTools(ask, []Tool{{Name: "f"}}, V1)
	require.ErrorContains(t, err, "1 tools, but v1 has none")
	_, err = mixtral().EncodeChat(ask, V3)
	require.ErrorContains(t, err, "no control piece [INST]")
}

func TestChatLeavesMessagesAlone(t *testing.T) {
	calls := make([]ToolCall, 1, 4)
	calls[0] = ToolCall{ID: "abcdefghi", Name: "f"}
	more := ToolCall{ID: "ABCDEFGHI", Name: "g"}
	messages := []Message{
		{Role: User, Content: "q"},
		{Role: Assistant, ToolCalls: calls},
		{Role: ToolRole, Content: "r", ToolCallID: "abcdefghi"},
	}
	_, err := instruct().EncodeChat(messages, V3)
	require.NoError(t, err)
	_, _, err = normalize([]Message{{Role: User}, {Role: Assistant, ToolCalls: calls}, {Role: Assistant, ToolCalls: []ToolCall{more}}})
	require.NoError(t, err)
	require.Equal(t, ToolCall{}, calls[:2][1], "joining wrote into the caller's slice")
}
