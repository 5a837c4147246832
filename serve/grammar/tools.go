package grammar

import (
	"encoding/json"
	"fmt"
	"strings"

	"mix/graph/token"
)

// maxTools is how many tools there may be.
const maxTools = 128

// ToolCalls returns the grammar of what Mixtral writes after [TOOL_CALLS]: one to most calls of tools, 0 for
// no bound.
//
//	[{"name": "weather", "arguments": {"city": "Paris"}, "id": "a1B2c3D4e"}, …]
//
// The arguments keep to the schema of the tool that is named, which is as in JSONSchema and has to be that
// of an object; a tool without one takes any object. The id, nine letters and digits, may be left out.
func (c *Compiler) ToolCalls(tools []token.Tool, most int) (*Grammar, error) {
	var key strings.Builder
	fmt.Fprintf(&key, "%d;", most)
	for _, t := range tools {
		fmt.Fprintf(&key, "%d:%s%d:%s", len(t.Name), t.Name, len(t.Parameters), t.Parameters)
	}
	return c.grammar("tool calls", key.String(), func() (*rules, error) {
		if len(tools) == 0 || len(tools) > maxTools {
			return nil, fmt.Errorf("%d tools, want 1 to %d", len(tools), maxTools)
		}
		if most < 0 || most > maxCount {
			return nil, fmt.Errorf("at most %d calls, want 1 to %d, or 0 for no bound", most, maxCount)
		}
		j := newJSONRules()
		calls := make([]*expr, len(tools))
		for i, t := range tools {
			arguments, err := j.arguments(t.Parameters)
			if err != nil {
				return nil, fmt.Errorf("tool %d, %.40q: parameters: %w", i, t.Name, err)
			}
			if t.Name == "" || !validText(t.Name, maxName) {
				return nil, fmt.Errorf("tool %d, %.40q: want a name of 1 to %d bytes", i, t.Name, maxName)
			}
			calls[i] = seq(text(quoted(t.Name)), comma, text(`"arguments":`), gap, arguments)
		}
		id := seq(comma, text(`"id":`), gap, text(`"`), repeat(class('0', '9', 'a', 'z', 'A', 'Z'), 9, 9), text(`"`))
		call := seq(text("{"), white, text(`"name":`), gap, alt(calls...), optional(id), white, text("}"))
		if most == 0 {
			most = -1
		}
		j.body[0] = arrayOf(nil, call, 1, most)
		return &j.rules, nil
	})
}

// arguments matches the arguments of a tool. Each has a document of its own, and all have one rule of any
// value.
func (j *jsonRules) arguments(schema json.RawMessage) (*expr, error) {
	if len(schema) == 0 {
		return j.object(), nil
	}
	root, err := parseDoc(schema)
	if err != nil {
		return nil, err
	}
	if root.kind != docObject {
		return nil, root.wrong("it is %s, want an object", docKinds[root.kind])
	}
	// Arguments are an object even where the schema does not say so.
	kind := &doc{kind: docString, text: "object"}
	object := &doc{id: -1, kind: docObject, names: []string{"type"}, values: []*doc{kind}, index: map[string]*doc{"type": kind}}
	s := &schemas{jsonRules: j, root: root, made: map[string]*place{}}
	return s.expr([]*doc{root, object})
}
