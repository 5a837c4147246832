package ir

import (
	"errors"
	"fmt"
)

// terminators end a region. A function's last operation is func.return.
var terminators = map[string]bool{
	"func.return": true, "stablehlo.return": true, "mhlo.return": true, "sdy.return": true,
}

// Verify checks what every pass may rely on and must leave behind:
//
//   - functions have distinct names, one is main, and each body ends in func.return of its results;
//   - every value is defined once, before its uses, in the same or an enclosing region of the same
//     function, and knows its definition;
//   - every region ends in its only terminator;
//   - called functions exist and take and give what the call says, and no function reaches itself;
//   - the operations in the table rules agree with their operands (rules.go).
//
// All problems of the module come joined. Each names function, operation number (in the order
// printed, from 0) and operation.
func Verify(m *Module) error {
	v := verifier{funcs: map[string]*Func{}, home: map[*Value]string{}, regions: map[*Region]bool{}}
	for _, f := range m.Funcs {
		if f.Name == "" {
			v.problem("function without a name")
		} else if v.funcs[f.Name] != nil {
			v.problem("function @%s is defined twice", f.Name)
		}
		v.funcs[f.Name] = f
	}
	if v.funcs["main"] == nil {
		v.problem("module %q has no function @main", m.Name)
	}
	for _, op := range m.Globals {
		v.at("module", -1, op)
		v.op(op, nil, 0)
	}
	for _, f := range m.Funcs {
		v.function(f)
	}
	v.cycles(m)
	return errors.Join(v.problems...)
}

// maxProblems stops the verifier, because one broken pass can break every operation.
const maxProblems = 20

type verifier struct {
	funcs    map[string]*Func
	home     map[*Value]string // the function that defines a value, "" while out of scope
	regions  map[*Region]bool  // regions met, to find one that stands in two places
	problems []error

	fn    string // where we are, for messages
	index int
	cur   *Op
	count int // operations met in this function
}

func (v *verifier) at(fn string, index int, op *Op) { v.fn, v.index, v.cur = fn, index, op }

func (v *verifier) problem(format string, args ...any) {
	if len(v.problems) >= maxProblems {
		return
	}
	where := "ir: "
	switch {
	case v.cur != nil && v.index >= 0:
		where = fmt.Sprintf("ir: @%s op %d %s: ", v.fn, v.index, v.cur.Name)
	case v.cur != nil:
		where = fmt.Sprintf("ir: %s %s: ", v.fn, v.cur.Name)
	case v.fn != "":
		where = fmt.Sprintf("ir: @%s: ", v.fn)
	}
	v.problems = append(v.problems, errors.New(where+fmt.Sprintf(format, args...)))
}

func (v *verifier) function(f *Func) {
	v.at(f.Name, -1, nil)
	v.count = 0
	for n := range f.Attrs {
		switch n {
		case symName, symVisibility, functionType, paramAttrsName, resAttrsName:
			v.problem("Attrs holds %s, which has a field of its own", n)
		}
	}
	if f.Body == nil {
		v.problem("no body")
		return
	}
	if n := len(f.ParamAttrs); f.ParamAttrs != nil && n != len(f.Params()) {
		v.problem("%d ParamAttrs for %d parameters", n, len(f.Params()))
	}
	if n := len(f.ResultAttrs); f.ResultAttrs != nil && n != len(f.Results) {
		v.problem("%d ResultAttrs for %d results", n, len(f.Results))
	}
	v.region(f.Body, "func.return", 0)
	v.at(f.Name, -1, nil)
	if n := len(f.Body.Ops); n > 0 {
		last := f.Body.Ops[n-1]
		if got, want := typeText(Types(last.Operands)), typeText(f.Results); last.Name == "func.return" && got != want {
			v.problem("returns (%s), its type says (%s)", got, want)
		}
	}
}

// region checks r and takes its values out of scope again. end is the wanted terminator, "" for any
// but func.return.
func (v *verifier) region(r *Region, end string, depth int) {
	if r == nil {
		v.problem("region is nil")
		return
	}
	if v.regions[r] {
		v.problem("one region stands in two places")
		return
	}
	v.regions[r] = true
	if depth > maxDepth {
		v.problem("regions nest deeper than %d", maxDepth)
		return
	}
	fn, index, cur := v.fn, v.index, v.cur
	for i, a := range r.Args {
		if a == nil || a.Def != nil {
			v.problem("argument %d of a region is nil or has a definition", i)
			continue
		}
		v.define(a)
	}
	for i, op := range r.Ops {
		if op == nil {
			v.problem("operation %d of a region is nil", i)
			continue
		}
		v.at(fn, v.count, op)
		v.count++
		v.op(op, r, depth)
		v.at(fn, v.count-1, op)
		if last := i == len(r.Ops)-1; terminators[op.Name] != last {
			if last {
				v.problem("is no terminator and ends a region")
			} else {
				v.problem("is a terminator inside a region")
			}
		} else if last && (op.Name == "func.return") != (end == "func.return") {
			v.problem("ends the wrong kind of region")
		}
	}
	v.at(fn, index, cur)
	if len(r.Ops) == 0 {
		v.problem("a region has no operations")
	}
	for _, a := range r.Args {
		v.home[a] = ""
	}
	for _, op := range r.Ops {
		if op != nil {
			for _, res := range op.Results {
				v.home[res] = ""
			}
		}
	}
}

func (v *verifier) op(op *Op, in *Region, depth int) {
	index := v.index
	for i, o := range op.Operands {
		if o == nil {
			v.problem("operand %d is nil", i)
			continue
		}
		switch home, met := v.home[o]; {
		case !met && o.Def != nil:
			v.problem("operand %d (%s, result of %s) is used before it is defined", i, o.Type, o.Def.Name)
		case !met:
			v.problem("operand %d (%s) is an argument of no enclosing region", i, o.Type)
		case home == "":
			v.problem("operand %d (%s) belongs to another function or a closed region", i, o.Type)
		}
	}
	for n, a := range op.Attrs {
		if n == "" || a == "" {
			v.problem("attribute %q = %q is empty", n, a)
		}
	}
	for _, r := range op.Regions {
		v.region(r, "", depth+1)
	}
	v.at(v.fn, index, op)
	for i, res := range op.Results {
		if res == nil || res.Def != op {
			v.problem("result %d is nil or does not name the operation as its definition", i)
			continue
		}
		v.define(res)
	}
	if !v.sound(op) {
		return
	}
	v.callee(op)
	if check := rules[op.Name]; check != nil {
		if err := check(op); err != nil {
			v.problem("%v", err)
		}
	}
}

// sound tells whether op has nothing nil that a rule could stumble over.
func (v *verifier) sound(op *Op) bool {
	for _, o := range op.Operands {
		if o == nil {
			return false
		}
	}
	for _, r := range op.Results {
		if r == nil {
			return false
		}
	}
	for _, r := range op.Regions {
		if r == nil || len(r.Ops) == 0 || r.Ops[len(r.Ops)-1] == nil {
			return false
		}
		for _, o := range r.Ops[len(r.Ops)-1].Operands {
			if o == nil {
				return false
			}
		}
	}
	return true
}

func (v *verifier) define(val *Value) {
	if _, met := v.home[val]; met {
		v.problem("a value (%s) is defined twice", val.Type)
	}
	v.home[val] = v.fn
	if val.Type == "" {
		v.problem("a value has no type")
	}
}

// Callee is the function that op calls, by func.call or as the body of a composite.
func (op *Op) Callee() (name string, ok bool) {
	switch op.Name {
	case "func.call":
		return op.Attrs["callee"].Symbol()
	case "stablehlo.composite":
		return op.Attrs["decomposition"].Symbol()
	}
	return "", false
}

func (v *verifier) callee(op *Op) {
	name, ok := op.Callee()
	if !ok {
		if op.Name == "func.call" || op.Name == "stablehlo.composite" {
			v.problem("names no function")
		}
		return
	}
	f := v.funcs[name]
	if f == nil {
		v.problem("@%s is not in the module", name)
		return
	}
	if got, want := typeText(Types(op.Operands)), typeText(Types(f.Params())); got != want {
		v.problem("gives @%s (%s), it takes (%s)", name, got, want)
	}
	if got, want := typeText(Types(op.Results)), typeText(f.Results); got != want {
		v.problem("wants (%s) of @%s, it returns (%s)", got, name, want)
	}
	if _, ok := op.Attrs["name"].Text(); op.Name == "stablehlo.composite" && !ok {
		v.problem("has no name")
	}
}

// cycles finds functions that reach themselves: a program is a finite unrolling.
func (v *verifier) cycles(m *Module) {
	v.at("", -1, nil)
	const open, done = 1, 2
	state := map[string]int{}
	var visit func(name string)
	visit = func(name string) {
		f := v.funcs[name]
		if f == nil || f.Body == nil || state[name] == done {
			return
		}
		if state[name] == open {
			v.problem("@%s calls itself", name)
			return
		}
		state[name] = open
		for _, callee := range callees(f.Body, maxDepth) {
			visit(callee)
		}
		state[name] = done
	}
	for _, f := range m.Funcs {
		visit(f.Name)
	}
}

// callees lists the distinct functions that the operations of r call, as deep as depth.
func callees(r *Region, depth int) []string {
	var names []string
	seen := map[string]bool{}
	walk(r, depth, func(op *Op) {
		if name, ok := op.Callee(); ok && !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	})
	return names
}
