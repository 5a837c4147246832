package gpu

import (
	"context"
	"runtime"
	"sync"
)

// ahead makes n things on half of the processors, while the caller measures those that are there: number 0 before the
// others, the others in no order. Once ctx has ended nothing more is begun. The channel must be read to its end.
func ahead[T any](ctx context.Context, n int, one func(i int) T) <-chan T {
	out, next := make(chan T), make(chan int)
	go func() {
		defer close(out)
		out <- one(0)
		var all sync.WaitGroup
		for range max(1, runtime.NumCPU()/2) {
			all.Go(func() {
				for i := range next {
					out <- one(i)
				}
			})
		}
		for i := 1; i < n && ctx.Err() == nil; i++ {
			next <- i
		}
		close(next)
		all.Wait()
	}()
	return out
}
