package sched

// pool keeps count of the blocks of the cache. A block is free, held by one or more requests, or idle: held by
// none, with a prompt's positions that may be asked for again. Idle ones are evicted when free ones run out,
// the longest idle first.
type pool struct {
	refs       []int32 // of each block, the requests that hold it
	free       []int32 // a stack
	cached     map[key]int32
	keys       []key  // of each block with named
	named      []bool // the block is in cached
	prev, next []int32
	idle       int // blocks of the ring
}

// newPool has n free blocks, of which 0 is taken first.
func newPool(n int) *pool {
	p := &pool{
		refs:   make([]int32, n),
		cached: map[key]int32{},
		keys:   make([]key, n),
		named:  make([]bool, n),
		prev:   make([]int32, n+1),
		next:   make([]int32, n+1),
	}
	for b := n - 1; b >= 0; b-- {
		p.free = append(p.free, int32(b))
	}
	p.prev[n], p.next[n] = int32(n), int32(n)
	return p
}

// ring is the place in prev and next of the idle blocks' ends: next is the longest idle, prev the last one.
func (p *pool) ring() int32 { return int32(len(p.refs)) }

// available counts blocks that take can give.
func (p *pool) available() int { return len(p.free) + p.idle }

// take gives a block to one holder.
func (p *pool) take() (block int32, ok bool) {
	switch n := len(p.free); {
	case n > 0:
		block = p.free[n-1]
		p.free = p.free[:n-1]
	case p.idle > 0:
		block = p.next[p.ring()]
		p.unlink(block)
		p.forgetBlock(block)
	default:
		return 0, false
	}
	p.refs[block] = 1
	return block, true
}

// share adds a holder to a block that is held or idle.
func (p *pool) share(b int32) {
	if p.refs[b] == 0 {
		p.unlink(b)
	}
	p.refs[b]++
}

// release takes a holder away.
func (p *pool) release(b int32) {
	p.refs[b]--
	switch {
	case p.refs[b] > 0:
	case p.named[b]:
		p.link(b)
	default:
		p.free = append(p.free, b)
	}
}

// name makes a held block without a key known as the one with k's positions, unless another is.
func (p *pool) name(b int32, k key) {
	if _, ok := p.cached[k]; ok {
		return
	}
	p.cached[k], p.keys[b], p.named[b] = b, k, true
}

// forget makes all idle blocks free, and no block known by a key.
func (p *pool) forget() {
	for b := p.next[p.ring()]; b != p.ring(); b = p.next[p.ring()] {
		p.unlink(b)
		p.free = append(p.free, b)
	}
	clear(p.cached)
	clear(p.named)
}

func (p *pool) forgetBlock(b int32) {
	delete(p.cached, p.keys[b])
	p.named[b] = false
}

// link makes b the last of the idle ones.
func (p *pool) link(b int32) {
	end := p.ring()
	last := p.prev[end]
	p.prev[b], p.next[b] = last, end
	p.next[last], p.prev[end] = b, b
	p.idle++
}

func (p *pool) unlink(b int32) {
	p.next[p.prev[b]], p.prev[p.next[b]] = p.next[b], p.prev[b]
	p.idle--
}
