// Package interp executes Triton kernels on the host, program after program, for tests.
//
// It computes what the kernel's operations mean: masks, rounding to each element type, sums in float32. It also
// refuses what a GPU would do silently: an access outside an array, a result element that two programs write
// differently, that nobody writes, or that is read where it may not be written yet. It says nothing about
// layouts, shared memory or speed.
package interp

import (
	"errors"
	"fmt"

	"mix/lower/triton"
)

// Array is a Triton array with its elements: Ints of i1, i32 and i64, else Floats.
type Array struct {
	triton.Array
	Ints   []int64
	Floats []float32

	writer []int32 // number of the program that wrote each element, from 1; nil of operands
}

// Ints makes an array of integers.
func Ints(e triton.Elem, values []int64, dims ...int) *Array {
	return &Array{Array: triton.Array{Elem: e, Dims: dims}, Ints: values}
}

// Floats makes an array of floats, rounded to e.
func Floats(e triton.Elem, values []float32, dims ...int) *Array {
	rounded := make([]float32, len(values))
	for i, v := range values {
		rounded[i] = Round(e, v)
	}
	return &Array{Array: triton.Array{Elem: e, Dims: dims}, Floats: rounded}
}

// Run executes all programs of a call. Elements of results that no program writes are an error, unless partial.
func Run(c triton.Call, operands ...*Array) ([]*Array, error) { return run(c, true, operands) }

// RunPartial is Run of a kernel that may leave elements of its results unwritten; they are zero. Of a result in the place of an
// operand they are the operand's, here and in Run.
func RunPartial(c triton.Call, operands ...*Array) ([]*Array, error) { return run(c, false, operands) }

func run(c triton.Call, whole bool, operands []*Array) (results []*Array, err error) {
	if len(operands) != len(c.Operands) {
		return nil, fmt.Errorf("interp: %s: %d operands, wanted %d", c.Name, len(operands), len(c.Operands))
	}
	m := machine{call: c, env: make([]*block, c.Func.Values)}
	for i, a := range operands {
		want := c.Operands[i]
		if a.Elem != want.Elem || len(a.Ints)+len(a.Floats) != want.Size() {
			return nil, fmt.Errorf("interp: %s: operand %s is %d of %s, wanted %s", c.Name, want.Name, len(a.Ints)+len(a.Floats), a.Elem, want)
		}
		named := *a
		named.Array, named.writer = want, nil
		m.arrays = append(m.arrays, &named)
	}
	for _, want := range c.Results {
		a := &Array{Array: want, writer: make([]int32, want.Size())}
		if want.Elem.Float() {
			a.Floats = make([]float32, want.Size())
		} else {
			a.Ints = make([]int64, want.Size())
		}
		m.arrays, results = append(m.arrays, a), append(results, a)
	}
	kept := map[*Array]bool{}
	for _, p := range c.InPlace {
		from, to := m.arrays[p[1]], results[p[0]]
		copy(to.Ints, from.Ints)
		copy(to.Floats, from.Floats)
		kept[to] = true
	}
	defer func() {
		if p := recover(); p != nil {
			fault, ok := p.(fault)
			if !ok {
				panic(p)
			}
			results, err = nil, fmt.Errorf("interp: %s: program %v: %w", c.Name, m.program, fault.err)
		}
	}()
	for z := range c.Grid[2] {
		for y := range c.Grid[1] {
			for x := range c.Grid[0] {
				m.program = [3]int{x, y, z}
				m.number++
				for i, p := range c.Func.Params {
					m.env[p.ID] = &block{t: p.Type, ints: []int64{0}, array: m.arrays[i]}
				}
				m.region(c.Func.Body)
			}
		}
	}
	if whole {
		for _, a := range results {
			for i, w := range a.writer {
				if w == 0 && !kept[a] {
					return nil, fmt.Errorf("interp: %s: element %d of %s is never written", c.Name, i, a.Name)
				}
			}
		}
	}
	return results, nil
}

// fault is an error of the kernel, thrown through the recursion over regions.
type fault struct{ err error }

func fail(format string, args ...any) { panic(fault{fmt.Errorf(format, args...)}) }

var errBase = errors.New("a block of pointers into different arrays")

// block is a value: elements in row-major order. Pointers are offsets into one array.
type block struct {
	t      triton.Type
	ints   []int64
	floats []float32
	array  *Array
}

func newBlock(t triton.Type) *block {
	b := &block{t: t}
	if t.Elem.Float() && !t.Pointer {
		b.floats = make([]float32, t.Size())
	} else {
		b.ints = make([]int64, t.Size())
	}
	return b
}

// move copies element j of x to element i.
func (b *block) move(i int, x *block, j int) {
	if b.floats != nil {
		b.floats[i] = x.floats[j]
	} else {
		b.ints[i] = x.ints[j]
	}
}

type machine struct {
	call    triton.Call
	arrays  []*Array
	env     []*block
	program [3]int
	number  int32
}

// region runs operations and returns what its terminator carries.
func (m *machine) region(r *triton.Region) []*block {
	for _, op := range r.Ops {
		in := make([]*block, len(op.Operands))
		for i, v := range op.Operands {
			in[i] = m.env[v.ID]
		}
		switch op.Name {
		case "tt.return", "scf.yield":
			return in
		case "scf.if":
			if in[0].ints[0] != 0 {
				m.region(op.Regions[0])
			}
		case "scf.for":
			for i, v := range m.loop(op, in) {
				m.env[op.Results[i].ID] = v
			}
		case "tt.store":
			m.store(in)
		case "tt.load":
			m.env[op.Result().ID] = m.load(op, in)
		case "tt.get_program_id":
			m.env[op.Result().ID] = &block{t: op.Result().Type, ints: []int64{int64(m.program[op.Ints[0]])}}
		default:
			m.env[op.Result().ID] = evaluate(op, in)
		}
	}
	return nil
}

func (m *machine) loop(op *triton.Op, in []*block) []*block {
	carried, r := in[3:], op.Regions[0]
	step := in[2].ints[0]
	if step <= 0 {
		fail("loop by step %d, wanted at least 1", step)
	}
	for i := in[0].ints[0]; i < in[1].ints[0]; i += step {
		m.env[r.Args[0].ID] = &block{t: r.Args[0].Type, ints: []int64{i}}
		for j, v := range carried {
			m.env[r.Args[j+1].ID] = v
		}
		carried = m.region(r)
	}
	return carried
}

// load reads where the mask holds and takes the third operand elsewhere.
func (m *machine) load(op *triton.Op, in []*block) *block {
	p, a := in[0], in[0].array
	out := newBlock(op.Result().Type)
	for i, at := range p.ints {
		if len(in) > 1 && in[1].ints[i] == 0 {
			out.move(i, in[2], i)
			continue
		}
		m.inside("load", a, at)
		if a.writer != nil {
			fail("load of element %d of the result %s", at, a.Name)
		}
		if out.floats != nil {
			out.floats[i] = a.Floats[at]
		} else {
			out.ints[i] = a.Ints[at]
		}
	}
	return out
}

// store writes where the mask holds.
func (m *machine) store(in []*block) {
	p, v, a := in[0], in[1], in[0].array
	if a.writer == nil {
		fail("store to the operand %s", a.Name)
	}
	for i, at := range p.ints {
		if len(in) > 2 && in[2].ints[i] == 0 {
			continue
		}
		m.inside("store", a, at)
		if w := a.writer[at]; w != 0 {
			fail("element %d of %s is written by program %d of the grid and again by %d", at, a.Name, w, m.number)
		}
		a.writer[at] = m.number
		if v.floats != nil {
			a.Floats[at] = v.floats[i]
		} else {
			a.Ints[at] = v.ints[i]
		}
	}
}

func (m *machine) inside(what string, a *Array, at int64) {
	if at < 0 || at >= int64(a.Size()) {
		fail("%s of element %d of %s, which has %d", what, at, a.Name, a.Size())
	}
}
