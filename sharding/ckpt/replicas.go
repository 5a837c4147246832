package ckpt

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"mix/sharding/axis"
)

// compareReplicas reads the boxes that the files hold more than once, and fails if two differ.
func (c *Checkpoint) compareReplicas(ctx context.Context, workers int) error {
	list := c.matched.replicas
	if err := inParallel(len(list), workers, func(_, i int) error { return list[i].compare(ctx) }); err != nil {
		return fmt.Errorf("checkpoint %s: %w", c.source.where, err)
	}
	return nil
}

// compare reads both boxes, a stretch at a time.
func (r replica) compare(ctx context.Context) (err error) {
	a, b := r.a, r.b
	if a.info.DType != b.info.DType {
		return fmt.Errorf("%w: weight %s is %s in %s and %s in %s", ErrDType, r.path, a.info.Format, a.file.name, b.info.Format, b.file.name)
	}
	defer fault(b.file.name, &err)()
	defer fault(a.file.name, &err)()
	total := int64(axis.Count(a.size)) * int64(bytesOf(a.info.DType))
	for at := int64(0); at < total; {
		n := min(total-at, stretch)
		if err := ctx.Err(); err != nil {
			return err
		}
		all, some := a.file.region.filled(a.at+at, n)
		all2, some2 := b.file.region.filled(b.at+at, n)
		if !all || !all2 {
			n = min(n, fine)
			_, some = a.file.region.filled(a.at+at, n)
			_, some2 = b.file.region.filled(b.at+at, n)
		}
		if some || some2 {
			x, err := a.file.region.view(a.at+at, n)
			if err != nil {
				return err
			}
			y, err := b.file.region.view(b.at+at, n)
			if err != nil {
				return err
			}
			if !bytes.Equal(x, y) {
				return fmt.Errorf("%w: weight %s: %s in %s is not what %s has", ErrCopies, r.path, quote(b.info.Name), b.file.name, a.file.name)
			}
			a.file.region.drop(a.at+at, n)
			b.file.region.drop(b.at+at, n)
		}
		at += n
	}
	return nil
}

// report tells progress twice a second until stop is called, and once more then.
func report(done *atomic.Int64, total int64, progress func(done, total int64)) (stop func()) {
	if progress == nil {
		return func() {}
	}
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				progress(done.Load(), total)
			case <-quit:
				progress(done.Load(), total)
				return
			}
		}
	}()
	return func() { close(quit); <-ended }
}
