package pass

import (
	"fmt"
	"slices"
	"strconv"

	"mix/lower/ir"
	"mix/lower/triton"
)

// attended is what both composites of attention have.
type attended struct {
	elem       string
	b, h, s, a int // sequences, query heads, queries, width of a head
	window     int
}

// readAttended reads q and the attribute window.
func readAttended(op *ir.Op) (x attended, err error) {
	if len(op.Operands) < 5 || len(op.Results) != 1 {
		return x, fmt.Errorf("%d operands and %d results, wanted at least 5 and 1", len(op.Operands), len(op.Results))
	}
	elem, q, err := matrix(op.Operands[0], 4)
	if err != nil {
		return x, err
	}
	x = attended{elem: elem, b: q[0], h: q[1], s: q[2], a: q[3]}
	if op.Results[0].Type != op.Operands[0].Type {
		return x, fmt.Errorf("result %s, wanted the type of q, %s", op.Results[0].Type, op.Operands[0].Type)
	}
	entry, _ := op.Attrs["composite_attributes"].Entry("window")
	text, ok := entry.Text()
	if x.window, err = strconv.Atoi(text); !ok || err != nil || x.window < 0 {
		return x, fmt.Errorf("window is %s, wanted a number of keys, 0 for all", entry)
	}
	return x, nil
}

// fewQueries is below how many queries a sequence a block of them would be mostly empty; XLA's products then do as well.
const fewQueries = 16

// attentionCUDA keeps no scores.
func attentionCUDA(b ir.Builder, op *ir.Op) ([]*ir.Value, error) { return flash(b, op, false) }

// keptAttentionCUDA also gives what the gradient reads, as a second result.
func keptAttentionCUDA(b ir.Builder, op *ir.Op) ([]*ir.Value, error) { return flash(b, op, true) }

func flash(b ir.Builder, op *ir.Op, kept bool) ([]*ir.Value, error) {
	f, operands, err := readFlash(op)
	if err != nil || operands == nil {
		return nil, err
	}
	f.LSE = kept
	if byCuDNN(op) {
		return EmitCuDNN(b, f, operands[0], operands[1], operands[2])
	}
	tile, unfit := tiles().Choose("flash", f.Elem, f.Queries)
	call, unfit2 := f.Call(tile)
	if unfit != nil || unfit2 != nil {
		return nil, nil
	}
	return EmitCall(b, call, operands...)
}

// readFlash is the kernel for mix.attention and its operands, nil where none fits.
func readFlash(op *ir.Op) (f triton.Flash, operands []*ir.Value, err error) {
	x, err := readAttended(op)
	if err != nil {
		return f, nil, err
	}
	kelem, k, err := matrix(op.Operands[1], 4)
	if err != nil {
		return f, nil, err
	}
	f = triton.Flash{Sequences: x.b, Heads: x.h, KeyHeads: k[1], Width: x.a, Queries: x.s, Keys: k[2], Window: x.window, InOrder: counts(op.Operands[keyPositions]),
		Segments: len(op.Operands) == 7, Elem: kernelElems[x.elem]}
	places := []ir.Type{ir.Tensor("i32", x.b, x.s), ir.Tensor("i32", x.b, k[2])}
	if f.Segments {
		places = append(places, places...)
	}
	if got := ir.Types(op.Operands[3:]); k[0] != x.b || k[3] != x.a || op.Operands[2].Type != op.Operands[1].Type || !slices.Equal(got, places) {
		return f, nil, fmt.Errorf("q %s, k %s, v %s and places %v, wanted sizes that fit", op.Operands[0].Type, op.Operands[1].Type, op.Operands[2].Type, got)
	}
	if kelem != x.elem || x.s < fewQueries {
		return f, nil, nil
	}
	operands = slices.Clone(op.Operands)
	if f.InOrder {
		operands = slices.Delete(operands, keyPositions, keyPositions+1)
	}
	return f, operands, nil
}

// counts tells whether v [B, C] counts from 0 along its second axis.
func counts(v *ir.Value) bool {
	return v.Def != nil && v.Def.Name == "stablehlo.iota" && v.Def.Attrs["iota_dimension"] == ir.Int(1)
}

// pagedAttentionCUDA reads the keys and values of one query a sequence where they lie.
func pagedAttentionCUDA(b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
	x, err := readAttended(op)
	if err != nil {
		return nil, err
	}
	kelem, k, err := matrix(op.Operands[1], 3)
	if err != nil {
		return nil, err
	}
	positions, read := op.Operands[3], op.Operands[4]
	_, c, ok := read.Type.Split()
	if !ok || len(c) != 2 || len(op.Operands) != 5 || k[2] != x.a || op.Operands[2].Type != op.Operands[1].Type ||
		read.Type != ir.Tensor("i32", x.b, c[1]) || positions.Type != ir.Tensor("i32", x.b, x.s) {
		return nil, fmt.Errorf("operands %v, wanted sizes that fit", ir.Types(op.Operands))
	}
	p := triton.Paged{Sequences: x.b, Heads: x.h, KeyHeads: k[1], Width: x.a, Positions: k[0], Context: c[1], Page: 1, Window: x.window, Elem: kernelElems[x.elem]}
	tile, unfit := tiles().Choose("paged", p.Elem, x.b)
	if unfit != nil {
		return nil, nil
	}
	call, unfit := p.Call(tile)
	end, unfit2 := triton.PagedCombine{Sequences: x.b, Heads: x.h, Width: x.a, Splits: tile.Split, Elem: p.Elem}.Call()
	if unfit != nil || unfit2 != nil || kelem != x.elem || x.s != 1 {
		return nil, nil
	}
	length := b.Add(b.Reshape(positions, x.b), b.Const(ir.Tensor("i32", x.b), "1")) // [B]
	length = b.Binary("minimum", length, b.Const(length.Type, strconv.Itoa(c[1])))
	q := b.Reshape(op.Operands[0], x.b, x.h, x.a)
	y, err := EmitCall(b, call, q, op.Operands[1], op.Operands[2], read, length)
	if err == nil && tile.Split > 1 {
		y, err = EmitCall(b, end, y...)
	}
	if err != nil {
		return nil, err
	}
	return []*ir.Value{b.Reshape(y[0], x.b, x.h, 1, x.a)}, nil
}
