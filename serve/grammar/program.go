package grammar

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// The most that one grammar may be.
const (
	maxSource = 1 << 20 // bytes of its text
	maxRegex  = 1 << 16 // bytes of a regular expression
	maxSchema = 1 << 18 // bytes of a JSON schema
	maxNodes  = 200_000
	maxRules  = 10_000
	maxDepth  = 200 // of brackets, lists and objects in its text
	maxCount  = 1 << 20
	maxPairs  = 1000    // properties of an object, and schemas of a list
	maxNames  = 20_000  // bytes of the names of an object that has others beside them
	maxMerges = 1 << 17 // of schemas in one document
	// maxFrames is how deep rules and counted repetitions may stand in each other in a text. Brackets beyond
	// it are not allowed to open.
	maxFrames = 256
)

// kind says what a node does.
type kind uint8

const (
	kindRead   kind = iota // reads a byte of one of arcs
	kindSplit              // goes on at all of outs
	kindCall               // reads what rule matches, then goes on at next
	kindRepeat             // reads body min to max times, then goes on at next
	kindEnd                // the end of a rule or of the body of a repetition
)

// arc is the bytes that lead to a node.
type arc struct {
	span
	to int32
}

// node is one place in a program.
type node struct {
	kind     kind
	arcs     []arc
	outs     []int32
	rule     int32
	body     int32
	next     int32
	min, max int32 // max is -1 for no bound
	// need is how many frames must be free at this node for some way to the end of its rule; never is for a
	// node that has none.
	need int32
}

const never = math.MaxInt32 / 2

// program is a compiled grammar: an automaton over bytes for each rule, with calls between them.
type program struct {
	nodes  []node
	starts []int32 // the first node of each rule
}

type builder struct {
	program
	rules   *rules
	classes map[string]built
	steps   int
	err     error
}

// compile turns rules into a program. It refuses what is too large, what matches no text, and rules that
// reach themselves without reading anything.
func compile(r *rules) (*program, error) {
	if len(r.body) > maxRules {
		return nil, fmt.Errorf("%d rules, want at most %d", len(r.body), maxRules)
	}
	r.filled = map[int]int{}
	r.findEmpty()
	b := &builder{rules: r, classes: map[string]built{}}
	b.add(node{kind: kindEnd})
	// Building a body may add rules that fill made.
	for i := 0; i < len(r.body) && b.err == nil; i++ {
		b.starts = append(b.starts, b.build(r.body[i], 0))
	}
	if b.err != nil {
		return nil, b.err
	}
	b.findNeed()
	if err := b.findLeftRecursion(); err != nil {
		return nil, err
	}
	if b.nodes[b.starts[0]].need > maxFrames {
		return nil, fmt.Errorf("it matches no text")
	}
	return &b.program, nil
}

func (b *builder) add(n node) int32 {
	if len(b.nodes) >= maxNodes {
		b.fail("it is too large: more than %d places", maxNodes)
		return 0
	}
	b.nodes = append(b.nodes, n)
	return int32(len(b.nodes) - 1)
}

func (b *builder) fail(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf(format, args...)
	}
}

// read adds a node for arcs whose spans are apart.
func (b *builder) read(arcs []arc) int32 { return b.add(node{kind: kindRead, arcs: arcs}) }

// build adds the nodes that read e and go on at next, and returns the first.
func (b *builder) build(e *expr, next int32) int32 {
	// Expressions share parts, so few of them can ask for many nodes, or for none many times.
	if b.steps++; b.steps > 4*maxNodes {
		b.fail("it is too large: more than %d parts", 4*maxNodes)
	}
	if b.err != nil {
		return 0
	}
	switch e.op {
	case opEmpty:
		return next
	case opText:
		for i := len(e.text) - 1; i >= 0; i-- {
			next = b.read([]arc{{span{e.text[i], e.text[i]}, next}})
		}
		return next
	case opClass:
		return b.class(e.ranges, next)
	case opSeq:
		for _, s := range slices.Backward(e.subs) {
			next = b.build(s, next)
		}
		return next
	case opAlt:
		outs := make([]int32, len(e.subs))
		for i, s := range e.subs {
			outs[i] = b.build(s, next)
		}
		return b.split(outs)
	case opRepeat:
		return b.repeat(e, next)
	case opRule:
		return b.add(node{kind: kindCall, rule: int32(e.min), next: next})
	case opChain:
		return b.chain(e, next)
	}
	return b.split(nil)
}

// split adds a node that goes on at all of outs. If they read different bytes it is one node that reads.
func (b *builder) split(outs []int32) int32 {
	outs = slices.Clone(outs)
	slices.Sort(outs)
	outs = slices.Compact(outs)
	if len(outs) == 1 {
		return outs[0]
	}
	var arcs []arc
	for _, o := range outs {
		if b.nodes[o].kind != kindRead {
			return b.add(node{kind: kindSplit, outs: outs})
		}
		arcs = append(arcs, b.nodes[o].arcs...)
	}
	slices.SortFunc(arcs, func(x, y arc) int { return cmp.Compare(x.lo, y.lo) })
	for i := 1; i < len(arcs); i++ {
		if arcs[i].lo <= arcs[i-1].hi {
			return b.add(node{kind: kindSplit, outs: outs})
		}
	}
	return b.read(arcs)
}

// repeat adds a loop, or a node that counts.
func (b *builder) repeat(e *expr, next int32) int32 {
	body := e.subs[0]
	switch {
	case e.min > maxCount || e.max > maxCount || e.max >= 0 && e.min > e.max:
		b.fail("a repetition of %d to %d times, want 0 to %d", e.min, e.max, maxCount)
		return 0
	case e.max == 1: // and so min is 0
		return b.split([]int32{b.build(body, next), next})
	case e.max < 0 && e.min <= 1:
		// The loop is a split that the body comes back to; it is known only after the body is built.
		loop := b.add(node{kind: kindSplit})
		start := b.build(body, loop)
		if b.err != nil {
			return 0
		}
		b.nodes[loop].outs = []int32{start, next}
		if e.min == 1 {
			return start
		}
		return loop
	}
	least := e.min
	if b.rules.nullable(body) {
		body, least = b.rules.fill(body), 0
	}
	return b.add(node{kind: kindRepeat, body: b.build(body, 0), next: next, min: int32(least), max: int32(e.max)})
}

// chain adds the items of a chain. From each on there is one place for all items that may come first, so that
// what stands between two items is read in one way however many may follow.
func (b *builder) chain(e *expr, next int32) int32 {
	// some is where one of the items from i on must come, later the same after an item before.
	some, later, none := b.split(nil), next, true
	for i, item := range slices.Backward(e.subs[1:]) {
		here := b.build(item, later)
		if b.err != nil {
			return 0
		}
		if e.skip[i] {
			some = b.split([]int32{here, some})
		} else {
			some, none = here, false
		}
		if later = b.build(e.subs[0], some); none {
			later = b.split([]int32{later, next})
		}
	}
	if none && !e.some {
		return b.split([]int32{some, next})
	}
	return some
}
