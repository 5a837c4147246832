package triton

// Quantize turns rows into e4m3 elements with a scale for each ScaleBlock of a row.
type Quantize struct {
	Rows, Width int // R, D
	Elem        Elem
}

// largestF8 is the largest number that e4m3 holds.
const largestF8 = 448

// Call is the kernel.
//
//	x      [R, D]
//	y      [R, D] f8            the nearest to x over its scale
//	scales [R, ⌈D/128⌉] f32     greatest magnitude / 448, or 1 for zeros
func (q Quantize) Call() (Call, error) {
	const name = "quantize_fp8"
	if err := positive(name, "rows", q.Rows, "width", q.Width); err != nil {
		return Call{}, err
	}
	if err := dotElem(name, q.Elem); err != nil {
		return Call{}, err
	}
	k := newKernel(name, elementwise)
	x := k.operand("x", q.Elem, q.Rows, q.Width)
	parts := ceil(q.Width, ScaleBlock)
	y, scales := k.result("y", F8, q.Rows, q.Width), k.result("scales", F32, q.Rows, parts)
	const m = 16
	rows, own := k.span(k.Program(0), m, q.Rows)              // [m]
	cols, inside := k.span(k.Program(1), ScaleBlock, q.Width) // [128]
	at := k.cells(rows, cols, q.Width)
	mask := k.box(own, inside)
	v := k.Convert(k.Load(k.Ptr(x, at), mask), F32)       // [m, 128]
	most := k.Greatest(k.Max(v, k.Sub(k.Float(0), v)), 1) // [m]
	scale := k.Div(most, k.Float(largestF8))
	scale = k.Select(k.Less(k.Float(0), scale), scale, k.Float(1))
	k.Store(k.Ptr(y, at), k.Div(v, k.Column(scale)), mask)
	k.Store(k.Ptr(scales, k.Add(k.long(rows, parts), k.Convert(k.Program(1), I64))), scale, own)
	return k.finish(ceil(q.Rows, m), parts, 1)
}
