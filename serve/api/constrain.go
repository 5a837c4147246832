package api

import (
	"encoding/json"
	"fmt"

	"mix/graph/token"
	"mix/serve/grammar"
	"mix/serve/infer"
)

// ConstraintKind says what a Constraint asks for.
type ConstraintKind string

// Kinds of constraints, and the field of Constraint that each uses.
const (
	JSONObject ConstraintKind = "json_object" // none: any JSON object
	JSONSchema ConstraintKind = "json_schema" // Schema
	Regex      ConstraintKind = "regex"       // Text: all of the answer matches
	Grammar    ConstraintKind = "grammar"     // Text
	Choice     ConstraintKind = "choice"      // Choices: the answer is one of them
	ToolCalls  ConstraintKind = "tool_calls"  // Tools: a list of {"name": …, "arguments": …}, Parallel allows several
)

// Constraint narrows what an answer may be.
type Constraint struct {
	Kind     ConstraintKind
	Schema   json.RawMessage
	Text     string
	Choices  []string
	Tools    []token.Tool
	Parallel bool

	Inside bool  // the text goes on after another; else a space that it begins with does not count
	After  int32 // the constraint begins after this id, and until then anything may come; 0 is at once
}

// Masks compiles constraints with the compiler of serve/grammar, for Options.Grammar.
func Masks(c *grammar.Compiler) func(Constraint) (func() infer.Mask, error) {
	return func(x Constraint) (func() infer.Mask, error) {
		var g *grammar.Grammar
		var err error
		switch x.Kind {
		case JSONObject:
			g, err = c.JSONObject()
		case JSONSchema:
			g, err = c.JSONSchema(x.Schema)
		case Regex:
			g, err = c.Regex(x.Text)
		case Grammar:
			g, err = c.Grammar(x.Text)
		case Choice:
			g, err = c.Choice(x.Choices)
		case ToolCalls:
			most := 1
			if x.Parallel {
				most = 0
			}
			g, err = c.ToolCalls(x.Tools, most)
		default:
			err = fmt.Errorf("no constraint %q", x.Kind)
		}
		switch {
		case err != nil:
			return nil, err
		case x.After != 0:
			return func() infer.Mask { return g.MaskOnce(x.After) }, nil
		case x.Inside:
			return g.MaskInside, nil
		}
		return g.Mask, nil
	}
}

type responseFormat struct {
	Type   string `json:"type"`
	Schema *struct {
		Name   string          `json:"name"`
		Schema json.RawMessage `json:"schema"`
		Strict bool            `json:"strict"`
	} `json:"json_schema"`
}

type structured struct {
	JSON    json.RawMessage `json:"json"` // a schema, as an object or as text
	Object  bool            `json:"json_object"`
	Regex   *string         `json:"regex"`
	Choice  []*string       `json:"choice"`
	Grammar *string         `json:"grammar"`
}

// constrain finds what a request narrows its answer to; nil for nothing. inside tells that the answer goes on
// after another text.
func (s *Server) constrain(p *params, inside bool) (func() infer.Mask, error) {
	c, param, err := p.constraint()
	if err != nil || c == nil {
		return nil, err
	}
	c.Inside = inside
	return s.compile(*c, param)
}

// compile makes masks for a constraint, or refuses the field that asked for it.
func (s *Server) compile(c Constraint, param string) (func() infer.Mask, error) {
	if s.o.Grammar == nil {
		return nil, refuse(param, "this server does not constrain answers")
	}
	g, err := s.o.Grammar(c)
	if err != nil {
		return nil, refuse(param, "%s: %s", param, short(err.Error(), 300))
	}
	return g, nil
}

func (p *params) constraint() (*Constraint, string, error) {
	var all []Constraint
	param := "response_format"
	if f := p.ResponseFormat; f != nil {
		var object map[string]json.RawMessage
		switch {
		case f.Schema != nil && !absent(f.Schema.Schema) && !one(f.Schema.Schema, &object):
			return nil, "", refuse("response_format", "response_format.json_schema.schema is not an object")
		case f.Type == "text":
		case f.Type == "json_object":
			all = append(all, Constraint{Kind: JSONObject})
		case f.Type == "json_schema" && f.Schema != nil && !absent(f.Schema.Schema):
			all = append(all, Constraint{Kind: JSONSchema, Schema: f.Schema.Schema})
		case f.Type == "json_schema":
			return nil, "", refuse("response_format", "response_format has no json_schema.schema")
		default:
			return nil, "", refuse("response_format", "response_format.type is %q, want text, json_object or json_schema", short(f.Type, 40))
		}
	}
	if f := p.Structured; f != nil {
		before := len(all)
		if !absent(f.JSON) {
			schema := f.JSON
			if text := ""; one(f.JSON, &text) {
				schema = json.RawMessage(text)
			}
			if !json.Valid(schema) {
				return nil, "", refuse("structured_outputs", "structured_outputs.json is not a JSON schema")
			}
			all = append(all, Constraint{Kind: JSONSchema, Schema: schema})
		}
		if f.Object {
			all = append(all, Constraint{Kind: JSONObject})
		}
		if f.Regex != nil {
			all = append(all, Constraint{Kind: Regex, Text: *f.Regex})
		}
		if f.Choice != nil {
			c := Constraint{Kind: Choice}
			for i, text := range f.Choice {
				if text == nil {
					return nil, "", refuse("structured_outputs", "structured_outputs.choice has null at %d, want a string", i)
				}
				c.Choices = append(c.Choices, *text)
			}
			all = append(all, c)
		}
		if f.Grammar != nil {
			all = append(all, Constraint{Kind: Grammar, Text: *f.Grammar})
		}
		if len(all) > before {
			param = "structured_outputs"
		}
	}
	switch len(all) {
	case 0:
		return nil, "", nil
	case 1:
		return &all[0], param, nil
	}
	return nil, "", refuse(param, "%d constraints, want one", len(all))
}
