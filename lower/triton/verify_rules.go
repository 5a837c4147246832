package triton

import (
	"fmt"
	"slices"
)

// ints refuses an operation whose Ints are not n numbers from 0 to most.
func ints(op *Op, n int, most int64) error {
	if len(op.Ints) != n || slices.Min(op.Ints) < 0 || slices.Max(op.Ints) > most {
		return fmt.Errorf("attributes %v, wanted %d from 0 to %d", op.Ints, n, most)
	}
	return nil
}

func shapeRules() {
	rules["tt.get_program_id"] = func(op *Op) error {
		if err := ints(op, 1, 2); err != nil {
			return err
		}
		return shape(op, 0, func(_ []Type, y Type) bool { return y == Scalar(I32) })
	}
	rules["tt.make_range"] = func(op *Op) error {
		if err := ints(op, 2, 1<<20); err != nil {
			return err
		}
		return shape(op, 0, func(_ []Type, y Type) bool { return op.Ints[0] == 0 && y == Block(I32, int(op.Ints[1])) })
	}
	rules["tt.splat"] = func(op *Op) error {
		return shape(op, 1, func(x []Type, y Type) bool { return x[0].Rank() == 0 && y.Rank() > 0 && x[0] == y.Of() })
	}
	rules["tt.expand_dims"] = func(op *Op) error {
		if err := ints(op, 1, maxRank-1); err != nil {
			return err
		}
		return shape(op, 1, func(x []Type, y Type) bool {
			at, d := int(op.Ints[0]), x[0].Dims()
			return at <= len(d) && len(d) > 0 && len(d) < maxRank && x[0].Of(slices.Insert(slices.Clone(d), at, 1)...) == y
		})
	}
	rules["tt.broadcast"] = func(op *Op) error {
		return shape(op, 1, func(x []Type, y Type) bool {
			if x[0].Rank() != y.Rank() || x[0].Of() != y.Of() {
				return false
			}
			for i, n := range x[0].Dims() {
				if n != 1 && n != y.Dims()[i] {
					return false
				}
			}
			return true
		})
	}
	rules["tt.trans"] = func(op *Op) error {
		return shape(op, 1, func(x []Type, y Type) bool {
			d := x[0].Dims()
			return slices.Equal(op.Ints, []int64{1, 0}) && len(d) == 2 && x[0].Of(d[1], d[0]) == y
		})
	}
	rules["tt.reduce"] = func(op *Op) error {
		return fold(op, func(x, y Type) bool {
			return slices.Equal(slices.Delete(slices.Clone(x.Dims()), int(op.Ints[0]), int(op.Ints[0])+1), y.Dims())
		})
	}
	rules["tt.scan"] = func(op *Op) error {
		return fold(op, func(x, y Type) bool { return x == y })
	}
	rules["tt.dot"] = func(op *Op) error {
		return shape(op, 3, func(x []Type, y Type) bool {
			a, b := x[0].Dims(), x[1].Dims()
			if len(a) != 2 || len(b) != 2 || a[1] != b[0] || x[0].Of() != x[1].Of() || !x[0].Elem.Float() {
				return false
			}
			fit := min(a[0], a[1], b[1]) >= 16 && (x[0].Elem != F8 || a[1] >= 32)
			return fit && y == Block(F32, a[0], b[1]) && x[2] == y
		})
	}
}

// fold is the rule of reductions and scans.
func fold(op *Op, fits func(x, y Type) bool) error {
	if err := ints(op, 1, maxRank-1); err != nil {
		return err
	}
	known := []string{"arith.addi", "arith.maxsi", "arith.minsi"}
	if op.Result().Type.Elem.Float() {
		known = []string{"arith.addf", "arith.maxnumf", "arith.minnumf"}
	}
	if !slices.Contains(known, op.Text) {
		return fmt.Errorf("folds by %q, wanted one of %q", op.Text, known)
	}
	return shape(op, 1, func(x []Type, y Type) bool {
		return !x[0].Pointer && int(op.Ints[0]) < x[0].Rank() && x[0].Of() == y.Of() && fits(x[0], y)
	})
}

func memoryRules() {
	rules["tt.addptr"] = func(op *Op) error {
		return shape(op, 2, func(x []Type, y Type) bool {
			whole := x[1].Elem == I32 || x[1].Elem == I64
			return x[0].Pointer && x[0] == y && !x[1].Pointer && whole && slices.Equal(x[0].Dims(), x[1].Dims())
		})
	}
	rules["tt.load"] = func(op *Op) error {
		n := len(op.Operands)
		if n != 1 && n != 3 {
			return fmt.Errorf("%d operands, wanted pointers, or pointers, mask and what masked elements are", n)
		}
		return shape(op, n, func(x []Type, y Type) bool {
			return x[0].Pointer && x[0].With(x[0].Elem) == y && (n == 1 || x[1] == y.With(I1) && x[2] == y)
		})
	}
	rules["tt.store"] = func(op *Op) error {
		n := len(op.Operands)
		if n != 2 && n != 3 || len(op.Results) != 0 {
			return fmt.Errorf("%d operands and %d results, wanted 2 or 3 and none", n, len(op.Results))
		}
		p, v := op.Operands[0].Type, op.Operands[1].Type
		if !p.Pointer || p.With(p.Elem) != v || n == 3 && op.Operands[2].Type != v.With(I1) {
			return fmt.Errorf("types %s do not fit", types(op.Operands))
		}
		return nil
	}
}

func controlRules() {
	rules["tt.return"] = func(op *Op) error {
		if len(op.Operands)+len(op.Results) != 0 {
			return fmt.Errorf("%d operands, wanted none", len(op.Operands))
		}
		return nil
	}
	rules["scf.yield"] = func(*Op) error { return nil } // checked by the loop
	rules["scf.if"] = func(op *Op) error {
		if len(op.Operands) != 1 || op.Operands[0].Type != Scalar(I1) || len(op.Regions) != 1 || len(op.Results) != 0 || len(op.Regions[0].Args) != 0 {
			return fmt.Errorf("types (%s), wanted i1 and one region without arguments or results", types(op.Operands))
		}
		return nil
	}
	rules["scf.for"] = func(op *Op) error {
		if len(op.Operands) < 3 || len(op.Regions) != 1 {
			return fmt.Errorf("%d operands and %d regions, wanted at least 3 and 1", len(op.Operands), len(op.Regions))
		}
		init, r := op.Operands[3:], op.Regions[0]
		if len(r.Args) != len(init)+1 || len(op.Results) != len(init) || len(r.Ops) == 0 {
			return fmt.Errorf("%d initial values, %d arguments and %d results, wanted as many, and one argument more", len(init), len(r.Args), len(op.Results))
		}
		yield := r.Ops[len(r.Ops)-1].Operands
		if len(yield) != len(init) {
			return fmt.Errorf("yields %d values, wanted %d", len(yield), len(init))
		}
		for i, v := range init {
			if r.Args[i+1].Type != v.Type || op.Results[i].Type != v.Type || yield[i].Type != v.Type {
				return fmt.Errorf("carries %s as %s to %s, yields %s, wanted one type", v.Type, r.Args[i+1].Type, op.Results[i].Type, yield[i].Type)
			}
		}
		for _, v := range append([]*Value{r.Args[0]}, op.Operands[:3]...) {
			if v.Type != Scalar(I32) {
				return fmt.Errorf("bound of type %s, wanted i32", v.Type)
			}
		}
		return nil
	}
}
