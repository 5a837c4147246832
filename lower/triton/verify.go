package triton

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Verify checks what the printer, the interpreter and XLA rely on:
//
//   - parameters are pointers with distinct names, and every value has an ID of its own below Values;
//   - every value is defined before its uses, in the same or an enclosing region;
//   - blocks have at most three axes, each a power of two, and at most 2^20 elements;
//   - the types of each operation fit its rule.
//
// The first problem of each region comes, joined; it names the operation's number in the order of making.
func Verify(f *Func) error {
	v := verifier{f: f, seen: make([]bool, f.Values), once: make([]bool, f.Values), names: map[string]bool{}}
	for _, p := range f.Params {
		if !p.Type.Pointer || p.Type.Rank() != 0 || p.Name == "" || v.names[p.Name] {
			v.problem("parameter %q of type %s, wanted a pointer with a name of its own", p.Name, p.Type)
		}
		v.names[p.Name] = true
		v.define(p)
	}
	v.region(f.Body, "tt.return")
	return errors.Join(v.problems...)
}

type verifier struct {
	f        *Func
	seen     []bool // values in scope
	once     []bool // values that were defined
	names    map[string]bool
	count    int
	problems []error
}

func (v *verifier) problem(format string, args ...any) {
	v.problems = append(v.problems, fmt.Errorf("triton: %s: %s", v.f.Name, fmt.Sprintf(format, args...)))
}

// define brings a value into scope.
func (v *verifier) define(x *Value) bool {
	if x.ID < 0 || x.ID >= v.f.Values || v.once[x.ID] {
		v.problem("value %d of type %s, wanted an ID of its own below %d", x.ID, x.Type, v.f.Values)
		return false
	}
	v.once[x.ID], v.seen[x.ID] = true, true
	d := x.Type.Dims()
	for _, n := range d {
		if !isPowerOfTwo(n) || n > 1<<20 || x.Type.Size() > 1<<20 {
			v.problem("block %s, wanted powers of two and at most 2^20 elements", x.Type)
			return false
		}
	}
	if x.Type.Rank() > maxRank || x.Type.Elem < I1 || x.Type.Elem > F32 {
		v.problem("type %s, wanted a known element and at most %d axes", x.Type, maxRank)
		return false
	}
	return true
}

// region checks operations up to the terminator; its values are out of scope afterwards.
func (v *verifier) region(r *Region, end string) bool {
	var mine []*Value
	defer func() {
		for _, x := range mine {
			v.seen[x.ID] = false
		}
	}()
	add := func(xs []*Value) bool {
		for _, x := range xs {
			if !v.define(x) {
				return false
			}
			mine = append(mine, x)
		}
		return true
	}
	if !add(r.Args) {
		return false
	}
	for i, op := range r.Ops {
		v.count++
		at := fmt.Sprintf("operation %d %s", v.count, op.Name)
		for _, x := range op.Operands {
			if x == nil || x.ID < 0 || x.ID >= len(v.seen) || !v.seen[x.ID] {
				v.problem("%s: an operand is not defined before it", at)
				return false
			}
		}
		last := i == len(r.Ops)-1
		if terminator := op.Name == "tt.return" || op.Name == "scf.yield"; terminator != (last && end != "") || terminator && op.Name != end {
			v.problem("%s: operation %d of %d, wanted the region to end in its only %q", at, i+1, len(r.Ops), end)
			return false
		}
		rule, ok := rules[op.Name]
		if !ok {
			v.problem("%s: unknown operation", at)
			return false
		}
		if err := rule(op); err != nil {
			v.problem("%s: %v", at, err)
			return false
		}
		for _, inner := range op.Regions {
			inside := ""
			if op.Name == "scf.for" {
				inside = "scf.yield"
			}
			if !v.region(inner, inside) {
				return false
			}
		}
		if !add(op.Results) {
			return false
		}
	}
	if end != "" && len(r.Ops) == 0 {
		v.problem("empty region, wanted %q at its end", end)
		return false
	}
	return true
}

// rules says what each operation takes and gives.
var rules = map[string]func(op *Op) error{}

func init() {
	for _, n := range []string{"addi", "subi", "muli", "divsi", "remsi", "minsi", "maxsi", "andi", "ori"} {
		rules["arith."+n] = same(2, func(e Elem) bool { return !e.Float() })
	}
	for _, n := range []string{"addf", "subf", "mulf", "divf", "minnumf", "maxnumf"} {
		rules["arith."+n] = same(2, func(e Elem) bool { return e.Float() && e != F8 })
	}
	for _, n := range []string{"math.exp2", "math.log2", "math.sqrt"} {
		rules[n] = same(1, func(e Elem) bool { return e == F32 })
	}
	convert := func(fits func(from, to Elem) bool) func(op *Op) error {
		return func(op *Op) error {
			return shape(op, 1, func(x []Type, y Type) bool {
				return !x[0].Pointer && x[0].With(y.Elem) == y && fits(x[0].Elem, y.Elem)
			})
		}
	}
	rules["arith.extf"] = convert(func(x, y Elem) bool { return x.Float() && y.Float() && x.Bits() < y.Bits() })
	rules["arith.truncf"] = convert(func(x, y Elem) bool { return x.Float() && y.Float() && x.Bits() > y.Bits() })
	rules["tt.fp_to_fp"] = convert(func(x, y Elem) bool { return x.Float() && y.Float() && x != y })
	rules["arith.extsi"] = convert(func(x, y Elem) bool { return !x.Float() && !y.Float() && x.Bits() < y.Bits() })
	rules["arith.extui"] = rules["arith.extsi"]
	rules["arith.trunci"] = convert(func(x, y Elem) bool { return !x.Float() && !y.Float() && x.Bits() > y.Bits() })
	rules["arith.sitofp"] = convert(func(x, y Elem) bool { return !x.Float() && y.Float() && y != F8 })
	rules["arith.uitofp"] = rules["arith.sitofp"]
	compare := func(known ...string) func(op *Op) error {
		return func(op *Op) error {
			if !slices.Contains(known, op.Text) {
				return fmt.Errorf("predicate %q, wanted one of %q", op.Text, known)
			}
			return shape(op, 2, func(x []Type, y Type) bool {
				return x[0] == x[1] && !x[0].Pointer && x[0].With(I1) == y && x[0].Elem.Float() == (op.Name == "arith.cmpf")
			})
		}
	}
	rules["arith.cmpi"] = compare("slt", "sle", "eq")
	rules["arith.cmpf"] = compare("olt", "ole", "oeq")
	rules["arith.select"] = func(op *Op) error {
		return shape(op, 3, func(x []Type, y Type) bool { return x[0] == y.With(I1) && x[1] == y && x[2] == y })
	}
	rules["arith.constant"] = constantRule
	shapeRules()
	memoryRules()
	controlRules()
}

// same is a rule of n operands of the result's type.
func same(n int, fits func(Elem) bool) func(op *Op) error {
	return func(op *Op) error {
		return shape(op, n, func(x []Type, y Type) bool {
			for _, t := range x {
				if t != y {
					return false
				}
			}
			return !y.Pointer && fits(y.Elem)
		})
	}
}

// shape holds an operation to n operands and one result whose types fit.
func shape(op *Op, n int, fits func(x []Type, y Type) bool) error {
	x := make([]Type, len(op.Operands))
	for i, v := range op.Operands {
		x[i] = v.Type
	}
	if len(x) != n || len(op.Results) != 1 {
		return fmt.Errorf("%d operands and %d results, wanted %d and 1", len(x), len(op.Results), n)
	}
	if !fits(x, op.Result().Type) {
		return fmt.Errorf("types (%s) -> %s do not fit", types(op.Operands), op.Result().Type)
	}
	return nil
}

func constantRule(op *Op) error {
	t := op.Result().Type
	switch {
	case t.Elem.Float() && (math.IsNaN(op.Number) || math.IsInf(op.Number, 1)):
		return fmt.Errorf("constant %v, wanted a number or -Inf", op.Number)
	case math.IsInf(op.Number, -1) && t.Elem != F32:
		return fmt.Errorf("constant -Inf of %s, wanted f32", t)
	case !t.Elem.Float() && len(op.Ints) != 1:
		return fmt.Errorf("constant of %d integers, wanted 1", len(op.Ints))
	case t.Elem == I32 && int64(int32(op.Ints[0])) != op.Ints[0], t.Elem == I1 && op.Ints[0]&^1 != 0:
		return fmt.Errorf("constant %d of %s, which is too small for it", op.Ints[0], t)
	}
	return shape(op, 0, func(_ []Type, y Type) bool { return !y.Pointer })
}
