package ir

import (
	"fmt"
	"strings"
)

// maxDepth bounds nesting of regions and of brackets, so that hostile text cannot exhaust the stack.
const maxDepth = 200

// scanner walks over text. Its methods skip blanks and comments first. The first error sticks in
// err, and every method then answers with nothing.
type scanner struct {
	src string
	pos int
	err error
}

// fail records an error at the present position, as "line N: …".
func (s *scanner) fail(format string, args ...any) {
	if s.err == nil {
		line := 1 + strings.Count(s.src[:s.pos], "\n")
		s.err = fmt.Errorf("line %d: %s", line, fmt.Sprintf(format, args...))
	}
}

// blanks skips white space and // comments.
func (s *scanner) blanks() {
	for s.pos < len(s.src) {
		switch c := s.src[s.pos]; {
		case blank(c):
			s.pos++
		case strings.HasPrefix(s.src[s.pos:], "//"):
			if i := strings.IndexByte(s.src[s.pos:], '\n'); i >= 0 {
				s.pos += i
			} else {
				s.pos = len(s.src)
			}
		default:
			return
		}
	}
}

func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// peek tells whether tok comes next.
func (s *scanner) peek(tok string) bool {
	s.blanks()
	return s.err == nil && strings.HasPrefix(s.src[s.pos:], tok)
}

// take skips tok if it comes next.
func (s *scanner) take(tok string) bool {
	if !s.peek(tok) {
		return false
	}
	s.pos += len(tok)
	return true
}

// want skips tok, which must come next.
func (s *scanner) want(tok string) {
	if !s.take(tok) {
		s.fail("wanted %q, found %s", tok, s.rest())
	}
}

// rest quotes a little of what comes next, for messages.
func (s *scanner) rest() string {
	rest := s.src[s.pos:]
	if rest == "" {
		return "the end of the text"
	}
	line, _, _ := strings.Cut(rest, "\n")
	if len(line) > 40 {
		line = line[:40] + "…"
	}
	return fmt.Sprintf("%q", line)
}

// word reads the longest run of bytes that may stand in a name, perhaps none.
func (s *scanner) word() string {
	s.blanks()
	start := s.pos
	for s.err == nil && s.pos < len(s.src) && (nameByte(s.src[s.pos], true) || s.src[s.pos] == '-') {
		s.pos++
	}
	return s.src[start:s.pos]
}

// quoted reads a string with its quotes.
func (s *scanner) quoted() string {
	s.blanks()
	start := s.pos
	if s.err != nil || !strings.HasPrefix(s.src[s.pos:], `"`) {
		s.fail("wanted a string, found %s", s.rest())
		return ""
	}
	for i := s.pos + 1; i < len(s.src) && s.src[i] != '\n'; i++ {
		switch s.src[i] {
		case '\\':
			i++
		case '"':
			s.pos = i + 1
			return s.src[start:s.pos]
		}
	}
	s.fail("the string %s is not closed", s.rest())
	return ""
}

// str reads a string and takes its quotes and escapes off.
func (s *scanner) str() string {
	q := s.quoted()
	if s.err != nil {
		return ""
	}
	v, err := unquote(q)
	if err != nil {
		s.fail("%s: %v", q, err)
	}
	return v
}

// balanced reads up to the first byte of stop that stands outside brackets and strings. Blanks and
// comments between its words become one space each. The result is not empty.
func (s *scanner) balanced(stop, what string) string {
	s.blanks()
	var out strings.Builder
	var closers []byte
	for s.err == nil && s.pos < len(s.src) {
		c := s.src[s.pos]
		if strings.HasPrefix(s.src[s.pos:], "//") {
			c = ' '
		}
		if len(closers) == 0 && strings.IndexByte(stop, c) >= 0 {
			break
		}
		switch c {
		case '"':
			out.WriteString(s.quoted())
			continue
		case '(', '[', '{', '<':
			if len(closers) == maxDepth {
				s.fail("%s nests deeper than %d brackets", what, maxDepth)
			}
			closers = append(closers, closer[c])
		case ')', ']', '}':
			closers = s.closes(closers, c, what)
		case '>':
			if text := out.String(); !strings.HasSuffix(text, "-") {
				closers = s.closes(closers, c, what)
			}
		}
		if blank(c) {
			s.blanks()
			c = ' '
		} else {
			s.pos++
		}
		out.WriteByte(c)
	}
	text := strings.TrimRight(out.String(), " ")
	switch {
	case s.err != nil:
		return ""
	case len(closers) > 0:
		s.fail("%s is not closed, %q is wanted", what, closers[len(closers)-1])
		return ""
	case text == "":
		s.fail("wanted %s, found %s", what, s.rest())
	}
	return text
}

var closer = [128]byte{'(': ')', '[': ']', '{': '}', '<': '>'}

func (s *scanner) closes(closers []byte, c byte, what string) []byte {
	n := len(closers)
	if n == 0 || closers[n-1] != c {
		s.fail("%s has a %q that nothing opened", what, c)
		return closers
	}
	return closers[:n-1]
}

// attrType reads one type inside a list or after an arrow. A type has no blank outside brackets.
func (s *scanner) attrType() Type {
	return Type(s.balanced(" \t\r\n,)}", "a type"))
}

// typeList reads "(T, T)".
func (s *scanner) typeList() []Type {
	s.want("(")
	ts := []Type{}
	if s.take(")") {
		return ts
	}
	for s.err == nil {
		ts = append(ts, s.attrType())
		if !s.take(",") {
			break
		}
	}
	s.want(")")
	return ts
}

// signature reads "(T, T) -> T" or "(T) -> (T, T)".
func (s *scanner) signature() (params, results []Type) {
	params = s.typeList()
	s.want("->")
	if s.peek("(") {
		return params, s.typeList()
	}
	return params, []Type{s.attrType()}
}

// dictionary reads "{a = 1 : i64, b}". Nested dictionaries stay text.
func (s *scanner) dictionary() Attrs {
	s.want("{")
	as := Attrs{}
	if s.take("}") {
		return as
	}
	for s.err == nil {
		var name string
		if s.peek(`"`) {
			name = s.str()
		} else if name = s.word(); !bareName(name) {
			s.fail("wanted the name of an attribute, found %q", name+s.rest())
		}
		if _, twice := as[name]; twice {
			s.fail("attribute %s is given twice", name)
		}
		as[name] = Unit
		if s.take("=") {
			as[name] = Attr(s.balanced(",}", "the value of "+name))
		}
		if !s.take(",") {
			break
		}
	}
	s.want("}")
	return as
}

// dictionaryList reads "[{…}, {…}]".
func (s *scanner) dictionaryList() []Attrs {
	s.want("[")
	list := []Attrs{}
	if s.take("]") {
		return list
	}
	for s.err == nil {
		list = append(list, s.dictionary())
		if !s.take(",") {
			break
		}
	}
	s.want("]")
	return list
}

// end fails unless all of the text has been read.
func (s *scanner) end() {
	s.blanks()
	if s.err == nil && s.pos < len(s.src) {
		s.fail("wanted the end, found %s", s.rest())
	}
}
