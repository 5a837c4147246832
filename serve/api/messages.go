package api

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"mix/graph/token"
	"mix/serve/infer"
)

// messagesRequest is the body of POST /v1/messages.
type messagesRequest struct {
	Model       string          `json:"model"`
	MaxTokens   *int            `json:"max_tokens"`
	Messages    []claudeMessage `json:"messages"`
	System      json.RawMessage `json:"system"` // a text, or a list of parts
	Stops       json.RawMessage `json:"stop_sequences"`
	Stream      bool            `json:"stream"`
	Temperature *float64        `json:"temperature"`
	TopK        *int            `json:"top_k"`
	TopP        *float64        `json:"top_p"`
	Tools       []claudeTool    `json:"tools"`
	ToolChoice  *claudeChoice   `json:"tool_choice"`
}

type claudeMessage struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

type claudeTool struct {
	Type        string          `json:"type"`
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Schema      json.RawMessage `json:"input_schema"`
	Strict      bool            `json:"strict"`
}

type claudeChoice struct {
	Type   string `json:"type"`
	Name   string `json:"name"`
	Single bool   `json:"disable_parallel_tool_use"`
}

// block is a part of an answer.
type block struct {
	Type  string          `json:"type"`
	Text  *string         `json:"text,omitempty"`
	ID    string          `json:"id,omitempty"`
	Name  string          `json:"name,omitempty"`
	Input json.RawMessage `json:"input,omitempty"`
}

type claudeUsage struct {
	Input   int `json:"input_tokens"` // not found in the cache
	Output  int `json:"output_tokens"`
	Read    int `json:"cache_read_input_tokens"`
	Written int `json:"cache_creation_input_tokens"`
}

type claudeAnswer struct {
	ID      string      `json:"id"`
	Type    string      `json:"type"`
	Role    string      `json:"role"`
	Model   string      `json:"model"`
	Content []block     `json:"content"`
	Reason  *string     `json:"stop_reason"`
	Stop    *string     `json:"stop_sequence"`
	Usage   claudeUsage `json:"usage"`
}

// messages handles POST /v1/messages.
func (s *Server) messages(w http.ResponseWriter, r *http.Request) error {
	start := time.Now()
	var c messagesRequest
	if err := s.readJSON(w, r, &c); err != nil {
		return err
	}
	name, err := s.modelName(c.Model)
	if err != nil {
		return err
	}
	if c.MaxTokens == nil || *c.MaxTokens < 1 {
		return refuse("max_tokens", "max_tokens is %d, want at least 1", or(c.MaxTokens, 0))
	}
	j, err := s.messagesJob(&c, true)
	if err != nil {
		return err
	}
	pieces, err := s.run(r.Context(), start, []job{j})
	if err != nil {
		return err
	}
	a := claudeAnswer{ID: "msg_" + newID(24), Type: "message", Role: token.Assistant, Model: name, Content: []block{}}
	if c.Stream {
		a.Usage.Input = len(j.Prompt)
		return s.messagesStream(w, r, a, pieces)
	}
	results, err := collect(r.Context(), pieces, 1)
	if err != nil {
		return err
	}
	x := results[0]
	var reader callReader
	calls := reader.push(x.calls)
	if x.text += reader.rest(); x.text != "" {
		a.Content = append(a.Content, block{Type: "text", Text: &x.text})
	}
	for _, k := range calls {
		a.Content = append(a.Content, block{Type: "tool_use", ID: newID(9), Name: k.Name, Input: input(k.Arguments)})
	}
	a.Reason, a.Stop = reason(&x.end, len(calls) > 0)
	a.Usage = claudeTokens(x.end.usage)
	writeJSON(w, http.StatusOK, a)
	return nil
}

// countTokens handles POST /v1/messages/count_tokens.
func (s *Server) countTokens(w http.ResponseWriter, r *http.Request) error {
	var c messagesRequest
	if err := s.readJSON(w, r, &c); err != nil {
		return err
	}
	if _, err := s.modelName(c.Model); err != nil {
		return err
	}
	c.MaxTokens = nil
	j, err := s.messagesJob(&c, false)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, map[string]any{"input_tokens": len(j.Prompt)})
	return nil
}

// messagesJob turns a conversation into a job. asked tells that the tokens asked for must fit.
func (s *Server) messagesJob(c *messagesRequest, asked bool) (job, error) {
	p := params{MaxTokens: c.MaxTokens, Temperature: c.Temperature, TopK: c.TopK, TopP: c.TopP}
	messages, err := c.conversation()
	if err != nil {
		return job{}, err
	}
	j, err := s.job(&p, chatting, 1, goesOn(messages))
	if err != nil {
		return job{}, err
	}
	if j.stops, err = stopStrings("stop_sequences", c.Stops); err != nil {
		return job{}, err
	}
	use, err := c.toolUse()
	if err != nil {
		return job{}, err
	}
	return s.prompt(j, messages, use, asked)
}

// conversation is the system prompt and the messages as chats have them.
func (c *messagesRequest) conversation() ([]token.Message, error) {
	var all []chatMessage
	system, err := contentText(c.System)
	if err != nil {
		return nil, refuse("system", "system: %s", err.Error())
	}
	if system != "" {
		text, _ := encode(system) // a string is always JSON
		all = append(all, chatMessage{Role: token.System, Content: text})
	}
	for i, m := range c.Messages {
		parts, err := m.split()
		if err != nil {
			return nil, refuse("messages", "message %d: %s", i, err.Error())
		}
		all = append(all, parts...)
	}
	if len(c.Messages) == 0 {
		return nil, refuse("messages", "messages is empty, want at least 1")
	}
	return conversation(all)
}

func (c *messagesRequest) toolUse() (toolUse, error) {
	use := toolUse{parallel: true}
	if len(c.Tools) > maxTools {
		return use, refuse("tools", "%d tools, at most %d", len(c.Tools), maxTools)
	}
	for i, t := range c.Tools {
		if t.Type != "" && t.Type != "custom" {
			return use, refuse("tools", "tool %d is of type %q, want custom", i, short(t.Type, 40))
		}
		if absent(t.Schema) {
			t.Schema = nil
		}
		use.strict = use.strict || t.Strict
		use.shown = append(use.shown, token.Tool{Name: t.Name, Description: t.Description, Parameters: t.Schema})
	}
	if c.ToolChoice == nil {
		return use, nil
	}
	use.parallel = !c.ToolChoice.Single
	word, ok := map[string]string{"auto": "auto", "none": "none", "any": "required", "tool": "named"}[c.ToolChoice.Type]
	if !ok {
		return use, refuse("tool_choice", "tool_choice.type is %q, want auto, any, tool or none", short(c.ToolChoice.Type, 40))
	}
	return use.choose(word, c.ToolChoice.Name)
}

// split turns a message of blocks into messages as chats have them: results of tools are messages of their own.
func (m claudeMessage) split() ([]chatMessage, error) {
	if m.Role != token.User && m.Role != token.Assistant && m.Role != token.System {
		return nil, refuse("", "role is %q, want user or assistant", short(m.Role, 40))
	}
	var text string
	if absent(m.Content) || one(m.Content, &text) {
		return []chatMessage{{Role: m.Role, Content: m.Content}}, nil
	}
	var blocks []struct {
		block
		Result  string          `json:"tool_use_id"`
		Content json.RawMessage `json:"content"`
	}
	if !one(m.Content, &blocks) {
		return nil, refuse("", "content is neither a text nor a list of blocks")
	}
	var out []chatMessage
	var calls []chatCall
	var texts []string
	for k, b := range blocks {
		switch {
		case b.Type == "text" && b.Text != nil:
			texts = append(texts, *b.Text)
		case b.Type == "tool_use" && m.Role == token.Assistant:
			calls = append(calls, chatCall{ID: b.ID, Function: function{Name: b.Name, Arguments: string(b.Input)}})
		case b.Type == "tool_result" && m.Role == token.User:
			out = append(out, chatMessage{Role: token.ToolRole, CallID: b.Result, Content: b.Content})
		case b.Type == "thinking" || b.Type == "redacted_thinking": // not written: the template has no place for it
		default:
			return nil, refuse("", "block %d is of type %q, want text, tool_use or tool_result", k, short(b.Type, 40))
		}
	}
	if len(texts) > 0 || len(calls) > 0 || len(out) == 0 {
		content, _ := encode(strings.Join(texts, "\n\n")) // a string is always JSON
		out = append(out, chatMessage{Role: m.Role, Content: content, Calls: calls})
	}
	return out, nil
}

// input makes arguments an object, which clients require.
func input(arguments string) json.RawMessage {
	var object map[string]json.RawMessage
	if one(json.RawMessage(arguments), &object) && object != nil {
		return json.RawMessage(arguments)
	}
	text, _ := encode(map[string]string{"arguments": arguments}) // strings are always JSON
	return text
}

// reason names the end of a text, and the stop sequence that it was.
func reason(e *ending, called bool) (name, stop *string) {
	switch {
	case e.finish == infer.FinishLength:
		return new("max_tokens"), nil
	case e.stop != "":
		return new("stop_sequence"), &e.stop
	case called:
		return new("tool_use"), nil
	}
	return new("end_turn"), nil
}

func claudeTokens(u infer.Usage) claudeUsage {
	return claudeUsage{Input: u.Prompt - u.Cached, Output: u.Generated, Read: u.Cached}
}
