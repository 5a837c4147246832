package aot

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Module is XLA's optimized program, read from its text.
type Module struct {
	Name         string
	Devices      int // replicas × partitions
	entry        string
	computations map[string]*computation
}

// computation is a function of the module.
type computation struct {
	name   string
	order  int      // in the text
	instrs []*instr // in order; operands come first
	byName map[string]*instr
	root   *instr
}

// instr is an operation.
type instr struct {
	name     string
	op       string
	shape    []array   // leaves of the result
	parts    [][]array // of a tuple, the leaves of each element
	operands []operand
	attrs    string // the rest of the line
	order    int    // of its computation
	index    int    // in it
}

// operand is a value: the result of an instruction, or of a tuple one element.
type operand struct {
	name string
	at   int // of the tuple, -1 for the whole result
}

// array is the type of one tensor.
type array struct {
	dtype string
	dims  []int64
}

func (a array) elements() int64 {
	n := int64(1)
	for _, d := range a.dims {
		n *= d
	}
	return n
}

// bytes is the size, rounded up for types of less than a byte.
func (a array) bytes() int64 { return (a.elements()*bits(a.dtype) + 7) / 8 }

func (a array) String() string {
	return a.dtype + strings.ReplaceAll(fmt.Sprint(a.dims), " ", ",")
}

// total is the size of all leaves.
func total(all []array) (n int64) {
	for _, a := range all {
		n += a.bytes()
	}
	return n
}

// bits of an element; 0 for what takes no memory, such as tokens.
func bits(dtype string) int64 {
	switch dtype {
	case "pred":
		return 8
	case "c64":
		return 64
	case "c128":
		return 128
	}
	m := widths.FindStringSubmatch(dtype)
	if m == nil {
		return 0
	}
	n, _ := strconv.ParseInt(m[1], 10, 64) // of at most three digits
	return n
}

var (
	widths  = regexp.MustCompile(`^(?:s|u|f|bf)(\d{1,3})(?:e\d|$)`)
	headers = regexp.MustCompile(`^(ENTRY )?%?([^\s(]+) \(.*\) -> .*\{$`)
	leaves  = regexp.MustCompile(`([a-z][a-z0-9]*)\[([0-9,<=]*)\]`)
	values  = regexp.MustCompile(`%([^\s,(){}#]+)(?:#(\d+))?`)
	grids   = regexp.MustCompile(`(?:replica_count|num_partitions)=(\d+)`)
)

// ParseHLO reads the text of a module, in the form of XLA's dumps. What it does not know it passes over; an
// instruction that it cannot read is an error with its line.
func ParseHLO(text string) (*Module, error) {
	m := &Module{Devices: 1, computations: map[string]*computation{}}
	var at *computation
	n := 0
	for line := range strings.SplitSeq(text, "\n") {
		n++
		switch {
		case strings.HasPrefix(line, "HloModule "):
			m.Name, _, _ = strings.Cut(strings.TrimPrefix(line, "HloModule "), ",")
			for _, g := range grids.FindAllStringSubmatch(line, -1) {
				d, err := strconv.Atoi(g[1])
				if err != nil {
					return nil, fmt.Errorf("aot: HLO line %d: %q: %w", n, g[0], err)
				}
				m.Devices *= d
			}
		case strings.HasPrefix(line, "}"):
			at = nil
		case at == nil:
			h := headers.FindStringSubmatch(line)
			if h == nil {
				continue
			}
			at = &computation{name: h[2], order: len(m.computations), byName: map[string]*instr{}}
			m.computations[at.name] = at
			if h[1] != "" {
				m.entry = at.name
			}
		case strings.Contains(line, " = "):
			in, root, err := parseInstr(line)
			if err != nil {
				return nil, fmt.Errorf("aot: HLO line %d: %w", n, err)
			}
			in.order, in.index = at.order, len(at.instrs)
			at.instrs = append(at.instrs, in)
			at.byName[in.name] = in
			if root {
				at.root = in
			}
		}
	}
	if m.entry == "" {
		return nil, fmt.Errorf("aot: HLO of %d bytes has no entry computation", len(text))
	}
	return m, nil
}

// parseInstr reads "  [ROOT ]%name = shape op(operands), attributes".
func parseInstr(line string) (in *instr, root bool, err error) {
	rest, root := strings.CutPrefix(strings.TrimSpace(line), "ROOT ")
	name, rest, _ := strings.Cut(rest, " = ")
	in = &instr{name: strings.TrimPrefix(name, "%")}
	end := strings.IndexByte(rest, ' ')
	if strings.HasPrefix(rest, "(") {
		end = closing(rest, 0) + 1
	}
	if end <= 0 || end >= len(rest) {
		return nil, false, fmt.Errorf("instruction %q without a type", name)
	}
	for _, part := range elements(rest[:end]) {
		leaves, err := parseShape(part)
		if err != nil {
			return nil, false, fmt.Errorf("instruction %q: %w", name, err)
		}
		in.shape, in.parts = append(in.shape, leaves...), append(in.parts, leaves)
	}
	rest = strings.TrimSpace(rest[end:])
	open := strings.IndexByte(rest, '(')
	if open < 0 {
		return nil, false, fmt.Errorf("instruction %q without operands", name)
	}
	in.op = rest[:open]
	end = closing(rest, open)
	if end < 0 {
		return nil, false, fmt.Errorf("instruction %q: operands without an end", name)
	}
	for _, v := range values.FindAllStringSubmatch(rest[open:end], -1) {
		o := operand{v[1], -1}
		if v[2] != "" {
			if o.at, err = strconv.Atoi(v[2]); err != nil {
				return nil, false, fmt.Errorf("instruction %q: operand %q: %w", name, v[0], err)
			}
		}
		in.operands = append(in.operands, o)
	}
	in.attrs = rest[end+1:]
	return in, root, nil
}

// elements splits the type of a tuple, (a, (b, c)), into those of its elements; another type is its own only one.
func elements(s string) (all []string) {
	if !strings.HasPrefix(s, "(") {
		return []string{s}
	}
	depth, from := 0, 1
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '(', '{', '[':
			depth++
		case ')', '}', ']':
			depth--
		case ',':
			if depth == 1 {
				all = append(all, s[from:i])
				from = i + 1
			}
		}
	}
	return append(all, s[from:])
}

// closing is the place of the parenthesis that closes the one at open, -1 without any.
func closing(s string, open int) int {
	depth := 0
	for i := open; i < len(s); i++ {
		switch s[i] {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// parseShape lists the leaves of a type.
func parseShape(s string) (all []array, err error) {
	for _, m := range leaves.FindAllStringSubmatch(s, -1) {
		a := array{dtype: m[1]}
		for d := range strings.SplitSeq(m[2], ",") {
			if d == "" {
				continue
			}
			n, err := strconv.ParseInt(strings.TrimPrefix(d, "<="), 10, 64)
			if err != nil {
				return nil, fmt.Errorf("type %q: %w", m[0], err)
			}
			a.dims = append(a.dims, n)
		}
		all = append(all, a)
	}
	return all, nil
}

// attr is the value of an attribute that is a name, a number or a list in braces or brackets; "" without it.
func (in *instr) attr(name string) string {
	at := strings.Index(in.attrs, ", "+name+"=")
	if at < 0 {
		return ""
	}
	s := in.attrs[at+len(name)+3:]
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '{', '[', '(':
			depth++
		case '}', ']', ')':
			depth--
		case ',', ' ':
			if depth == 0 {
				return s[:i]
			}
		}
	}
	return s
}

// called is the computation that an attribute names, nil without any.
func (m *Module) called(in *instr, attr string) *computation {
	return m.before(in, in.attr(attr))
}

// before is the computation of a name, nil unless it comes before the instruction's own in the text: so none can call
// itself.
func (m *Module) before(in *instr, name string) *computation {
	c := m.computations[strings.TrimPrefix(strings.TrimSpace(name), "%")]
	if c == nil || c.order >= in.order {
		return nil
	}
	return c
}
