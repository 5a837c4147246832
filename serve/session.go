package serve

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"mix/graph"
	"mix/lower"
	"mix/serve/infer"
)

// ErrTooLong is wrapped by refusals of a prompt that leaves no room in the context.
var ErrTooLong = infer.ErrTooLong

// ErrToken is wrapped by refusals of token ids outside of the vocabulary.
var ErrToken = errors.New("token id out of range")

// Sampling says how tokens are drawn. A Session has no penalties and biases, a Batcher all of it.
type Sampling = infer.Sampling

// sequential names the first value that a session cannot draw with.
func sequential(s Sampling) error {
	if s.Repetition != 0 && s.Repetition != 1 || s.Presence != 0 || s.Frequency != 0 || len(s.Bias) > 0 {
		return fmt.Errorf("penalties %g, %g and %g with %d biases, a session has none", s.Repetition, s.Presence, s.Frequency, len(s.Bias))
	}
	return s.Validate()
}

// chunks are the sizes in tokens in which prompts are run. The smallest that holds a prompt is used, the
// largest again and again for longer ones.
var chunks = []int{16, 64, 128, 256, 512}

// Session is one sequence: its cache on the device and the programs that extend it.
type Session struct {
	e               *Engine
	capacity, chunk int
	prefill, decode *lower.Program
	cache           []*lower.Buffer
	length          int // positions of the cache that hold tokens
	zero            *lower.Buffer
	sampling        []*lower.Buffer // arguments of the programs, nil for greedy
}

// capacityFor is the size of the cache for a sequence of at most tokens: a power of two of chunks, so that
// few programs serve all lengths, and no longer than the context needs.
func (e *Engine) capacityFor(tokens, chunk int) int {
	c := chunks[len(chunks)-1]
	for c < tokens {
		c *= 2
	}
	whole := (e.cfg.Context + chunk - 1) / chunk * chunk
	return min(c, whole)
}

// NewSession compiles what a prompt of that many tokens and up to max further ones need. The prompt must
// leave room for one token; max is cut to what the context holds. ctx ends it between two programs.
func (e *Engine) NewSession(ctx context.Context, prompt, max int, s Sampling) (*Session, error) {
	if err := sequential(s); err != nil {
		return nil, err
	}
	if err := CheckPrompt(e.cfg, prompt); err != nil {
		return nil, err
	}
	if max < 1 {
		return nil, fmt.Errorf("%d tokens to generate, want at least 1", max)
	}
	chunk := chunks[len(chunks)-1]
	for _, c := range slices.Backward(chunks) {
		if prompt <= c {
			chunk = c
		}
	}
	return e.newSession(ctx, prompt, max, s, chunk)
}

func (e *Engine) newSession(ctx context.Context, prompt, max int, s Sampling, chunk int) (*Session, error) {
	x := &Session{e: e, chunk: chunk}
	x.capacity = e.capacityFor(min(prompt+min(max, e.cfg.Context), e.cfg.Context), x.chunk)
	if err := x.open(ctx, s); err != nil {
		x.Close()
		return nil, err
	}
	return x, nil
}

func (x *Session) open(ctx context.Context, s Sampling) (err error) {
	e, m := x.e, modeOf(s)
	if x.prefill, err = e.step(x.chunk, x.capacity, m); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if x.decode, err = e.step(1, x.capacity, m); err != nil {
		return err
	}
	if x.cache, err = e.emptyCache(x.capacity); err != nil {
		return err
	}
	if x.zero, err = upload(e.be, []int32{0}); err != nil {
		return err
	}
	add := func(b *lower.Buffer, failed error) {
		x.sampling = append(x.sampling, b)
		err = errors.Join(err, failed)
	}
	if m != greedy {
		add(upload(e.be, []float32{s.Temperature}, 1))
		add(upload(e.be, []float32{s.MinP}, 1))
		add(upload(e.be, []uint32{uint32(s.Seed), uint32(s.Seed >> 32)}, 1, 2))
	}
	if m == ranked {
		add(upload(e.be, []int32{int32(s.TopK)}, 1))
		add(upload(e.be, []float32{s.TopP}, 1))
	}
	return err
}

// Close frees the cache.
func (x *Session) Close() {
	free(x.cache...)
	free(x.sampling...)
	free(x.zero)
	x.cache, x.sampling, x.zero = nil, nil, nil
}

// run starts a step and takes over the cache it returns.
func (x *Session) run(p *lower.Program, tokens, start, last *lower.Buffer) (next, after, logits *lower.Buffer, err error) {
	args := append([]*lower.Buffer{tokens, start, last}, x.cache...)
	outs, err := p.Run(append(args, x.sampling...)...)
	if err != nil {
		return nil, nil, nil, err
	}
	copy(x.cache, outs[stepOutputs:])
	return outs[0], outs[1], outs[2], nil
}

// Prefill puts prompt into the cache, a chunk at a time, and returns the token drawn after it, the position
// of that token, and the logits it was drawn from, all on the device. ctx ends it between chunks.
func (x *Session) Prefill(ctx context.Context, prompt []int32) (next, after, logits *lower.Buffer, err error) {
	if x.length+len(prompt) > x.limit() || len(prompt) == 0 {
		return nil, nil, nil, fmt.Errorf("session: %d tokens after %d, want 1 to %d", len(prompt), x.length, x.limit()-x.length)
	}
	if err := CheckTokens(x.e.cfg, prompt); err != nil {
		return nil, nil, nil, err
	}
	for len(prompt) > 0 {
		if next != nil { // one chunk at a time, else ctx would be asked before any of them has run
			err = next.Wait()
			free(next, after, logits)
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return nil, nil, nil, err
		}
		p, n := x.prefill, x.chunk
		if x.length+n > x.capacity { // padding would reach beyond the cache, and be moved over what is in it
			p, n = x.decode, 1
		}
		part := prompt[:min(n, len(prompt))]
		prompt = prompt[len(part):]
		if next, after, logits, err = x.prefillChunk(p, n, part); err != nil {
			return nil, nil, nil, err
		}
	}
	return next, after, logits, nil
}

// limit is how many positions may be used: the cache's, but no more than the model has.
func (x *Session) limit() int { return min(x.capacity, x.e.cfg.Context) }

// prefillChunk runs part, padded to n tokens, through p.
func (x *Session) prefillChunk(p *lower.Program, n int, part []int32) (next, after, logits *lower.Buffer, err error) {
	var args [3]*lower.Buffer // tokens, start, last
	defer func() { free(args[:]...) }()
	padded := make([]int32, n)
	copy(padded, part)
	if args[0], err = upload(x.e.be, padded, 1, n); err != nil {
		return nil, nil, nil, err
	}
	if args[1], err = upload(x.e.be, []int32{int32(x.length)}); err != nil {
		return nil, nil, nil, err
	}
	if args[2], err = upload(x.e.be, []int32{int32(len(part) - 1)}); err != nil {
		return nil, nil, nil, err
	}
	if next, after, logits, err = x.run(p, args[0], args[1], args[2]); err != nil {
		return nil, nil, nil, err
	}
	x.length += len(part)
	return next, after, logits, nil
}

// Step puts one token into the cache and draws the next. token and at come from Prefill or from Step.
func (x *Session) Step(token, at *lower.Buffer) (next, after, logits *lower.Buffer, err error) {
	if x.length >= x.limit() {
		return nil, nil, nil, fmt.Errorf("session: all %d positions are used", x.limit())
	}
	if next, after, logits, err = x.run(x.decode, token, at, x.zero); err != nil {
		return nil, nil, nil, err
	}
	x.length++
	return next, after, logits, nil
}

// CheckPrompt refuses a prompt of no tokens, or of so many that the context has no room for another.
func CheckPrompt(c graph.Config, tokens int) error {
	switch {
	case tokens < 1:
		return fmt.Errorf("prompt of %d tokens, want at least 1", tokens)
	case tokens >= c.Context:
		return fmt.Errorf("%w: %d tokens, want at most %d", ErrTooLong, tokens, c.Context-1)
	}
	return nil
}

// CheckTokens refuses a sequence that the model cannot take: none or too many tokens, or ids outside of the
// vocabulary.
func CheckTokens(c graph.Config, ids []int32) error {
	switch {
	case len(ids) < 1:
		return fmt.Errorf("sequence of no tokens, want at least 1")
	case len(ids) > c.Context:
		return fmt.Errorf("%w: %d tokens, want at most %d", ErrTooLong, len(ids), c.Context)
	}
	for i, id := range ids {
		if id < 0 || int(id) >= c.Vocab {
			return fmt.Errorf("%w: token %d is %d, want 0 to %d", ErrToken, i, id, c.Vocab-1)
		}
	}
	return nil
}

// free gives results back that nobody reads.
func free(bs ...*lower.Buffer) {
	for _, b := range bs {
		if b != nil {
			b.Finalize()
		}
	}
}
