package token

import (
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// merger holds which symbols join into which, and in what order.
//
// A symbol is a piece of the vocabulary, or one character that occurs inside pieces without
// being one; the latter are numbered from vocab on.
type merger struct {
	vocab     int32          // pieces when the pairs were made
	runes     map[rune]int32 // symbol of one character
	ascii     [utf8.RuneSelf]int32
	pairs     map[pair]merge
	next      map[[2]rune]struct{} // characters that stand side by side in some piece
	nextASCII [utf8.RuneSelf][utf8.RuneSelf]bool
	literals  []literal // longest first
	initials  [256]bool // first bytes of literals
}

type pair struct{ left, right int32 }

// merge is what a pair becomes. Lower ranks go first, equal ranks from left to right.
type merge struct{ id, rank int32 }

// literal is a user-defined piece.
type literal struct {
	text string
	id   int32
}

// noSymbol stands for a character that is in no piece.
const noSymbol = -1

// newMerger prepares a merger for the pieces; its pairs are still empty.
func newMerger(pieces []piece) merger {
	m := merger{
		vocab: int32(len(pieces)),
		runes: map[rune]int32{},
		pairs: map[pair]merge{},
		next:  map[[2]rune]struct{}{},
	}
	for id, p := range pieces {
		switch p.kind {
		case normal:
			if r, n := utf8.DecodeRuneInString(p.text); n == len(p.text) {
				m.runes[r] = int32(id)
			}
		case userDefined:
			m.literals = append(m.literals, literal{p.text, int32(id)})
			m.initials[p.text[0]] = true
		}
	}
	slices.SortStableFunc(m.literals, func(a, b literal) int { return len(b.text) - len(a.text) })
	extra := m.vocab
	for _, p := range pieces {
		if p.kind != normal {
			continue
		}
		last := rune(-1)
		for _, r := range p.text {
			if _, ok := m.runes[r]; !ok {
				m.runes[r] = extra
				extra++
			}
			if last >= 0 {
				m.join(last, r)
			}
			last = r
		}
	}
	for c := range m.ascii {
		m.ascii[c] = noSymbol
		if id, ok := m.runes[rune(c)]; ok {
			m.ascii[c] = id
		}
	}
	return m
}

func (m *merger) join(a, b rune) {
	if a < utf8.RuneSelf && b < utf8.RuneSelf {
		m.nextASCII[a][b] = true
		return
	}
	m.next[[2]rune{a, b}] = struct{}{}
}

// joined reports whether some piece holds a directly before b. Where none does, no merge
// reaches across, and the text can be cut there.
func (m *merger) joined(a, b rune) bool {
	if a < utf8.RuneSelf && b < utf8.RuneSelf {
		return m.nextASCII[a][b]
	}
	_, ok := m.next[[2]rune{a, b}]
	return ok
}

func (m *merger) symbol(r rune) int32 {
	if r < utf8.RuneSelf {
		return m.ascii[r]
	}
	if id, ok := m.runes[r]; ok {
		return id
	}
	return noSymbol
}

// literal returns the longest user-defined piece that the text begins with, and its length.
func (m *merger) literal(text string) (id int32, n int) {
	if !m.initials[text[0]] {
		return 0, 0
	}
	for _, l := range m.literals {
		if strings.HasPrefix(text, l.text) {
			return l.id, len(l.text)
		}
	}
	return 0, 0
}

// pairByScore fills the pairs of a sentencepiece model: two symbols merge if their texts
// together are a piece, and the piece with the highest score goes first.
func (m *merger) pairByScore(pieces []piece, scores []float32, ids map[string]int32) {
	ranks := rankScores(scores)
	symbol := func(text string) (int32, bool) {
		if id, ok := ids[text]; ok && pieces[id].kind == normal {
			return id, true
		}
		r, n := utf8.DecodeRuneInString(text)
		if n < len(text) {
			return 0, false
		}
		id, ok := m.runes[r]
		return id, ok
	}
	for id, p := range pieces {
		if p.kind != normal {
			continue
		}
		for cut := range p.text {
			if cut == 0 {
				continue
			}
			left, ok := symbol(p.text[:cut])
			if !ok {
				continue
			}
			right, ok := symbol(p.text[cut:])
			if !ok {
				continue
			}
			m.pairs[pair{left, right}] = merge{int32(id), ranks[scores[id]]}
		}
	}
}

// rankScores numbers the distinct scores, the highest with 0.
func rankScores(scores []float32) map[float32]int32 {
	sorted := slices.Clone(scores)
	slices.Sort(sorted)
	sorted = slices.Compact(sorted)
	ranks := make(map[float32]int32, len(sorted))
	for i, s := range sorted {
		ranks[s] = int32(len(sorted) - 1 - i)
	}
	return ranks
}

// A cutter collects the symbols of a text and merges them chunk by chunk.
type cutter struct {
	t       *Tokenizer
	ids     []int32
	last    rune // -1 at the beginning of a chunk
	symbols []symbol
	heap    heap
}

// symbol is one node of a chunk's linked list. A symbol swallowed by its left neighbour has
// the id gone.
type symbol struct {
	id         int32
	char       rune // for symbols outside the vocabulary
	prev, next int32
}

const gone = math.MinInt32

// add appends one character, after finishing the chunk if no piece can hold both.
func (c *cutter) add(r rune) {
	if c.last >= 0 && !c.t.merges.joined(c.last, r) {
		c.flush()
	}
	i := int32(len(c.symbols))
	c.symbols = append(c.symbols, symbol{id: c.t.merges.symbol(r), char: r, prev: i - 1, next: i + 1})
	c.last = r
}

// flush merges the chunk and appends its ids.
func (c *cutter) flush() {
	n := int32(len(c.symbols))
	if n > 1 {
		c.symbols[n-1].next = -1
		for i := range n - 1 {
			c.consider(i)
		}
		c.mergeAll()
	}
	for _, s := range c.symbols {
		switch {
		case s.id == gone:
		case s.id >= 0 && s.id < c.t.merges.vocab:
			c.ids = append(c.ids, s.id)
		default:
			var b [utf8.UTFMax]byte
			for _, b := range b[:utf8.EncodeRune(b[:], s.char)] {
				c.ids = append(c.ids, c.t.bytes[b])
			}
		}
	}
	c.symbols = c.symbols[:0]
	c.last = -1
}

// consider notes the merge of symbol i with the one after it, if there is one.
func (c *cutter) consider(i int32) {
	left := &c.symbols[i]
	p := pair{left.id, c.symbols[left.next].id}
	if m, ok := c.t.merges.pairs[p]; ok {
		c.heap.push(candidate{order: uint64(m.rank)<<32 | uint64(i), pair: p, id: m.id})
	}
}

// mergeAll does the best merge until none is left. A candidate whose symbols have changed
// since it was noted is stale and skipped.
func (c *cutter) mergeAll() {
	for len(c.heap) > 0 {
		m := c.heap.pop()
		i := int32(uint32(m.order))
		left := &c.symbols[i]
		j := left.next
		if left.id != m.pair.left || j < 0 || c.symbols[j].id != m.pair.right {
			continue
		}
		left.id, left.next = m.id, c.symbols[j].next
		c.symbols[j].id = gone
		if left.next >= 0 {
			c.symbols[left.next].prev = i
			c.consider(i)
		}
		if left.prev >= 0 {
			c.consider(left.prev)
		}
	}
}

// candidate is a possible merge: order is rank, then place in the text.
type candidate struct {
	order uint64
	pair  pair
	id    int32
}

// heap is a binary min-heap of candidates by order.
type heap []candidate

func (h *heap) push(c candidate) {
	*h = append(*h, c)
	a := *h
	i := len(a) - 1
	for i > 0 {
		up := (i - 1) / 2
		if a[up].order <= c.order {
			break
		}
		a[i] = a[up]
		i = up
	}
	a[i] = c
}

func (h *heap) pop() candidate {
	a := *h
	top, last := a[0], a[len(a)-1]
	a = a[:len(a)-1]
	*h = a
	if len(a) == 0 {
		return top
	}
	i := 0
	for {
		down := 2*i + 1
		if down >= len(a) {
			break
		}
		if down+1 < len(a) && a[down+1].order < a[down].order {
			down++
		}
		if last.order <= a[down].order {
			break
		}
		a[i] = a[down]
		i = down
	}
	a[i] = last
	return top
}
