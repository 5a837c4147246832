package grammar

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
)

// person is a schema as pydantic writes them.
const person = `{
	"$defs": {
		"Address": {"type": "object", "title": "Address", "properties": {"street": {"type": "string", "maxLength": 40}, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}},
			"required": ["street", "zip"], "additionalProperties": false},
		"Color": {"enum": ["red", "green", "bl\"ue"], "type": "string"}},
	"type": "object", "title": "Person",
	"properties": {
		"name": {"type": "string", "minLength": 1, "maxLength": 12},
		"age": {"type": "integer", "minimum": 0, "maximum": 130},
		"home": {"$ref": "#/$defs/Address", "description": "where"},
		"work": {"anyOf": [{"$ref": "#/$defs/Address"}, {"type": "null"}], "default": null},
		"colors": {"type": "array", "items": {"$ref": "#/$defs/Color"}, "minItems": 1, "maxItems": 3},
		"score": {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
		"pair": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "boolean"}], "minItems": 2, "maxItems": 2},
		"kind": {"const": "person"}},
	"required": ["name", "age", "home", "kind"]}`

// sound are schemas with values that keep to them, and values that do not.
var sound = map[string]struct {
	schema  string
	yes, no []string
}{
	"pydantic": {person, []string{
		`{"name": "Ann", "age": 3, "home": {"street": "x", "zip": "12345"}, "kind": "person"}`,
		`{"name":"é","age":130,"home":{"street":"","zip":"00000"},"work":null,"colors":["red","bl\"ue"],"score":0.25,"pair":["a",true],"kind":"person"}`,
		"{\n  \"name\": \"Ann\",\n  \"age\": 0,\n  \"home\": {\n    \"street\": \"x\",\n    \"zip\": \"12345\"\n  },\n  \"kind\": \"person\"\n}",
	}, []string{`{}`, `{"name": "", "age": 3, "home": {"street": "x", "zip": "12345"}, "kind": "person"}`,
		`{"name": "Ann", "age": 131, "home": {"street": "x", "zip": "12345"}, "kind": "person"}`,
		`{"name": "Ann", "age": 3, "home": {"street": "x", "zip": "1234"}, "kind": "person"}`,
		`{"name": "Ann", "age": 3, "home": {"street": "x", "zip": "12345"}, "kind": "person", "more": 1}`}},
	"all optional": {`{"properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}}}`,
		[]string{`{}`, `{ }`, `{"a":null}`, `{"b":null}`, `{"a":null, "c":null}`, `{"a":null,"b":null,"c":null}`},
		[]string{`{,}`, `{"a":null,}`, `{,"b":null}`, `{"b":null"c":null}`}},
	"required last": {`{"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}, "required": ["b"]}`,
		[]string{`{"b":null}`, `{"a":null,"b":null}`}, []string{`{}`, `{"a":null}`, `{"a":null,}`}},
	"additional": {`{"type": "object", "properties": {"ab": {"type": "integer"}, "é": {"type": "integer"}}, "required": ["r"], "additionalProperties": {"type": "boolean"}}`,
		[]string{`{"r":true}`, `{"ab":1,"r":true,"a":true,"abc":false,"è":true,"":true}`, `{"é":1,"r":false}`},
		[]string{`{}`, `{"r":true,"ab":true}`, `{"r":true,"é":true}`, `{"r":1}`, `{"r":true,"x":1}`}},
	"map": {`{"type": "object", "additionalProperties": {"type": "integer"}}`,
		[]string{`{}`, `{"a":1,"b":2}`, `{"x y": -3}`, `{"\n\"":1}`}, []string{`{"a":"b"}`}},
	"any":     {`{}`, []string{`null`, `[1,{"a":[true,"x"]}]`, `-0.5e+10`, `"\ud83d\ude00\n"`}, []string{``, `nul`, `01`, `"\ud83d"`, `[1,]`, " 1", "1 "}},
	"true":    {`true`, []string{`{}`}, []string{`}`}},
	"tree":    {`{"type":"object","properties":{"v":{"type":"integer"},"kids":{"type":"array","items":{"$ref":"#"}}},"required":["v","kids"],"additionalProperties":false}`, []string{`{"v":1,"kids":[]}`, `{"v":1,"kids":[{"v":2,"kids":[]},{"v":-3,"kids":[{"v":4,"kids":[]}]}]}`}, []string{`{"v":1,"kids":[{}]}`, `{"v":1,"kids":[{"v":2,"kids":[]}}`}},
	"list":    {`{"$ref":"#/$defs/n","$defs":{"n":{"type":"object","properties":{"next":{"anyOf":[{"$ref":"#/$defs/n"},{"type":"null"}]}},"required":["next"]}}}`, []string{`{"next":null}`, `{"next":{"next":null}}`}, []string{`{}`, `null`}},
	"old ref": {`{"properties":{"child":{"allOf":[{"$ref":"#"}]}}}`, []string{`{}`, `{"child":{"child":{}}}`}, []string{`{"child":1}`}},
	"beside a ref": {`{"$defs":{"n":{"type":"integer","minimum":3}},"$ref":"#/$defs/n","maximum":5}`,
		[]string{`3`, `4`, `5`}, []string{`2`, `6`}},
	"allOf": {`{"allOf":[{"properties":{"a":{"type":"integer","minimum":2}}},{"properties":{"a":{"maximum":3},"b":{"type":"null"}},"required":["b"]}]}`,
		[]string{`{"b":null}`, `{"a":2,"b":null}`}, []string{`{"a":1,"b":null}`, `{"a":4,"b":null}`, `{"a":2}`}},
	"closed allOf": {`{"allOf":[{"properties":{"a":{"type":"null"}},"additionalProperties":false},{"properties":{"b":{"type":"null"},"a":true}}]}`,
		[]string{`{}`, `{"a":null}`}, []string{`{"b":null}`, `{"a":null,"b":null}`}},
	"required one of": {`{"type":"object","properties":{"a":{"type":"null"},"b":{"type":"null"}},"anyOf":[{"required":["a"]},{"required":["b"]}]}`,
		[]string{`{"a":null}`, `{"b":null}`, `{"a":null,"b":null}`}, []string{`{}`}},
	"types":      {`{"type":["string","null"],"maxLength":2}`, []string{`null`, `"ab"`, `"\u00e9\\"`, `"\ud83d\ude00é"`}, []string{`"abc"`, `1`}},
	"enum":       {`{"enum":["a",1,null,true,{"x":[1]},1.5],"minimum":1.2}`, []string{`"a"`, `null`, `true`, `{"x": [1]}`, `1.5`}, []string{`1`, `"b"`}},
	"enums":      {`{"allOf":[{"enum":["a","b",1.0]},{"enum":["b","c",1]}]}`, []string{`"b"`, `1.0`}, []string{`"a"`, `"c"`}},
	"items":      {`{"type":"array","items":{"type":"boolean"},"minItems":2,"maxItems":3}`, []string{`[true,false]`, `[true, true, true]`}, []string{`[]`, `[true]`, `[true,true,true,true]`}},
	"no items":   {`{"type":"array","maxItems":0}`, []string{`[]`, `[ ]`}, []string{`[1]`}},
	"prefix":     {`{"prefixItems":[{"type":"null"},{"type":"boolean"}],"items":{"type":"integer"}}`, []string{`[]`, `[null]`, `[null,true]`, `[null,true,1,2]`}, []string{`[true]`, `[null,1]`, `[null,true,null]`}},
	"prefix min": {`{"prefixItems":[{"type":"null"},{"type":"boolean"}],"items":{"type":"integer"},"minItems":3,"maxItems":4}`, []string{`[null,true,1]`, `[null,true,1,2]`}, []string{`[null,true]`, `[null,true,1,2,3]`}},
	"prefix only": {`{"prefixItems":[{"type":"null"},{"type":"boolean"}],"minItems":1}`, []string{`[null]`, `[null,true]`},
		[]string{`[]`, `[null,true,1]`}},
	"pattern":       {`{"type":"string","pattern":"b+\\d|^x$"}`, []string{`"b1"`, `"abb2c"`, `"x"`, `"\u00e9b1\n"`}, []string{`"b"`, `"xx"`, `""`}},
	"odd pattern":   {`{"type":"string","pattern":"^[\"\\\\/\\n\\x01]+$"}`, []string{`"\""`, `"\\/"`, `"\n"`, `"\u0001"`}, []string{`"a"`, `"""`, `"\"`}},
	"integer":       {`{"type":"integer"}`, []string{`0`, `-1`, `9223372036854775807`, `-9223372036854775808`}, []string{`9223372036854775808`, `1.0`, `01`, `-`, `+1`}},
	"unsatisfiable": {`{"anyOf":[{"type":"string","minLength":3,"maxLength":2},{"type":"array","minItems":2,"maxItems":1},{"type":"null"}]}`, []string{`null`}, []string{`""`}},
	"uuid":          {`{"type":"string","format":"uuid"}`, []string{`"123e4567-e89b-12d3-a456-426614174000"`}, []string{`"123e4567"`}},
	"date":          {`{"type":"string","format":"date"}`, []string{`"2024-02-29"`, `"2000-02-29"`, `"2023-12-31"`}, []string{`"2023-02-29"`, `"1900-02-29"`, `"2023-04-31"`, `"2023-13-01"`}},
	"date-time":     {`{"type":"string","format":"date-time"}`, []string{`"2024-02-29T23:59:59Z"`, `"2024-02-29T23:59:59.123+02:00"`}, []string{`"2024-02-29"`}},
	"time":          {`{"type":"string","format":"time"}`, []string{`"23:59:59Z"`}, []string{`"24:00:00Z"`}},
	"duration":      {`{"type":"string","format":"duration"}`, []string{`"P1D"`, `"P1Y2M3DT4H5M6S"`, `"PT5S"`, `"P2W"`}, []string{`"P"`, `"PT"`, `"P1YT"`}},
	"email":         {`{"type":"string","format":"email"}`, []string{`"a.b@example.com"`}, []string{`"a.b"`, `"a..b@c.de"`}},
	"hostname":      {`{"type":"string","format":"hostname"}`, []string{`"www.example.com"`}, []string{`"-a"`, `"a..b"`}},
	"ipv4":          {`{"type":"string","format":"ipv4"}`, []string{`"127.0.0.1"`, `"255.255.255.255"`}, []string{`"256.0.0.1"`, `"1.2.3"`}},
	"ipv6":          {`{"type":"string","format":"ipv6"}`, []string{`"::1"`, `"fe80::1:2"`, `"1:2:3:4:5:6:7:8"`, `"::"`}, []string{`"1:2"`, `"1::2::3"`}},
	"uri":           {`{"type":"string","format":"uri"}`, []string{`"https://example.com/a/b?c=d#e"`}, []string{`"example"`}},
}

func validator(t *testing.T, schema string) *jsonschema.Schema {
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(schema))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	require.NoError(t, c.AddResource("test.json", doc))
	s, err := c.Compile("test.json")
	require.NoError(t, err)
	return s
}

func validate(t *testing.T, s *jsonschema.Schema, text string) {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	require.NoError(t, err, text)
	require.NoError(t, s.Validate(v), text)
}

func TestSchemas(t *testing.T) {
	for name, c := range sound {
		t.Run(name, func(t *testing.T) {
			g, err := small().JSONSchema([]byte(c.schema))
			require.NoError(t, err)
			v := validator(t, c.schema)
			for _, text := range c.yes {
				require.True(t, reads(g, text), text)
				validate(t, v, text)
			}
			for _, text := range c.no {
				require.False(t, reads(g, text), text)
			}
			r := rand.New(rand.NewPCG(7, 8))
			for range 25 {
				text := walk(t, smallT(), g.Mask(), r, r.IntN(60))
				require.True(t, json.Valid([]byte(text)), text)
				validate(t, v, text)
			}
		})
	}
}

func TestSchemasWithManyTokens(t *testing.T) {
	g := must(large().JSONSchema([]byte(person)))
	v := validator(t, person)
	r := rand.New(rand.NewPCG(9, 10))
	for range 10 {
		validate(t, v, walk(t, largeT(), g.Mask(), r, 40))
	}
}

func TestSchemasRefuse(t *testing.T) {
	for schema, want := range map[string]string{
		`{"type":"object","properties":{"a/b":{"not":{}}}}`: `#/properties/a~1b: keyword "not" is not supported`,
		`{"patternProperties":{}}`:                          `#: keyword "patternProperties" is not supported`,
		`{"type":"strin"}`:                                  `#/type: "strin" is no type`,
		`{"type":["null",3]}`:                               `#/type/1: "3" is no type`,
		`{"$ref":"#/$defs/x"}`:                              `#/$ref: "#/$defs/x" refers to nothing`,
		`{"$ref":"other.json"}`:                             `refers to nothing in the document`,
		`{"$ref":"#"}`:                                      `reaches itself`,
		`{"anyOf":[{"$ref":"#"},{"type":"null"}]}`:          `rule # reaches itself before it reads anything: # → #`,
		`{"$ref":"#","minimum":3}`:                          `refers to itself`,
		`{"type":"string","format":"color"}`:                `#/format: format "color" is not supported, want one of date, date-time, duration`,
		`{"type":"string","pattern":"a","minLength":1}`:     `#/pattern: only one of pattern, format and a length`,
		`{"type":"string","pattern":"("}`:                   `#/pattern: missing closing ): "("`,
		`{"type":"string","pattern":"a\\b"}`:                `\b is not supported`,
		`{"minLength":-1}`:                                  `#/minLength: -1, want 0 to 1048576`,
		`{"maxItems":2000000}`:                              `#/maxItems: 2000000, want 0 to 1048576`,
		`{"minimum":"3"}`:                                   `#/minimum: it is a string, want a number`,
		`{"minimum":1e999999999}`:                           `want an exponent`,
		`{"items":[]}`:                                      `prefixItems`,
		`{"anyOf":[]}`:                                      `#/anyOf: want an array of at least one schema`,
		`{"enum":3}`:                                        `#/enum: it is a number, want an array`,
		`{"enum":[]}`:                                       `matches no text`,
		`false`:                                             `matches no text`,
		`{"type":"object","required":["a"],"properties":{"a":false}}`:        `matches no text`,
		`{"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]}`: `matches no text`,
		`3`:                         `#: it is a number, want a schema`,
		`{"a":1`:                    `it is not JSON`,
		`{} {}`:                     `it is not JSON: more follows`,
		"{\"title\":\"\xff\"}":      `UTF-8`,
		`{"title":"a","title":"b"}`: `the name "title" twice`,
		strings.Repeat(`[`, 300):    `nested more than 200 deep`,
		`{"minLength":3,"properties":{"` + strings.Repeat("n", 2000) + `":{}}}`: `has 2000 bytes, want at most 1024`,
		`{"uniqueItems":true}`: `"uniqueItems"`,
	} {
		_, err := small().JSONSchema([]byte(schema))
		require.ErrorIs(t, err, ErrGrammar, schema)
		require.ErrorContains(t, err, want)
	}
}

func TestManyProperties(t *testing.T) {
	schema := func(n int) []byte {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"k%d":{"type":"null"},`, i)
		}
		return []byte(`{"type":"object","properties":{` + strings.TrimSuffix(b.String(), ",") + `}}`)
	}
	g := must(small().JSONSchema(schema(maxPairs)))
	require.True(t, reads(g, `{}`))
	require.True(t, reads(g, `{"k0":null, "k7":null, "k999":null}`))
	require.False(t, reads(g, `{"k7":null,"k0":null}`))
	_, err := small().JSONSchema(schema(maxPairs + 1))
	require.ErrorContains(t, err, "#: 1001 properties, want at most 1000")
}

func TestCasesAreBounded(t *testing.T) {
	two := `{"anyOf":[{"minimum":1},{"maximum":3}]}`
	_, err := small().JSONSchema([]byte(`{"type":"integer","allOf":[` + strings.Repeat(two+",", 20) + two + `]}`))
	require.ErrorContains(t, err, "more than 256 cases")
}

// maker makes values that keep to person, written by encoding/json.
type maker struct{ r *rand.Rand }

func (m maker) text(least, most int) string {
	letters := []rune("ab é\"\\\n\t\x01日\U0001F600/<")
	s := make([]rune, least+m.r.IntN(most-least+1))
	for i := range s {
		s[i] = letters[m.r.IntN(len(letters))]
	}
	return string(s)
}

type address struct {
	Street string `json:"street"`
	Zip    string `json:"zip"`
}

func (m maker) address() address {
	return address{m.text(0, 40), string([]byte{'0' + byte(m.r.IntN(10)), '1', '2', '3', '9'})}
}

func TestValidValuesAreRead(t *testing.T) {
	g := must(small().JSONSchema([]byte(person)))
	v := validator(t, person)
	m := maker{rand.New(rand.NewPCG(11, 12))}
	for range 300 {
		p := struct {
			Name   string   `json:"name"`
			Age    int      `json:"age"`
			Home   address  `json:"home"`
			Work   *address `json:"work,omitempty"`
			Colors []string `json:"colors,omitempty"`
			Score  *float64 `json:"score,omitempty"`
			Kind   string   `json:"kind"`
		}{Name: m.text(1, 12), Age: m.r.IntN(131), Home: m.address(), Kind: "person"}
		if m.r.IntN(2) == 0 {
			a := m.address()
			p.Work = &a
		}
		for range m.r.IntN(4) {
			p.Colors = append(p.Colors, []string{"red", "green", `bl"ue`}[m.r.IntN(3)])
		}
		if m.r.IntN(2) == 0 {
			f := float64(m.r.IntN(1000)) / 1000
			p.Score = &f
		}
		for _, indent := range []string{"", "  ", "\t"} {
			var b bytes.Buffer
			e := json.NewEncoder(&b)
			e.SetIndent("", indent)
			require.NoError(t, e.Encode(p))
			text := strings.TrimSuffix(b.String(), "\n")
			validate(t, v, text)
			require.True(t, reads(g, text), text)
		}
	}
}

func (m maker) value(depth int) any {
	switch m.r.IntN(8 - 2*min(depth/3, 1)) {
	case 0:
		return nil
	case 1:
		return m.r.IntN(2) == 0
	case 2:
		return m.r.IntN(2000) - 1000
	case 3:
		return m.r.NormFloat64() * 1e6
	case 4, 5:
		return m.text(0, 9)
	case 6:
		list := make([]any, m.r.IntN(4))
		for i := range list {
			list[i] = m.value(depth + 1)
		}
		return list
	}
	object := map[string]any{}
	for range m.r.IntN(4) {
		object[m.text(0, 4)] = m.value(depth + 1)
	}
	return object
}

func TestAnyObject(t *testing.T) {
	g := must(small().JSONObject())
	m := maker{rand.New(rand.NewPCG(13, 14))}
	for range 300 {
		object := map[string]any{"a": m.value(0), m.text(0, 5): m.value(0)}
		for _, indent := range []string{"", " ", "    "} {
			text, err := json.MarshalIndent(object, "", indent)
			if indent == "" {
				text, err = json.Marshal(object)
			}
			require.NoError(t, err)
			require.True(t, reads(g, string(text)), "%s", text)
		}
	}
	for _, text := range []string{`[]`, `{"a":1`, `{"a":1}}`, `{"a":01}`, `{"a":+1}`, `{"a":.5}`, `{"a":5.}`, "{\"a\":\"\n\"}", `{"a":"\x"}`, `{'a':1}`, `{"a":tru}`, `{"a" :1}`, "{\"a\":1}\n"} {
		require.False(t, reads(g, text), text)
	}
	for range 40 {
		text := walk(t, smallT(), g.Mask(), m.r, m.r.IntN(80))
		var object map[string]any
		require.NoError(t, json.Unmarshal([]byte(text), &object), text)
	}
}
