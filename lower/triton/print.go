package triton

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// String prints the kernel as a module of its own, in the form of the Triton dialects. Results are %0, %1, …
// in the order they appear, so equal kernels print equal text.
func (f *Func) String() string {
	p := printer{names: map[*Value]string{}}
	p.printf("module {\n  tt.func public @%s(", f.Name)
	for i, v := range f.Params {
		if i > 0 {
			p.printf(", ")
		}
		p.names[v] = "%" + v.Name
		p.printf("%%%s: %s {tt.divisibility = 16 : i32}", v.Name, v.Type)
	}
	p.printf(") {\n")
	p.ops(f.Body, 2)
	p.printf("  }\n}\n")
	return p.s.String()
}

type printer struct {
	s     strings.Builder
	names map[*Value]string
	n     int
}

func (p *printer) printf(format string, args ...any) { fmt.Fprintf(&p.s, format, args...) }

// fresh names a value.
func (p *printer) fresh(v *Value) string {
	name := "%" + strconv.Itoa(p.n)
	p.n++
	p.names[v] = name
	return name
}

func (p *printer) name(v *Value) string {
	if n, ok := p.names[v]; ok {
		return n
	}
	return "%undefined"
}

func (p *printer) list(vs []*Value) string {
	all := make([]string, len(vs))
	for i, v := range vs {
		all[i] = p.name(v)
	}
	return strings.Join(all, ", ")
}

func types(vs []*Value) string {
	all := make([]string, len(vs))
	for i, v := range vs {
		all[i] = v.Type.String()
	}
	return strings.Join(all, ", ")
}

func (p *printer) ops(r *Region, depth int) {
	for _, op := range r.Ops {
		p.s.WriteString(strings.Repeat("  ", depth))
		p.op(op, depth)
		p.s.WriteByte('\n')
	}
}

// op prints one operation. Each form of the table in the switch is that of its dialect.
func (p *printer) op(op *Op, depth int) {
	if op.Name == "scf.for" {
		p.loop(op, depth)
		return
	}
	args := p.list(op.Operands) // before the results are named: an operation cannot use its own
	if len(op.Results) == 1 {
		p.printf("%s = ", p.fresh(op.Result()))
	}
	switch op.Name {
	case "arith.constant":
		p.printf("%s %s : %s", op.Name, constant(op), op.Result().Type)
	case "tt.get_program_id":
		p.printf("%s %c : i32", op.Name, "xyz"[op.Ints[0]])
	case "tt.make_range":
		p.printf("%s {start = %d : i32, end = %d : i32} : %s", op.Name, op.Ints[0], op.Ints[1], op.Result().Type)
	case "tt.expand_dims":
		p.printf("%s %s {axis = %d : i32} : %s -> %s", op.Name, args, op.Ints[0], op.Operands[0].Type, op.Result().Type)
	case "tt.trans":
		p.printf("%s %s {order = array<i32: %d, %d>} : %s -> %s", op.Name, args, op.Ints[0], op.Ints[1], op.Operands[0].Type, op.Result().Type)
	case "tt.splat", "tt.broadcast":
		p.printf("%s %s : %s -> %s", op.Name, args, op.Operands[0].Type, op.Result().Type)
	case "tt.fp_to_fp":
		rounding := ""
		if op.Result().Type.Elem == F8 {
			rounding = ", rounding = rtne"
		}
		p.printf("%s %s%s : %s -> %s", op.Name, args, rounding, op.Operands[0].Type, op.Result().Type)
	case "arith.extf", "arith.truncf", "arith.extsi", "arith.extui", "arith.trunci", "arith.sitofp", "arith.uitofp":
		p.printf("%s %s : %s to %s", op.Name, args, op.Operands[0].Type, op.Result().Type)
	case "arith.cmpi", "arith.cmpf":
		p.printf("%s %s, %s : %s", op.Name, op.Text, args, op.Operands[0].Type)
	case "arith.select":
		p.printf("%s %s : ", op.Name, args)
		if cond := op.Operands[0].Type; cond.Rank() > 0 {
			p.printf("%s, ", cond)
		}
		p.printf("%s", op.Result().Type)
	case "tt.addptr":
		p.printf("%s %s : %s", op.Name, args, types(op.Operands))
	case "tt.dot":
		t, loose := op.Operands, ""
		if t[0].Type.Elem == F8 {
			loose = " {maxNumImpreciseAcc = 128 : i32}" // elements summed with fewer bits than f32 has
		}
		p.printf("%s %s%s : %s * %s -> %s", op.Name, args, loose, t[0].Type, t[1].Type, t[2].Type)
	case "tt.reduce", "tt.scan":
		p.fold(op, args, depth)
	case "scf.if":
		p.printf("scf.if %s {\n", args)
		p.ops(op.Regions[0], depth+1)
		p.printf("%s}", strings.Repeat("  ", depth))
	case "tt.return":
		p.printf("%s", op.Name)
	case "scf.yield":
		p.printf("%s", op.Name)
		if args != "" {
			p.printf(" %s : %s", args, types(op.Operands))
		}
	default: // arithmetic, tt.load and tt.store: one type, that of the first operand
		p.printf("%s %s : %s", op.Name, args, op.Operands[0].Type)
	}
}

func (p *printer) loop(op *Op, depth int) {
	r, init := op.Regions[0], op.Operands[3:]
	bounds := []string{p.name(op.Operands[0]), p.name(op.Operands[1]), p.name(op.Operands[2])}
	from := make([]string, len(init))
	for i, v := range init {
		from[i] = p.name(v)
	}
	if n := len(op.Results); n > 0 {
		group := "%" + strconv.Itoa(p.n)
		p.n++
		p.printf("%s", group)
		if n > 1 {
			p.printf(":%d", n)
		}
		p.printf(" = ")
		for i, v := range op.Results {
			p.names[v] = group
			if n > 1 {
				p.names[v] += "#" + strconv.Itoa(i)
			}
		}
	}
	p.printf("scf.for %s = %s to %s step %s", p.fresh(r.Args[0]), bounds[0], bounds[1], bounds[2])
	if len(init) > 0 {
		p.printf(" iter_args(")
		for i, v := range r.Args[1:] {
			if i > 0 {
				p.printf(", ")
			}
			p.printf("%s = %s", p.fresh(v), from[i])
		}
		p.printf(") -> (%s)", types(op.Results))
	}
	p.printf(" : i32 {\n")
	p.ops(r, depth+1)
	p.printf("%s}", strings.Repeat("  ", depth))
}

func (p *printer) fold(op *Op, args string, depth int) {
	pad, e := strings.Repeat("  ", depth), op.Result().Type.Elem
	more := ""
	if op.Name == "tt.scan" {
		more = ", reverse = false"
	}
	x, y, z := "%"+strconv.Itoa(p.n), "%"+strconv.Itoa(p.n+1), "%"+strconv.Itoa(p.n+2)
	p.n += 3
	p.printf("%q(%s) <{axis = %d : i32%s}> ({\n", op.Name, args, op.Ints[0], more)
	p.printf("%s^bb0(%s: %s, %s: %s):\n", pad, x, e, y, e)
	p.printf("%s  %s = %s %s, %s : %s\n", pad, z, op.Text, x, y, e)
	p.printf("%s  %s.return %s : %s\n", pad, op.Name, z, e)
	p.printf("%s}) : (%s) -> %s", pad, op.Operands[0].Type, op.Result().Type)
}

// constant is the value of a constant as MLIR writes it.
func constant(op *Op) string {
	t, s := op.Result().Type, ""
	switch {
	case t.Elem == I1:
		s = strconv.FormatBool(op.Ints[0] != 0)
	case !t.Elem.Float():
		s = strconv.FormatInt(op.Ints[0], 10)
	case math.IsInf(op.Number, -1):
		s = "0xFF800000" // Verify holds infinities to f32
	default:
		s = strconv.FormatFloat(op.Number, 'e', -1, 32)
		if digits, exponent, _ := strings.Cut(s, "e"); !strings.Contains(digits, ".") {
			s = digits + ".0e" + exponent
		}
	}
	if t.Rank() > 0 {
		return "dense<" + s + ">"
	}
	return s
}
