package ir

import (
	"fmt"
	"strconv"
	"strings"
)

// Type is an MLIR type as text, e.g. "tensor<8x16xbf16>". Types are equal when their texts are.
type Type string

// Tensor is the ranked tensor type of elem ("f32", "i1", "ui8", "complex<f32>") and dims.
func Tensor(elem string, dims ...int) Type {
	var b strings.Builder
	b.WriteString("tensor<")
	for _, d := range dims {
		fmt.Fprintf(&b, "%dx", d)
	}
	b.WriteString(elem)
	b.WriteString(">")
	return Type(b.String())
}

// Split takes a ranked tensor type of static sizes apart.
func (t Type) Split() (elem string, dims []int, ok bool) {
	s, found := strings.CutPrefix(string(t), "tensor<")
	if !found || !strings.HasSuffix(s, ">") {
		return "", nil, false
	}
	s = s[:len(s)-1]
	for {
		i := 0
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			i++
		}
		if i == 0 || i >= len(s) || s[i] != 'x' {
			return s, dims, s != "" && s[0] != '?' && s[0] != '*'
		}
		d, err := strconv.Atoi(s[:i])
		if err != nil {
			return "", nil, false
		}
		dims, s = append(dims, d), s[i+1:]
	}
}

// Attr is an MLIR attribute as text, e.g. "1 : i64", "array<i64: 0, 1>" or "#stablehlo.dot<…>".
type Attr string

// Attrs are named attributes. Print sorts them by name.
type Attrs map[string]Attr

// Unit is the attribute whose presence is its meaning.
const Unit Attr = "unit"

// String makes a string attribute.
func String(s string) Attr { return Attr(quote(s)) }

// Int makes an i64 attribute, I32 an i32 one.
func Int(v int) Attr { return Attr(fmt.Sprintf("%d : i64", v)) }

// I32 makes an i32 attribute.
func I32(v int) Attr { return Attr(fmt.Sprintf("%d : i32", v)) }

// Bool makes a boolean attribute.
func Bool(v bool) Attr { return Attr(strconv.FormatBool(v)) }

// Ints makes an array of i64.
func Ints(vs ...int) Attr {
	if len(vs) == 0 {
		return "array<i64>"
	}
	return Attr("array<i64: " + join(vs) + ">")
}

// Symbol makes a reference to a function.
func Symbol(name string) Attr { return Attr("@" + symbol(name)) }

// List makes an array of attributes.
func List(as ...Attr) Attr {
	s := make([]string, len(as))
	for i, a := range as {
		s[i] = string(a)
	}
	return Attr("[" + strings.Join(s, ", ") + "]")
}

// Text reads a string attribute.
func (a Attr) Text() (string, bool) {
	s, err := unquote(string(a))
	return s, err == nil
}

// Ints reads an array of integers.
func (a Attr) Ints() ([]int, bool) {
	s := string(a)
	if !strings.HasPrefix(s, "array<i") || !strings.HasSuffix(s, ">") {
		return nil, false
	}
	_, list, found := strings.Cut(s[:len(s)-1], ":")
	vs := []int{}
	if !found {
		return vs, true
	}
	for f := range strings.SplitSeq(list, ",") {
		v, err := strconv.Atoi(strings.TrimSpace(f))
		if err != nil {
			return nil, false
		}
		vs = append(vs, v)
	}
	return vs, true
}

// Field reads a list of integers from a dialect's attribute: Field("b") of "#x.y<a = [0], b = [1, 2]>".
func (a Attr) Field(name string) ([]int, bool) {
	_, s, found := strings.Cut(string(a), name+" = [")
	list, _, closed := strings.Cut(s, "]")
	if !found || !closed {
		return nil, false
	}
	if strings.TrimSpace(list) == "" {
		return []int{}, true
	}
	return (Attr("array<i64: " + list + ">")).Ints()
}

// Symbol reads a reference to a function.
func (a Attr) Symbol() (string, bool) {
	s, found := strings.CutPrefix(string(a), "@")
	if !found {
		return "", false
	}
	if strings.HasPrefix(s, `"`) {
		t, err := unquote(s)
		return t, err == nil
	}
	return s, true
}

func join(vs []int) string {
	s := make([]string, len(vs))
	for i, v := range vs {
		s[i] = strconv.Itoa(v)
	}
	return strings.Join(s, ", ")
}

// symbol quotes a symbol name that is not a bare identifier.
func symbol(name string) string {
	for i, c := range []byte(name) {
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || !(c >= '0' && c <= '9' || c == '$' || c == '.' || c == '-')) {
			return quote(name)
		}
	}
	if name == "" {
		return `""`
	}
	return name
}

// quote writes MLIR's string form: \" and \\ and \XX in hexadecimal for what is not printable.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range []byte(s) {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < 0x20 || c >= 0x7f:
			fmt.Fprintf(&b, "\\%02X", c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func unquote(s string) (string, error) {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return "", fmt.Errorf("ir: %s is not a string", s)
	}
	s = s[1 : len(s)-1]
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		if i++; i >= len(s) {
			return "", fmt.Errorf("ir: string ends in a backslash")
		}
		switch s[i] {
		case '"', '\\':
			b.WriteByte(s[i])
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		default:
			if i+1 >= len(s) {
				return "", fmt.Errorf("ir: bad escape in string")
			}
			v, err := strconv.ParseUint(s[i:i+2], 16, 8)
			if err != nil {
				return "", fmt.Errorf("ir: bad escape \\%s in string", s[i:i+2])
			}
			b.WriteByte(byte(v))
			i++
		}
	}
	return b.String(), nil
}

// Entry reads one entry of a dictionary attribute.
func (a Attr) Entry(name string) (Attr, bool) {
	s := scanner{src: string(a)}
	as := s.dictionary()
	if s.err != nil {
		return "", false
	}
	v, found := as[name]
	return v, found
}
