package serve

import (
	"context"
	"encoding/binary"
	"time"

	"mix/lower"
)

// Finish says why a generation ended.
type Finish string

const (
	FinishLength Finish = "length" // the asked number of tokens, or the end of the context
	FinishStop   Finish = "stop"   // an end-of-text id, or the receiver's word
)

// Timing is where the time of a generation went.
type Timing struct {
	Prompt, Decode             time.Duration
	PromptTokens, DecodeTokens int // a decode token is one drawn by a decode step, not by the prompt's
}

// Generate draws up to max tokens after prompt and hands each to emit, until a token is in stop, emit
// returns false, or the context ends. Stop tokens are not handed out. The device computes the next token
// while emit looks at the last.
func (e *Engine) Generate(ctx context.Context, prompt []int32, max int, s Sampling, stop map[int32]bool, emit func(id int32) bool) (Finish, Timing, error) {
	x, err := e.NewSession(len(prompt), max, s)
	if err != nil {
		return "", Timing{}, err
	}
	defer x.Close()
	max = min(max, e.cfg.Context-len(prompt))
	t := Timing{PromptTokens: len(prompt)}

	began := time.Now()
	next, at, logits, err := x.Prefill(ctx, prompt)
	if err != nil {
		return "", t, err
	}
	free(logits)
	defer func() { free(next, at) }()
	id, err := readID(next)
	if err != nil {
		return "", t, err
	}
	t.Prompt = time.Since(began)

	began = time.Now()
	for n := 1; ; n++ {
		var ahead, after *lower.Buffer
		if n < max && !stop[id] {
			if ahead, after, logits, err = x.Step(next, at); err != nil {
				return "", t, err
			}
			free(logits)
		}
		free(next, at)
		next, at = ahead, after
		switch {
		case stop[id]:
			return FinishStop, t.until(began), nil
		case !emit(id):
			return FinishStop, t.until(began), nil
		case n >= max:
			return FinishLength, t.until(began), nil
		case ctx.Err() != nil:
			return "", t.until(began), ctx.Err()
		}
		if id, err = readID(next); err != nil {
			return "", t, err
		}
		t.DecodeTokens++
	}
}

// until is t with the decode time up to now.
func (t Timing) until(began time.Time) Timing {
	t.Decode = time.Since(began)
	return t
}

// readID waits for a token and reads it.
func readID(b *lower.Buffer) (int32, error) {
	var raw [4]byte
	if err := b.ReadInto(raw[:]); err != nil {
		return 0, err
	}
	return int32(binary.LittleEndian.Uint32(raw[:])), nil
}
