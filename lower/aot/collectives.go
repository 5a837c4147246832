package aot

import (
	"cmp"
	"slices"
	"strings"
)

// Collective is a kind of exchange between devices, as one device sees it.
type Collective struct {
	Op    string `json:"op"`    // HLO's name, such as all-gather
	Type  string `json:"type"`  // of what a device gives, tensor by tensor
	Group int    `json:"group"` // devices that exchange with each other
	// Groups are the devices of each group, or the pairs of a permutation, {{0,1},{2,3}}.
	Groups string `json:"groups"`
	Count  int64  `json:"count"`  // of such instructions in the program
	Runs   int64  `json:"runs"`   // of them in one run
	Bytes  int64  `json:"bytes"`  // that a device gives to one
	Sent   int64  `json:"sent"`   // bytes that a device sends in all of a run, by the usual ring or direct form; of ragged exchanges the most
	Beside int64  `json:"beside"` // of Runs, those between whose start and end products or kernels run
}

// exchanges are HLO's collectives.
var exchanges = []string{"all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast", "ragged-all-to-all"}

// Collectives lists the exchanges of a program, the same ones together, those that send most first.
func (m *Module) Collectives() []Collective {
	at := map[Collective]*Collective{}
	var all []*Collective
	beside := map[*computation]bool{} // what asynchronous starts call
	m.walk(func(p place) {
		if p.op == "async-start" {
			beside[m.called(p.instr, "calls")] = p.in.busyUntilDone(p.instr)
		}
		op := strings.TrimSuffix(p.op, "-start")
		if !slices.Contains(exchanges, op) {
			return
		}
		c := Collective{Op: op, Group: m.group(p.instr), Groups: groupText(m.groups(p.instr))}
		var types []string
		for i := range p.operands {
			if i > 0 && op == "ragged-all-to-all" { // where it is written, and sizes
				break
			}
			given := p.in.given(p.instr, i)
			for _, a := range given {
				types = append(types, a.String())
			}
			c.Bytes += total(given)
		}
		c.Type = strings.Join(types, " ")
		kept := at[c]
		if kept == nil {
			k := c
			kept = &k
			at[c] = kept
			all = append(all, kept)
		}
		kept.Count++
		kept.Runs += p.times
		kept.Sent += p.times * sent(c)
		if beside[p.in] || p.op != op && p.in.busyUntilDone(p.instr) {
			kept.Beside += p.times
		}
	})
	out := make([]Collective, len(all))
	for i, c := range all {
		out[i] = *c
	}
	slices.SortStableFunc(out, func(a, b Collective) int { return cmp.Compare(b.Sent, a.Sent) })
	return out
}

// sent is what a device sends in one exchange of n devices that give b bytes each: all-reduce 2·b·(n-1)/n, the sum
// of reduce-scatter, b·(n-1)/n, and of all-gather of a share, b·(n-1); all-to-all b·(n-1)/n; the others b.
func sent(c Collective) int64 {
	n := int64(max(c.Group, 1))
	switch c.Op {
	case "all-reduce":
		return 2 * c.Bytes * (n - 1) / n
	case "all-gather":
		return c.Bytes * (n - 1)
	case "reduce-scatter", "all-to-all", "ragged-all-to-all":
		return c.Bytes * (n - 1) / n
	}
	return c.Bytes
}

// group is how many devices exchange with each other: the size of the first group. Without groups all devices do, and a
// permutation is between pairs.
func (m *Module) group(in *instr) int {
	if in.op == "collective-permute" || in.op == "collective-permute-start" {
		return 2
	}
	if all := m.groups(in); len(all) > 0 {
		return len(all[0])
	}
	return m.Devices
}

// busyUntilDone tells whether custom calls, which are products and kernels, stand between the start of an exchange and its end.
func (c *computation) busyUntilDone(start *instr) bool {
	busy := false
	for _, in := range c.instrs[start.index+1:] {
		for _, o := range in.operands {
			if o.name == start.name && strings.HasSuffix(in.op, "-done") {
				return busy
			}
		}
		busy = busy || in.op == "custom-call"
	}
	return false
}
