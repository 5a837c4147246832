package token

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// The 8x22B model saw tools as JSON written by Python's json.dumps(ensure_ascii=False) after
// json.loads: a space after ':' and ',', floats in Python's form, NaN and Infinity allowed,
// keys in their order. encoding/json does none of that, so this file does.
//
// Values are nil, bool, string, number, []any and object.

// number is a number as Python prints it.
type number string

// object keeps the order of its keys.
type object []member

type member struct {
	key   string
	value any
}

// errNotJSON is what text that json.loads would refuse wraps.
var errNotJSON = errors.New("not JSON")

// maxDepth bounds nesting, as Python's recursion limit does.
const maxDepth = 500

// parseJSON reads one value. Errors wrap errNotJSON, except for values that JSON allows and
// this package does not: nesting beyond maxDepth, and halves of surrogate pairs.
func parseJSON(text string) (any, error) {
	p := parser{text: text}
	v, err := p.value(0)
	if err != nil {
		return nil, err
	}
	p.blank()
	if p.at < len(text) {
		return nil, p.bad("more after the value")
	}
	return v, nil
}

type parser struct {
	text string
	at   int
}

func (p *parser) bad(what string) error {
	return fmt.Errorf("%w: %s at byte %d", errNotJSON, what, p.at)
}

func (p *parser) blank() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
}

// take moves past a fixed text if it is next.
func (p *parser) take(text string) bool {
	if !strings.HasPrefix(p.text[p.at:], text) {
		return false
	}
	p.at += len(text)
	return true
}

func (p *parser) value(depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("JSON nested more than %d deep at byte %d", maxDepth, p.at)
	}
	p.blank()
	switch {
	case p.take("{"):
		return p.object(depth)
	case p.take("["):
		return p.array(depth)
	case p.take(`"`):
		return p.string()
	case p.take("null"):
		return nil, nil
	case p.take("true"):
		return true, nil
	case p.take("false"):
		return false, nil
	}
	for _, word := range []string{"NaN", "Infinity", "-Infinity"} {
		if p.take(word) {
			return number(word), nil
		}
	}
	return p.number()
}

func (p *parser) array(depth int) (any, error) {
	list := []any{}
	p.blank()
	if p.take("]") {
		return list, nil
	}
	for {
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		p.blank()
		if p.take("]") {
			return list, nil
		}
		if !p.take(",") {
			return nil, p.bad("want , or ]")
		}
	}
}

// object reads members. Of a key that comes twice the first place and the last value count.
func (p *parser) object(depth int) (any, error) {
	o := object{}
	place := map[string]int{}
	p.blank()
	if p.take("}") {
		return o, nil
	}
	for {
		p.blank()
		if !p.take(`"`) {
			return nil, p.bad("want a key")
		}
		key, err := p.string()
		if err != nil {
			return nil, err
		}
		p.blank()
		if !p.take(":") {
			return nil, p.bad("want :")
		}
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		if i, twice := place[key]; twice {
			o[i].value = v
		} else {
			place[key] = len(o)
			o = append(o, member{key, v})
		}
		p.blank()
		if p.take("}") {
			return o, nil
		}
		if !p.take(",") {
			return nil, p.bad("want , or }")
		}
	}
}

// string reads up to the closing quote; the opening one is behind.
func (p *parser) string() (string, error) {
	var b strings.Builder
	for p.at < len(p.text) {
		c := p.text[p.at]
		switch {
		case c == '"':
			p.at++
			return b.String(), nil
		case c < 0x20:
			return "", p.bad("control character in a string")
		case c != '\\':
			b.WriteByte(c)
			p.at++
			continue
		}
		p.at++
		if p.at == len(p.text) {
			break
		}
		c = p.text[p.at]
		p.at++
		if c == 'u' {
			r, err := p.escaped()
			if err != nil {
				return "", err
			}
			b.WriteRune(r)
			continue
		}
		i := strings.IndexByte(`"\/bfnrt`, c)
		if i < 0 {
			p.at--
			return "", p.bad("unknown escape")
		}
		b.WriteByte("\"\\/\b\f\n\r\t"[i])
	}
	return "", p.bad("string without an end")
}

// escaped reads the digits after \u, and a second \u after the first half of a pair.
func (p *parser) escaped() (rune, error) {
	start := p.at
	r, err := p.hex()
	if err != nil || !utf16.IsSurrogate(r) {
		return r, err
	}
	if p.take(`\u`) {
		second, err := p.hex()
		if err != nil {
			return 0, err
		}
		if r = utf16.DecodeRune(r, second); r != utf8.RuneError {
			return r, nil
		}
	}
	return 0, fmt.Errorf("half a surrogate pair at byte %d of JSON is not a character", start)
}

func (p *parser) hex() (rune, error) {
	if p.at+4 > len(p.text) || strings.ContainsAny(p.text[p.at:p.at+4], "+-_xX") {
		return 0, p.bad("want four hex digits")
	}
	v, err := strconv.ParseUint(p.text[p.at:p.at+4], 16, 32)
	if err != nil {
		return 0, p.bad("want four hex digits")
	}
	p.at += 4
	return rune(v), nil
}

func (p *parser) digits() bool {
	start := p.at
	for p.at < len(p.text) && p.text[p.at] >= '0' && p.text[p.at] <= '9' {
		p.at++
	}
	return p.at > start
}

// number reads an integer, kept as written, or a float, printed as Python's repr does. A
// fraction or exponent that is not complete does not belong to the number.
func (p *parser) number() (any, error) {
	start := p.at
	negative := p.take("-")
	if !p.take("0") && !p.digits() {
		p.at = start
		return nil, p.bad("want a value")
	}
	integer := p.at
	if p.take(".") && !p.digits() {
		p.at = integer
	}
	mantissa := p.at
	if p.take("e") || p.take("E") {
		if !p.take("+") {
			p.take("-")
		}
		if !p.digits() {
			p.at = mantissa
		}
	}
	text := p.text[start:p.at]
	if p.at == integer {
		if negative && text == "-0" {
			return number("0"), nil
		}
		return number(text), nil
	}
	// The only error left is a value out of range, for which f is an infinity as in Python.
	f, _ := strconv.ParseFloat(text, 64)
	return number(formatFloat(f)), nil
}

// formatFloat writes the shortest digits that read back as f, as Python's repr does: with an
// exponent below 1e-4 and from 1e16 on.
func formatFloat(f float64) string {
	if math.IsInf(f, 0) {
		return map[bool]string{true: "Infinity", false: "-Infinity"}[f > 0]
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	text := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}

// writeJSON writes a value on one line.
func writeJSON(v any) string {
	var b strings.Builder
	appendJSON(&b, v)
	return b.String()
}

func appendJSON(b *strings.Builder, v any) {
	switch v := v.(type) {
	case nil:
		b.WriteString("null")
	case bool:
		b.WriteString(strconv.FormatBool(v))
	case number:
		b.WriteString(string(v))
	case string:
		appendString(b, v)
	case []any:
		b.WriteByte('[')
		for i, item := range v {
			if i > 0 {
				b.WriteString(", ")
			}
			appendJSON(b, item)
		}
		b.WriteByte(']')
	case object:
		b.WriteByte('{')
		for i, m := range v {
			if i > 0 {
				b.WriteString(", ")
			}
			appendString(b, m.key)
			b.WriteString(": ")
			appendJSON(b, m.value)
		}
		b.WriteByte('}')
	}
}

// appendString escapes quotes, backslashes and control characters, and nothing else.
func appendString(b *strings.Builder, s string) {
	b.WriteByte('"')
	for i := range len(s) {
		c := s[i]
		if short := strings.IndexByte("\"\\\b\f\n\r\t", c); short >= 0 {
			b.WriteByte('\\')
			b.WriteByte(`"\bfnrt`[short])
		} else if c < 0x20 {
			fmt.Fprintf(b, `\u%04x`, c)
		} else {
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
}
