package grammar

import (
	"cmp"
	"encoding/binary"
	"net/url"
	"slices"
	"strings"
)

// JSONSchema returns the grammar of the JSON values that a schema describes, in the dialects that OpenAI's
// structured outputs and vLLM take. Supported are
//
//	type, enum, const, anyOf, allOf, $ref to a place in the document ("#/$defs/x"), also recursive,
//	oneOf, read as anyOf,
//	properties, required, additionalProperties, items, prefixItems, minItems, maxItems,
//	minLength, maxLength in characters, or pattern, or format: date, date-time, duration, email, hostname,
//	ipv4, ipv6, time, uri, uuid,
//	minimum, maximum, exclusiveMinimum, exclusiveMaximum.
//
// Every other keyword is refused by name and JSON pointer, but for those that only describe, such as title
// and default, and those that begin with x-. What is allowed is narrower than the schema in these points:
//
//   - Properties come in the order of the schema, additional ones after them; beside others, their names have
//     no escapes.
//   - Without additionalProperties, a schema with properties has no others; without items, one with
//     prefixItems has no further items.
//   - Without type, the keywords that are there say it: properties mean an object.
//   - A number with limits has no exponent; an integer without limits has 64 bits and no fraction.
//   - A pattern is a regular expression of Go. Its characters, and those of enum and const, are
//     escaped only where they must be.
//   - White space is bounded: see white.
func (c *Compiler) JSONSchema(schema []byte) (*Grammar, error) {
	return c.grammar("json schema", string(schema), func() (*rules, error) {
		s, err := newSchemas(schema)
		if err != nil {
			return nil, err
		}
		e, err := s.expr([]*doc{s.root})
		if err != nil {
			return nil, err
		}
		s.body[0] = e
		return &s.rules, nil
	})
}

// maxCases is how many ways to decide the anyOf of one place there may be.
const maxCases = 256

// schemas turns the schemas of a document into rules.
type schemas struct {
	*jsonRules
	root  *doc
	depth int
	steps int // merges so far
	made  map[string]*place
}

// place is the expression of what some schemas describe together.
type place struct {
	rule int   // its rule, 0 if none was needed so far
	done *expr // nil while it is made
}

func newSchemas(source []byte) (*schemas, error) {
	root, err := parseDoc(source)
	if err != nil {
		return nil, err
	}
	return &schemas{jsonRules: newJSONRules(), root: root, made: map[string]*place{}}, nil
}

// expr matches what all of some schemas describe. One that is met a second time becomes a rule: it may
// contain itself.
func (s *schemas) expr(all []*doc) (*expr, error) {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b *doc) int { return cmp.Compare(a.id, b.id) })
	all = slices.Compact(all)
	if len(all) == 0 {
		return s.value(), nil
	}
	var key []byte
	for _, v := range all {
		key = binary.AppendUvarint(key, uint64(v.id))
	}
	p := s.made[string(key)]
	if p != nil {
		if p.rule == 0 {
			p.rule = s.add(clip(all[0].pointer()))
			if p.done != nil {
				s.body[p.rule] = p.done
			}
		}
		return rule(p.rule), nil
	}
	if s.depth++; s.depth > maxDepth {
		return nil, all[0].wrong("schemas nested more than %d deep", maxDepth)
	}
	defer func() { s.depth-- }()
	p = &place{}
	s.made[string(key)] = p
	e, err := s.decide(all)
	if err != nil {
		return nil, err
	}
	if p.done = e; p.rule != 0 {
		s.body[p.rule] = e
		return rule(p.rule), nil
	}
	return e, nil
}

// decide makes the expression of some schemas: the cases of their anyOf, side by side.
func (s *schemas) decide(all []*doc) (*expr, error) {
	// A schema that only refers to others may be recursive where the cases could not be told apart.
	if len(all) == 1 {
		if e, ok, err := s.only(all[0]); ok || err != nil {
			return e, err
		}
	}
	cases := []*conjunct{anything()}
	for _, v := range all {
		var err error
		if cases, err = s.combine(cases, v, 0); err != nil {
			return nil, err
		}
	}
	var subs []*expr
	for _, c := range cases {
		e, err := s.conjunct(c)
		if err != nil {
			return nil, err
		}
		subs = append(subs, e)
	}
	return alt(subs...), nil
}

// only handles a schema that is nothing but one $ref, or one list of schemas.
func (s *schemas) only(v *doc) (*expr, bool, error) {
	name := ""
	for _, n := range v.names {
		if read, known := keywords[n]; read != nil || !known && !strings.HasPrefix(n, "x-") {
			return nil, false, nil
		}
		if n == "$ref" || n == "allOf" || n == "anyOf" || n == "oneOf" {
			if name != "" {
				return nil, false, nil
			}
			name = n
		}
	}
	switch name {
	case "":
		return nil, false, nil
	case "$ref":
		target, err := s.target(v.get(name))
		if err != nil {
			return nil, false, err
		}
		e, err := s.expr([]*doc{target})
		return e, true, err
	}
	list, err := schemaList(v.get(name))
	if err != nil {
		return nil, false, err
	}
	if name == "allOf" {
		e, err := s.expr(list)
		return e, true, err
	}
	var subs []*expr
	for _, x := range list {
		e, err := s.expr([]*doc{x})
		if err != nil {
			return nil, false, err
		}
		subs = append(subs, e)
	}
	return alt(subs...), true, nil
}

// combine adds a schema to each of some cases; anyOf multiplies them.
func (s *schemas) combine(cases []*conjunct, v *doc, depth int) ([]*conjunct, error) {
	if depth > maxDepth {
		return nil, v.wrong("the schema refers to itself with nothing between, or more than %d deep", maxDepth)
	}
	switch {
	case v.kind == docBool && v.text == "true":
		return cases, nil
	case v.kind == docBool:
		return nil, nil
	case v.kind != docObject:
		return nil, v.wrong("it is %s, want a schema: an object, true or false", docKinds[v.kind])
	}
	if s.steps += len(cases); s.steps > maxMerges {
		return nil, v.wrong("the schema is too large: more than %d merges", maxMerges)
	}
	out := make([]*conjunct, len(cases))
	for i, c := range cases {
		out[i] = c.copy()
		if err := out[i].add(v); err != nil {
			return nil, err
		}
	}
	if r := v.get("$ref"); r != nil {
		target, err := s.target(r)
		if err != nil {
			return nil, err
		}
		if out, err = s.combine(out, target, depth+1); err != nil {
			return nil, err
		}
	}
	if l := v.get("allOf"); l != nil {
		list, err := schemaList(l)
		if err != nil {
			return nil, err
		}
		for _, x := range list {
			if out, err = s.combine(out, x, depth+1); err != nil {
				return nil, err
			}
		}
	}
	for _, name := range []string{"anyOf", "oneOf"} {
		l := v.get(name)
		if l == nil {
			continue
		}
		list, err := schemaList(l)
		if err != nil {
			return nil, err
		}
		var all []*conjunct
		for _, x := range list {
			more, err := s.combine(out, x, depth+1)
			if err != nil {
				return nil, err
			}
			if all = append(all, more...); len(all) > maxCases {
				return nil, l.wrong("more than %d cases", maxCases)
			}
		}
		out = all
	}
	return out, nil
}

// schemaList reads the value of allOf, anyOf or oneOf.
func schemaList(v *doc) ([]*doc, error) {
	if v.kind != docArray || len(v.values) == 0 {
		return nil, v.wrong("want an array of at least one schema")
	}
	if len(v.values) > maxPairs {
		return nil, v.wrong("%d schemas, want at most %d", len(v.values), maxPairs)
	}
	return v.values, nil
}

// target finds what a $ref refers to.
func (s *schemas) target(ref *doc) (*doc, error) {
	if err := want(ref, docString); err != nil {
		return nil, err
	}
	fragment, ok := strings.CutPrefix(ref.text, "#")
	if ok {
		if pointer, err := url.PathUnescape(fragment); err == nil {
			if v := s.root.find(pointer); v != nil {
				return v, nil
			}
		}
	}
	return nil, ref.wrong("%.80q refers to nothing in the document", ref.text)
}

// conjunct makes the expression of one case.
func (s *schemas) conjunct(c *conjunct) (*expr, error) {
	set := c.types
	if !c.typed && !c.chosen && c.about != 0 {
		set = c.about
	}
	if c.chosen {
		return s.enum(c, set)
	}
	if set == typeAll && c.about == 0 {
		return s.value(), nil
	}
	var subs []*expr
	if set&typeNull != 0 {
		subs = append(subs, text("null"))
	}
	if set&typeBool != 0 {
		subs = append(subs, words([]string{"true", "false"}))
	}
	for _, kind := range []struct {
		types types
		make  func(*conjunct) (*expr, error)
	}{{typeString, s.text}, {typeArray, s.array}, {typeObject, s.members}} {
		if set&kind.types == 0 {
			continue
		}
		e, err := kind.make(c)
		if err != nil {
			return nil, err
		}
		subs = append(subs, e)
	}
	switch bounded := c.lo != nil || c.hi != nil; {
	case set&typeFraction != 0 && bounded:
		subs = append(subs, decimals(c.lo, c.hi))
	case set&typeFraction != 0:
		subs = append(subs, number)
	case set&typeInteger != 0:
		subs = append(subs, integers(c.lo, c.hi))
	}
	return alt(subs...), nil
}

// text makes the expression of a string.
func (s *schemas) text(c *conjunct) (*expr, error) {
	if c.maxLength >= 0 && c.minLength > c.maxLength {
		return none, nil
	}
	long := c.minLength > 0 || c.maxLength >= 0
	source, around, at := "", empty, c.format
	switch {
	case c.pattern == nil && c.format == nil:
		return stringOf(c.minLength, c.maxLength), nil
	case c.pattern != nil && (c.format != nil || long), long:
		if c.pattern != nil {
			at = c.pattern
		}
		return nil, at.wrong("only one of pattern, format and a length is supported for a string")
	case c.pattern != nil:
		source, around, at = c.pattern.text, star(char), c.pattern
	default:
		f, ok := formats[c.format.text]
		if !ok {
			return nil, at.wrong("format %.40q is not supported, want one of %s", at.text, formatNames())
		}
		source = f
	}
	e, err := readRegex(source, around, escapedText, escapedClass)
	if err != nil {
		return nil, at.wrong("%s", err)
	}
	return seq(text(`"`), e, text(`"`)), nil
}

// isFalse tells whether a schema is false, which no value keeps to.
func isFalse(v *doc) bool { return v.kind == docBool && v.text == "false" }

// array makes the expression of an array.
func (s *schemas) array(c *conjunct) (*expr, error) {
	if c.maxItems >= 0 && c.minItems > c.maxItems {
		return none, nil
	}
	places, closed, listed := 0, false, false
	var every []*doc
	for _, v := range c.arrays {
		if p := v.get("prefixItems"); p != nil {
			places, listed = max(places, len(p.values)), true
		}
		if i := v.get("items"); i != nil {
			every, closed = append(every, i), closed || isFalse(i)
		}
	}
	if places > maxPlaces {
		return nil, c.arrays[0].wrong("prefixItems of %d schemas, want at most %d", places, maxPlaces)
	}
	first := make([]*expr, places)
	for i := range first {
		var here []*doc
		for _, v := range c.arrays {
			if p := v.get("prefixItems"); p != nil && i < len(p.values) {
				here = append(here, p.values[i])
			} else if each := v.get("items"); each != nil {
				here = append(here, each)
			}
		}
		e, err := s.expr(here)
		if err != nil {
			return nil, err
		}
		first[i] = e
	}
	if closed || listed && len(every) == 0 {
		return arrayOf(first, nil, c.minItems, c.maxItems), nil
	}
	rest, err := s.expr(every)
	if err != nil {
		return nil, err
	}
	return arrayOf(first, rest, c.minItems, c.maxItems), nil
}

// maxPlaces is how many prefixItems there may be.
const maxPlaces = 1000
