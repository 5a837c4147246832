package api

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"mix/serve/infer"
)

// Engines tell of each place the infer.MaxLogProbs most likely tokens. A search of more beams may need more of them:
// those are found by asking again for the best token with a mask that hides the ones already known. To ask at once
// for several, the vocabulary is dealt out by id modulo shares, and each share is asked for its own best.

// shares are how many parts the vocabulary is dealt into.
const shares = 16

// source gives the next tokens of one beam that belong to one share, most likely first.
type source struct {
	beam  int
	share int32
	known []int32 // what it has given, of those in its share
	left  int     // tokens not given yet
	bound float64 // no token not given yet leads to a sum above this
}

// candidates are the best continuations by one token of the beams: at least need of them, if there are so many, and no
// other continuation is better than those. They are sorted, best first.
func (s *Server) candidates(ctx context.Context, a ask, base job, live []beam, need int) ([]beam, error) {
	next, sources, err := s.reported(ctx, a, base, live)
	if err != nil {
		return nil, err
	}
	for {
		slices.SortStableFunc(next, func(x, y beam) int { return cmp.Compare(y.sum, x.sum) })
		enough := math.Inf(-1)
		if len(next) >= need {
			enough = next[need-1].sum
		}
		var open []*source
		for _, x := range sources {
			if x.left > 0 && x.bound > enough {
				open = append(open, x)
			}
		}
		if len(open) == 0 {
			return next[:min(len(next), need)], nil
		}
		for part := range slices.Chunk(open, atOnce) {
			found, err := s.draw(ctx, a, base, live, part)
			if err != nil {
				return nil, err
			}
			next = append(next, found...)
		}
	}
}

// atOnce is how many requests of one search are in the engine, so that a wide one does not fill its queue.
const atOnce = 32

// reported are the continuations that engines tell of unasked, and the sources of all others.
func (s *Server) reported(ctx context.Context, a ask, base job, live []beam) (next []beam, sources []*source, err error) {
	for from := 0; from < len(live); from += atOnce {
		some := live[from:min(from+atOnce, len(live))]
		jobs := make([]job, len(some))
		for i, b := range some {
			jobs[i] = b.job(base)
		}
		results, err := s.results(ctx, a.start, jobs)
		if err != nil {
			return nil, nil, err
		}
		for i, r := range results {
			p := r.first()
			if p == nil || len(p.Top) == 0 {
				return nil, nil, fmt.Errorf("beam %d: the engine reports no probabilities", from+i)
			}
			all := s.sources(from + i)
			for _, t := range p.Top {
				next = append(next, some[i].with(t))
				all[t.ID%shares].give(t.ID, next[len(next)-1].sum)
			}
			for _, x := range all {
				x.bound = next[len(next)-1].sum
			}
			sources = append(sources, all...)
		}
	}
	return next, sources, nil
}

// sources are those of all tokens after one beam.
func (s *Server) sources(beam int) []*source {
	all := make([]*source, shares)
	for k := range all {
		all[k] = &source{beam: beam, share: int32(k), left: (s.model.Vocab - k + shares - 1) / shares}
	}
	return all
}

func (x *source) give(id int32, sum float64) {
	x.known = append(x.known, id)
	x.left--
	x.bound = sum
}

// with is the beam with a token more.
func (b beam) with(t infer.TokenLogProb) beam {
	return beam{ids: append(slices.Clone(b.ids), t.ID), sum: b.sum + float64(t.LogProb)}
}

// draw gets the next token of each source.
func (s *Server) draw(ctx context.Context, a ask, base job, live []beam, open []*source) (next []beam, err error) {
	base.LogProbs, base.begun = 0, true
	jobs := make([]job, len(open))
	for i, x := range open {
		jobs[i] = live[x.beam].job(base)
		jobs[i].Mask = &hide{x}
	}
	results, err := s.results(ctx, a.start, jobs)
	if err != nil {
		return nil, err
	}
	for i, x := range open {
		p := results[i].first()
		if p == nil {
			return nil, fmt.Errorf("beam %d: the engine drew no token", x.beam)
		}
		next = append(next, live[x.beam].with(p.Chosen))
		x.give(p.Chosen.ID, next[len(next)-1].sum)
	}
	return next, nil
}

// job asks for what follows the beam.
func (b beam) job(base job) job {
	base.Prompt = slices.Concat(base.Prompt, b.ids)
	return base
}

// first is the place of the first id that was drawn, nil for none. It may be an end of the text, which is no token of it.
func (r *result) first() *infer.Place {
	if len(r.tokens) > 0 {
		return r.tokens[0].place
	}
	return r.end.place
}

// hide is a mask that allows the tokens of a source which it has not given.
type hide struct{ *source }

// Allowed implements infer.Mask. Masks have room for whole words of ids; those past the vocabulary are no matter.
func (h *hide) Allowed(bits []uint32) {
	clear(bits)
	for id := h.share; int(id) < 32*len(bits); id += shares {
		bits[id/32] |= 1 << (id % 32)
	}
	for _, id := range h.known {
		bits[id/32] &^= 1 << (id % 32)
	}
}

// Accept implements infer.Mask.
func (h *hide) Accept(int32) error { return nil }

// Done implements infer.Mask.
func (h *hide) Done() bool { return true }
