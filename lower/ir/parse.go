package ir

import (
	"fmt"
	"strconv"
	"strings"
)

// Parse reads a module in MLIR's generic form: what String prints, and what MLIR tools print with
// generic printing on and one block a region. Printing the result gives the text back exactly if
// String made it; otherwise values are renumbered and attributes sorted.
//
// Types and attributes are read as balanced text. Comments and loc(…) are skipped. Refused are the
// pretty forms of dialects, attribute aliases other than locations, successors, regions of several
// blocks, and functions without a body. Errors begin with the line.
func Parse(text string) (*Module, error) {
	p := &parser{scanner: scanner{src: text}, values: map[string]*Value{}}
	p.aliases()
	m := p.module()
	p.aliases()
	p.end()
	if p.err != nil {
		return nil, fmt.Errorf("ir: %w", p.err)
	}
	return m, nil
}

type parser struct {
	scanner
	values map[string]*Value // in scope, by name: "arg0", "4", "4#1"
	scope  []string          // names in the order they came into scope
	depth  int               // of regions
}

// aliases skips "#loc3 = loc(…)".
func (p *parser) aliases() {
	for p.take("#loc") {
		p.word()
		p.want("=")
		if !p.location() {
			p.fail("wanted loc(…), found %s", p.rest())
		}
	}
}

// location skips "loc(…)" if it comes next.
func (p *parser) location() bool {
	if !p.peek("loc(") {
		return false
	}
	p.pos += len("loc")
	p.balanced(" \t\r\n,):}", "a location")
	return true
}

func (p *parser) module() *Module {
	if p.peek("module") || p.peek("func") {
		p.fail(`found %s, wanted the generic form, which begins with "builtin.module"`, p.rest())
		return nil
	}
	if name := p.str(); name != "builtin.module" {
		p.fail("wanted builtin.module, found %q", name)
		return nil
	}
	m := &Module{}
	p.want("(")
	p.want(")")
	props := p.properties()
	p.want("(")
	p.want("{")
	for p.err == nil && !p.take("}") {
		op, isFunc := p.op()
		if isFunc {
			if f := p.function(op); f != nil {
				m.Funcs = append(m.Funcs, f)
			}
		} else if op != nil {
			m.Globals = append(m.Globals, op)
		}
		p.leave(0)
	}
	p.want(")")
	m.Attrs = p.attributes(props)
	p.want(":")
	p.signature()
	p.location()
	if p.err != nil {
		return nil
	}
	if a, found := m.Attrs[symName]; found {
		name, ok := a.Text()
		if !ok || name == "" {
			p.fail("module: %s is %s, wanted a string", symName, a)
		}
		m.Name = name
		delete(m.Attrs, symName)
	}
	return m
}

// op reads one operation and brings its results into scope. It answers nil after an error.
func (p *parser) op() (op *Op, isFunc bool) {
	names := p.resultNames()
	if p.err == nil && !p.peek(`"`) {
		p.fail("wanted an operation in generic form, found %s", p.rest())
	}
	op = &Op{Name: p.str()}
	if p.err == nil && !bareName(op.Name) {
		p.fail("operation name %q has a byte that no name has", op.Name)
	}
	op.Operands = p.operands()
	if p.take("[") {
		p.fail("%s has successors, which are not supported", op.Name)
	}
	props := p.properties()
	if p.take("(") {
		for p.err == nil {
			op.Regions = append(op.Regions, p.region())
			if !p.take(",") {
				break
			}
		}
		p.want(")")
	}
	op.Attrs = p.attributes(props)
	p.want(":")
	params, results := p.signature()
	p.location()
	if p.err != nil {
		return nil, false
	}
	p.checkOperands(op, params)
	if len(names) != len(results) {
		p.fail("%s has %d results and %d names for them", op.Name, len(results), len(names))
	}
	for i, t := range results {
		v := &Value{Type: t, Def: op}
		op.Results = append(op.Results, v)
		if p.err == nil {
			p.enter(names[i], v)
		}
	}
	if p.err != nil {
		return nil, false
	}
	return op, op.Name == "func.func"
}

// resultNames reads "%3 =" and "%3:2 =". It may read nothing.
func (p *parser) resultNames() []string {
	if !p.take("%") {
		return nil
	}
	name := p.word()
	names := []string{name}
	if name == "" {
		p.fail("wanted the name of a value, found %s", p.rest())
	}
	if p.take(":") {
		n, err := strconv.Atoi(p.word())
		if err != nil || n < 1 || n > 1<<16 {
			p.fail("%%%s: wanted a number of results, found %s", name, p.rest())
			return nil
		}
		if n > 1 {
			names = names[:0]
			for i := range n {
				names = append(names, name+"#"+strconv.Itoa(i))
			}
		}
	}
	if p.peek(",") {
		p.fail("%%%s: a list of result names is not supported, write %%%s:2", name, name)
	}
	p.want("=")
	return names
}

func (p *parser) operands() []*Value {
	p.want("(")
	if p.take(")") {
		return nil
	}
	var vs []*Value
	for p.err == nil {
		p.want("%")
		name := p.word()
		if p.take("#") {
			name += "#" + p.word()
		}
		v, found := p.values[name]
		if !found {
			p.fail("%%%s is used before it is defined", name)
		}
		vs = append(vs, v)
		if !p.take(",") {
			break
		}
	}
	p.want(")")
	return vs
}

func (p *parser) checkOperands(op *Op, types []Type) {
	if len(types) != len(op.Operands) {
		p.fail("%s has %d operands and %d types for them", op.Name, len(op.Operands), len(types))
		return
	}
	for i, v := range op.Operands {
		if v.Type != types[i] {
			p.fail("operand %d of %s is %s, its definition says %s", i, op.Name, types[i], v.Type)
		}
	}
}

// properties reads "<{…}>" if it comes next.
func (p *parser) properties() Attrs {
	if !p.take("<") {
		return nil
	}
	as := p.dictionary()
	p.want(">")
	return as
}

// attributes reads "{…}" if it comes next and adds the properties. An empty dictionary is nil.
func (p *parser) attributes(props Attrs) Attrs {
	as := props
	if p.peek("{") {
		as = p.dictionary()
		for n, v := range props {
			if _, twice := as[n]; twice {
				p.fail("attribute %s is given twice", n)
			}
			as[n] = v
		}
	}
	if len(as) == 0 {
		return nil
	}
	return as
}

func (p *parser) region() *Region {
	p.want("{")
	if p.depth++; p.depth > maxDepth {
		p.fail("regions nest deeper than %d", maxDepth)
		return nil
	}
	outside := len(p.scope)
	r := &Region{}
	if p.take("^") {
		p.word()
		r.Args = p.blockArgs()
		p.want(":")
	}
	for p.err == nil && !p.take("}") {
		if p.peek("^") {
			p.fail("a region of several blocks is not supported")
			break
		}
		if p.pos == len(p.src) {
			p.fail("a region is not closed")
			break
		}
		if op, _ := p.op(); op != nil {
			r.Ops = append(r.Ops, op)
		}
	}
	p.leave(outside)
	p.depth--
	return r
}

func (p *parser) blockArgs() []*Value {
	if !p.take("(") {
		return nil
	}
	var args []*Value
	for p.err == nil && !p.peek(")") {
		p.want("%")
		name := p.word()
		p.want(":")
		v := &Value{Type: p.attrType()}
		p.location()
		args = append(args, v)
		p.enter(name, v)
		if !p.take(",") {
			break
		}
	}
	p.want(")")
	return args
}

func (p *parser) enter(name string, v *Value) {
	if _, twice := p.values[name]; twice || name == "" {
		p.fail("%%%s is defined twice", name)
		return
	}
	p.values[name] = v
	p.scope = append(p.scope, name)
}

// leave takes all names past the first n out of scope.
func (p *parser) leave(n int) {
	for _, name := range p.scope[n:] {
		delete(p.values, name)
	}
	p.scope = p.scope[:n]
}

// function takes the operation func.func apart. Its errors are at the end of the function.
func (p *parser) function(op *Op) *Func {
	f := &Func{Attrs: Attrs{}}
	for n, a := range op.Attrs {
		part := scanner{src: string(a)}
		ok := true
		switch n {
		case symName:
			f.Name, ok = a.Text()
		case symVisibility:
			f.Private, ok = true, a == `"private"`
		case functionType:
			_, f.Results = part.signature()
			part.end()
		case paramAttrsName:
			f.ParamAttrs = part.dictionaryList()
			part.end()
		case resAttrsName:
			f.ResultAttrs = part.dictionaryList()
			part.end()
		default:
			f.Attrs[n] = a
		}
		if part.err != nil || !ok {
			p.fail("func.func: cannot read %s = %s", n, a)
			return nil
		}
	}
	if len(f.Attrs) == 0 {
		f.Attrs = nil
	}
	if len(op.Regions) != 1 || len(op.Regions[0].Ops) == 0 || len(op.Operands)+len(op.Results) > 0 {
		p.fail("function @%s: wanted one body, no operands and no results", f.Name)
		return nil
	}
	f.Body = op.Regions[0]
	p.checkFunction(f, op.Attrs)
	if p.err != nil {
		return nil
	}
	return f
}

func (p *parser) checkFunction(f *Func, as Attrs) {
	if f.Name == "" {
		p.fail("func.func: %s is missing", symName)
		return
	}
	part := scanner{src: string(as[functionType])}
	params, _ := part.signature()
	if part.err != nil {
		p.fail("function @%s: %s is missing", f.Name, functionType)
		return
	}
	if got, want := typeText(Types(f.Params())), typeText(params); got != want {
		p.fail("function @%s: its body takes (%s), its type says (%s)", f.Name, got, want)
	}
	if n := len(f.ParamAttrs); f.ParamAttrs != nil && n != len(params) {
		p.fail("function @%s: %d entries of %s for %d parameters", f.Name, n, paramAttrsName, len(params))
	}
	if n := len(f.ResultAttrs); f.ResultAttrs != nil && n != len(f.Results) {
		p.fail("function @%s: %d entries of %s for %d results", f.Name, n, resAttrsName, len(f.Results))
	}
}

func typeText(ts []Type) string {
	s := make([]string, len(ts))
	for i, t := range ts {
		s[i] = string(t)
	}
	return strings.Join(s, ", ")
}
