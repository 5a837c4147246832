package token

import (
	"errors"
	"fmt"
	"strings"
)

// A writer appends the turns of a conversation to ids.
type writer struct {
	t     *Tokenizer
	ids   []int32
	marks marks
}

// marks are the control ids of template v3.
type marks struct {
	inst, instEnd       int32
	tools, toolsEnd     int32
	results, resultsEnd int32
	calls               int32
}

func (w *writer) findMarks() error {
	for _, m := range []struct {
		name string
		id   *int32
	}{
		{"[INST]", &w.marks.inst}, {"[/INST]", &w.marks.instEnd},
		{"[AVAILABLE_TOOLS]", &w.marks.tools}, {"[/AVAILABLE_TOOLS]", &w.marks.toolsEnd},
		{"[TOOL_RESULTS]", &w.marks.results}, {"[/TOOL_RESULTS]", &w.marks.resultsEnd},
		{"[TOOL_CALLS]", &w.marks.calls},
	} {
		if *m.id = w.t.controlID(m.name); *m.id < 0 {
			return fmt.Errorf("the tokenizer has no control piece %s; v1 may be its template", m.name)
		}
	}
	return nil
}

// v1 writes
//
//	[INST] system⏎⏎question [/INST] answer</s> [INST] question [/INST]
//
// where only </s> is a control id.
func (w *writer) v1(turns []turn, system string) error {
	for i, m := range turns {
		text := m.Content
		if m.Role == User {
			if i == 0 && system != "" {
				text = system + "\n\n" + text
			}
			text = "[INST] " + text + " [/INST]"
		}
		if err := w.text(text); err != nil {
			return m.refuse(err)
		}
		if m.Role == Assistant && !m.Prefix {
			w.ids = append(w.ids, w.t.eos)
		}
	}
	return nil
}

// v3 writes
//
//	[INST]question[/INST]answer</s>
//	[AVAILABLE_TOOLS][{"type": …}][/AVAILABLE_TOOLS][INST]system⏎⏎question[/INST]
//	[TOOL_CALLS][{"name": …, "arguments": …, "id": …}]</s>
//	[TOOL_RESULTS]{"content": …, "call_id": …}[/TOOL_RESULTS]
//
// without the line breaks; all marks are control ids.
func (w *writer) v3(turns []turn, system string, tools []Tool) error {
	last := 0
	for i, m := range turns {
		if m.Role == User {
			last = i
		}
	}
	for i, m := range turns {
		var err error
		switch m.Role {
		case User:
			text := m.Content
			if i == last {
				if err := w.tools(tools); err != nil {
					return err
				}
				if system != "" {
					text = system + "\n\n" + text
				}
			}
			err = w.between(w.marks.inst, text, w.marks.instEnd)
		case ToolRole:
			err = w.result(m.Message)
		case Assistant:
			err = w.answer(m.Message)
		}
		if err != nil {
			return m.refuse(err)
		}
	}
	return nil
}

// tools writes the tools that may be called.
func (w *writer) tools(tools []Tool) error {
	if len(tools) == 0 {
		return nil
	}
	var all []any
	for i, t := range tools {
		if err := checkName(t.Name); err != nil {
			return fmt.Errorf("tool %d: %w", i, err)
		}
		if err := checkUTF8(t.Description); err != nil {
			return fmt.Errorf("tool %d, %s: description: %w", i, t.Name, err)
		}
		parameters, err := parseJSON(orEmptyObject(string(t.Parameters)))
		if err == nil {
			err = checkUTF8(string(t.Parameters))
		}
		if _, ok := parameters.(object); err == nil && !ok {
			err = errors.New("not an object")
		}
		if err != nil {
			return fmt.Errorf("tool %d, %s: parameters %.40q: %w", i, t.Name, t.Parameters, err)
		}
		all = append(all, object{
			{"type", "function"},
			{"function", object{{"name", t.Name}, {"description", t.Description}, {"parameters", parameters}}},
		})
	}
	return w.between(w.marks.tools, writeJSON(all), w.marks.toolsEnd)
}

// answer writes a turn of the assistant: content, or tool calls.
func (w *writer) answer(m Message) error {
	var err error
	if len(m.ToolCalls) > 0 {
		var calls []any
		for _, c := range m.ToolCalls {
			arguments, err := lenientJSON(c.Arguments)
			if err != nil {
				return fmt.Errorf("arguments of tool call %s: %w", c.ID, err)
			}
			calls = append(calls, object{{"name", c.Name}, {"arguments", arguments}, {"id", c.ID}})
		}
		w.ids = append(w.ids, w.marks.calls)
		err = w.text(writeJSON(calls))
	} else {
		err = w.text(strings.TrimRight(m.Content, " "))
	}
	if !m.Prefix {
		w.ids = append(w.ids, w.t.eos)
	}
	return err
}

// result writes the result of a tool call.
func (w *writer) result(m Message) error {
	content, err := lenientJSON(m.Content)
	if err != nil {
		return fmt.Errorf("result of tool call %s: %w", m.ToolCallID, err)
	}
	text := writeJSON(object{{"content", content}, {"call_id", m.ToolCallID}})
	return w.between(w.marks.results, text, w.marks.resultsEnd)
}

func (w *writer) between(begin int32, text string, end int32) error {
	w.ids = append(w.ids, begin)
	err := w.text(text)
	w.ids = append(w.ids, end)
	return err
}

func (w *writer) text(text string) (err error) {
	w.ids, err = w.t.appendText(w.ids, text)
	return err
}

// lenientJSON parses a text, or takes it as a string if it is not JSON. No text is {}.
func lenientJSON(text string) (any, error) {
	v, err := parseJSON(orEmptyObject(text))
	if errors.Is(err, errNotJSON) {
		return text, nil
	}
	return v, err
}

func orEmptyObject(text string) string {
	if text == "" {
		return "{}"
	}
	return text
}
