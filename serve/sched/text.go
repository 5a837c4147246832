package sched

import (
	"fmt"
	"slices"
	"strings"
)

// String has a line for each thing to do, in the order in which it is done.
func (x Step) String() string {
	var t strings.Builder
	fmt.Fprintf(&t, "step %d", x.Number)
	if x.Idle() {
		t.WriteString(" idle")
	}
	t.WriteByte('\n')
	for _, id := range x.Finished {
		fmt.Fprintf(&t, "  finish %d\n", id)
	}
	for _, id := range x.Preempted {
		fmt.Fprintf(&t, "  preempt %d\n", id)
	}
	for _, a := range x.Admitted {
		fmt.Fprintf(&t, "  admit %d slot %d cached %d%s\n", a.ID, a.Slot, a.Cached, when(a.Again, " again"))
	}
	for _, c := range x.Copies {
		fmt.Fprintf(&t, "  copy %d to %d\n", c.From, c.To)
	}
	for _, c := range x.Prefill {
		fmt.Fprintf(&t, "  prefill %d slot %d at %d %v blocks %v%s%s\n", c.ID, c.Slot, c.Start, c.Tokens, c.Table,
			when(c.Last, " last"), when(c.Draw, " draw"))
		for _, f := range c.Forks {
			fmt.Fprintf(&t, "    fork %d slot %d%s\n", f.ID, f.Slot, when(f.Draw, " draw"))
		}
	}
	for _, r := range slices.Concat(x.Decode, x.Ahead) {
		verb := "decode"
		switch {
		case r.Replay:
			verb = "replay"
		case r.Guess:
			verb = "guess"
		}
		fmt.Fprintf(&t, "  %s %d slot %d at %d [%d] blocks %v\n", verb, r.ID, r.Slot,
			r.Position, r.Token, r.Table)
	}
	return t.String()
}

// String is the state: the queue, the slots and the blocks.
func (s *Scheduler) String() string {
	var t strings.Builder
	t.WriteString("waiting")
	for _, r := range s.waiting {
		fmt.Fprintf(&t, " %d", r.id)
	}
	t.WriteByte('\n')
	for _, r := range s.running {
		fmt.Fprintf(&t, "running %d slot %d priority %d prompt %d generated %d in cache %d blocks %v\n",
			r.id, r.slot, r.Priority, len(r.Prompt), len(r.generated), r.done, r.table)
	}
	p := s.blocks
	fmt.Fprintf(&t, "free %d idle [", len(p.free))
	for b, gap := p.next[p.ring()], ""; b != p.ring(); b, gap = p.next[b], " " {
		fmt.Fprintf(&t, "%s%d", gap, b)
	}
	t.WriteString("]\n")
	return t.String()
}

func when(yes bool, word string) string {
	if yes {
		return word
	}
	return ""
}
