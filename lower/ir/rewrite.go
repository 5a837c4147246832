package ir

import (
	"fmt"
	"slices"
)

// Walk calls visit for every operation of r in printed order, an operation before those inside it.
func Walk(r *Region, visit func(op *Op)) { walk(r, maxDepth, visit) }

func walk(r *Region, depth int, visit func(op *Op)) {
	if r == nil || depth < 0 {
		return
	}
	for _, op := range r.Ops {
		if op == nil {
			continue
		}
		visit(op)
		for _, inner := range op.Regions {
			walk(inner, depth-1, visit)
		}
	}
}

// WalkRegions calls visit for r and every region inside it, inner ones first, so that visit may
// rewrite the operations of the region that it is given.
func WalkRegions(r *Region, visit func(r *Region) error) error {
	if r == nil {
		return nil
	}
	for _, op := range r.Ops {
		for _, inner := range op.Regions {
			if err := WalkRegions(inner, visit); err != nil {
				return err
			}
		}
	}
	return visit(r)
}

// Uses counts for every value how many operands inside r it is.
func Uses(r *Region) map[*Value]int {
	uses := map[*Value]int{}
	Walk(r, func(op *Op) {
		for _, v := range op.Operands {
			uses[v]++
		}
	})
	return uses
}

// ReplaceAll puts for every value that is a key of by its replacement, in all operands inside r.
// Chains are followed: a replacement may itself be a key. Types must agree; it panics if not.
func ReplaceAll(r *Region, by map[*Value]*Value) {
	if len(by) == 0 {
		return
	}
	for from, to := range by {
		if from.Type != to.Type {
			panic(fmt.Sprintf("ir: ReplaceAll of %s by %s", from.Type, to.Type))
		}
	}
	Walk(r, func(op *Op) {
		for i, v := range op.Operands {
			for to, found := by[v]; found; to, found = by[v] {
				v = to
			}
			op.Operands[i] = v
		}
	})
}

// Index is the place of op among the operations of r itself, -1 if it is not there.
func (r *Region) Index(op *Op) int { return slices.Index(r.Ops, op) }

// InsertBefore puts ops before at, which stands in r itself; InsertAfter puts them after it. Both
// panic if it does not.
func (r *Region) InsertBefore(at *Op, ops ...*Op) { r.insert(at, 0, ops) }

// InsertAfter puts ops after at.
func (r *Region) InsertAfter(at *Op, ops ...*Op) { r.insert(at, 1, ops) }

func (r *Region) insert(at *Op, off int, ops []*Op) {
	i := r.Index(at)
	if i < 0 {
		panic("ir: insert beside " + at.Name + ", which is not in the region")
	}
	r.Ops = slices.Insert(r.Ops, i+off, ops...)
}

// Erase removes op from r itself. Its results must have no uses left; Verify finds those that do.
func (r *Region) Erase(op *Op) {
	if i := r.Index(op); i >= 0 {
		r.Ops = slices.Delete(r.Ops, i, i+1)
	}
}

// Terminator is the last operation of r, nil if there is none.
func (r *Region) Terminator() *Op {
	if len(r.Ops) == 0 {
		return nil
	}
	return r.Ops[len(r.Ops)-1]
}

// Clone copies r with all inside it. Values of r are mapped to their copies in values; values from
// outside r are replaced where values has them and kept where not.
func (r *Region) Clone(values map[*Value]*Value) *Region {
	c := &Region{}
	for _, a := range r.Args {
		n := &Value{Type: a.Type}
		values[a] = n
		c.Args = append(c.Args, n)
	}
	for _, op := range r.Ops {
		c.Ops = append(c.Ops, op.Clone(values))
	}
	return c
}

// Clone copies op with its regions, as Region.Clone does.
func (op *Op) Clone(values map[*Value]*Value) *Op {
	c := &Op{Name: op.Name}
	if op.Attrs != nil {
		c.Attrs = with(op.Attrs, nil)
	}
	for _, v := range op.Operands {
		if n, found := values[v]; found {
			v = n
		}
		c.Operands = append(c.Operands, v)
	}
	for _, inner := range op.Regions {
		c.Regions = append(c.Regions, inner.Clone(values))
	}
	for _, res := range op.Results {
		n := &Value{Type: res.Type, Def: c}
		values[res] = n
		c.Results = append(c.Results, n)
	}
	return c
}
