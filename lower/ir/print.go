package ir

import (
	"slices"
	"strconv"
	"strings"
)

// String prints the module in MLIR's generic form, which XLA's parser and Parse both read.
//
// Results are %0, %1, … and block arguments %arg0, %arg1, …, numbered over a whole function in
// the order they appear; result 1 of a group of two is %4#1. Equal modules print equal text.
// A value that is defined nowhere in its function prints as %undefined; Verify names it.
func (m *Module) String() string {
	p := printer{buf: make([]byte, 0, 1<<12)}
	p.text(`"builtin.module"() ({`)
	for _, op := range m.Globals {
		p.begin()
		p.op(op, 1)
	}
	for _, f := range m.Funcs {
		p.function(f)
	}
	p.text("\n})")
	attrs := m.Attrs
	if m.Name != "" {
		attrs = with(attrs, Attrs{"sym_name": String(m.Name)})
	}
	p.attrs(attrs)
	p.text(" : () -> ()\n")
	return string(p.buf)
}

// String prints the function alone, as it stands in its module. It is for messages and tests.
func (f *Func) String() string {
	var p printer
	p.function(f)
	return strings.TrimPrefix(string(p.buf), "\n")
}

type printer struct {
	buf     []byte
	names   map[*Value]string
	results int // numbers given so far in this function
	args    int
}

func (p *printer) text(s string) { p.buf = append(p.buf, s...) }

// begin starts the numbering of an operation that stands alone in the module.
func (p *printer) begin() { p.names, p.results, p.args = map[*Value]string{}, 0, 0 }

func (p *printer) line(depth int) {
	p.buf = append(p.buf, '\n')
	for range depth {
		p.buf = append(p.buf, "  "...)
	}
}

// The attributes of func.func that Func keeps in fields of its own.
const (
	symName        = "sym_name"
	symVisibility  = "sym_visibility"
	functionType   = "function_type"
	paramAttrsName = "arg_attrs"
	resAttrsName   = "res_attrs"
)

func (p *printer) function(f *Func) {
	p.begin()
	own := Attrs{symName: String(f.Name), functionType: Attr(signature(f.Params(), f.Results))}
	if f.Private {
		own[symVisibility] = String("private")
	}
	if f.ParamAttrs != nil {
		own[paramAttrsName] = dictionaries(f.ParamAttrs)
	}
	if f.ResultAttrs != nil {
		own[resAttrsName] = dictionaries(f.ResultAttrs)
	}
	p.line(1)
	p.text(`"func.func"() (`)
	p.region(f.Body, 1)
	p.text(")")
	p.attrs(with(f.Attrs, own))
	p.text(" : () -> ()")
}

func (p *printer) region(r *Region, depth int) {
	p.text("{")
	if r == nil {
		p.text("}")
		return
	}
	if len(r.Args) > 0 {
		p.line(depth)
		p.text("^bb0(")
		for i, a := range r.Args {
			if i > 0 {
				p.text(", ")
			}
			name := "%arg" + strconv.Itoa(p.args)
			p.args++
			p.names[a] = name
			p.text(name)
			p.text(": ")
			p.text(string(a.Type))
		}
		p.text("):")
	}
	for _, op := range r.Ops {
		p.op(op, depth+1)
	}
	p.line(depth)
	p.text("}")
}

func (p *printer) op(op *Op, depth int) {
	p.line(depth)
	if n := len(op.Results); n > 0 {
		p.text("%")
		name := strconv.Itoa(p.results)
		p.results++
		p.text(name)
		if n > 1 {
			p.text(":")
			p.text(strconv.Itoa(n))
		}
		p.text(" = ")
		p.define(op.Results, "%"+name)
	}
	p.text(`"`)
	p.text(op.Name)
	p.text(`"(`)
	for i, v := range op.Operands {
		if i > 0 {
			p.text(", ")
		}
		p.text(p.name(v))
	}
	p.text(")")
	for i, r := range op.Regions {
		if i == 0 {
			p.text(" (")
		} else {
			p.text(", ")
		}
		p.region(r, depth)
	}
	if len(op.Regions) > 0 {
		p.text(")")
	}
	p.attrs(op.Attrs)
	p.text(" : ")
	p.types(op.Operands)
	p.text(" -> ")
	if len(op.Results) == 1 {
		p.text(string(op.Results[0].Type))
	} else {
		p.types(op.Results)
	}
}

// define names the results of an operation. It comes before the regions are printed, so a region
// that uses the result of its own operation prints as written; Verify refuses it.
func (p *printer) define(results []*Value, name string) {
	if len(results) == 1 {
		p.names[results[0]] = name
		return
	}
	for i, v := range results {
		p.names[v] = name + "#" + strconv.Itoa(i)
	}
}

func (p *printer) name(v *Value) string {
	if n, ok := p.names[v]; ok {
		return n
	}
	return "%undefined"
}

func (p *printer) types(vs []*Value) {
	p.text("(")
	for i, v := range vs {
		if i > 0 {
			p.text(", ")
		}
		if v == nil {
			p.text("none")
			continue
		}
		p.text(string(v.Type))
	}
	p.text(")")
}

func (p *printer) attrs(as Attrs) {
	if len(as) == 0 {
		return
	}
	p.buf = append(p.buf, ' ')
	p.buf = appendDictionary(p.buf, as)
}

func appendDictionary(buf []byte, as Attrs) []byte {
	var few [8]string
	names := few[:0]
	for n := range as {
		names = append(names, n)
	}
	slices.Sort(names)
	buf = append(buf, '{')
	for i, n := range names {
		if i > 0 {
			buf = append(buf, ", "...)
		}
		if bareName(n) {
			buf = append(buf, n...)
		} else {
			buf = append(buf, quote(n)...)
		}
		if v := as[n]; v != Unit {
			buf = append(buf, " = "...)
			buf = append(buf, v...)
		}
	}
	return append(buf, '}')
}

// Dictionary makes a dictionary attribute, e.g. the composite_attributes of a composite.
func Dictionary(as Attrs) Attr { return Attr(appendDictionary(nil, as)) }

func dictionaries(list []Attrs) Attr {
	ds := make([]Attr, len(list))
	for i, as := range list {
		ds[i] = Dictionary(as)
	}
	return List(ds...)
}

// with is base and over together, over winning; neither is changed.
func with(base, over Attrs) Attrs {
	both := make(Attrs, len(base)+len(over))
	for n, v := range base {
		both[n] = v
	}
	for n, v := range over {
		both[n] = v
	}
	return both
}

// signature is a function type, e.g. "(tensor<2xf32>) -> (tensor<f32>)".
func signature(params []*Value, results []Type) string {
	rs := make([]string, len(results))
	for i, t := range results {
		rs[i] = string(t)
	}
	ps := make([]string, len(params))
	for i, v := range params {
		ps[i] = string(v.Type)
	}
	return "(" + strings.Join(ps, ", ") + ") -> (" + strings.Join(rs, ", ") + ")"
}

// bareName tells whether s needs no quotes as the name of an attribute.
func bareName(s string) bool {
	for i := range len(s) {
		if c := s[i]; !nameByte(c, i > 0) {
			return false
		}
	}
	return s != ""
}

// nameByte tells whether c may stand in a bare name, inside also past its first letter.
func nameByte(c byte, inside bool) bool {
	switch {
	case c == '_', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		return true
	case c == '$', c == '.', c >= '0' && c <= '9':
		return inside
	}
	return false
}
