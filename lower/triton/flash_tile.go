package triton

// flashParts says what a program of a kernel of attention holds: blocks of its own that stay, sums as wide as they are, and
// products of queries by keys at a time. Its own block is of queries, or of keys if byKeys.
var flashParts = map[string]struct {
	stay, sums, products int
	byKeys               bool
}{
	"flash":     {1, 1, 1, false},
	"flash_dq":  {2, 1, 2, false},
	"flash_dkv": {2, 2, 2, true},
}

// flashCandidates are Candidates of such a kernel, for heads 128 wide, of which two blocks are loaded at a time.
func flashCandidates(kernel string, elem Elem) (all []Tile) {
	const width = 128
	p := flashParts[kernel]
	for _, own := range []int{64, 128, 256} {
		for _, other := range []int{32, 64, 128} {
			for _, warps := range []int{4, 8} {
				for _, stages := range []int{2, 3, 4} {
					loads := (p.stay*own + 2*stages*other) * width * elem.Bits() / 8
					held := (p.sums*own*width + p.products*own*other) / (warps * 32) // registers of a thread
					if loads > sharedMemory || held > 224 || warps == 8 && held < 48 {
						continue
					}
					t := Tile{M: own, N: other, K: 16, Group: 1, Split: 1, Warps: warps, Stages: stages}
					if p.byKeys {
						t.M, t.N = other, own
					}
					all = append(all, t)
				}
			}
		}
	}
	return all
}
