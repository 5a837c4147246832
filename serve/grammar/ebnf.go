package grammar

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Grammar returns the grammar of a text in the form that llama.cpp calls GBNF:
//
//	# a comment
//	root  ::= "yes" | "no" | list
//	list  ::= "[" item ("," item)* "]"
//	item  ::= [a-z_] [^\x00-\x1f"\\]{0,20} | .
//
// A rule is a name of letters, digits, - and _, then ::= or =, then its body, which may take several lines.
// Literals stand in double or single quotes. Escapes are \n \r \t \\ \" \' \[ \] \- \^ \/ \xNN \uNNNN and
// \UNNNNNNNN, where the numbers are characters. A dot is any character. * + ? {m} {m,} {m,n} and {,n}
// repeat; brackets group. The text is what root matches. Left recursion is refused.
func (c *Compiler) Grammar(text string) (*Grammar, error) {
	return c.grammar("grammar", text, func() (*rules, error) {
		if !utf8.ValidString(text) {
			return nil, fmt.Errorf("it is not UTF-8")
		}
		p := ebnf{text: text, numbers: map[string]int{}}
		p.number("root")
		if err := p.rules(); err != nil {
			return nil, fmt.Errorf("line %d: %w", 1+strings.Count(text[:min(p.at, len(text))], "\n"), err)
		}
		for i, e := range p.bodies {
			if e == nil {
				return nil, fmt.Errorf("rule %.40s has no ::=", p.names[i])
			}
		}
		return &rules{names: p.names, body: p.bodies}, nil
	})
}

// ebnf reads a text from the position at.
type ebnf struct {
	text    string
	at      int
	depth   int
	numbers map[string]int
	names   []string
	bodies  []*expr // nil for rules that were only named so far
}

func (p *ebnf) number(name string) int {
	i, ok := p.numbers[name]
	if !ok {
		i = len(p.names)
		p.numbers[name], p.names, p.bodies = i, append(p.names, name), append(p.bodies, nil)
	}
	return i
}

func (p *ebnf) rules() error {
	for p.space(); p.at < len(p.text); p.space() {
		name := p.name()
		if name == "" || !p.defines() {
			return fmt.Errorf("%s where a rule should begin: NAME ::=", p.here())
		}
		i := p.number(name)
		if p.bodies[i] != nil {
			return fmt.Errorf("rule %.40s is there twice", name)
		}
		e, err := p.alternatives()
		if err != nil {
			return fmt.Errorf("rule %.40s: %w", name, err)
		}
		p.bodies[i] = e
	}
	return nil
}

func (p *ebnf) alternatives() (*expr, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, fmt.Errorf("brackets %d deep, want at most %d", p.depth, maxDepth)
	}
	defer func() { p.depth-- }()
	var subs []*expr
	for {
		e, err := p.sequence()
		if err != nil {
			return nil, err
		}
		subs = append(subs, e)
		if p.space(); !p.take("|") {
			return alt(subs...), nil
		}
	}
}

func (p *ebnf) sequence() (*expr, error) {
	subs := []*expr{}
	for {
		p.space()
		before := p.at
		e, err := p.item()
		if err != nil {
			return nil, err
		}
		if e == nil {
			p.at = before
			return seq(subs...), nil
		}
		if e, err = p.suffixes(e); err != nil {
			return nil, err
		}
		subs = append(subs, e)
	}
}

// item reads one item, nil if there is none before the end of the sequence.
func (p *ebnf) item() (*expr, error) {
	if p.at == len(p.text) {
		return nil, nil
	}
	switch c := p.text[p.at]; {
	case c == '"' || c == '\'':
		return p.literal(c)
	case c == '[':
		return p.class()
	case c == '.':
		p.at++
		return class(0, utf8.MaxRune), nil
	case c == '(':
		p.at++
		e, err := p.alternatives()
		if err != nil {
			return nil, err
		}
		if p.space(); !p.take(")") {
			return nil, fmt.Errorf("%s, want )", p.here())
		}
		return e, nil
	case c == ')' || c == '|':
		return nil, nil
	}
	name := p.name()
	if name == "" {
		return nil, fmt.Errorf("%s, want a literal, a class, a rule or a bracket", p.here())
	}
	if p.defines() {
		return nil, nil // the next rule
	}
	return rule(p.number(name)), nil
}

func (p *ebnf) suffixes(e *expr) (*expr, error) {
	for n := 0; ; n++ {
		if n > maxDepth {
			return nil, fmt.Errorf("more than %d repetitions of one item", maxDepth)
		}
		switch {
		case p.take("*"):
			e = star(e)
		case p.take("+"):
			e = repeat(e, 1, -1)
		case p.take("?"):
			e = optional(e)
		case p.take("{"):
			least, most, err := p.counts()
			if err != nil {
				return nil, err
			}
			e = repeat(e, least, most)
		default:
			return e, nil
		}
	}
}

// counts reads "3}", "3,}", ",5}" or "3,5}".
func (p *ebnf) counts() (least, most int, err error) {
	inside, _, ok := strings.Cut(p.text[p.at:], "}")
	if !ok {
		return 0, 0, fmt.Errorf("{ without }")
	}
	low, high, two := strings.Cut(inside, ",")
	low, high = strings.TrimSpace(low), strings.TrimSpace(high)
	number := func(text string, otherwise int) int {
		if text == "" && two {
			return otherwise
		}
		n, wrong := strconv.ParseUint(text, 10, 32)
		if wrong != nil || n > maxCount {
			err = fmt.Errorf("repetition {%.40s}, want numbers of 0 to %d", inside, maxCount)
		}
		return int(n)
	}
	least = number(low, 0)
	if most = least; two {
		most = number(high, -1)
	}
	if err == nil && most >= 0 && least > most {
		err = fmt.Errorf("repetition {%s}, want the smaller number first", inside)
	}
	p.at += len(inside) + 1
	return least, most, err
}

func (p *ebnf) literal(quote byte) (*expr, error) {
	p.at++
	var b strings.Builder
	for p.at < len(p.text) && p.text[p.at] != '\n' {
		if p.text[p.at] == quote {
			p.at++
			return text(b.String()), nil
		}
		r, err := p.char()
		if err != nil {
			return nil, err
		}
		b.WriteRune(r)
	}
	return nil, fmt.Errorf("a literal has no end")
}

func (p *ebnf) class() (*expr, error) {
	p.at++
	not := p.take("^")
	var pairs []rune
	for p.at < len(p.text) && p.text[p.at] != '\n' {
		if p.take("]") {
			if not {
				return except(pairs...), nil
			}
			return class(pairs...), nil
		}
		first, err := p.char()
		if err != nil {
			return nil, err
		}
		last := first
		if rest := p.text[p.at:]; len(rest) > 1 && rest[0] == '-' && rest[1] != ']' {
			p.at++
			if last, err = p.char(); err != nil {
				return nil, err
			}
		}
		if last < first {
			return nil, fmt.Errorf("class from %q to %q, want the smaller first", first, last)
		}
		pairs = append(pairs, first, last)
	}
	return nil, fmt.Errorf("a class has no end")
}

// char reads one character, or an escape.
func (p *ebnf) char() (rune, error) {
	r, n := utf8.DecodeRuneInString(p.text[p.at:])
	p.at += n
	if r != '\\' {
		return r, nil
	}
	if p.at == len(p.text) {
		return 0, fmt.Errorf(`\ at the end`)
	}
	c := p.text[p.at]
	p.at++
	switch c {
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case '\\', '"', '\'', '[', ']', '-', '^', '/':
		return rune(c), nil
	}
	digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[c]
	if digits == 0 || len(p.text)-p.at < digits {
		return 0, fmt.Errorf(`escape \%c is not known or too short`, c)
	}
	code := p.text[p.at : p.at+digits]
	v, err := strconv.ParseUint(code, 16, 32)
	if err != nil || v > utf8.MaxRune || !utf8.ValidRune(rune(v)) {
		return 0, fmt.Errorf(`escape \%c%s is no character`, c, code)
	}
	p.at += digits
	return rune(v), nil
}

func (p *ebnf) name() string {
	from := p.at
	for p.at < len(p.text) {
		c := p.text[p.at]
		if c != '-' && c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			break
		}
		p.at++
	}
	return p.text[from:p.at]
}

// defines takes the sign after the name of a rule.
func (p *ebnf) defines() bool {
	before := p.at
	if p.space(); p.take("::=") || p.take("=") {
		return true
	}
	p.at = before
	return false
}

func (p *ebnf) take(s string) bool {
	if !strings.HasPrefix(p.text[p.at:], s) {
		return false
	}
	p.at += len(s)
	return true
}

// space passes blanks, lines and comments.
func (p *ebnf) space() {
	for p.at < len(p.text) {
		switch p.text[p.at] {
		case ' ', '\t', '\r', '\n':
			p.at++
		case '#':
			if line := strings.IndexByte(p.text[p.at:], '\n'); line >= 0 {
				p.at += line
			} else {
				p.at = len(p.text)
			}
		default:
			return
		}
	}
}

func (p *ebnf) here() string {
	if p.at >= len(p.text) {
		return "the text ends"
	}
	return fmt.Sprintf("%.20q", p.text[p.at:])
}
