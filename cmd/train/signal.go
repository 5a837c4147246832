package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// interruption is why a run was told to end.
type interruption struct{ os.Signal }

func (i interruption) Error() string { return fmt.Sprintf("signal: %s", i.Signal) }

// twice is how long after the first signal others mean no more than it: coreutils' timeout sends the same
// one to the process and to its group.
const twice = 500 * time.Millisecond

// untilSignal gives a context that ends at the first SIGINT or SIGTERM. A later one, not within
// twice of it, ends the process at once: a save takes as long as it takes.
func untilSignal() (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	got := make(chan os.Signal, 1)
	signal.Notify(got, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case s := <-got:
			cancel(interruption{s})
			time.Sleep(twice)
			signal.Stop(got)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { signal.Stop(got); cancel(nil) }
}

// interrupted is what a run that saved and ended early ends with: SIGTERM asks for just that, so it is no
// error.
func interrupted(ctx context.Context) error {
	var i interruption
	if errors.As(context.Cause(ctx), &i) && i.Signal == syscall.SIGTERM {
		return nil
	}
	return ctx.Err()
}
