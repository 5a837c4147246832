package grammar

import (
	"bytes"
	"slices"
)

// trie holds the bytes of ids as a tree, node after node from the top down, so that a walk goes through
// memory in order and leaves out what is below a byte that does not fit.
type trie struct {
	nodes []trieNode
	ids   []int32
	deep  int // bytes of the longest
}

type trieNode struct {
	b     byte
	depth uint16 // from 1
	skip  int32  // the first node after those below
	first int32  // ids[first:last] end here
	last  int32
}

// newTrie makes a trie of the ids that have bytes.
func newTrie(of [][]byte) *trie {
	t := &trie{}
	for id, b := range of {
		if len(b) > 0 {
			t.ids = append(t.ids, int32(id))
			t.deep = max(t.deep, len(b))
		}
	}
	slices.SortStableFunc(t.ids, func(a, b int32) int { return bytes.Compare(of[a], of[b]) })
	var last []byte
	var open []int32 // the nodes of last
	close := func(depth int) {
		for len(open) > depth {
			t.nodes[open[len(open)-1]].skip = int32(len(t.nodes))
			open = open[:len(open)-1]
		}
	}
	for i, id := range t.ids {
		b := of[id]
		same := 0
		for same < min(len(b), len(last)) && b[same] == last[same] {
			same++
		}
		close(same)
		for d := same; d < len(b); d++ {
			open = append(open, int32(len(t.nodes)))
			t.nodes = append(t.nodes, trieNode{b: b[d], depth: uint16(d + 1), first: int32(i), last: int32(i)})
		}
		t.nodes[open[len(open)-1]].last = int32(i + 1)
		last = b
	}
	close(0)
	return t
}

// walk sets the bits of the ids whose bytes may follow a state. It tells whether it met a place with too
// many ways, and whether it came to the end within maxSteps.
func (t *trie) walk(a *automaton, from *state, bits []uint32) (crowded, whole bool) {
	path := make([]*state, t.deep+1)
	path[0] = from
	a.steps = 0
	for i := 0; i < len(t.nodes); {
		n := &t.nodes[i]
		on := path[n.depth-1].next[n.b]
		if on == nil {
			if on = a.step(path[n.depth-1], n.b); a.steps > maxSteps {
				return crowded, false
			}
		}
		if on == dead || on == tooMany {
			crowded = crowded || on == tooMany
			i = int(n.skip)
			continue
		}
		path[n.depth] = on
		for _, id := range t.ids[n.first:n.last] {
			bits[id>>5] |= 1 << (id & 31)
		}
		i++
	}
	return crowded, true
}
