package serve

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"runtime/debug"
	"slices"
	"time"

	"mix/serve/infer"
)

// job is a request at work. Its fields belong to the loop while a step runs, and else to the Batcher's lock.
type job struct {
	ctx     context.Context
	log     *slog.Logger
	r       infer.Request
	ends    map[int32]bool // ids that end the text
	events  *events
	stop    func() bool // of the watch on ctx
	usage   infer.Usage
	counts  map[int32]int // of the tokens generated
	seen    []uint8       // [V] of tokens in prompt and text, with a repetition penalty
	allowed []uint32      // of the mask, at the last draw
	prompt  []infer.Place
	scored  int // tokens of the prompt that prompt had, up to now
	arrived time.Time
	seated  time.Time // when it first got a slot
}

func newJob(ctx context.Context, r infer.Request, m infer.Model, log *slog.Logger) *job {
	if r.Sampling.Repetition == 0 {
		r.Sampling.Repetition = 1
	}
	j := &job{ctx: ctx, log: log, r: r, ends: map[int32]bool{}, events: newEvents(ctx), counts: map[int32]int{}, arrived: time.Now()}
	j.usage.Prompt = len(r.Prompt)
	stops := r.Stop
	if !r.IgnoreEnd || r.Mask != nil { // a mask allows nothing after an end
		stops = slices.Concat(stops, m.Ends)
	}
	for _, id := range stops {
		if id >= 0 && int(id) < m.Vocab { // others cannot be drawn
			j.ends[id] = true
		}
	}
	if r.Sampling.Repetition != 1 {
		j.seen = make([]uint8, m.Vocab)
		for _, id := range r.Prompt {
			j.seen[id] = 1
		}
	}
	return j
}

// ranked tells whether a draw needs more than temperature and min-p.
func (j *job) ranked() bool {
	s := j.r.Sampling
	return s.TopK != 0 || s.TopP != 1 || s.Repetition != 1 || s.Presence != 0 || s.Frequency != 0 || len(s.Bias) > 0 || j.r.Mask != nil || j.early(nil)
}

// early tells that the text may not end yet, after further tokens.
func (j *job) early(after []int32) bool { return j.usage.Generated+len(after) < j.r.Min }

// adds tells whether something is added to the logits, after further tokens.
func (j *job) adds(after []int32) bool {
	s := j.r.Sampling
	return len(s.Bias) > 0 || s.Presence != 0 || s.Frequency != 0 || j.r.Mask != nil || j.early(after)
}

// added fills what is added to the logits of the draw after the text and further tokens, [V], from zeros. It is
// an error if no token may come. With a mask there must be no further ones.
func (j *job) added(to []float32, after []int32) error {
	s := j.r.Sampling
	for id, b := range s.Bias {
		to[id] += b
	}
	if s.Presence != 0 || s.Frequency != 0 {
		counts := j.counts
		if len(after) > 0 {
			counts = maps.Clone(counts)
			for _, id := range after {
				counts[id]++
			}
		}
		for id, n := range counts {
			to[id] -= s.Presence + s.Frequency*float32(n)
		}
	}
	no := float32(math.Inf(-1))
	if j.r.Mask != nil {
		if j.allowed == nil {
			j.allowed = make([]uint32, (len(to)+31)/32)
		}
		if err := j.guard(func() error { j.r.Mask.Allowed(j.allowed); return nil }); err != nil {
			return err
		}
		for id := range to {
			if !j.allows(int32(id)) {
				to[id] = no
			}
		}
	}
	if j.early(after) {
		for id := range j.ends {
			to[id] = no
		}
	}
	if (j.r.Mask != nil || j.early(after)) && !slices.ContainsFunc(to, func(x float32) bool { return x != no }) {
		return j.stuck(after)
	}
	return nil
}

// allows tells whether the mask allowed an id at the last draw.
func (j *job) allows(id int32) bool { return j.allowed[id/32]>>(id%32)&1 != 0 }

// guard calls the mask. That it panics is an error of this request alone.
func (j *job) guard(call func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			j.log.Error("a constraint panics", "request", j.r.ID, "panic", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("constraint after %d tokens: panic: %v", j.usage.Generated, r)
		}
	}()
	return call()
}

// stuck is the error that no token may come.
func (j *job) stuck(after []int32) error {
	if j.early(after) {
		return fmt.Errorf("%w: after %d tokens only an end may come, but at least %d are asked for", infer.ErrRequest, j.usage.Generated, j.r.Min)
	}
	return fmt.Errorf("%w: the constraint allows no token after %d", infer.ErrRequest, j.usage.Generated)
}

// take takes in a drawn id. It returns the event to send and whether the id ends the text.
func (j *job) take(id int32, place *infer.Place, experts [][]uint8) (e infer.Event, ends bool, err error) {
	e = infer.Event{Token: id, Place: place, Experts: experts, Prompt: j.takePrompt(), StopID: -1}
	if j.r.Mask != nil {
		if err := j.accept(id); err != nil {
			return e, false, err
		}
	}
	if j.ends[id] {
		e.Finish, e.StopID = infer.FinishStop, id
		return e, true, nil
	}
	e.Has = true
	j.usage.Generated++
	j.counts[id]++
	if j.seen != nil {
		j.seen[id] = 1
	}
	return e, false, nil
}

// accept tells the mask of a drawn id. That it refuses one it allowed says that the constraint went wrong.
func (j *job) accept(id int32) error {
	if !j.allows(id) {
		return fmt.Errorf("token %d was drawn, which the constraint does not allow", id)
	}
	return j.guard(func() error {
		if err := j.r.Mask.Accept(id); err != nil {
			return fmt.Errorf("%w: constraint: %w", infer.ErrRequest, err)
		}
		return nil
	})
}

// takePrompt is what is known of the prompt's tokens, once.
func (j *job) takePrompt() []infer.Place {
	p := j.prompt
	j.prompt = nil
	return p
}

// placeOf ranks a chosen id among logits [V] and lists the n best.
func placeOf(logits []float32, id int32, n int) infer.Place {
	top := math.Inf(-1)
	for _, x := range logits {
		top = math.Max(top, float64(x))
	}
	sum := 0.0
	for _, x := range logits {
		sum += math.Exp(float64(x) - top)
	}
	norm := top + math.Log(sum)
	of := func(id int32) infer.TokenLogProb {
		return infer.TokenLogProb{ID: id, LogProb: float32(float64(logits[id]) - norm)}
	}
	p := infer.Place{Chosen: of(id), Rank: 1}
	for i, x := range logits {
		if x > logits[id] || x == logits[id] && int32(i) < id {
			p.Rank++
		}
	}
	var best []int32 // by falling logit, ties to the lower id
	for i := range logits {
		at, _ := slices.BinarySearchFunc(best, int32(i), func(a, b int32) int {
			switch {
			case logits[a] > logits[b], logits[a] == logits[b] && a < b:
				return -1
			case a == b:
				return 0
			}
			return 1
		})
		if at < n {
			best = slices.Insert(best, at, int32(i))
			best = best[:min(len(best), n)]
		}
	}
	for _, id := range best {
		p.Top = append(p.Top, of(id))
	}
	return p
}
