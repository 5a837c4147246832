package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// The roles of a Message.
const (
	System    = "system"
	User      = "user"
	Assistant = "assistant"
	ToolRole  = "tool" // carries the result of a tool call
)

// Message is one turn of a conversation.
type Message struct {
	Role    string
	Content string

	// Prefix marks the last message, of the assistant, as the beginning of the answer: the
	// model goes on from it.
	Prefix bool

	ToolCalls  []ToolCall // of the assistant, in place of Content
	ToolCallID string     // of a tool: the call that Content answers
}

// ToolCall is a call that the assistant made.
type ToolCall struct {
	ID        string // nine letters and digits
	Name      string
	Arguments string // JSON
}

// Tool describes a function that the assistant may call.
type Tool struct {
	Name        string
	Description string
	Parameters  json.RawMessage // a JSON schema, an object; empty means {}
}

// ErrChat is what every refusal of a conversation wraps.
var ErrChat = errors.New("conversation refused")

// Template is a way to write a conversation as ids.
type Template int

const (
	// V1 is the template of Mixtral 8x7B Instruct: the marks [INST] and [/INST] are text, the
	// system prompt goes into the first user message, there are no tools.
	V1 Template = iota + 1

	// V3 is the template of Mixtral 8x22B Instruct: the marks are control ids, the system
	// prompt and the tools go to the last user message.
	V3
)

// String returns "v1" or "v3".
func (t Template) String() string {
	switch t {
	case V1:
		return "v1"
	case V3:
		return "v3"
	}
	return fmt.Sprintf("Template(%d)", int(t))
}

// TemplateFor returns the template that a tokenizer was made for: V3 if [INST] is a control
// piece, else V1.
func TemplateFor(t *Tokenizer) Template {
	if t.controlID("[INST]") >= 0 {
		return V3
	}
	return V1
}

// EncodeChat returns the ids of a conversation, BOS first, ready for the model's answer.
//
// System messages are joined to one system prompt; neighbours of one role are joined, with an
// empty line between. A system message after one of the assistant or a tool is refused, as
// are a last message of the assistant without Prefix, and tool results that do not match the
// calls before them. Errors wrap ErrChat and name the message by its index.
//
// Source: the validation, normalization and templates v1 and v3 of mistral-common.
func (t *Tokenizer) EncodeChat(messages []Message, template Template) ([]int32, error) {
	return t.EncodeChatWithTools(messages, nil, template)
}

// EncodeChatWithTools is EncodeChat with tools that the assistant may call; V3 only.
func (t *Tokenizer) EncodeChatWithTools(messages []Message, tools []Tool, template Template) ([]int32, error) {
	ids, err := t.encodeChat(messages, tools, template)
	if err != nil {
		return nil, fmt.Errorf("%w: template %s: %w", ErrChat, template, err)
	}
	return ids, nil
}

func (t *Tokenizer) encodeChat(messages []Message, tools []Tool, template Template) ([]int32, error) {
	w := writer{t: t}
	if t.bos < 0 || t.eos < 0 {
		return nil, fmt.Errorf("the tokenizer has begin of sequence %d and end of sequence %d, want both", t.bos, t.eos)
	}
	switch template {
	case V1:
		if len(tools) > 0 {
			return nil, fmt.Errorf("%d tools, but v1 has none", len(tools))
		}
	case V3:
		if err := w.findMarks(); err != nil {
			return nil, err
		}
	default:
		return nil, errors.New("no such template, want V1 or V3")
	}
	if err := validate(messages, template); err != nil {
		return nil, err
	}
	turns, system, err := normalize(messages)
	if err != nil {
		return nil, err
	}
	w.ids = []int32{t.bos}
	if template == V1 {
		err = w.v1(turns, system)
	} else {
		err = w.v3(turns, system, tools)
	}
	return w.ids, err
}

// turn is one message after normalization. index is that of its first message, -1 if made up.
type turn struct {
	Message
	index int
}

func (t turn) refuse(err error) error { return fmt.Errorf("message %d: %w", t.index, err) }

// normalize takes out the system messages and joins neighbours of one role, except tools.
// Users that only a system message parts stay apart. The first turn is the user's, an empty
// one if need be.
func normalize(messages []Message) (turns []turn, system string, err error) {
	var prompts []string
	last := ""
	for i, m := range messages {
		if m.Role == System {
			if m.Content != "" {
				prompts = append(prompts, m.Content)
			}
		} else if m.Role != last || m.Role == ToolRole {
			turns = append(turns, turn{m, i})
		} else {
			into := &turns[len(turns)-1]
			into.Content = join(into.Content, m.Content)
			into.ToolCalls = append(into.ToolCalls[:len(into.ToolCalls):len(into.ToolCalls)], m.ToolCalls...)
			into.Prefix = into.Prefix || m.Prefix
			if into.Content != "" && len(into.ToolCalls) > 0 {
				return nil, "", fmt.Errorf("message %d: joined with message %d, the assistant has both content and tool calls, want one", i, into.index)
			}
		}
		last = m.Role
	}
	if len(turns) == 0 || turns[0].Role != User {
		turns = append([]turn{{Message{Role: User}, -1}}, turns...)
	}
	return turns, strings.Join(prompts, "\n\n"), nil
}

// join puts an empty line between two texts, unless one is empty.
func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "\n\n" + b
}
