package data

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"sync"
)

// A Batch is B samples, row by row, so B = M·N samples are M microbatches [M, N, S] as they lie. Labels are
// shifted already: label j is what comes after token j. Fields that were not asked for are nil.
type Batch struct {
	First     int     // number of the first sample; First + B is where the next batch goes on
	Tokens    []int32 // [B, S+1]; the model reads the first S of each
	Labels    []int32 // [B, S], NoLoss where there is nothing to learn
	Segments  []int32 // [B, S]
	Positions []int32 // [B, S]
}

// LoaderOptions of a Loader.
type LoaderOptions struct {
	Batch   int // B
	First   int // number of the first sample: where an interrupted run goes on
	Workers int // 0: one a processor, at most 4
	Ahead   int // batches kept ready; 0: 4

	Segments  bool
	Positions bool
}

// A Loader prepares batches ahead of the one who takes them, in order, so that the device need not wait.
// What it gives depends on the samples and First alone, not on workers or timing.
type Loader struct {
	samples Samples
	o       LoaderOptions
	cancel  context.CancelFunc
	ctx     context.Context
	ready   chan *pending
	running sync.WaitGroup
	err     error // what Next returns from now on
}

// pending is a batch that is being made.
type pending struct {
	batch Batch
	err   error
	done  chan struct{}
}

// NewLoader starts preparing. Close must follow.
func NewLoader(ctx context.Context, s Samples, o LoaderOptions) (*Loader, error) {
	if o.Workers == 0 {
		o.Workers = min(4, runtime.GOMAXPROCS(0))
	}
	if o.Ahead == 0 {
		o.Ahead = 4
	}
	if o.Batch < 1 || o.Workers < 1 || o.Ahead < 1 || int64(o.Batch)*int64(s.SeqLen()+1) > most {
		return nil, fmt.Errorf("batches of %d samples of %d tokens, %d workers, %d ahead, want at least 1 of each and at most %d tokens",
			o.Batch, s.SeqLen(), o.Workers, o.Ahead, most)
	}
	if o.First < 0 || o.First > s.Len() {
		return nil, fmt.Errorf("first sample %d, want 0 to %d", o.First, s.Len())
	}
	if s.Len() < o.Batch {
		return nil, fmt.Errorf("%d samples, want at least %d for one batch", s.Len(), o.Batch)
	}
	l := &Loader{samples: s, o: o, ready: make(chan *pending, o.Ahead)}
	l.ctx, l.cancel = context.WithCancel(ctx)
	work := make(chan *pending)
	l.running.Go(func() {
		defer func() { close(work); close(l.ready) }()
		l.plan(work)
	})
	for range o.Workers {
		l.running.Go(func() {
			for p := range work {
				p.err = l.fill(&p.batch)
				close(p.done)
			}
		})
	}
	return l, nil
}

// plan hands out batches in order. Each goes to ready first: what is ready bounds what is worked on.
func (l *Loader) plan(work chan<- *pending) {
	for first := l.o.First; first+l.o.Batch <= l.samples.Len(); first += l.o.Batch {
		p := &pending{batch: Batch{First: first}, done: make(chan struct{})}
		for _, to := range []chan<- *pending{l.ready, work} {
			select {
			case to <- p:
			case <-l.ctx.Done():
				return
			}
		}
	}
}

// fill makes the samples of a batch.
func (l *Loader) fill(b *Batch) error {
	n, seq := l.o.Batch, l.samples.SeqLen()
	b.Tokens, b.Labels = make([]int32, n*(seq+1)), make([]int32, n*seq)
	if l.o.Segments {
		b.Segments = make([]int32, n*seq)
	}
	if l.o.Positions {
		b.Positions = make([]int32, n*seq)
	}
	for i := range n {
		if err := l.ctx.Err(); err != nil {
			return err
		}
		row := Row{Tokens: part(b.Tokens, i, seq+1), Labels: part(b.Labels, i, seq),
			Segments: part(b.Segments, i, seq), Positions: part(b.Positions, i, seq)}
		if err := l.samples.Sample(b.First+i, row); err != nil {
			return err
		}
	}
	return nil
}

// part is row i of a, nil for nil.
func part(a []int32, i, n int) []int32 {
	if a == nil {
		return nil
	}
	return a[i*n : (i+1)*n : (i+1)*n]
}

// Next returns the next batch, which is the caller's. io.EOF comes after the last whole one; an error of a
// sample comes in its batch's place and again from then on, as does the end of the context. Only one
// goroutine may call it.
func (l *Loader) Next() (Batch, error) {
	if l.err == nil {
		l.err = l.ctx.Err()
	}
	if l.err != nil {
		return Batch{}, l.err
	}
	var p *pending
	select {
	case p = <-l.ready:
	case <-l.ctx.Done():
		l.err = l.ctx.Err()
		return Batch{}, l.err
	}
	if p == nil {
		if l.err = l.ctx.Err(); l.err == nil {
			l.err = io.EOF
		}
		return Batch{}, l.err
	}
	select {
	case <-p.done:
		l.err = p.err
	case <-l.ctx.Done():
		l.err = l.ctx.Err()
	}
	if l.err != nil {
		l.cancel()
		return Batch{}, l.err
	}
	return p.batch, nil
}

// Close stops the work and waits for it. It may be called more than once, not while Next runs.
func (l *Loader) Close() {
	l.cancel()
	l.running.Wait()
}
