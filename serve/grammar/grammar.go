// Package grammar keeps generated text within a form: a regular expression, a JSON schema, a list of
// choices, a grammar, or the tool calls of Mixtral. It says which tokens may come next.
//
//	source ── expressions ── program: one automaton over bytes for each rule, with calls between them
//	program ── states, as they are met: all ways to have read the text ── walk with the tree of tokens ── mask
//
// Any number of rules may stand in each other; a stack of frames remembers where to go on. A mask is found
// once for each state and then remembered, so a text that repeats its form costs a copy. Whatever a mask
// allows can be finished: places without a way to the end are left out, and brackets deeper than the stack
// of 256 frames do not open.
//
// A Compiler and its grammars may be used by several goroutines; a mask by one.
package grammar

import (
	"bytes"
	"container/list"
	"errors"
	"fmt"
	"slices"
	"sync"

	"mix/graph/token"
)

// ErrGrammar is what the refusals of all sources wrap.
var ErrGrammar = errors.New("grammar refused")

// maxKept is how many grammars a Compiler remembers.
const maxKept = 32

// Compiler makes grammars for the tokens of one tokenizer.
type Compiler struct {
	vocab    int
	ends     []int32
	texts    [][]byte // of each id inside a text, empty for those that never come
	openings [][]byte // of each id at the beginning of a text
	blanks   []int32  // ids without text at the beginning only
	inner    *trie    // of texts
	outer    *trie    // of openings

	mu   sync.Mutex
	kept map[string]*list.Element
	used list.List // of *Grammar, last used first
}

// Grammar is one form that texts may have.
type Grammar struct {
	compiler *Compiler
	source   string

	mu        sync.Mutex
	automaton *automaton
}

// New returns a compiler for a model of vocab ids, at least as many as the tokenizer has; ids beyond those
// of the tokenizer never come. A text ends with the tokenizer's end of sequence or one of ends.
//
// Control ids and the unknown id never come inside a text.
func New(t *token.Tokenizer, vocab int, ends ...int32) (*Compiler, error) {
	if vocab < t.VocabSize() || vocab > 1<<20 {
		return nil, fmt.Errorf("%w: a vocabulary of %d, want %d, the tokenizer's, to %d", ErrGrammar, vocab, t.VocabSize(), 1<<20)
	}
	c := &Compiler{
		vocab: vocab, texts: make([][]byte, vocab), openings: make([][]byte, vocab),
		kept: map[string]*list.Element{},
	}
	if t.EOS() >= 0 {
		ends = append([]int32{t.EOS()}, ends...)
	}
	for _, id := range ends {
		if id < 0 || int(id) >= vocab {
			return nil, fmt.Errorf("%w: token %d ends a text, want 0 to %d", ErrGrammar, id, vocab-1)
		}
	}
	if len(ends) == 0 {
		return nil, fmt.Errorf("%w: no token ends a text", ErrGrammar)
	}
	slices.Sort(ends)
	c.ends = slices.Compact(ends)
	same := true
	for id := range int32(t.VocabSize()) {
		text := t.Bytes(id)
		if id == t.Unknown() || len(text) == 0 || c.isEnd(id) {
			continue
		}
		// Only a piece that begins with a space reads differently at the beginning of a text.
		opening := text
		if text[0] == ' ' {
			opening = []byte(t.Decode([]int32{id}))
		}
		if len(opening) == 0 {
			c.blanks = append(c.blanks, id)
		}
		same = same && bytes.Equal(text, opening)
		c.texts[id], c.openings[id] = text, opening
	}
	c.inner = newTrie(c.texts)
	c.outer = c.inner
	if !same {
		c.outer = newTrie(c.openings)
	}
	return c, nil
}

func (c *Compiler) isEnd(id int32) bool { return slices.Contains(c.ends, id) }

func (c *Compiler) setEnds(bits []uint32) {
	for _, id := range c.ends {
		set(bits, id)
	}
}

// grammar returns the grammar of a source of some sort, remembered or new.
func (c *Compiler) grammar(sort, source string, read func() (*rules, error)) (*Grammar, error) {
	if len(source) > maxSource {
		return nil, fmt.Errorf("%w: %s of %d bytes, want at most %d", ErrGrammar, sort, len(source), maxSource)
	}
	key := sort + "\x00" + source
	if g := c.find(key); g != nil {
		return g, nil
	}
	r, err := read()
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrGrammar, sort, err)
	}
	p, err := compile(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrGrammar, sort, err)
	}
	a := newAutomaton(p)
	if a.start == tooMany {
		return nil, fmt.Errorf("%w: %s: more than %d ways to begin", ErrGrammar, sort, maxWays)
	}
	g := &Grammar{compiler: c, source: key, automaton: a}
	c.keep(g)
	return g, nil
}

func (c *Compiler) find(key string) *Grammar {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.kept[key]
	if e == nil {
		return nil
	}
	c.used.MoveToFront(e)
	return e.Value.(*Grammar)
}

func (c *Compiler) keep(g *Grammar) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.kept[g.source]; e != nil {
		c.used.Remove(e)
	}
	c.kept[g.source] = c.used.PushFront(g)
	for c.used.Len() > maxKept {
		e := c.used.Back()
		c.used.Remove(e)
		delete(c.kept, e.Value.(*Grammar).source)
	}
}
