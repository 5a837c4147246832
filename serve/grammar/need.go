package grammar

import (
	"fmt"
	"slices"
	"strings"
)

// findNeed fills need of all nodes: the least solution, from never downwards. When a node's need falls,
// those that lead to it are looked at again.
func (b *builder) findNeed() {
	back := make([][]int32, len(b.nodes))
	callers := make([][]int32, len(b.starts))
	for i := range b.nodes {
		n, at := &b.nodes[i], int32(i)
		n.need = never
		for _, a := range n.arcs {
			back[a.to] = append(back[a.to], at)
		}
		for _, o := range n.outs {
			back[o] = append(back[o], at)
		}
		switch n.kind {
		case kindCall:
			back[n.next] = append(back[n.next], at)
			callers[n.rule] = append(callers[n.rule], at)
		case kindRepeat:
			back[n.next] = append(back[n.next], at)
			back[n.body] = append(back[n.body], at)
		}
	}
	for r, s := range b.starts {
		back[s] = append(back[s], callers[r]...)
	}
	work := make([]int32, len(b.nodes))
	for i := range work {
		work[i] = int32(i)
	}
	for len(work) > 0 {
		i := work[len(work)-1]
		work = work[:len(work)-1]
		if need := b.needOf(&b.nodes[i]); need < b.nodes[i].need {
			b.nodes[i].need = need
			work = append(work, back[i]...)
		}
	}
}

func (b *builder) needOf(n *node) int32 {
	need := int32(never)
	switch n.kind {
	case kindEnd:
		return 0
	case kindRead:
		for _, a := range n.arcs {
			need = min(need, b.nodes[a.to].need)
		}
	case kindSplit:
		for _, o := range n.outs {
			need = min(need, b.nodes[o].need)
		}
	case kindCall:
		need = max(b.nodes[b.starts[n.rule]].need+1, b.nodes[n.next].need)
	case kindRepeat:
		need = b.nodes[n.next].need
		if n.min > 0 {
			need = max(need, b.nodes[n.body].need+1)
		}
	}
	return min(need, never)
}

// findLeftRecursion refuses a rule that can reach itself before it reads a byte.
func (b *builder) findLeftRecursion() error {
	const (
		fresh = iota
		open
		done
	)
	state := make([]uint8, len(b.starts))
	var path []int32
	var visit func(r int32) error
	visit = func(r int32) error {
		switch state[r] {
		case done:
			return nil
		case open:
			var names []string
			circle := path[slices.Index(path, r):]
			for _, p := range circle[:min(len(circle), 8)] {
				names = append(names, clip(b.rules.names[p]))
			}
			return fmt.Errorf("rule %s reaches itself before it reads anything: %s", clip(b.rules.names[r]), strings.Join(append(names, clip(b.rules.names[r])), " → "))
		}
		state[r], path = open, append(path, r)
		for _, next := range b.calledFirst(r) {
			if err := visit(next); err != nil {
				return err
			}
		}
		state[r], path = done, path[:len(path)-1]
		return nil
	}
	for r := range b.starts {
		if err := visit(int32(r)); err != nil {
			return err
		}
	}
	return nil
}

// clip shortens a name for an error.
func clip(name string) string { return fmt.Sprintf("%.40s", name) }

// calledFirst returns the rules that a rule may call before it reads a byte.
func (b *builder) calledFirst(r int32) []int32 {
	var called []int32
	seen := map[int32]bool{}
	work := []int32{b.starts[r]}
	for len(work) > 0 {
		i := work[len(work)-1]
		work = work[:len(work)-1]
		if seen[i] {
			continue
		}
		seen[i] = true
		switch n := &b.nodes[i]; n.kind {
		case kindSplit:
			work = append(work, n.outs...)
		case kindCall:
			called = append(called, n.rule)
			if b.rules.empty[n.rule] {
				work = append(work, n.next)
			}
		case kindRepeat:
			work = append(work, n.body)
			if n.min == 0 {
				work = append(work, n.next)
			}
		}
	}
	return called
}
