package data

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"mix/graph/token"
)

// ChatOptions say how conversations are read.
type ChatOptions struct {
	Key      string         // of the messages; "" means "messages"
	Template token.Template // 0: the tokenizer's own
	SkipBad  bool           // leave bad lines out and count them, rather than fail
	Workers  int            // 0: one a processor
	Progress func(bytes int64)
}

// ReadChat reads one conversation a line, {"messages": [{"role", "content"}, …]}, in the form of OpenAI's
// API, tools included. Each becomes a document of which the assistant's answers are learned, the
// end-of-text id after them too. A conversation ends with an answer; if not, its line is bad.
func ReadChat(ctx context.Context, r io.Reader, name string, t *token.Tokenizer, o ChatOptions) ([]Document, Counts, error) {
	if o.Key == "" {
		o.Key = "messages"
	}
	if o.Template == 0 {
		o.Template = token.TemplateFor(t)
	}
	var all []Document
	var c Counts
	p := pool[Document]{name: name, workers: o.Workers, skipBad: o.SkipBad, progress: o.Progress,
		encode: func(line []byte) (Document, error) {
			messages, tools, err := conversation(line, o.Key)
			if err != nil {
				return Document{}, err
			}
			return Chat(t, messages, tools, o.Template)
		},
		emit: func(d Document) error {
			c.Documents, c.Sequences, c.Tokens = c.Documents+1, c.Sequences+1, c.Tokens+int64(len(d.IDs))
			all = append(all, d)
			return nil
		}}
	err := p.run(ctx, r)
	c.Bytes, c.Lines, c.BadLines = p.bytes, p.lines, p.bad
	return all, c, err
}

// Chat writes a conversation that ends with the assistant's answer, or its tool calls, and marks what the
// assistant says.
func Chat(t *token.Tokenizer, messages []token.Message, tools []token.Tool, template token.Template) (Document, error) {
	n := len(messages)
	if n == 0 || messages[n-1].Role != token.Assistant {
		return Document{}, fmt.Errorf("%d messages, want the last to be of the assistant", n)
	}
	all := slices.Clone(messages)
	for i := range all {
		if all[i].Prefix {
			return Document{}, fmt.Errorf("message %d is a prefix, want whole answers", i)
		}
	}
	// Encoding is for prompts, which end with a prefix of an answer or with the results of all calls.
	calls := all[n-1].ToolCalls
	for _, call := range calls {
		all = append(all, token.Message{Role: token.ToolRole, ToolCallID: call.ID})
	}
	all[n-1].Prefix = len(calls) == 0
	ids, err := t.EncodeChatWithTools(all, tools, template)
	if err != nil {
		return Document{}, err
	}
	if len(calls) == 0 {
		ids = append(ids, t.EOS())
	} else {
		for ids[len(ids)-1] != t.EOS() { // no text has this id
			ids = ids[:len(ids)-1]
		}
	}
	d := Document{IDs: ids, Learn: make([]bool, len(ids))}
	if template == token.V1 {
		return d, d.markV1(t, messages)
	}
	return d, d.markV3(t)
}

// markV3 marks from the end of a question, or of tool results, to the end-of-text id. All marks around
// are control ids, which no text has.
func (d Document) markV3(t *token.Tokenizer) error {
	const begin, end = true, false
	marks := map[int32]bool{}
	for name, what := range map[string]bool{"[/INST]": begin, "[/TOOL_RESULTS]": begin,
		"[INST]": end, "[TOOL_RESULTS]": end, "[AVAILABLE_TOOLS]": end} {
		id, found := t.ID(name)
		if !found {
			return fmt.Errorf("the tokenizer has no piece %s", name)
		}
		marks[id] = what
	}
	learn := false
	for i, id := range d.IDs {
		what, found := marks[id]
		d.Learn[i] = learn && !found
		if found {
			learn = what
		} else if id == t.EOS() {
			learn = false
		}
	}
	return nil
}

// markV1 marks from the end of what is written before an answer to the end-of-text id. There the marks
// around are text, so what comes before is encoded to see where it ends.
func (d Document) markV1(t *token.Tokenizer, messages []token.Message) error {
	for i, m := range messages {
		if m.Role != token.Assistant || i > 0 && messages[i-1].Role == token.Assistant {
			continue
		}
		before := slices.Clone(messages[:i])
		if i == 0 {
			before = []token.Message{{Role: token.User}} // what the template makes up
		}
		for _, later := range messages[i:] { // the first question has the whole system prompt
			if later.Role == token.System {
				before = append(before, later)
			}
		}
		ids, err := t.EncodeChat(before, token.V1)
		if err != nil {
			return err
		}
		if len(ids) > len(d.IDs) || !slices.Equal(ids, d.IDs[:len(ids)]) {
			return fmt.Errorf("message %d: what is before it reads differently without it", i)
		}
		for j := len(ids); j < len(d.IDs); j++ {
			d.Learn[j] = true
			if d.IDs[j] == t.EOS() {
				break
			}
		}
	}
	return nil
}

// conversation parses a line.
func conversation(line []byte, key string) ([]token.Message, []token.Tool, error) {
	o, err := object(line)
	if err != nil {
		return nil, nil, err
	}
	value, found := o[key]
	if !found {
		return nil, nil, fmt.Errorf("no key %q: %.60q", key, line)
	}
	var raw []message
	if err := json.Unmarshal(value, &raw); err != nil {
		return nil, nil, fmt.Errorf("key %q: want a list of messages: %w", key, err)
	}
	messages := make([]token.Message, len(raw))
	var said []string
	for i, m := range raw {
		if messages[i], err = m.message(); err != nil {
			return nil, nil, fmt.Errorf("message %d: %w", i, err)
		}
		said = append(said, messages[i].Content)
	}
	if err := wholeCharacters(value, said); err != nil {
		return nil, nil, err
	}
	tools, err := parseTools(o["tools"])
	return messages, tools, err
}

// message is one of a line.
type message struct {
	Role       string  `json:"role"`
	Content    *string `json:"content"`
	ToolCallID string  `json:"tool_call_id"`
	ToolCalls  []struct {
		ID       string `json:"id"`
		Function struct {
			Name      string          `json:"name"`
			Arguments json.RawMessage `json:"arguments"` // a text with JSON, or the JSON itself
		} `json:"function"`
	} `json:"tool_calls"`
}

func (m message) message() (token.Message, error) {
	out := token.Message{Role: m.Role, ToolCallID: m.ToolCallID}
	if m.Content != nil {
		out.Content = *m.Content
	} else if len(m.ToolCalls) == 0 {
		return out, errors.New("no content, want a text")
	}
	for _, c := range m.ToolCalls {
		arguments := string(c.Function.Arguments)
		if bytes.HasPrefix(c.Function.Arguments, []byte(`"`)) {
			if err := json.Unmarshal(c.Function.Arguments, &arguments); err != nil {
				return out, err
			}
		}
		out.ToolCalls = append(out.ToolCalls, token.ToolCall{ID: c.ID, Name: c.Function.Name, Arguments: arguments})
	}
	return out, nil
}

func parseTools(value json.RawMessage) ([]token.Tool, error) {
	if value == nil {
		return nil, nil
	}
	var raw []struct {
		Function struct {
			Name        string          `json:"name"`
			Description string          `json:"description"`
			Parameters  json.RawMessage `json:"parameters"`
		} `json:"function"`
	}
	if err := json.Unmarshal(value, &raw); err != nil {
		return nil, fmt.Errorf(`key "tools": want a list of functions: %w`, err)
	}
	var tools []token.Tool
	for _, t := range raw {
		tools = append(tools, token.Tool{Name: t.Function.Name, Description: t.Function.Description, Parameters: t.Function.Parameters})
	}
	return tools, nil
}
