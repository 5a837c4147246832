package triton

// BlockMap finds the blocks of groups whose sizes are known.
type BlockMap struct {
	Groups
	Block int // rows of a block, a power of two
}

// Call is the kernel, one program: sizes [E] i32 → offsets [E+1] i32, blocks [2, P] i32. Sizes sum to at
// most R.
func (m BlockMap) Call() (Call, error) {
	const name = "group_blocks"
	if err := m.check(name); err != nil {
		return Call{}, err
	}
	if err := checkBlock(name, m.Block); err != nil {
		return Call{}, err
	}
	k := newKernel(name, onePass)
	sizes := k.operand("sizes", I32, m.Experts)
	offsets := k.result("offsets", I32, m.Experts+1)
	blocks := k.result("blocks", I32, 2, m.Blocks(m.Block))
	e := k.Range(powerOfTwo(m.all()))
	counts := k.Load(k.Ptr(sizes, e), k.Less(e, k.Int(m.Experts)))
	starts := k.groupBounds(counts, nil, offsets, m.Groups)
	if m.Rest {
		rest := k.Sub(k.Int(m.Rows), k.Sum(counts, 0))
		counts = k.Select(k.Equal(e, k.Int(m.Experts)), rest, counts)
	}
	k.blockMap(counts, starts, blocks, m.Groups, m.Block)
	return k.finish(1, 1, 1)
}
