package api

import (
	"crypto/sha256"
	"encoding/json"
	"slices"
	"strings"

	"mix/graph/token"
)

// chatMessage is a message as clients send it.
type chatMessage struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"` // a text, or a list of parts
	Calls   []chatCall      `json:"tool_calls"`
	CallID  string          `json:"tool_call_id"`
}

const maxMessages = 4096

// conversation turns messages into those of the tokenizer, repaired as the package comment says.
func conversation(in []chatMessage) ([]token.Message, error) {
	if len(in) == 0 || len(in) > maxMessages {
		return nil, refuse("messages", "messages has %d messages, want 1 to %d", len(in), maxMessages)
	}
	var out []token.Message
	for i, m := range in {
		text, err := contentText(m.Content)
		if err != nil {
			return nil, refuse("messages", "message %d: %s", i, err.Error())
		}
		if m.Role != token.Assistant && len(m.Calls) > 0 {
			return nil, refuse("messages", "message %d: role %q has tool_calls, want assistant", i, short(m.Role, 40))
		}
		switch x := (token.Message{Role: m.Role, Content: text}); m.Role {
		case token.System, "developer":
			x.Role = token.System
			out = append(out, x)
		case token.User:
			out = append(out, x)
		case token.ToolRole:
			x.ToolCallID = nine(m.CallID)
			out = append(out, x)
		case token.Assistant:
			for _, c := range m.Calls {
				x.ToolCalls = append(x.ToolCalls, token.ToolCall{ID: nine(c.ID), Name: c.Function.Name, Arguments: c.Function.Arguments})
			}
			out = append(out, x)
		default:
			return nil, refuse("messages", "message %d: role is %q, want system, developer, user, assistant or tool", i, short(m.Role, 40))
		}
	}
	return repair(out), nil
}

// repair makes a conversation one that the template can write.
func repair(in []token.Message) []token.Message {
	var late, rest []token.Message
	for _, m := range in {
		switch {
		case m.Role == token.System && answered(rest):
			late = append(late, m)
		case m.Role == token.Assistant && m.Content == "" && len(m.ToolCalls) == 0:
		case m.Role == token.Assistant && len(m.ToolCalls) > 0:
			m.Content = ""
			rest = append(rest, m)
		default:
			rest = append(rest, m)
		}
	}
	at := 0 // behind the system prompt
	for i, m := range rest {
		if m.Role == token.System {
			at = i + 1
		}
	}
	out := slices.Concat(rest[:at], late, rest[at:])
	if n := len(out) - 1; n > 0 && out[n].Role == token.Assistant && len(out[n].ToolCalls) == 0 {
		out[n].Prefix = true
	}
	// Joined answers are one turn of the template, so calls win over the text beside them there too.
	for i := len(out) - 1; i > 0; i-- {
		a, b := &out[i-1], &out[i]
		if a.Role == token.Assistant && b.Role == token.Assistant && (len(a.ToolCalls) > 0) != (len(b.ToolCalls) > 0) {
			b.Content, a.Content = "", ""
			a.ToolCalls, b.ToolCalls = append(a.ToolCalls, b.ToolCalls...), nil
			a.Prefix = false
			out = append(out[:i], out[i+1:]...)
		}
	}
	return out
}

// answered tells whether the model or a tool has said something.
func answered(messages []token.Message) bool {
	for _, m := range messages {
		if m.Role == token.Assistant || m.Role == token.ToolRole {
			return true
		}
	}
	return false
}

// contentText joins the texts of a content. Other parts than texts are refused by name.
func contentText(raw json.RawMessage) (string, error) {
	var text string
	if absent(raw) || one(raw, &text) {
		return text, nil
	}
	var parts []struct {
		Type string  `json:"type"`
		Text *string `json:"text"`
	}
	if !one(raw, &parts) {
		return "", refuse("", "content is neither a text nor a list of parts")
	}
	var all []string
	for k, p := range parts {
		if p.Text == nil || p.Type != "" && p.Type != "text" && p.Type != "input_text" && p.Type != "output_text" {
			return "", refuse("", "part %d is of type %q, want text", k, short(p.Type, 40))
		}
		all = append(all, *p.Text)
	}
	return strings.Join(all, "\n\n"), nil
}

// nine makes a tool call id as the template wants it: nine letters and digits. Equal ids stay equal.
func nine(id string) string {
	fits := len(id) == 9
	for i := range len(id) {
		c := id[i]
		fits = fits && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9')
	}
	if fits {
		return id
	}
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	sum := sha256.Sum256([]byte(id))
	b := make([]byte, 9)
	for i := range b {
		b[i] = letters[int(sum[i])%len(letters)]
	}
	return string(b)
}
