package api

import (
	"bytes"
	"encoding/json"
	"strings"

	"mix/graph/token"
)

// toolUse says which tools the model is shown, and which it must call.
type toolUse struct {
	shown    []token.Tool
	allowed  []token.Tool // with must
	must     bool
	strict   bool // calls keep to the schemas
	parallel bool
}

const maxTools = 128

// toolUse reads tools and tool_choice.
func (c *chatRequest) toolUse() (toolUse, error) {
	use := toolUse{parallel: or(c.Parallel, true)}
	if len(c.Tools) > maxTools {
		return use, refuse("tools", "%d tools, at most %d", len(c.Tools), maxTools)
	}
	for i, t := range c.Tools {
		if t.Type != "" && t.Type != "function" {
			return use, refuse("tools", "tool %d is of type %q, want function", i, short(t.Type, 40))
		}
		f := t.Function
		if absent(f.Parameters) {
			f.Parameters = nil
		}
		use.strict = use.strict || f.Strict
		use.shown = append(use.shown, token.Tool{Name: f.Name, Description: f.Description, Parameters: f.Parameters})
	}
	if absent(c.ToolChoice) {
		return use, nil
	}
	var word string
	var named chatTool
	if one(c.ToolChoice, &word) {
		return use.choose(word, "")
	}
	if one(c.ToolChoice, &named) && named.Type == "function" {
		return use.choose("named", named.Function.Name)
	}
	return use, refuse("tool_choice", "tool_choice is none of none, auto, required, or a function with its name")
}

// choose narrows the use of tools by a word: none, auto, required, or named with a name.
func (u toolUse) choose(word, name string) (toolUse, error) {
	switch word {
	case "auto":
		return u, nil
	case "none":
		return toolUse{}, nil
	case "required", "named":
		for _, t := range u.shown {
			if word == "required" || t.Name == name {
				u.allowed = append(u.allowed, t)
			}
		}
		if len(u.shown) == 0 {
			return u, refuse("tool_choice", "tool_choice demands a call, and no tools are given")
		}
		if len(u.allowed) == 0 {
			return u, refuse("tool_choice", "tool_choice demands a call of %q, and no such tool is given", short(name, 64))
		}
		u.must = true
		return u, nil
	}
	return u, refuse("tool_choice", "tool_choice is %q, want none, auto, required, or a function with its name", short(word, 40))
}

// callReader finds the calls in what follows [TOOL_CALLS]: a JSON list of {"name": …, "arguments": …}. The
// text may come in pieces. Each call is known when its closing brace has come.
type callReader struct {
	text     strings.Builder
	at       int // bytes of text that are read
	depth    int
	from     int // where the call began that is being read
	quoted   bool
	escaped  bool
	rejected bool // the text is no list of calls
	found    int
}

// push takes a piece and returns the calls that are complete with it.
func (r *callReader) push(piece string) []function {
	r.text.WriteString(piece)
	text := r.text.String()
	var calls []function
	for ; r.at < len(text) && !r.rejected; r.at++ {
		c := text[r.at]
		switch {
		case r.escaped:
			r.escaped = false
		case r.quoted && c == '\\':
			r.escaped = true
		case c == '"' && r.depth > 0:
			r.quoted = !r.quoted
		case r.quoted:
		case c == '{':
			if r.depth == 0 {
				r.from = r.at
			}
			r.depth++
		case c == '}' && r.depth > 0:
			r.depth--
			if r.depth == 0 {
				call, ok := readCall(text[r.from : r.at+1])
				r.rejected = !ok
				if ok {
					calls = append(calls, call)
					r.found++
				}
			}
		case r.depth == 0 && !strings.ContainsRune("[], \t\r\n", rune(c)):
			r.rejected = true
		}
	}
	return calls
}

// rest is the text, if no call was found in it.
func (r *callReader) rest() string {
	if r.found > 0 {
		return ""
	}
	return r.text.String()
}

func readCall(text string) (function, bool) {
	var call struct {
		Name      string          `json:"name"`
		Arguments json.RawMessage `json:"arguments"`
	}
	if json.Unmarshal([]byte(text), &call) != nil || call.Name == "" {
		return function{}, false
	}
	if absent(call.Arguments) {
		return function{call.Name, "{}"}, true
	}
	var inner string // some models write the arguments as text
	if one(call.Arguments, &inner) {
		return function{call.Name, inner}, true
	}
	var b bytes.Buffer
	if json.Compact(&b, call.Arguments) != nil {
		return function{}, false
	}
	return function{call.Name, b.String()}, true
}
