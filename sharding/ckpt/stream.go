package ckpt

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/gomlx/compute/dtypes"

	"mix/sharding/axis"
)

const (
	// stretch is the most elements that are copied at a time, and what one goroutine holds: 512 KiB of
	// bfloat16. Writing more at once asks the kernel for larger pages and was measured to be three times slower.
	stretch = 256 << 10
	// fine is the most bytes that are read, holes and all, because some of them are no hole.
	fine = 64 << 10
	// hole is the size and alignment in bytes of zeros that are left out of a file: they are read as zeros.
	hole = 4 << 10
)

// streamer writes the files of a conversion one at a time.
type streamer struct {
	ctx  context.Context
	done *atomic.Int64 // bytes so far, of all streamers
	buf  []byte
}

// write writes a file at a path and says what it wrote, under the file's own name. It holds one stretch.
func (s *streamer) write(o *outputFile, at string) (sum Sum, err error) {
	f, err := os.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return sum, err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	if err := f.Truncate(o.bytes); err != nil {
		return sum, err
	}
	crcs := make([]uint32, len(o.parts)) // CRC-32C of every part
	var sums []uint32                    // IEEE CRC-32 of every tensor
	for i, p := range o.parts {
		if p.tensor >= 0 {
			t := tensorSink{streamer: s, file: f, at: p.at, ieee: strings.HasSuffix(o.name, ".pt")}
			if err := t.write(o, p); err != nil {
				return sum, fmt.Errorf("%s: tensor %s: %w", o.name, quote(o.tensors[p.tensor].name), err)
			}
			crcs[i], sums = t.crc, append(sums, t.sum)
		}
	}
	sum.Name, sum.Bytes = o.name, o.bytes
	for i, p := range o.parts {
		if p.tensor < 0 {
			b := p.text(sums)
			if int64(len(b)) != p.bytes {
				return sum, fmt.Errorf("%s: text of %d bytes, want %d", o.name, len(b), p.bytes)
			}
			if _, err := f.WriteAt(b, p.at); err != nil {
				return sum, err
			}
			crcs[i] = crc32.Checksum(b, castagnoli)
		}
		sum.CRC32C = CRC(joinCRC(crc32.Castagnoli, uint32(sum.CRC32C), crcs[i], p.bytes))
	}
	return sum, f.Sync()
}

// tensorSink is the tensor that is being written: its checksums and where its next element goes.
type tensorSink struct {
	*streamer
	file     *os.File
	at       int64
	crc, sum uint32 // CRC-32C, and IEEE CRC-32 where ieee
	ieee     bool
}

// write copies all boxes of a tensor, one after another.
func (t *tensorSink) write(o *outputFile, p outputPart) error {
	x := o.tensors[p.tensor]
	for i, box := range x.boxes {
		from := o.copies[p.box+i]
		for q := range windows(box, stretch) {
			if err := t.ctx.Err(); err != nil {
				return err
			}
			if err := t.copy(q, from, x.dtype); err != nil {
				return err
			}
		}
	}
	return nil
}

// copy writes one stretch. Holes of the source are skipped, in as fine pieces as are worth it; one run of the
// same type goes from the source's pages to the file; anything else is put together first.
func (t *tensorSink) copy(q axis.Piece, from []copyOf, dtype dtypes.DType) error {
	var list []copying
	all, some := true, false
	for _, c := range from {
		if k, ok := intersect(c.from, q); ok {
			list = append(list, k)
			at, length := k.reach()
			a, s := k.from.file.region.filled(at, length)
			all, some = all && a, some || s
		}
	}
	n := q.Elements()
	switch {
	case !some: // zero in every type
		t.skip(int64(n * bytesOf(dtype)))
		return nil
	case !all && n*bytesOf(dtype) > fine:
		for part := range windows(q, max(n/8, 1)) {
			if err := t.copy(part, from, dtype); err != nil {
				return err
			}
		}
		return nil
	}
	return t.fill(n*bytesOf(dtype), list, dtype)
}

// fill writes a stretch of n bytes that the copyings make up.
func (t *tensorSink) fill(n int, list []copying, dtype dtypes.DType) (err error) {
	width := bytesOf(dtype)
	if k := list[0]; len(list) == 1 && k.Count == 1 && k.Length*width == n && k.from.info.DType == dtype {
		defer fault(k.from.file.name, &err)()
		at, length := k.reach()
		b, err := k.from.file.region.view(at, length)
		if err != nil {
			return err
		}
		err = t.put(b)
		k.from.file.region.drop(at, length)
		return err
	}
	t.buf = slices.Grow(t.buf[:0], n)[:n]
	for i := range list {
		k := chunk{&list[i], 0, list[i].Count * list[i].Length}
		in := k.c.from.info
		bad, err := k.copy(t.buf, kernels[in.DType][dtype], bytesOf(in.DType), width)
		if bad && err == nil && in.DType != dtype {
			err = k.overflow(t.buf, dtype)
		}
		if err != nil {
			return fmt.Errorf("%s: tensor %s: %w", k.c.from.file.name, quote(in.Name), err)
		}
	}
	return t.put(t.buf)
}

// overflow is the error of a chunk of which dst got an Inf for a number that is none. dst holds elements of dtype.
func (k chunk) overflow(dst []byte, dtype dtypes.DType) error {
	width, in := bytesOf(dtype), k.c.from.info.DType
	before := bytes.Repeat([]byte{0, 0, 0x80, 0x7f}, len(dst)/width) // float32, Inf where the chunk has nothing
	if _, err := k.copy(before, kernels[in][dtypes.Float32], bytesOf(in), 4); err != nil {
		return err
	}
	after := make([]byte, len(before))
	kernels[dtype][dtypes.Float32](after, dst)
	for i := 0; i < len(before); i += 4 {
		x, y := math.Float32frombits(load32(before[i:])), math.Float32frombits(load32(after[i:]))
		if math.Abs(float64(x)) <= math.MaxFloat32 && math.IsInf(float64(y), 0) {
			return fmt.Errorf("%w: %g is too large for %s", ErrDType, x, dtype)
		}
	}
	return nil
}

// reach is where the runs of a copying begin in the file, and how far the last one reaches.
func (c *copying) reach() (at, length int64) {
	first, _ := c.Run(0)
	last, _ := c.Run(c.Count - 1)
	width := int64(bytesOf(c.from.info.DType))
	return c.from.at + int64(first)*width, int64(last+c.Length-first) * width
}

// skip leaves a hole.
func (t *tensorSink) skip(n int64) {
	t.crc = zeroBytes(crc32.Castagnoli, t.crc, n)
	if t.ieee {
		t.sum = zeroBytes(crc32.IEEE, t.sum, n)
	}
	t.at += n
	t.done.Add(n)
}

var emptyBlock [hole]byte

// put writes bytes, but for blocks of the file that are all zeros.
func (t *tensorSink) put(b []byte) error {
	t.crc = crc32.Update(t.crc, castagnoli, b)
	if t.ieee {
		t.sum = crc32.Update(t.sum, crc32.IEEETable, b)
	}
	t.done.Add(int64(len(b)))
	from := 0 // of what is not yet written
	flush := func(to int) error {
		if from == to {
			return nil
		}
		_, err := t.file.WriteAt(b[from:to], t.at+int64(from))
		return err
	}
	for at := int((hole - t.at%hole) % hole); at+hole <= len(b); at += hole {
		if bytes.Equal(b[at:at+hole], emptyBlock[:]) {
			if err := flush(at); err != nil {
				return err
			}
			from = at + hole
		}
	}
	err := flush(len(b))
	t.at += int64(len(b))
	return err
}
