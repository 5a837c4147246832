package aot

// kernelFLOPs is the work of one of our kernels (package triton), by its name and the sizes of what it takes: 2 for each multiply-add of
// its products. Rows count that buffers have room for, also where there are fewer, and attention counts all pairs of queries and
// keys, also those that do not see each other; so it is the most that a run can be. Kernels without products have none.
func kernelFLOPs(comp *computation, in *instr) int64 {
	name := in.kernel()
	// size is axis i, from the end where it is negative, of operand n or, below 0, of the first result; 1 where there is none.
	size := func(n, i int) int64 {
		all := in.shape
		if n >= 0 {
			all = comp.given(in, n)
		}
		if len(all) == 0 {
			return 1
		}
		dims := all[0].dims
		if i < 0 {
			i += len(dims)
		}
		if i < 0 || i >= len(dims) {
			return 1
		}
		return dims[i]
	}
	const result = -1
	pairs := func() int64 { return size(0, 0) * size(0, 1) * size(0, 2) * size(1, 2) * size(0, 3) } // B·H·S·C·A
	switch name {
	case "experts_up", "decode_up": // two products by x [T, D], results [R, F] or [S, R, F]
		return 2 * 2 * size(result, -2) * size(result, -1) * size(0, -1)
	case "experts_down", "grouped_gemm", "grouped_gemm_transposed", "decode_down", "grouped_gemm_fp8": // x [R, M], one product or two
		products := int64(1)
		if len(in.operands) == 6 && name == "grouped_gemm_transposed" {
			products = 2
		}
		return 2 * products * size(result, -2) * size(result, -1) * size(0, -1)
	case "grouped_outer": // a [R, N], b [R, M]
		return 2 * size(0, 0) * size(0, 1) * size(1, 1)
	case "linear": // x [T, D], w [N, D] each
		n := int64(0)
		for i := range in.operands[min(1, len(in.operands)):] {
			n += size(i+1, 0)
		}
		return 2 * size(0, 0) * size(0, 1) * n
	case "flash_attention":
		return 2 * 2 * pairs()
	case "flash_dq": // scores, their gradient, dq
		return 2 * 3 * pairs()
	case "flash_dkv": // scores, their gradient, dk and dv
		return 2 * 4 * pairs()
	case "paged_attention": // q [B, H, A], read [B, C]
		return 2 * 2 * size(0, 0) * size(0, 1) * size(0, 2) * size(3, 1)
	}
	return 0
}
