package grammar

import (
	"slices"
	"strconv"
	"strings"
)

// types is a set of JSON types.
type types uint8

const (
	typeNull types = 1 << iota
	typeBool
	typeString
	typeInteger
	typeFraction // numbers that are not integers
	typeArray
	typeObject
	typeNumber = typeInteger | typeFraction
	typeAll    = 1<<7 - 1
)

var typeNames = map[string]types{
	"null": typeNull, "boolean": typeBool, "string": typeString, "integer": typeInteger, "number": typeNumber,
	"array": typeArray, "object": typeObject,
}

// conjunct is what several schemas ask of a value, with every anyOf decided.
type conjunct struct {
	types  types
	typed  bool // some schema names types
	about  types
	values []*doc // of enum and const, nil if there are none
	chosen bool   // there are

	objects  []*doc // schemas with keywords of objects
	arrays   []*doc // and of arrays
	required []string

	minItems, maxItems   int // -1 for no bound
	minLength, maxLength int
	pattern, format      *doc
	lo, hi               *bound
}

func anything() *conjunct {
	return &conjunct{types: typeAll, maxItems: -1, maxLength: -1}
}

// keyword says what a keyword of a schema does to a conjunct; nil for those that are read elsewhere or only
// describe.
type keyword func(c *conjunct, schema, v *doc) error

// keywords are all that may stand in a schema, beside those that begin with x-.
var keywords = map[string]keyword{
	"$schema": nil, "$id": nil, "$comment": nil, "$defs": nil, "definitions": nil, "title": nil, "description": nil,
	"default": nil, "examples": nil, "deprecated": nil, "readOnly": nil, "writeOnly": nil,
	"$ref": nil, "allOf": nil, "anyOf": nil, "oneOf": nil,
	"type": readType, "enum": readEnum, "const": readConst,
	"properties": readProperties, "additionalProperties": readAdditional, "required": readRequired,
	"prefixItems": readPrefix, "items": readItems,
	"minItems":         countOf(typeArray, true, func(c *conjunct) *int { return &c.minItems }),
	"maxItems":         countOf(typeArray, false, func(c *conjunct) *int { return &c.maxItems }),
	"minLength":        countOf(typeString, true, func(c *conjunct) *int { return &c.minLength }),
	"maxLength":        countOf(typeString, false, func(c *conjunct) *int { return &c.maxLength }),
	"pattern":          readText(func(c *conjunct) **doc { return &c.pattern }),
	"format":           readText(func(c *conjunct) **doc { return &c.format }),
	"minimum":          readLimit(true, false),
	"exclusiveMinimum": readLimit(true, true),
	"maximum":          readLimit(false, false),
	"exclusiveMaximum": readLimit(false, true),
}

// add takes in the keywords of a schema, which is an object.
func (c *conjunct) add(schema *doc) error {
	for i, name := range schema.names {
		read, ok := keywords[name]
		if !ok {
			if strings.HasPrefix(name, "x-") {
				continue
			}
			return schema.wrong("keyword %.40q is not supported", name)
		}
		if read != nil {
			if err := read(c, schema, schema.values[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// copy returns a conjunct that can be added to without a change to c.
func (c *conjunct) copy() *conjunct {
	d := *c
	d.values, d.objects, d.arrays, d.required = slices.Clip(c.values), slices.Clip(c.objects), slices.Clip(c.arrays), slices.Clip(c.required)
	return &d
}

// want refuses a value of another kind.
func want(v *doc, k docKind) error {
	if v.kind != k {
		return v.wrong("it is %s, want %s", docKinds[v.kind], docKinds[k])
	}
	return nil
}

func readType(c *conjunct, _, v *doc) error {
	names := []*doc{v}
	if v.kind == docArray {
		names = v.values
	}
	var set types
	for _, n := range names {
		t, ok := typeNames[n.text]
		if n.kind != docString || !ok {
			return n.wrong("%.40q is no type", n.text)
		}
		set |= t
	}
	c.types, c.typed = c.types&set, true
	return nil
}

func readEnum(c *conjunct, _, v *doc) error {
	if err := want(v, docArray); err != nil {
		return err
	}
	if c.chosen {
		both := map[string]bool{}
		for _, x := range v.values {
			both[x.same()] = true
		}
		c.values = slices.DeleteFunc(slices.Clone(c.values), func(x *doc) bool { return !both[x.same()] })
		return nil
	}
	c.chosen, c.values = true, v.values
	return nil
}

func readConst(c *conjunct, schema, v *doc) error {
	return readEnum(c, schema, &doc{kind: docArray, values: []*doc{v}})
}

func readProperties(c *conjunct, schema, v *doc) error {
	for _, n := range v.names {
		if !validText(n, maxName) {
			return v.wrong("the name %.40q has %d bytes, want at most %d", n, len(n), maxName)
		}
	}
	c.about |= typeObject
	c.objects = appendOnce(c.objects, schema)
	return want(v, docObject)
}

func readAdditional(c *conjunct, schema, _ *doc) error {
	c.about |= typeObject
	c.objects = appendOnce(c.objects, schema)
	return nil
}

func readRequired(c *conjunct, _, v *doc) error {
	c.about |= typeObject
	if len(v.values) > maxPairs {
		return v.wrong("%d names, want at most %d", len(v.values), maxPairs)
	}
	for _, n := range v.values {
		if n.kind != docString || !validText(n.text, maxName) {
			return n.wrong("want a name of at most %d bytes", maxName)
		}
		if !slices.Contains(c.required, n.text) {
			c.required = append(c.required, n.text)
		}
	}
	return want(v, docArray)
}

// maxName is how long the name of a property may be.
const maxName = 1024

func readPrefix(c *conjunct, schema, v *doc) error {
	c.about |= typeArray
	c.arrays = appendOnce(c.arrays, schema)
	return want(v, docArray)
}

func readItems(c *conjunct, schema, v *doc) error {
	if v.kind == docArray {
		return v.wrong("an array; items of single places are prefixItems")
	}
	c.about |= typeArray
	c.arrays = appendOnce(c.arrays, schema)
	return nil
}

func appendOnce(all []*doc, v *doc) []*doc {
	if slices.Contains(all, v) {
		return all
	}
	return append(all, v)
}

// countOf reads a number of at least 0 into a field; the larger lower bound holds, or the smaller upper one.
func countOf(about types, lower bool, field func(*conjunct) *int) keyword {
	return func(c *conjunct, _, v *doc) error {
		n, err := strconv.Atoi(v.text)
		if v.kind != docNumber || err != nil || n < 0 || n > maxCount {
			return v.wrong("%.40s, want 0 to %d", v.text, maxCount)
		}
		c.about |= about
		if f := field(c); lower && n > *f || !lower && (*f < 0 || n < *f) {
			*f = n
		}
		return nil
	}
}

func readText(field func(*conjunct) **doc) keyword {
	return func(c *conjunct, _, v *doc) error {
		if err := want(v, docString); err != nil {
			return err
		}
		c.about |= typeString
		f := field(c)
		if *f != nil && (*f).text != v.text {
			return v.wrong("%.40q and %.40q at %s together are not supported", v.text, (*f).text, (*f).pointer())
		}
		*f = v
		return nil
	}
}

func readLimit(lower, exclusive bool) keyword {
	return func(c *conjunct, _, v *doc) error {
		if err := want(v, docNumber); err != nil {
			return err
		}
		b, err := readBound(v.text, exclusive)
		if err != nil {
			return v.wrong("%s", err)
		}
		c.about |= typeNumber
		if lower {
			c.lo = tighter(c.lo, b, true)
		} else {
			c.hi = tighter(c.hi, b, false)
		}
		return nil
	}
}
