package grammar

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Regex returns the grammar of the texts that a regular expression matches as a whole: ^ and $ at its ends
// change nothing. The syntax is Go's, which is RE2's; \b, \B, and ^ or $ elsewhere are refused.
func (c *Compiler) Regex(expression string) (*Grammar, error) {
	return c.grammar("regex", expression, func() (*rules, error) {
		e, err := readRegex(expression, empty, text, func(r []rune) *expr { return class(r...) })
		if err != nil {
			return nil, err
		}
		return &rules{names: []string{"root"}, body: []*expr{e}}, nil
	})
}

// Choice returns the grammar of a list of texts.
func (c *Compiler) Choice(texts []string) (*Grammar, error) {
	var key strings.Builder
	for i, t := range texts {
		if !utf8.ValidString(t) {
			return nil, fmt.Errorf("%w: choice %d, %.40q, is not UTF-8", ErrGrammar, i, t)
		}
		fmt.Fprintf(&key, "%d:%s", len(t), t)
	}
	return c.grammar("choice", key.String(), func() (*rules, error) {
		if len(texts) == 0 {
			return nil, fmt.Errorf("no texts to choose from")
		}
		return &rules{names: []string{"root"}, body: []*expr{words(texts)}}, nil
	})
}

// regexReader turns a parsed regular expression into an expression.
type regexReader struct {
	// around stands on each side of what does not begin with ^, or end with $.
	around  *expr
	literal func(string) *expr // reads a text
	class   func([]rune) *expr // reads one character of pairs
}

// readRegex reads a regular expression. Literals and classes are made by the functions.
func readRegex(expression string, around *expr, literal func(string) *expr, class func([]rune) *expr) (*expr, error) {
	if len(expression) > maxRegex {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(expression), maxRegex)
	}
	// The parser's own limits keep nesting and counts small.
	re, err := syntax.Parse(expression, syntax.Perl)
	if wrong := (*syntax.Error)(nil); errors.As(err, &wrong) {
		return nil, fmt.Errorf("%s: %.40q", wrong.Code, wrong.Expr)
	}
	if err != nil {
		return nil, err
	}
	r := regexReader{around: around, literal: literal, class: class}
	return r.read(re, true, true)
}

// read reads a part; left and right tell whether it stands at the beginning and the end.
func (r regexReader) read(re *syntax.Regexp, left, right bool) (*expr, error) {
	switch re.Op {
	case syntax.OpCapture:
		return r.read(re.Sub[0], left, right)
	case syntax.OpAlternate:
		subs := make([]*expr, len(re.Sub))
		for i, s := range re.Sub {
			e, err := r.read(s, left, right)
			if err != nil {
				return nil, err
			}
			subs[i] = e
		}
		return alt(subs...), nil
	case syntax.OpConcat:
		return r.concat(re.Sub, left, right)
	case syntax.OpBeginText:
		if left {
			return r.pad(empty, false, right), nil
		}
	case syntax.OpEndText:
		if right {
			return r.pad(empty, left, false), nil
		}
	}
	e, err := r.plain(re)
	if err != nil {
		return nil, err
	}
	return r.pad(e, left, right), nil
}

// pad puts what may stand around a part beside it.
func (r regexReader) pad(e *expr, left, right bool) *expr {
	if left {
		e = seq(r.around, e)
	}
	if right {
		e = seq(e, r.around)
	}
	return e
}

func (r regexReader) concat(subs []*syntax.Regexp, left, right bool) (*expr, error) {
	for len(subs) > 0 && subs[0].Op == syntax.OpBeginText && left {
		// What follows stands at the beginning, and nothing may come before it.
		if subs = subs[1:]; len(subs) == 0 || subs[0].Op != syntax.OpBeginText {
			left = false
		}
	}
	for len(subs) > 0 && subs[len(subs)-1].Op == syntax.OpEndText && right {
		subs, right = subs[:len(subs)-1], false
	}
	if len(subs) == 0 {
		return r.pad(empty, left, right), nil
	}
	all := make([]*expr, len(subs))
	for i, s := range subs {
		e, err := r.read(s, left && i == 0, right && i == len(subs)-1)
		if err != nil {
			return nil, err
		}
		all[i] = e
	}
	return seq(all...), nil
}

// plain reads a part in which nothing depends on where it stands.
func (r regexReader) plain(re *syntax.Regexp) (*expr, error) {
	switch re.Op {
	case syntax.OpNoMatch:
		return none, nil
	case syntax.OpEmptyMatch:
		return empty, nil
	case syntax.OpLiteral:
		return r.runes(re.Rune, re.Flags&syntax.FoldCase != 0), nil
	case syntax.OpCharClass:
		return r.class(re.Rune), nil
	case syntax.OpAnyChar:
		return r.class([]rune{0, utf8.MaxRune}), nil
	case syntax.OpAnyCharNotNL:
		return r.class([]rune{0, '\n' - 1, '\n' + 1, utf8.MaxRune}), nil
	case syntax.OpStar, syntax.OpPlus, syntax.OpQuest, syntax.OpRepeat:
		return r.repeat(re)
	case syntax.OpCapture, syntax.OpAlternate, syntax.OpConcat:
		return r.read(re, false, false)
	case syntax.OpBeginText:
		return nil, fmt.Errorf("^ is supported only at the beginning")
	case syntax.OpEndText:
		return nil, fmt.Errorf("$ is supported only at the end")
	}
	return nil, fmt.Errorf("%.40s is not supported", re)
}

func (r regexReader) repeat(re *syntax.Regexp) (*expr, error) {
	e, err := r.read(re.Sub[0], false, false)
	if err != nil {
		return nil, err
	}
	switch re.Op {
	case syntax.OpStar:
		return star(e), nil
	case syntax.OpPlus:
		return repeat(e, 1, -1), nil
	case syntax.OpQuest:
		return optional(e), nil
	}
	return repeat(e, re.Min, re.Max), nil
}

// runes reads a literal, of any case if fold is set.
func (r regexReader) runes(literal []rune, fold bool) *expr {
	if slices.ContainsFunc(literal, func(c rune) bool { return !utf8.ValidRune(c) }) {
		return none // no text has it
	}
	if !fold {
		return r.literal(string(literal))
	}
	var subs []*expr
	for _, c := range literal {
		forms := []rune{c, c}
		for f := unicode.SimpleFold(c); f != c; f = unicode.SimpleFold(f) {
			forms = append(forms, f, f)
		}
		subs = append(subs, r.class(slices.Clip(forms)))
	}
	return seq(subs...)
}
