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

// maxBeams bounds the work of one request.
const maxBeams = 1024

// megatronBeam searches the texts of the best scores. Each step asks the engine for the best next tokens of
// every beam; their prompts share all but the last token, so engines with a prefix cache compute little twice.
// The length in the score counts the generated tokens before the end.
func (s *Server) megatronBeam(ctx context.Context, a ask) (answer, error) {
	if widest := min(maxBeams, s.model.Vocab/2); a.beams > widest {
		return answer{}, &saying{http.StatusOK, fmt.Sprintf("beam_width must be an integer <= %d", widest)}
	}
	base, err := s.megatronJob(a, 0, a.prompts[0])
	if err != nil {
		return answer{}, err
	}
	ends := s.model.Ends
	if len(base.Stop) > 0 {
		ends = base.Stop
	}
	base.part, base.Max, base.IgnoreEnd, base.Stop, base.stops = true, 1, true, nil, nil
	base.Sampling, base.LogProbs, base.PromptLogProbs = infer.Greedy(), min(infer.MaxLogProbs, s.model.Vocab), -1
	live, whole := []beam{{}}, []beam{}
	for range a.tokens {
		// Of each beam some continuations may be ends, which are not extended.
		next, err := s.candidates(ctx, a, base, live, a.beams+len(live)*len(ends))
		if err != nil {
			return answer{}, err
		}
		live, base.begun = live[:0:0], true
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
		finish := infer.FinishStop
		if len(b.ids) == a.tokens {
			finish = infer.FinishLength
		}
		s.metrics.made(a.start, len(base.Prompt), len(b.ids), finish)
	}
	return out, nil
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
