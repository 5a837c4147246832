package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"mix/cmd/chat/openai"
)

// driver sends requests and records what becomes of them.
type driver struct {
	client   *openai.Client
	source   source
	timeout  time.Duration
	progress *progress

	mu      sync.Mutex
	records []record
}

// open sends n requests, or those of a duration, at the times of a Poisson process of this rate a second. A request
// waits for no other. The error is that of ctx; what was answered before is returned with it.
func (d *driver) open(ctx context.Context, rate float64, n int, duration time.Duration, seed uint64) ([]record, error) {
	d.records = nil
	gaps := rand.New(rand.NewPCG(seed, 1<<63))
	start := time.Now()
	var due time.Duration
	var all sync.WaitGroup
	for i := 0; n == 0 || i < n; i++ {
		if due += time.Duration(gaps.ExpFloat64() / rate * float64(time.Second)); duration > 0 && due >= duration {
			break
		}
		ask, at := d.source.ask(i), due
		if !sleep(ctx, at-time.Since(start)) {
			break
		}
		all.Go(func() { d.measure(ctx, ask, start, at) })
	}
	all.Wait()
	return d.records, ctx.Err()
}

// closed lets clients send n requests, or those of a duration, each one after the other. Requests are numbered from first.
func (d *driver) closed(ctx context.Context, clients, n int, duration time.Duration, first int) ([]record, error) {
	d.records = nil
	start := time.Now()
	next := 0
	take := func() (i int, ok bool) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if n > 0 && next == n || duration > 0 && time.Since(start) >= duration || ctx.Err() != nil {
			return 0, false
		}
		next++
		return first + next - 1, true
	}
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for i, ok := take(); ok; i, ok = take() {
				ask := d.source.ask(i)
				if !d.measure(ctx, ask, start, time.Since(start)) {
					// A server that refuses at once is not to be asked as fast as it can refuse.
					sleep(ctx, refused)
				}
			}
		})
	}
	all.Wait()
	return d.records, ctx.Err()
}

// refused is how long a client of a closed loop waits after an error.
const refused = 100 * time.Millisecond

// measure does one request and tells whether it was answered.
func (d *driver) measure(ctx context.Context, a openai.Ask, start time.Time, due time.Duration) bool {
	d.progress.sent()
	r := ask(ctx, d.client, a, d.timeout, start, due)
	r.cut = r.err != nil && ctx.Err() != nil
	d.progress.ended(r.err == nil)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.records = append(d.records, r)
	return r.err == nil
}

// sleep waits unless ctx ends, and tells whether it did not.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
