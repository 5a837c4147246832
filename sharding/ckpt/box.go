package ckpt

import (
	"sync"
	"sync/atomic"

	"mix/sharding/axis"
)

// extent is a box of a catalogue weight that lies row-major and without gap in a file.
type extent struct {
	file         *File
	info         Info
	at           int64 // position in the file of the box's first element
	offset, size []int // the box
}

// copying is the part of a piece that comes from one extent: count runs of length elements each.
type copying struct {
	from          *extent
	count, length int
	outer         []stride // of the runs, outermost first
	src, dst      int      // elements before the first run, in the extent and in the piece
}

// stride walks one axis.
type stride struct{ size, src, dst int }

// intersect is the copying from e to the box of q; ok is false where they do not meet.
func intersect(e *extent, q axis.Piece) (c copying, ok bool) {
	c = copying{from: e, count: 1, length: 1}
	src, dst := 1, 1 // elements of one step along axis i
	whole := true    // both boxes hold all of the axes after i, so runs join
	for i := len(q.Size) - 1; i >= 0; i-- {
		lo := max(e.offset[i], q.Offset[i])
		n := min(e.offset[i]+e.size[i], q.Offset[i]+q.Size[i]) - lo
		if n <= 0 {
			return copying{}, false
		}
		c.src += (lo - e.offset[i]) * src
		c.dst += (lo - q.Offset[i]) * dst
		if whole {
			c.length *= n
		} else if n > 1 {
			c.count *= n
			c.outer = append([]stride{{n, src, dst}}, c.outer...)
		}
		whole = whole && n == e.size[i] && n == q.Size[i]
		src *= e.size[i]
		dst *= q.Size[i]
	}
	return c, true
}

// run gives the first element of run i, in the extent and in the piece.
func (c *copying) run(i int) (src, dst int) {
	src, dst = c.src, c.dst
	for k := len(c.outer) - 1; k >= 0; k-- {
		o := c.outer[k]
		src += i % o.size * o.src
		dst += i % o.size * o.dst
		i /= o.size
	}
	return src, dst
}

// chunk is the elements [from, to) of a copying, counted along its runs.
type chunk struct {
	c        *copying
	from, to int
}

// copy fills dst, the whole piece, with the chunk's elements. inFile and inPiece are the bytes of
// an element on either side.
func (k chunk) copy(dst []byte, convert kernel, inFile, inPiece int) (bad bool, err error) {
	c := k.c
	defer fault(c.from.file.name, &err)()
	first, _ := c.run(k.from / c.length)
	first += k.from % c.length
	last, _ := c.run((k.to - 1) / c.length)
	last += (k.to-1)%c.length + 1
	r := c.from.file.region
	at, n := c.from.at+int64(first*inFile), int64((last-first)*inFile)
	src, err := r.view(at, n)
	if err != nil {
		return false, err
	}
	for i := k.from; i < k.to; {
		n := min(c.length-i%c.length, k.to-i)
		s, d := c.run(i / c.length)
		s, d = s+i%c.length-first, d+i%c.length
		bad = convert(dst[d*inPiece:(d+n)*inPiece], src[s*inFile:(s+n)*inFile]) || bad
		i += n
	}
	r.drop(at, n) // not at the end of Read, which may be for all of a large model's experts
	return bad, nil
}

// chunkElements is the work that one goroutine takes at a time: long enough that handing it over and
// dropping its pages cost little beside the copy (measured: 5% from here to a quarter of it), short enough
// that a matrix of a model worth loading keeps many goroutines busy.
const chunkElements = 1 << 20

// eachChunk runs f for every chunk of the copyings, on up to workers goroutines, and returns the first error
// in the order of the chunks.
func eachChunk(list []copying, workers int, f func(k chunk) error) error {
	var chunks []chunk
	for i := range list {
		total := list[i].count * list[i].length
		for from := 0; from < total; from += chunkElements {
			chunks = append(chunks, chunk{&list[i], from, min(from+chunkElements, total)})
		}
	}
	errs := make([]error, len(chunks))
	var next atomic.Int64
	work := func() {
		for i := next.Add(1) - 1; int(i) < len(chunks); i = next.Add(1) - 1 {
			errs[i] = f(chunks[i])
		}
	}
	var wg sync.WaitGroup
	for range min(workers, len(chunks)) - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
