package api

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"time"

	"mix/serve/infer"
)

// completion is the body of POST /v1/completions.
type completion struct {
	params
	Prompt   json.RawMessage `json:"prompt"`
	Suffix   *string         `json:"suffix"`
	Echo     bool            `json:"echo"`
	LogProbs *int            `json:"logprobs"`
	BestOf   *int            `json:"best_of"`
}

// completionChoice is one text of the answer.
type completionChoice struct {
	Index          int               `json:"index"`
	Text           string            `json:"text"`
	LogProbs       *legacyLogProbs   `json:"logprobs"`
	Finish         *string           `json:"finish_reason"`
	Stop           any               `json:"stop_reason"` // the stop string or id that ended the text
	TokenIDs       []int32           `json:"token_ids,omitempty"`
	PromptIDs      []int32           `json:"prompt_token_ids,omitempty"`
	PromptLogProbs []map[string]seen `json:"prompt_logprobs,omitempty"`
	Experts        [][][]int         `json:"experts,omitempty"` // [token][layer][choice]
}

type completionAnswer struct {
	ID      string             `json:"id"`
	Object  string             `json:"object"`
	Created int64              `json:"created"`
	Model   string             `json:"model"`
	Choices []completionChoice `json:"choices"`
	Usage   *usage             `json:"usage,omitempty"`
}

// usage counts tokens. With several texts the prompt counts once.
type usage struct {
	Prompt     int `json:"prompt_tokens"`
	Completion int `json:"completion_tokens"`
	Total      int `json:"total_tokens"`
	Details    struct {
		Cached int `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
}

// add counts one text, and the prompt with its first.
func (u *usage) add(x infer.Usage, first bool) {
	if first {
		u.Prompt += x.Prompt
		u.Details.Cached += x.Cached
	}
	u.Completion += x.Generated
	u.Total = u.Prompt + u.Completion
}

// completions handles POST /v1/completions.
func (s *Server) completions(w http.ResponseWriter, r *http.Request) error {
	start := time.Now()
	var c completion
	if err := s.readJSON(w, r, &c); err != nil {
		return err
	}
	name, err := s.modelName(c.Model)
	if err != nil {
		return err
	}
	prompts, err := s.prompts(&c)
	if err != nil {
		return err
	}
	n, best, err := s.choices(c.N, c.BestOf, len(prompts))
	if err != nil {
		return err
	}
	jobs, err := s.completionJobs(&c, prompts, n, best)
	if err != nil {
		return err
	}
	pieces, err := s.run(r.Context(), start, jobs)
	if err != nil {
		return err
	}
	a := completionAnswer{ID: "cmpl-" + newID(24), Object: "text_completion", Created: start.Unix(), Model: name, Choices: []completionChoice{}}
	b := builder{s: s, c: &c, jobs: jobs, best: best, lines: make([]line, len(jobs))}
	if c.Stream {
		return b.stream(w, r, a, pieces)
	}
	results, err := collect(r.Context(), pieces, len(jobs))
	if err != nil {
		return err
	}
	a.Usage = &usage{}
	for at := 0; at < len(jobs); at += best {
		order := make([]int, best)
		for i := range order {
			order[i] = at + i
			a.Usage.add(results[at+i].end.usage, i == 0)
		}
		if best > n {
			slices.SortStableFunc(order, func(i, k int) int { return cmp.Compare(likelihood(results[k]), likelihood(results[i])) })
		}
		for _, i := range order[:n] {
			x := results[i]
			ch := b.choice(i, piece{index: i, text: x.text, tokens: x.tokens, prompt: x.prompt, end: &x.end})
			ch.Index = len(a.Choices)
			a.Choices = append(a.Choices, ch)
		}
	}
	writeJSON(w, http.StatusOK, a)
	return nil
}

// likelihood is the mean log probability of a text's tokens.
func likelihood(r result) float64 {
	sum, n := 0.0, 0
	for _, t := range r.tokens {
		if t.place != nil {
			sum += float64(t.place.Chosen.LogProb)
			n++
		}
	}
	if n == 0 {
		return math.Inf(-1)
	}
	return sum / float64(n)
}

// completionJobs makes best jobs for each prompt.
func (s *Server) completionJobs(c *completion, prompts [][]int32, n, best int) ([]job, error) {
	switch {
	case c.Suffix != nil && *c.Suffix != "":
		return nil, refuse("suffix", "suffix is not supported: the model writes forwards only")
	case c.LogProbs != nil && (*c.LogProbs < 0 || *c.LogProbs > infer.MaxLogProbs):
		return nil, refuse("logprobs", "logprobs is %d, want 0 to %d", *c.LogProbs, infer.MaxLogProbs)
	case c.Stream && best > n:
		return nil, refuse("best_of", "best_of is %d and n is %d: which texts are best is known at the end, so they cannot be streamed", best, n)
	}
	base, err := s.job(&c.params, writing, 16, true)
	if err != nil {
		return nil, err
	}
	if c.LogProbs != nil {
		base.LogProbs = *c.LogProbs
		if c.Echo {
			base.PromptLogProbs = max(base.PromptLogProbs, *c.LogProbs)
		}
	} else if best > n {
		base.LogProbs = 0
	}
	var jobs []job
	for i, p := range prompts {
		j, err := s.after(base, p, c.MaxTokens != nil)
		if err != nil {
			return nil, err
		}
		for k := range best {
			j.ID = fmt.Sprintf("%d.%d", i, k)
			j.Sampling.Seed = base.Sampling.Seed + uint64(k)
			if err := j.Validate(s.model); err != nil {
				return nil, err
			}
			jobs = append(jobs, j)
		}
	}
	return jobs, nil
}

// prompts reads a text, a list of texts, ids, or a list of lists of ids.
func (s *Server) prompts(c *completion) ([][]int32, error) {
	texts, ids, err := readPrompt(c.Prompt)
	if err != nil {
		return nil, err
	}
	for i, t := range texts {
		p, err := s.encode(t, or(c.AddSpecialTokens, true))
		if err != nil {
			return nil, refuse("prompt", "prompt %d: %s", i, short(err.Error(), 100))
		}
		ids = append(ids, p)
	}
	for i, p := range ids {
		if len(p) == 0 {
			return nil, refuse("prompt", "prompt %d has no tokens, want at least 1", i)
		}
		for k, id := range p {
			if id < 0 || int(id) >= s.model.Vocab {
				return nil, refuse("prompt", "token %d of prompt %d is %d, want 0 to %d", k, i, id, s.model.Vocab-1)
			}
		}
	}
	return ids, nil
}

func readPrompt(raw json.RawMessage) (texts []string, ids [][]int32, err error) {
	var text *string
	var list []*string
	var flat []*int32
	var lists [][]*int32
	switch {
	case absent(raw):
		return nil, nil, refuse("prompt", "prompt is missing")
	case one(raw, &text):
		return []string{*text}, nil, nil
	case one(raw, &flat) && len(flat) == 0:
		return nil, nil, refuse("prompt", "prompt is an empty list")
	case len(flat) > 0 && one(raw, &flat):
		lists = [][]*int32{flat}
	case one(raw, &list):
		for i, t := range list {
			if t == nil {
				return nil, nil, refuse("prompt", "prompt %d is null", i)
			}
			texts = append(texts, *t)
		}
	case !one(raw, &lists):
		return nil, nil, refuse("prompt", "prompt is none of a string, a list of strings, a list of token ids, a list of lists of token ids")
	}
	for i, l := range lists {
		p := make([]int32, len(l))
		for k, id := range l {
			if id == nil {
				return nil, nil, refuse("prompt", "token %d of prompt %d is null", k, i)
			}
			p[k] = *id
		}
		ids = append(ids, p)
	}
	if n := len(texts) + len(ids); n > maxPrompts {
		return nil, nil, refuse("prompt", "%d prompts, at most %d", n, maxPrompts)
	}
	return texts, ids, nil
}
