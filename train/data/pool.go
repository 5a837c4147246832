package data

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"sync"
)

// A pool turns lines into values on several processors and keeps their order.
//
//	reader ── chunks of lines ─┬─ worker ─┬─ in order ── emit
//	                           └─ worker ─┘
type pool[T any] struct {
	name     string // of the lines, for errors
	workers  int    // 0: one a processor
	skipBad  bool   // go on after a line that encode refuses
	plain    bool   // what is read is plain text, a line a piece of it
	progress func(bytes int64)

	encode func(line []byte) (T, error) // concurrent
	emit   func(T) error                // one at a time
	took   func() error                 // after what a chunk gave; nil: nothing

	bytes int64 // done
	lines int   // done
	bad   int   // of them
}

// A chunk is some lines that one worker takes at once.
type chunk[T any] struct {
	first int   // number of the first line
	at    int64 // byte where it begins
	count int   // of lines
	lines [][]byte
	bytes int64

	values []T
	bad    int
	err    error // of the first bad line
	done   chan struct{}
}

// How much makes a chunk: enough to be worth handing over, little enough to share out evenly.
const (
	chunkLines = 512
	chunkBytes = 1 << 20
)

// run goes through r to its end, or to the first bad line, failure of emit, or end of ctx. No goroutine
// outlives it; a Read of r that blocks is waited for.
func (p *pool[T]) run(ctx context.Context, r io.Reader) error {
	workers := p.workers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	if workers < 1 || workers > 1024 {
		return fmt.Errorf("%d workers, want 1 to 1024", workers)
	}
	ctx, cancel := context.WithCancel(ctx)
	work, ordered := make(chan *chunk[T]), make(chan *chunk[T], 2*workers)
	var running sync.WaitGroup
	defer func() {
		cancel()
		running.Wait()
	}()
	var readErr error // set before ordered is closed
	running.Go(func() {
		defer func() { close(work); close(ordered) }()
		readErr = p.cut(ctx, r, work, ordered)
	})
	for range workers {
		running.Go(func() {
			for k := range work {
				p.work(ctx, k)
			}
		})
	}
	for k := range ordered {
		select {
		case <-k.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := p.take(ctx, k); err != nil {
			return err
		}
	}
	return readErr
}

// cut reads r to its end. Each chunk goes to ordered first, so that none is worked on that nobody waits
// for.
func (p *pool[T]) cut(ctx context.Context, r io.Reader, work, ordered chan<- *chunk[T]) error {
	l := newLines(r)
	l.line, l.plain = p.lines, p.plain
	at := p.bytes
	for {
		k := &chunk[T]{first: l.line + 1, at: at, done: make(chan struct{})}
		var err error
		for len(k.lines) < chunkLines && k.bytes < chunkBytes {
			var line []byte
			var size int64
			if line, size, err = l.next(); err != nil {
				break
			}
			k.lines = append(k.lines, line)
			k.bytes += size
		}
		at += k.bytes
		if k.count = len(k.lines); k.count > 0 {
			for _, to := range []chan<- *chunk[T]{ordered, work} {
				select {
				case to <- k:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
}

// work encodes a chunk. It stops at the first bad line unless bad lines are skipped.
func (p *pool[T]) work(ctx context.Context, k *chunk[T]) {
	defer close(k.done)
	k.values = make([]T, 0, len(k.lines))
	for i, line := range k.lines {
		if ctx.Err() != nil {
			return
		}
		v, err := p.encode(line)
		if err == nil {
			k.values = append(k.values, v)
			continue
		}
		if k.bad++; k.err == nil {
			k.err = fmt.Errorf("%s: %s: %w", p.name, p.where(k, i), err)
		}
		if !p.skipBad {
			break
		}
	}
	k.lines = nil
}

// where names line i of a chunk for an error.
func (p *pool[T]) where(k *chunk[T], i int) string {
	if !p.plain {
		return fmt.Sprintf("line %d", k.first+i)
	}
	at := k.at
	for _, piece := range k.lines[:i] {
		at += int64(len(piece))
	}
	return fmt.Sprintf("text at byte %d", at)
}

// take hands on what a chunk gave.
func (p *pool[T]) take(ctx context.Context, k *chunk[T]) error {
	if err := ctx.Err(); err != nil { // the chunk may be half done
		return err
	}
	for _, v := range k.values {
		if err := p.emit(v); err != nil {
			return err
		}
	}
	p.bytes += k.bytes
	p.lines += k.count
	p.bad += k.bad
	if k.err != nil && !p.skipBad {
		return k.err
	}
	if p.progress != nil {
		p.progress(p.bytes)
	}
	if p.took != nil {
		return p.took()
	}
	return nil
}
