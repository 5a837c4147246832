// Package infer has the words in which servers and engines speak: what is asked for, what comes back, and
// why something is refused.
package infer

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Request asks for one text after a prompt.
type Request struct {
	ID       string // for logs
	Prompt   []int32
	Max      int // tokens to generate, at least 0; 0 only scores the prompt
	Min      int // tokens before an end-of-text id or a stop id may come
	Sampling Sampling
	Stop     []int32 // ids that end the text, beside the model's end-of-text ids
	// IgnoreEnd goes on after end-of-text ids.
	IgnoreEnd bool
	// LogProbs is how many of the most likely tokens are reported at each place, beside the chosen one; -1
	// reports nothing.
	LogProbs int
	// PromptLogProbs is the same for the prompt's tokens but the first; -1 reports nothing.
	PromptLogProbs int
	// Experts reports which experts each token used.
	Experts bool
	// Mask narrows what may be drawn, nil for no limits. It is used by one request only.
	Mask Mask
	// Priority: lower runs first; equal ones in the order in which they came.
	Priority int
	// Salt keeps a request's prefix from being shared with requests of another salt.
	Salt string
}

// Sampling says how tokens are drawn. The order is: penalties and biases, temperature, top-k, top-p, min-p.
type Sampling struct {
	Temperature float32 // 0 takes the best token
	TopK        int     // 0 for all
	TopP        float32 // in (0, 1], 1 for all
	MinP        float32 // in [0, 1), 0 for all
	Seed        uint64
	Repetition  float32           // divides positive and multiplies negative logits of tokens seen; 1 or 0 for none
	Presence    float32           // subtracted from logits of tokens generated
	Frequency   float32           // times their number, subtracted as well
	Bias        map[int32]float32 // added to logits
}

// Greedy is sampling without chance or change.
func Greedy() Sampling { return Sampling{TopP: 1, Repetition: 1} }

// Validate names the first value that is out of bounds.
func (s Sampling) Validate() error {
	switch {
	case !(s.Temperature >= 0 && s.Temperature <= 100):
		return fmt.Errorf("temperature is %g, want 0 to 100", s.Temperature)
	case s.TopK < 0 || s.TopK > 1<<30:
		return fmt.Errorf("top-k is %d, want 0 (all) or a number of tokens", s.TopK)
	case !(s.TopP > 0 && s.TopP <= 1):
		return fmt.Errorf("top-p is %g, want above 0 and at most 1", s.TopP)
	case !(s.MinP >= 0 && s.MinP < 1):
		return fmt.Errorf("min-p is %g, want at least 0 and below 1", s.MinP)
	case !(s.Repetition >= 0 && s.Repetition <= 100):
		return fmt.Errorf("repetition penalty is %g, want above 0 and at most 100, or 0 for none", s.Repetition)
	case !(s.Presence >= -2 && s.Presence <= 2):
		return fmt.Errorf("presence penalty is %g, want -2 to 2", s.Presence)
	case !(s.Frequency >= -2 && s.Frequency <= 2):
		return fmt.Errorf("frequency penalty is %g, want -2 to 2", s.Frequency)
	}
	for id, b := range s.Bias {
		if !(b >= -100 && b <= 100) {
			return fmt.Errorf("bias of token %d is %g, want -100 to 100", id, b)
		}
	}
	return nil
}

// Mask narrows what may be drawn next, by what was drawn.
type Mask interface {
	// Allowed sets the bits of the ids that may come next, and clears all others. The bits are [V] in words of 32.
	Allowed(bits []uint32)
	// Accept takes in the id that was drawn. It is one that was allowed.
	Accept(id int32) error
	// Done tells whether the text may end here.
	Done() bool
}

// Finish says why a text ended.
type Finish string

// Reasons.
const (
	FinishStop      Finish = "stop"   // an end-of-text id, a stop id, or the receiver's word
	FinishLength    Finish = "length" // Max tokens, or the end of the context
	FinishCancelled Finish = "abort"  // the request's context ended
	FinishError     Finish = "error"
)

// TokenLogProb is a token with the natural logarithm of its probability among all, from the raw logits.
type TokenLogProb struct {
	ID      int32
	LogProb float32
}

// Place is what is said of one token: the chosen one, and the most likely ones, best first.
type Place struct {
	Chosen TokenLogProb
	Rank   int // of the chosen one, counted from 1
	Top    []TokenLogProb
}

// Event is one step of an answer.
type Event struct {
	Token   int32     // the next token; meaningless with Finish unless HasToken
	Has     bool      // Token is one of the text; stop ids are not
	Place   *Place    // with LogProbs
	Prompt  []Place   // of the prompt's tokens from the second on; in the first event only
	Experts [][]uint8 // [layer][choice] of the position that drew Token
	Finish  Finish    // in the last event, else ""
	StopID  int32     // the id that ended the text, -1 for none; with Finish
	Err     error     // with FinishError
	Usage   Usage     // with Finish
}

// Usage counts tokens.
type Usage struct {
	Prompt, Cached, Generated int           // Cached: of the prompt, found in the cache
	Queued                    time.Duration // from Submit to the first slot
}

// Model is what an engine serves.
type Model struct {
	Vocab, Context  int
	Layers, Experts int
	Ends            []int32 // end-of-text ids
}

// Engine runs requests. Its methods may be called from several goroutines.
type Engine interface {
	// Submit queues a request. Events come in order; the channel is closed after the one with Finish. The end
	// of ctx ends the request at the next step. The receiver need not keep up: events wait without bound.
	Submit(ctx context.Context, r Request) (<-chan Event, error)
	Model() Model
	// Ready tells whether all programs are compiled.
	Ready() bool
}

// Failing is an Engine that may fail for good, as when its device is lost.
type Failing interface {
	// Failed is why no request runs any more, nil while they do.
	Failed() error
}

// What requests are refused for. Errors of Submit wrap one of them.
var (
	ErrBusy     = errors.New("too many requests wait")
	ErrTooLong  = errors.New("prompt does not fit the context")
	ErrRequest  = errors.New("invalid request")
	ErrDraining = errors.New("the server is shutting down")
)

// Validate names the first value that is out of bounds for a model.
func (r Request) Validate(m Model) error {
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrRequest, fmt.Sprintf(format, args...))
	}
	switch {
	case len(r.Prompt) == 0:
		return wrong("the prompt has no tokens, want at least 1")
	case r.Max < 0 || r.Min < 0 || r.Min > r.Max:
		return wrong("%d to %d tokens to generate, want 0 to what is asked for", r.Min, r.Max)
	case r.Max == 0 && len(r.Prompt) > m.Context || r.Max > 0 && len(r.Prompt) >= m.Context:
		return fmt.Errorf("%w: %d tokens in the prompt and %d to generate, the context is %d", ErrTooLong, len(r.Prompt), r.Max, m.Context)
	case r.LogProbs < -1 || r.LogProbs > MaxLogProbs || r.PromptLogProbs < -1 || r.PromptLogProbs > MaxLogProbs:
		return wrong("%d and %d log probabilities, want -1 to %d", r.LogProbs, r.PromptLogProbs, MaxLogProbs)
	}
	if err := r.Sampling.Validate(); err != nil {
		return wrong("%v", err)
	}
	for i, id := range r.Prompt {
		if id < 0 || int(id) >= m.Vocab {
			return wrong("token %d of the prompt is %d, want 0 to %d", i, id, m.Vocab-1)
		}
	}
	for id := range r.Sampling.Bias {
		if id < 0 || int(id) >= m.Vocab {
			return wrong("bias of token %d, want 0 to %d", id, m.Vocab-1)
		}
	}
	return nil
}

// MaxLogProbs is how many of the most likely tokens may be asked for.
const MaxLogProbs = 20
