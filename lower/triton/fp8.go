package triton

import "fmt"

// FP8 is a product like Grouped of e4m3 elements, which carry scales.
type FP8 struct {
	Groups
	In, Out     int
	BlockScales bool // a scale for each ScaleBlock elements instead of each tensor
	Y           Elem // elements of y
}

// ScaleBlock is how many elements along a row, and how many rows of a matrix, share a scale.
const ScaleBlock = 128

// Call is the kernel.
//
//	x       [R, In] f8     w [E, Out, In] f8
//	xScales [1] f32        with BlockScales [R, ⌈In/128⌉]
//	wScales [E] f32        with BlockScales [E, ⌈Out/128⌉, ⌈In/128⌉]
//	blocks, offsets        see Groups
//	y       [R, Out]       y[r] = w[group of r]·x[r], every element times its scale
//
// The GPU keeps fewer bits than f32 inside a product of f8; sums leave it every 128 elements. With BlockScales Tile's K
// divides 128. Source: DeepSeek-AI 2024, arXiv:2412.19437, section 3.3.2.
func (f FP8) Call(t Tile) (Call, error) {
	const name = "grouped_gemm_fp8"
	if f.Y == F8 {
		return Call{}, fmt.Errorf("triton: %s: y of %s, wanted f16, bf16 or f32", name, f.Y)
	}
	if err := check(name, f.Groups, f.Y, t, "in", f.In, "out", f.Out); err != nil {
		return Call{}, err
	}
	if t.K < 32 || f.BlockScales && ScaleBlock%t.K != 0 {
		return Call{}, fmt.Errorf("triton: %s: tile k is %d, wanted at least 32 and with block scales a divisor of %d", name, t.K, ScaleBlock)
	}
	k := newKernel(name, t)
	x, w := k.operand("x", F8, f.Rows, f.In), k.operand("w", F8, f.Experts, f.Out, f.In)
	var xScales, wScales *Value
	if f.BlockScales {
		xScales = k.operand("x_scales", F32, f.Rows, ceil(f.In, ScaleBlock))
		wScales = k.operand("w_scales", F32, f.Experts, ceil(f.Out, ScaleBlock), ceil(f.In, ScaleBlock))
	} else {
		xScales, wScales = k.operand("x_scale", F32, 1), k.operand("w_scales", F32, f.Experts)
	}
	blocks, offsets := k.groupOperands(f.Groups, t.M)
	y := k.result("y", f.Y, f.Rows, f.Out)

	columns := ceil(f.Out, t.N)
	pm, pn := k.order(k.Program(0), f.Blocks(t.M), columns, t.Group)
	b := k.block(blocks, offsets, pm, f.Groups, t.M)
	k.If(b.used, func() {
		cols, inside := k.span(pn, t.N, f.Out) // [N]
		p := k.depth(f.In, t.K)
		g := Grouped{In: f.In, Out: f.Out}
		p.streams = []stream{
			k.across(k.Ptr(x, k.long(b.first, f.In)), k.offsets(k.Range(t.M), f.In, t.M*f.In), b.own, t.K), // [M, K]
			k.matrix(w, b.expert, pn, inside, g, t),                                                        // [K, N]
		}
		p.dots = []term{{0, 1, 0}}
		var sum *Value
		if f.BlockScales {
			p.scaled = f.scales(k, xScales, wScales, b, cols, inside)
			sum = k.sum(p, k.Zeros(F32, t.M, t.N))[0]
		} else {
			sum = k.sum(p, k.Zeros(F32, t.M, t.N))[0]
			sum = k.Mul(sum, k.Mul(k.Load(xScales, nil), k.Load(k.Ptr(wScales, b.expert), nil)))
		}
		at, block := k.corner(y, b.first, pn, f.Out, t.M, t.N)
		k.Store(k.Ptr(at, block), sum, k.box(b.own, inside))
	})
	return k.finish(f.Blocks(t.M)*columns, 1, 1)
}

// scales gives the scale of each element of a block of sums [M, N] over the elements from i on.
func (f FP8) scales(k *kernel, xScales, wScales *Value, b block, cols, inside *Value) func(i *Value) *Value {
	depth := ceil(f.In, ScaleBlock)
	xAt := k.Ptr(xScales, k.long(b.rows, depth)) // [M]
	matrix := k.long(b.expert, ceil(f.Out, ScaleBlock)*depth)
	wAt := k.Ptr(wScales, k.Add(k.long(k.Div(cols, k.Int(ScaleBlock)), depth), matrix)) // [N]
	return func(i *Value) *Value {
		n := k.Div(i, k.Int(ScaleBlock))
		return k.Mul(k.Column(k.Load(k.Ptr(xAt, n), b.own)), k.Row(k.Load(k.Ptr(wAt, n), inside)))
	}
}
