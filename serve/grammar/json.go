package grammar

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// JSON is written with bounded white space, so that a model cannot write blanks for ever: none or one blank
// after a colon; after { [ and a comma, and before } and ], nothing, one blank, or a line break with up to
// 64 blanks or 32 tabs; none elsewhere, and none around the whole. That is what json.dumps, json.Marshal,
// json.MarshalIndent and JSON.stringify write.
var (
	gap   = optional(text(" "))
	white = alt(empty, text(" "), seq(text("\n"), alt(repeat(text(" "), 0, 64), repeat(text("\t"), 1, 32))))
	comma = seq(text(","), white)
)

// plain are the characters that stand in a string as they are.
var plain = complement([]rune{0, 0x1f, '"', '"', '\\', '\\'})

var (
	hex = class('0', '9', 'a', 'f', 'A', 'F')
	// char is one character of a string. Surrogates come in pairs.
	char = alt(
		&expr{op: opClass, ranges: plain},
		seq(text(`\`), alt(
			class('"', '"', '\\', '\\', '/', '/', 'b', 'b', 'f', 'f', 'n', 'n', 'r', 'r', 't', 't'),
			seq(text("u"), alt(
				seq(class('0', '9', 'a', 'c', 'A', 'C', 'e', 'f', 'E', 'F'), hex, hex, hex),
				seq(class('d', 'd', 'D', 'D'), class('0', '7'), hex, hex),
				seq(class('d', 'd', 'D', 'D'), class('8', '9', 'a', 'b', 'A', 'B'), hex, hex,
					text(`\u`), class('d', 'd', 'D', 'D'), class('c', 'f', 'C', 'F'), hex, hex),
			)),
		)),
	)
)

// stringOf matches a string of least to most characters; most is -1 for no bound.
func stringOf(least, most int) *expr { return seq(text(`"`), repeat(char, least, most), text(`"`)) }

// escape writes one character as it stands in a string, by the shortest form.
func escape(b *strings.Builder, r rune) {
	switch r {
	case '"', '\\':
		b.WriteByte('\\')
		b.WriteRune(r)
	case '\n':
		b.WriteString(`\n`)
	case '\r':
		b.WriteString(`\r`)
	case '\t':
		b.WriteString(`\t`)
	case '\b':
		b.WriteString(`\b`)
	case '\f':
		b.WriteString(`\f`)
	default:
		if r < ' ' {
			fmt.Fprintf(b, `\u%04x`, r)
			return
		}
		b.WriteRune(r)
	}
}

// quoted writes a text as JSON.
func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		escape(&b, r)
	}
	b.WriteByte('"')
	return b.String()
}

// escapedText matches a text inside a string, in its shortest form.
func escapedText(s string) *expr {
	q := quoted(s)
	return text(q[1 : len(q)-1])
}

// escapedClass matches one of some characters inside a string, in its shortest form.
func escapedClass(pairs []rune) *expr {
	pairs = tidy(pairs)
	subs := []*expr{{op: opClass, ranges: intersect(pairs, plain)}}
	special := intersect(pairs, complement(plain))
	for i := 0; i < len(special); i += 2 {
		for r := special[i]; r <= special[i+1]; r++ {
			subs = append(subs, escapedText(string(r)))
		}
	}
	return alt(subs...)
}

// otherNames matches a string without escapes that is none of names.
func otherNames(names []string) *expr {
	var rest [][]rune
	for _, n := range names {
		if r := []rune(n); !strings.ContainsFunc(n, func(c rune) bool { return c < ' ' || c == '"' || c == '\\' }) {
			rest = append(rest, r)
		}
	}
	return seq(text(`"`), unlike(rest))
}

// unlike matches what is none of the texts, and the quote after it.
func unlike(texts [][]rune) *expr {
	free := &expr{op: opClass, ranges: plain}
	next := map[rune][][]rune{}
	var order, taken []rune
	closes := true
	for _, t := range texts {
		if len(t) == 0 {
			closes = false
			continue
		}
		if next[t[0]] == nil {
			order, taken = append(order, t[0]), append(taken, t[0], t[0])
		}
		next[t[0]] = append(next[t[0]], t[1:])
	}
	others := &expr{op: opClass, ranges: intersect(plain, complement(tidy(taken)))}
	subs := []*expr{seq(others, star(free), text(`"`))}
	if closes {
		subs = append(subs, text(`"`))
	}
	for _, r := range order {
		subs = append(subs, seq(text(string(r)), unlike(next[r])))
	}
	return alt(subs...)
}

// Numbers have at most this many digits before the point, after it, and a bounded exponent, so that they end
// and stay within a float64.
const (
	mostDigits   = 32
	mostFraction = 17
)

var (
	digit    = class('0', '9')
	fraction = seq(text("."), repeat(digit, 1, mostFraction))
	exponent = seq(class('e', 'e', 'E', 'E'), alt(
		seq(optional(text("+")), repeat(digit, 1, 2)), seq(text("-"), repeat(digit, 1, 2))))
	number = seq(optional(text("-")), alt(text("0"), seq(class('1', '9'), repeat(digit, 0, mostDigits-1))),
		optional(fraction), optional(exponent))
)

// jsonRules are rules with the one of any value.
type jsonRules struct {
	rules
	any int // its number, 0 if it is not there yet
}

func newJSONRules() *jsonRules {
	return &jsonRules{rules: rules{names: []string{"root"}, body: []*expr{none}}}
}

func (j *jsonRules) add(name string) int {
	j.names, j.body = append(j.names, name), append(j.body, none)
	return len(j.body) - 1
}

// value matches any value.
func (j *jsonRules) value() *expr {
	if j.any == 0 {
		j.any = j.add("value")
		j.body[j.any] = alt(j.object(), arrayOf(nil, j.value(), 0, -1), stringOf(0, -1), number,
			words([]string{"true", "false", "null"}))
	}
	return rule(j.any)
}

// object matches any object.
func (j *jsonRules) object() *expr {
	return objectOf([]member{{pair: pair(stringOf(0, -1), j.value()), many: true}})
}

func pair(name, value *expr) *expr { return seq(name, text(":"), gap, value) }

// member is something that may stand in an object.
type member struct {
	pair     *expr
	required bool
	many     bool // any number of pairs
}

// objectOf matches an object of members in their order.
func objectOf(members []member) *expr {
	c := &expr{op: opChain, subs: []*expr{comma}, some: true}
	for _, m := range members {
		e := m.pair
		if m.many {
			e = seq(e, star(seq(comma, e)))
		}
		c.subs, c.skip = append(c.subs, e), append(c.skip, !m.required)
		if m.required {
			c.some = false
		}
	}
	inside := empty
	if len(members) > 0 {
		inside = seq(c, white)
		if c.some {
			inside = optional(inside)
		}
	}
	return seq(text("{"), white, inside, text("}"))
}

// arrayOf matches an array that begins with the first items and goes on with rest, nil for none.
func arrayOf(first []*expr, rest *expr, least, most int) *expr {
	n := len(first)
	if rest == nil && (most < 0 || most > n) {
		most = n
	}
	if most >= 0 && least > most {
		return none
	}
	if n == 0 && rest != nil && most != 0 {
		first, n = []*expr{rest}, 1
	}
	// tail is what may follow the items so far.
	tail := empty
	if rest != nil && (most < 0 || most > n) {
		more := -1
		if most >= 0 {
			more = most - n
		}
		tail = repeat(seq(comma, rest), max(least-n, 0), more)
	}
	for i := n - 1; i >= 0; i-- {
		var subs []*expr
		if i >= least {
			subs = append(subs, empty)
		}
		if most < 0 || i < most {
			if i == 0 {
				subs = append(subs, seq(first[0], tail, white))
			} else {
				subs = append(subs, seq(comma, first[i], tail))
			}
		}
		tail = alt(subs...)
	}
	return seq(text("["), white, tail, text("]"))
}

// JSONObject returns the grammar of any JSON object.
func (c *Compiler) JSONObject() (*Grammar, error) {
	return c.grammar("json object", "", func() (*rules, error) {
		j := newJSONRules()
		j.body[0] = j.object()
		return &j.rules, nil
	})
}

// validText tells whether a text is UTF-8 and of bounded length.
func validText(s string, most int) bool { return len(s) <= most && utf8.ValidString(s) }
