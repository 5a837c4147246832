package grammar

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// doc is a value of a JSON document; objects keep their order.
type doc struct {
	id     int // in the order of the document
	kind   docKind
	text   string // of a string, number or literal
	names  []string
	values []*doc          // of an array or object
	index  map[string]*doc // of an object
	parent *doc
	name   string // in the parent: a name or an index
}

type docKind uint8

const (
	docObject docKind = iota
	docArray
	docString
	docNumber
	docBool
	docNull
)

var docKinds = [...]string{"an object", "an array", "a string", "a number", "true or false", "null"}

// parseDoc reads a JSON document.
func parseDoc(source []byte) (*doc, error) {
	if len(source) > maxSchema {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(source), maxSchema)
	}
	if !utf8.Valid(source) {
		return nil, fmt.Errorf("it is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(source))
	d.UseNumber()
	r := docReader{d: d}
	v, err := r.value(nil, "", 0)
	if err != nil {
		return nil, fmt.Errorf("it is not JSON: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("it is not JSON: more follows at byte %d", d.InputOffset())
	}
	return v, nil
}

type docReader struct {
	d  *json.Decoder
	id int
}

func (r *docReader) value(parent *doc, name string, depth int) (*doc, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested more than %d deep", maxDepth)
	}
	t, err := r.d.Token()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	v := &doc{id: r.id, parent: parent, name: name}
	r.id++
	switch t := t.(type) {
	case string:
		v.kind, v.text = docString, t
	case json.Number:
		v.kind, v.text = docNumber, t.String()
	case bool:
		v.kind, v.text = docBool, strconv.FormatBool(t)
	case nil:
		v.kind, v.text = docNull, "null"
	case json.Delim:
		return v, r.inside(v, t, depth)
	}
	return v, nil
}

// inside reads an array or object after its opening bracket.
func (r *docReader) inside(v *doc, open json.Delim, depth int) error {
	if open == '[' {
		v.kind = docArray
	}
	if v.kind == docObject {
		v.index = map[string]*doc{}
	}
	for r.d.More() {
		name := strconv.Itoa(len(v.values))
		if v.kind == docObject {
			t, err := r.d.Token()
			if err != nil {
				return err
			}
			name = t.(string) // the decoder lets nothing else be a name
			if v.index[name] != nil {
				return fmt.Errorf("%s has the name %.40q twice", v.pointer(), name)
			}
			v.names = append(v.names, name)
		}
		child, err := r.value(v, name, depth+1)
		if err != nil {
			return err
		}
		v.values = append(v.values, child)
		if v.kind == docObject {
			v.index[name] = child
		}
	}
	_, err := r.d.Token()
	return err
}

// get returns the value of a name of an object, nil if there is none.
func (v *doc) get(name string) *doc { return v.index[name] }

// pointer returns the JSON pointer of a value: "#" for the whole, else "#/a/0". Long names are cut.
func (v *doc) pointer() string {
	if v.parent == nil {
		return "#"
	}
	return v.parent.pointer() + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(clip(v.name))
}

// find returns the value that a JSON pointer points to, nil if there is none.
func (v *doc) find(pointer string) *doc {
	if pointer == "" {
		return v
	}
	if pointer[0] != '/' {
		return nil
	}
	for name := range strings.SplitSeq(pointer[1:], "/") {
		name = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
		if v.kind == docArray {
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(v.values) || strconv.Itoa(i) != name {
				return nil
			}
			v = v.values[i]
		} else if v = v.get(name); v == nil {
			return nil
		}
	}
	return v
}

// wrong makes an error about a value.
func (v *doc) wrong(format string, args ...any) error {
	return fmt.Errorf("%.400s: %s", v.pointer(), fmt.Sprintf(format, args...))
}

// same writes a value in a form that is equal for equal values.
func (v *doc) same() string {
	switch v.kind {
	case docString:
		return quoted(v.text)
	case docNumber:
		if b, err := readBound(v.text, false); err == nil {
			return b.value.RatString()
		}
		return v.text
	case docArray:
		parts := make([]string, len(v.values))
		for i, e := range v.values {
			parts[i] = e.same()
		}
		return "[" + strings.Join(parts, ",") + "]"
	case docObject:
		parts := make([]string, len(v.values))
		for i, e := range v.values {
			parts[i] = quoted(v.names[i]) + ":" + e.same()
		}
		return "{" + strings.Join(parts, ",") + "}"
	}
	return v.text
}
