package grammar

import (
	"slices"
	"unicode/utf8"
)

// op says what an expression matches.
type op uint8

const (
	opNone   op = iota // no text at all
	opEmpty            // the empty text
	opText             // text
	opClass            // one character of ranges
	opSeq              // subs, one after another
	opAlt              // any of subs
	opRepeat           // subs[0], min to max times; max is -1 for no bound
	opRule             // the rule number min
	opChain            // subs[1:] in order with subs[0] between two of them; those of skip may be left out, none is empty
)

// expr is a piece of a grammar. It does not change once it is made, and may be shared.
type expr struct {
	op       op
	text     string
	ranges   []rune // pairs of first and last, sorted, apart
	subs     []*expr
	min, max int
	skip     []bool // for each of subs[1:]
	some     bool   // a chain has at least one item
}

var (
	none  = &expr{op: opNone}
	empty = &expr{op: opEmpty}
)

func text(s string) *expr {
	if s == "" {
		return empty
	}
	return &expr{op: opText, text: s}
}

func seq(subs ...*expr) *expr {
	if len(subs) == 1 {
		return subs[0]
	}
	return &expr{op: opSeq, subs: subs}
}

func alt(subs ...*expr) *expr {
	switch len(subs) {
	case 0:
		return none
	case 1:
		return subs[0]
	}
	return &expr{op: opAlt, subs: subs}
}

func repeat(e *expr, least, most int) *expr {
	switch {
	case most == 0:
		return empty
	case least == 1 && most == 1:
		return e
	}
	return &expr{op: opRepeat, subs: []*expr{e}, min: least, max: most}
}

func optional(e *expr) *expr { return alt(empty, e) }
func star(e *expr) *expr     { return repeat(e, 0, -1) }
func rule(i int) *expr       { return &expr{op: opRule, min: i} }

// class matches one character of pairs of first and last, given in any order.
func class(pairs ...rune) *expr { return &expr{op: opClass, ranges: tidy(pairs)} }

// except matches one character of none of the pairs.
func except(pairs ...rune) *expr { return &expr{op: opClass, ranges: complement(tidy(pairs))} }

// tidy sorts pairs and joins those that touch.
func tidy(pairs []rune) []rune {
	type span struct{ lo, hi rune }
	var spans []span
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i] <= pairs[i+1] {
			spans = append(spans, span{pairs[i], pairs[i+1]})
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return int(a.lo) - int(b.lo) })
	var out []rune
	for _, s := range spans {
		if n := len(out); n > 0 && s.lo <= out[n-1]+1 {
			out[n-1] = max(out[n-1], s.hi)
			continue
		}
		out = append(out, s.lo, s.hi)
	}
	return out
}

// complement returns the characters that are not in tidy pairs.
func complement(pairs []rune) []rune {
	var out []rune
	next := rune(0)
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i] > next {
			out = append(out, next, pairs[i]-1)
		}
		next = pairs[i+1] + 1
	}
	if next <= utf8.MaxRune {
		out = append(out, next, utf8.MaxRune)
	}
	return out
}

// intersect returns the characters that are in both of two tidy lists.
func intersect(a, b []rune) []rune {
	var out []rune
	for i := 0; i < len(a); i += 2 {
		for j := 0; j < len(b); j += 2 {
			if lo, hi := max(a[i], b[j]), min(a[i+1], b[j+1]); lo <= hi {
				out = append(out, lo, hi)
			}
		}
	}
	return out
}

// words matches any of the texts. They share what they begin with, so that however many there
// are, few ways to read a text stay open at a time.
func words(texts []string) *expr {
	texts = slices.Clone(texts)
	slices.Sort(texts)
	return prefixTree(slices.Compact(texts))
}

func prefixTree(texts []string) *expr {
	if len(texts) == 1 {
		return text(texts[0])
	}
	var subs []*expr
	if texts[0] == "" {
		subs, texts = append(subs, empty), texts[1:]
	}
	for len(texts) > 0 {
		// The texts are sorted: those with one first byte stand together, and what the first and
		// the last of them share, all do.
		n := 1
		for n < len(texts) && texts[n][0] == texts[0][0] {
			n++
		}
		shared := 0
		for last := texts[n-1]; shared < min(len(texts[0]), len(last)) && texts[0][shared] == last[shared]; {
			shared++
		}
		rest := make([]string, n)
		for i := range rest {
			rest[i] = texts[i][shared:]
		}
		subs = append(subs, seq(text(texts[0][:shared]), prefixTree(rest)))
		texts = texts[n:]
	}
	return alt(subs...)
}

// rules are a grammar before it is compiled: the text is what rule 0 matches.
type rules struct {
	names []string
	body  []*expr

	filled map[int]int // the rule that matches what a rule does but the empty text
	empty  []bool      // for each rule: it matches the empty text
}

// findEmpty fills empty: the least solution, so it is repeated until nothing changes.
func (r *rules) findEmpty() {
	r.empty = make([]bool, len(r.body))
	for changed := true; changed; {
		changed = false
		for i, e := range r.body {
			if !r.empty[i] && r.nullable(e) {
				r.empty[i], changed = true, true
			}
		}
	}
}

// nullable tells whether e matches the empty text.
func (r *rules) nullable(e *expr) bool {
	switch e.op {
	case opEmpty:
		return true
	case opSeq:
		return !slices.ContainsFunc(e.subs, func(s *expr) bool { return !r.nullable(s) })
	case opAlt:
		return slices.ContainsFunc(e.subs, r.nullable)
	case opRepeat:
		return e.min == 0 || r.nullable(e.subs[0])
	case opRule:
		return r.empty[e.min]
	case opChain:
		return !e.some && !slices.Contains(e.skip, false)
	}
	return false
}

// fill returns what e matches but the empty text. A counted repetition needs it: rounds that
// match nothing would leave every count possible.
func (r *rules) fill(e *expr) *expr {
	if !r.nullable(e) {
		return e
	}
	switch e.op {
	case opSeq:
		// The first part that is not empty is number i.
		var subs []*expr
		for i, s := range e.subs {
			subs = append(subs, seq(append([]*expr{r.fill(s)}, e.subs[i+1:]...)...))
			if !r.nullable(s) {
				break
			}
		}
		return alt(subs...)
	case opAlt:
		subs := make([]*expr, len(e.subs))
		for i, s := range e.subs {
			subs[i] = r.fill(s)
		}
		return alt(subs...)
	case opRepeat:
		return repeat(r.fill(e.subs[0]), 1, e.max)
	case opRule:
		i, ok := r.filled[e.min]
		if !ok {
			i = len(r.body)
			r.filled[e.min] = i
			r.names = append(r.names, r.names[e.min])
			r.body = append(r.body, none)
			r.empty = append(r.empty, false)
			r.body[i] = r.fill(r.body[e.min])
		}
		return rule(i)
	case opChain:
		c := *e
		c.some = true
		return &c
	}
	return none
}
