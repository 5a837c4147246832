package serve

import (
	"context"
	"encoding/binary"
	"time"

	"mix/lower"
	"mix/serve/infer"
)

// Timing is where the time of a generation went.
type Timing struct {
	Prompt, Decode             time.Duration
	PromptTokens, DecodeTokens int // a decode token is one drawn by a decode step, not by the prompt's
}

// Generate draws up to max tokens after prompt and hands each to emit, until a token is in stop, emit
// returns false, or the context ends. Stop tokens are not handed out.
//
// The device is always one step ahead: it computes the next token while the host reads the last. What it
// computed after the end is thrown away.
func (e *Engine) Generate(ctx context.Context, prompt []int32, max int, s Sampling, stop map[int32]bool, emit func(id int32) bool) (infer.Finish, Timing, error) {
	t := Timing{PromptTokens: len(prompt)}
	x, err := e.NewSession(ctx, len(prompt), max, s)
	if err != nil {
		return "", t, err
	}
	defer x.Close()
	max = min(max, e.cfg.Context-len(prompt))

	began := time.Now()
	next, at, logits, err := x.Prefill(ctx, prompt)
	if err != nil {
		return "", t, err
	}
	free(logits)
	defer func() { free(next, at) }()
	for n := 1; ; n++ {
		var ahead, after *lower.Buffer
		if n < max {
			if ahead, after, logits, err = x.Step(next, at); err != nil {
				return "", t, err
			}
			free(logits)
		}
		id, err := readID(next)
		if err != nil {
			free(ahead, after)
			return "", t, err
		}
		free(next, at)
		next, at = ahead, after
		if n == 1 {
			t.Prompt, began = time.Since(began), time.Now()
		} else {
			t.DecodeTokens++
			t.Decode = time.Since(began)
		}
		switch {
		case stop[id] || !emit(id):
			return infer.FinishStop, t, nil
		case n >= max:
			return infer.FinishLength, t, nil
		case ctx.Err() != nil:
			return "", t, ctx.Err()
		}
	}
}

// readID waits for a token and reads it.
func readID(b *lower.Buffer) (int32, error) {
	var raw [4]byte
	if err := b.ReadInto(raw[:]); err != nil {
		return 0, err
	}
	return int32(binary.LittleEndian.Uint32(raw[:])), nil
}
