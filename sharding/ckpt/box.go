package ckpt

import "mix/sharding/axis"

// extent is a box of a catalogue weight that lies row-major and without gap in a file.
type extent struct {
	file         *File
	info         Info
	at           int64 // position in the file of the box's first element
	offset, size []int // the box
}

// copying is the part of a piece that comes from one extent.
type copying struct {
	axis.Copying
	from *extent
}

// intersect is the copying from e to the box of q; ok is false where they do not meet.
func intersect(e *extent, q axis.Piece) (c copying, ok bool) {
	c.from = e
	c.Copying, ok = axis.Intersect(e.offset, e.size, q)
	return c, ok
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
	first, _ := c.Run(k.from / c.Length)
	first += k.from % c.Length
	last, _ := c.Run((k.to - 1) / c.Length)
	last += (k.to-1)%c.Length + 1
	r := c.from.file.region
	at, n := c.from.at+int64(first*inFile), int64((last-first)*inFile)
	src, err := r.view(at, n)
	if err != nil {
		return false, err
	}
	for i := k.from; i < k.to; {
		n := min(c.Length-i%c.Length, k.to-i)
		s, d := c.Run(i / c.Length)
		s, d = s+i%c.Length-first, d+i%c.Length
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
		total := list[i].Count * list[i].Length
		for from := 0; from < total; from += chunkElements {
			chunks = append(chunks, chunk{&list[i], from, min(from+chunkElements, total)})
		}
	}
	return inParallel(len(chunks), workers, func(_, i int) error { return f(chunks[i]) })
}
