package axis

import (
	"fmt"
	"strings"
)

// Copying is what two boxes of one weight share: Count runs of Length elements each, that lie without a gap
// in both.
type Copying struct {
	Count, Length int

	outer    []stride // of the runs, outermost first
	src, dst int      // elements before the first run, in either box
}

// stride walks one axis.
type stride struct{ size, src, dst int }

// Spans prints a box: "[0:8, 16:32]".
func Spans(offset, size []int) string {
	spans := make([]string, len(offset))
	for i, at := range offset {
		spans[i] = fmt.Sprintf("%d:%d", at, at+size[i])
	}
	return "[" + strings.Join(spans, ", ") + "]"
}

// Intersect is the copying from a box at offset, of the given size, to the box of q, both row-major; ok is
// false where they do not meet.
func Intersect(offset, size []int, q Piece) (c Copying, ok bool) {
	c = Copying{Count: 1, Length: 1}
	src, dst := 1, 1 // elements of one step along axis i
	whole := true    // both boxes hold all of the axes after i, so runs join
	for i := len(q.Size) - 1; i >= 0; i-- {
		lo := max(offset[i], q.Offset[i])
		n := min(offset[i]+size[i], q.Offset[i]+q.Size[i]) - lo
		if n <= 0 {
			return Copying{}, false
		}
		c.src += (lo - offset[i]) * src
		c.dst += (lo - q.Offset[i]) * dst
		if whole {
			c.Length *= n
		} else if n > 1 {
			c.Count *= n
			c.outer = append([]stride{{n, src, dst}}, c.outer...)
		}
		whole = whole && n == size[i] && n == q.Size[i]
		src *= size[i]
		dst *= q.Size[i]
	}
	return c, true
}

// Run gives the first element of run i, in the box copied from and in that of the piece.
func (c *Copying) Run(i int) (src, dst int) {
	src, dst = c.src, c.dst
	for k := len(c.outer) - 1; k >= 0; k-- {
		o := c.outer[k]
		src += i % o.size * o.src
		dst += i % o.size * o.dst
		i /= o.size
	}
	return src, dst
}
