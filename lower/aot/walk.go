package aot

import (
	"regexp"
	"strconv"
	"strings"
)

var tripCount = regexp.MustCompile(`"known_trip_count":\{"n":"(\d+)"`)

// place is an instruction, where it is, and how often it runs in one run of the module.
type place struct {
	*instr
	in    *computation
	times int64
}

// walk visits all instructions that run, each with how often: bodies of loops, branches and insides of fusions too. Of
// a conditional all branches are visited. Loops of unknown length count once.
func (m *Module) walk(visit func(p place)) { m.walkFrom(m.computations[m.entry], 1, visit) }

func (m *Module) walkFrom(c *computation, times int64, visit func(p place)) {
	if c == nil {
		return
	}
	for _, in := range c.instrs {
		visit(place{in, c, times})
		for _, call := range m.calls(in) {
			m.walkFrom(call.to, times*call.times, visit)
		}
		if in.op == "fusion" {
			m.walkFrom(m.called(in, "calls"), times, visit)
		}
	}
}

// call is a computation that runs as a part of an instruction.
type call struct {
	to    *computation
	times int64
}

// calls lists what an instruction runs as operations of their own, which insides of fusions are not.
func (m *Module) calls(in *instr) (all []call) {
	switch in.op {
	case "while":
		n := in.trips()
		all = []call{{m.called(in, "condition"), max(n, 1)}, {m.called(in, "body"), max(n, 1)}}
	case "call":
		all = []call{{m.called(in, "to_apply"), 1}}
	case "async-start":
		all = []call{{m.called(in, "calls"), 1}}
	case "conditional":
		for _, b := range m.branches(in) {
			all = append(all, call{b, 1})
		}
	}
	return all
}

// trips is how often a loop runs, 0 when the text does not say.
func (in *instr) trips() int64 {
	m := tripCount.FindStringSubmatch(in.attrs)
	if m == nil {
		return 0
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// branches of a conditional.
func (m *Module) branches(in *instr) (all []*computation) {
	names := strings.Trim(in.attr("branch_computations"), "{}")
	if names == "" {
		return []*computation{m.called(in, "true_computation"), m.called(in, "false_computation")}
	}
	for name := range strings.SplitSeq(names, ",") {
		all = append(all, m.before(in, name))
	}
	return all
}

// operand is the i-th operand's instruction, nil where there is none.
func (c *computation) operand(in *instr, i int) *instr {
	if i >= len(in.operands) {
		return nil
	}
	return c.byName[in.operands[i].name]
}

// given is the type of the i-th operand, leaf by leaf.
func (c *computation) given(in *instr, i int) []array {
	x := c.operand(in, i)
	if x == nil {
		return nil
	}
	if at := in.operands[i].at; at >= 0 {
		if at >= len(x.parts) {
			return nil
		}
		return x.parts[at]
	}
	return x.shape
}

// operandBytes is the size of all operands.
func (c *computation) operandBytes(in *instr) (n int64) {
	for i := range in.operands {
		n += total(c.given(in, i))
	}
	return n
}
