package grammar

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// What an automaton may hold. Beyond maxStates or maxHeld it forgets its states and finds them anew.
const (
	maxWays   = 2048    // ways to read one text
	maxStates = 2048    // states remembered
	maxHeld   = 1 << 18 // ways in all states remembered
	// maxSteps is how many ways one mask may follow: a fraction of a second.
	maxSteps = 1 << 21
)

// frame is one entry of a stack: where to go on when the rule or the round above it ends. Equal stacks of
// one automaton are one frame, until it forgets.
type frame struct {
	under *frame
	node  int32
	count int32 // rounds begun, of a node that repeats
	depth int32
	id    uint64
}

func (f *frame) height() int32 {
	if f == nil {
		return 0
	}
	return f.depth
}

// way is one way to have read a text: a node that reads, and its stack.
type way struct {
	node  int32
	stack *frame
}

func (w way) id() uint64 {
	if w.stack == nil {
		return 0
	}
	return w.stack.id
}

// state is all ways to have read a text. next is filled as bytes are asked for.
type state struct {
	ways    []way
	end     bool // the text may end
	next    [256]*state
	mask    []uint32 // of the ids that may come, once asked for
	opening []uint32 // the same at the beginning of a text
}

// Two states without ways: that of a text that nothing matches, and that of one with more than maxWays.
var dead, tooMany = &state{}, &state{}

// automaton is a program with the states that were met. It is not safe for concurrent use.
type automaton struct {
	*program
	start  *state
	states map[string]*state
	frames map[frame]*frame
	held   int    // ways in states
	lastID uint64 // of a frame
	steps  int    // ways followed; the caller sets it to 0

	// Room for step.
	work []way
	seen map[way]struct{}
	ways []way
	key  []byte
}

func newAutomaton(p *program) *automaton {
	a := &automaton{program: p, seen: map[way]struct{}{}}
	a.forget()
	a.begin()
	a.start = a.finish(a.follow(p.starts[0], nil))
	return a
}

// step returns the state after one more byte.
func (a *automaton) step(s *state, c byte) *state {
	if n := s.next[c]; n != nil {
		return n
	}
	a.begin()
	end, fits := false, true
	for _, w := range s.ways {
		for _, arc := range a.nodes[w.node].arcs {
			if arc.lo <= c && c <= arc.hi && fits {
				more, ok := a.follow(arc.to, w.stack)
				end, fits = end || more, ok
			}
		}
	}
	n := a.finish(end, fits)
	s.next[c] = n
	return n
}

func (a *automaton) begin() {
	clear(a.seen)
	a.ways = a.ways[:0]
}

// follow adds the ways that begin at a node, up to where they read. It tells whether the text may end there,
// and whether there is room for all.
func (a *automaton) follow(at int32, stack *frame) (end, fits bool) {
	a.work = append(a.work[:0], way{at, stack})
	for len(a.work) > 0 {
		w := a.work[len(a.work)-1]
		a.work = a.work[:len(a.work)-1]
		n := &a.nodes[w.node]
		// Every way that is kept can be finished: see push.
		if _, met := a.seen[w]; met || w.stack.height()+n.need > maxFrames {
			continue
		}
		a.seen[w] = struct{}{}
		a.steps++
		switch n.kind {
		case kindRead:
			if a.ways = append(a.ways, w); len(a.ways) > maxWays {
				return end, false
			}
		case kindSplit:
			for _, o := range n.outs {
				a.work = append(a.work, way{o, w.stack})
			}
		case kindCall:
			a.push(a.starts[n.rule], n.next, 0, w.stack)
		case kindRepeat:
			a.round(w.node, 0, w.stack)
		case kindEnd:
			switch f := w.stack; {
			case f == nil:
				end = true
			case a.nodes[f.node].kind == kindRepeat && f.count > 0:
				a.round(f.node, f.count, f.under)
			default:
				a.work = append(a.work, way{f.node, f.under})
			}
		}
		if len(a.seen) > 8*maxWays {
			return end, false
		}
	}
	return end, true
}

// round goes on with a repetition of which count rounds are over.
func (a *automaton) round(at, count int32, stack *frame) {
	n := &a.nodes[at]
	if count >= n.min {
		a.work = append(a.work, way{n.next, stack})
	}
	if n.max < 0 || count < n.max {
		begun := count + 1
		if n.max < 0 {
			begun = min(begun, max(n.min, 1)) // more make no difference
		}
		a.push(n.body, at, begun, stack)
	}
}

// push goes on at a node with one frame more. It does not if the frames needed to come to the end from
// there, or from the frame, would be too many.
func (a *automaton) push(to, back, count int32, stack *frame) {
	if a.nodes[back].kind == kindEnd {
		a.work = append(a.work, way{to, stack}) // the caller ends there too
		return
	}
	height := stack.height()
	if height+a.nodes[back].need > maxFrames {
		return
	}
	f := frame{under: stack, node: back, count: count, depth: height + 1}
	known, ok := a.frames[f]
	if !ok {
		a.lastID++
		known = new(frame)
		*known = f
		known.id = a.lastID
		a.frames[f] = known
	}
	a.work = append(a.work, way{to, known})
}

// finish returns the state of a.ways.
func (a *automaton) finish(end, fits bool) *state {
	if !fits {
		return tooMany
	}
	if len(a.ways) == 0 && !end {
		return dead
	}
	slices.SortFunc(a.ways, func(x, y way) int {
		if x.node != y.node {
			return cmp.Compare(x.node, y.node)
		}
		return cmp.Compare(x.id(), y.id())
	})
	a.key = a.key[:0]
	for _, w := range a.ways {
		a.key = binary.AppendUvarint(binary.AppendUvarint(a.key, uint64(w.node)), w.id())
	}
	if end {
		a.key = append(a.key, 0)
	}
	if s, ok := a.states[string(a.key)]; ok {
		return s
	}
	if len(a.states) >= maxStates || a.held+len(a.ways) > maxHeld || len(a.frames) > maxHeld {
		a.forget()
	}
	s := &state{ways: slices.Clone(a.ways), end: end}
	a.states[string(a.key)] = s
	a.held += len(a.ways)
	return s
}

// forget lets go of all states and stacks. Those that masks still stand in stay right: they find what
// follows them anew.
func (a *automaton) forget() {
	for _, s := range a.states {
		s.next, s.mask, s.opening = [256]*state{}, nil, nil
	}
	if a.start != nil {
		a.start.next, a.start.mask, a.start.opening = [256]*state{}, nil, nil
	}
	a.states, a.frames, a.held = map[string]*state{}, map[frame]*frame{}, 0
}
