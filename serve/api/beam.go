package api

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"

	"mix/serve/infer"
)

// beam is a beginning of a text, or a whole one.
type beam struct {
	ids   []int32 // generated
	sum   float64 // of the log probabilities
	score float64 // of whole ones: sum over length to the power of the penalty
}

// maxBeams is such that the best continuations of a beam, one of which may be the end, are all known.
const maxBeams = infer.MaxLogProbs - 1

// megatronBeam searches the texts of the best scores. Each step asks the engine for the best next tokens of
// every beam; their prompts share all but the last token, so engines with a prefix cache compute little twice.
// The length in the score counts the generated tokens before the end.
func (s *Server) megatronBeam(ctx context.Context, a ask) (answer, error) {
	if a.beams > maxBeams {
		return answer{}, &saying{http.StatusOK, fmt.Sprintf("beam_width must be an integer <= %d", maxBeams)}
	}
	base, err := s.megatronJob(a, 0, a.prompts[0])
	if err != nil {
		return answer{}, err
	}
	ends := s.model.Ends
	if len(base.Stop) > 0 {
		ends = base.Stop
	}
	base.Max, base.IgnoreEnd, base.Stop, base.stops = 1, true, nil, nil
	base.Sampling, base.LogProbs, base.PromptLogProbs = infer.Greedy(), min(maxBeams+1, s.model.Vocab), -1
	live, whole := []beam{{}}, []beam{}
	for range a.tokens {
		next, err := s.extend(ctx, a, base, live)
		if err != nil {
			return answer{}, err
		}
		live = live[:0:0]
		for rank, b := range next {
			last := len(b.ids) - 1
			switch {
			case !slices.Contains(ends, b.ids[last]):
				live = append(live, b)
			case rank < a.beams: // worse ones than the best few do not end a text
				whole = append(whole, b.finish(b.ids[:last], a.lengthPenalty))
			}
			if len(live) == a.beams {
				break
			}
		}
		whole = best(whole, a.beams)
		if len(live) == 0 || len(whole) == a.beams && whole[len(whole)-1].score >= live[0].finish(live[0].ids, a.lengthPenalty).score {
			live = nil
			break
		}
	}
	for _, b := range live {
		whole = append(whole, b.finish(b.ids, a.lengthPenalty))
	}
	var out answer
	for _, b := range best(whole, a.beams) {
		x := result{}
		stream := s.o.Tokenizer.StreamAfter(base.Prompt)
		for _, id := range b.ids {
			x.text += stream.Push(id)
			x.tokens = append(x.tokens, tok{id: id})
		}
		x.text += stream.Flush()
		s.append(&out, a.prompts[0], base.Prompt, x)
		out.scores = append(out.scores, float32(b.score))
	}
	return out, nil
}

// extend gives the best continuations of all beams by one token, best first: two for each beam to be kept.
func (s *Server) extend(ctx context.Context, a ask, base job, live []beam) ([]beam, error) {
	var jobs []job
	for _, b := range live {
		j := base
		j.Prompt = append(slices.Clone(base.Prompt), b.ids...)
		jobs = append(jobs, j)
	}
	pieces, err := s.run(ctx, a.start, jobs)
	if err != nil {
		return nil, err
	}
	results, err := collect(ctx, pieces, len(jobs))
	if err != nil {
		return nil, err
	}
	var next []beam
	for i, r := range results {
		if len(r.tokens) == 0 || r.tokens[0].place == nil {
			return nil, fmt.Errorf("beam %d: the engine reports no probabilities", i)
		}
		for _, t := range r.tokens[0].place.Top {
			next = append(next, beam{ids: append(slices.Clone(live[i].ids), t.ID), sum: live[i].sum + float64(t.LogProb)})
		}
	}
	slices.SortStableFunc(next, func(x, y beam) int { return cmp.Compare(y.sum, x.sum) })
	return next[:min(len(next), 2*a.beams)], nil
}

// finish makes a whole text of the beam.
func (b beam) finish(ids []int32, penalty float64) beam {
	b.ids = ids
	b.score = b.sum / math.Pow(float64(max(len(ids), 1)), penalty)
	return b
}

// best keeps the n best texts.
func best(all []beam, n int) []beam {
	slices.SortStableFunc(all, func(x, y beam) int { return cmp.Compare(y.score, x.score) })
	return all[:min(n, len(all))]
}
