package ckpt

import (
	"errors"
	"sync"
	"sync/atomic"
)

// errStopped ends work because other work failed.
var errStopped = errors.New("stopped")

// inParallel calls do for every i from 0 to n-1, in order, on up to workers goroutines, which are numbered from 0 and
// of which the caller's is one. After a failure no further call begins. It returns the first failure in the order of i;
// errStopped is none.
func inParallel(n, workers int, do func(worker, i int) error) error {
	errs := make([]error, n)
	var next atomic.Int64
	var failed atomic.Bool
	work := func(worker int) {
		for !failed.Load() { // before one is taken: all before a failure are done
			i := int(next.Add(1) - 1)
			if i >= n {
				return
			}
			if errs[i] = do(worker, i); errs[i] != nil {
				failed.Store(true)
			}
		}
	}
	var wg sync.WaitGroup
	for worker := 1; worker < min(workers, n); worker++ {
		wg.Go(func() { work(worker) })
	}
	work(0)
	wg.Wait()
	for _, err := range errs {
		if err != nil && !errors.Is(err, errStopped) {
			return err
		}
	}
	return nil
}
