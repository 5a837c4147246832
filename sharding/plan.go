package sharding

import (
	"fmt"
	"slices"

	"mix/sharding/axis"
)

// Copy is elements that go from one holder's box to another's.
type Copy struct {
	From, To Box
	Offset   []int // of what is copied, in the tensor
	Size     []int
}

// Elements is the number of elements copied.
func (c Copy) Elements() int { return axis.Count(c.Size) }

// Runs are the contiguous runs of elements to copy, in both boxes.
func (c Copy) Runs() axis.Copying {
	runs, _ := axis.Intersect(c.From.Offset, c.From.Size, axis.Piece{Offset: c.To.Offset, Size: c.To.Size})
	return runs
}

// String is the copy on one line: "3 → 0: [0:8, 16:32]".
func (c Copy) String() string {
	return fmt.Sprintf("%d → %d: %s", c.From.Holder, c.To.Holder, axis.Spans(c.Offset, c.Size))
}

// Plan lists the copies that make layout to out of layout from: for every box of to, in order, what each box
// of from gives it, in order. Every element of every box of to is written once. Of replicas in from, the one
// on the same holder is read if there is one, else the readers are spread evenly. The same layouts give the
// same list on every machine.
//
// It fails where the boxes of from overlap without being replicas, or do not cover those of to.
func Plan(from, to Layout) ([]Copy, error) {
	if !slices.Equal(from.Dims, to.Dims) {
		return nil, fmt.Errorf("%w: a tensor of %v becomes one of %v", ErrRules, from.Dims, to.Dims)
	}
	for _, l := range []Layout{from, to} {
		if err := l.check(); err != nil {
			return nil, err
		}
	}
	regions, err := regionsOf(from)
	if err != nil {
		return nil, err
	}
	var copies []Copy
	for _, b := range to.Boxes {
		missing := b.Elements()
		for _, replicas := range regions {
			offset, size, ok := overlap(replicas[0], b)
			if !ok {
				continue
			}
			c := Copy{From: replicas[b.Holder%len(replicas)], To: b, Offset: offset, Size: size}
			if i := slices.IndexFunc(replicas, func(r Box) bool { return r.Holder == b.Holder }); i >= 0 {
				c.From = replicas[i]
			}
			missing -= c.Elements()
			copies = append(copies, c)
		}
		if missing != 0 {
			return nil, fmt.Errorf("%w: %d of the %d elements of box %v+%v of holder %d have no source",
				ErrRules, missing, b.Elements(), b.Offset, b.Size, b.Holder)
		}
	}
	return copies, nil
}

// check says whether every box lies inside the tensor.
func (l Layout) check() error {
	for _, b := range l.Boxes {
		if b.Holder < 0 || len(b.Offset) != len(l.Dims) || len(b.Size) != len(l.Dims) {
			return fmt.Errorf("%w: box %v+%v of holder %d in a tensor of %v", ErrRules, b.Offset, b.Size, b.Holder, l.Dims)
		}
		for i, d := range l.Dims {
			if b.Offset[i] < 0 || b.Size[i] < 1 || b.Size[i] > d || b.Offset[i] > d-b.Size[i] {
				return fmt.Errorf("%w: box %v+%v of holder %d in a tensor of %v", ErrRules, b.Offset, b.Size, b.Holder, l.Dims)
			}
		}
	}
	return nil
}

// regionsOf groups boxes that are replicas, in the order of the first of each.
func regionsOf(l Layout) (regions [][]Box, err error) {
	at := map[string]int{}
	for _, b := range l.Boxes {
		key := fmt.Sprint(b.Offset, b.Size)
		i, ok := at[key]
		if !ok {
			for _, other := range regions {
				if _, _, meet := overlap(other[0], b); meet {
					return nil, fmt.Errorf("%w: boxes %v+%v and %v+%v overlap", ErrRules, other[0].Offset, other[0].Size, b.Offset, b.Size)
				}
			}
			i = len(regions)
			at[key] = i
			regions = append(regions, nil)
		}
		regions[i] = append(regions[i], b)
	}
	return regions, nil
}

// overlap is the box that two boxes share.
func overlap(a, b Box) (offset, size []int, ok bool) {
	offset, size = make([]int, len(a.Offset)), make([]int, len(a.Offset))
	for i := range offset {
		offset[i] = max(a.Offset[i], b.Offset[i])
		size[i] = min(a.Offset[i]+a.Size[i], b.Offset[i]+b.Size[i]) - offset[i]
		if size[i] <= 0 {
			return nil, nil, false
		}
	}
	return offset, size, true
}
