package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"mix/cmd/chat/openai"
)

// record is what became of a request. Times are since the start of the measurement.
type record struct {
	due    time.Duration // when it was to be sent
	sent   time.Duration
	end    time.Duration
	chunks []time.Duration // when each piece of text of a stream came
	prompt int             // tokens, 0 where nobody counted
	answer int             // tokens
	byUsed bool            // tokens are from the usage, else chunks were counted
	err    error
	cut    bool // by the end of the measurement: neither answered nor failed
}

// ask sends a request and waits for its end.
func ask(ctx context.Context, c *openai.Client, a openai.Ask, timeout time.Duration, start time.Time, due time.Duration) record {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r := record{due: due, sent: time.Since(start)}
	if a.MaxTokens != nil && a.Stream {
		r.chunks = make([]time.Duration, 0, min(*a.MaxTokens, 1<<12))
	}
	answer, err := c.Do(ctx, a, func(string) error {
		if a.Stream {
			r.chunks = append(r.chunks, time.Since(start))
		}
		return nil
	})
	r.end, r.err, r.answer = time.Since(start), err, len(r.chunks)
	if u := answer.Usage; u != nil {
		r.prompt, r.answer, r.byUsed = u.Prompt, u.Completion, true
	}
	return r
}

// kind names an error so that errors can be counted.
func kind(err error) string {
	said, isSaid := errors.AsType[*openai.Error](err)
	op, isOp := errors.AsType[*net.OpError](err)
	var slow interface{ Timeout() bool }
	switch {
	case isSaid && said.Status == 200:
		return "error in the stream"
	case isSaid:
		return fmt.Sprintf("status %d", said.Status)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &slow) && slow.Timeout():
		return "timeout"
	case errors.Is(err, openai.ErrCut):
		return "stream cut"
	case errors.Is(err, openai.ErrMalformed):
		return "malformed answer"
	case isOp && op.Op == "dial":
		return "no connection"
	}
	return "connection lost"
}
