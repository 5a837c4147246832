package api

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"unicode/utf8"

	"mix/serve/infer"
)

// params are the fields that completions and chat share, in the spelling of OpenAI and vLLM.
type params struct {
	Model            string             `json:"model"`
	MaxTokens        *int               `json:"max_tokens"`
	MinTokens        int                `json:"min_tokens"`
	N                *int               `json:"n"`
	Temperature      *float64           `json:"temperature"`
	TopP             *float64           `json:"top_p"`
	TopK             *int               `json:"top_k"` // 0 and -1 are all
	MinP             *float64           `json:"min_p"`
	Repetition       *float64           `json:"repetition_penalty"`
	Presence         *float64           `json:"presence_penalty"`
	Frequency        *float64           `json:"frequency_penalty"`
	Seed             *int64             `json:"seed"`
	LogitBias        map[string]float64 `json:"logit_bias"`
	Stop             json.RawMessage    `json:"stop"`
	StopTokenIDs     []*int32           `json:"stop_token_ids"`
	IncludeStop      bool               `json:"include_stop_str_in_output"`
	IgnoreEOS        bool               `json:"ignore_eos"`
	Priority         int32              `json:"priority"`
	CacheSalt        string             `json:"cache_salt"`
	PromptLogProbs   *int               `json:"prompt_logprobs"`
	ReturnTokenIDs   bool               `json:"return_token_ids"`
	ReturnExperts    bool               `json:"return_experts"` // ours: experts that each token used
	ResponseFormat   *responseFormat    `json:"response_format"`
	Structured       *structured        `json:"structured_outputs"`
	Stream           bool               `json:"stream"`
	StreamOptions    *streamOptions     `json:"stream_options"`
	AddSpecialTokens *bool              `json:"add_special_tokens"`
}

type streamOptions struct {
	Usage      bool `json:"include_usage"`
	Continuous bool `json:"continuous_usage_stats"`
}

// Bounds of what a request may carry.
const (
	maxStops   = 64
	maxLetters = 1024 // of a stop string or a salt, in characters, as the OpenAPI document counts them
	maxBias    = 1024
	maxPrompts = 1024
)

// Kinds of jobs, in the words of traces.
const (
	chatting = "chat"
	writing  = "text_completion"
)

// job asks for texts after one prompt.
type job struct {
	infer.Request
	kind        string
	stops       []string
	includeStop bool
	grammar     func() infer.Mask
	calls       int32 // the id that begins tool calls, -1 for none
	calling     bool  // the prompt ends with that id
	part        bool  // of a text that is made in many requests to the engine, and counted by whoever makes it
	begun       bool  // work on the answer has begun: it waits for room in the engine, where a first job is refused
	follows     bool  // the text goes on in the middle of the prompt's: a space that it begins with stays
}

// modelName checks a name of a model, and gives the default for none.
func (s *Server) modelName(name string) (string, error) {
	if name == "" || name == s.o.Model || slices.Contains(s.o.Aliases, name) {
		if name == "" {
			name = s.o.Model
		}
		return name, nil
	}
	return "", &failure{status: http.StatusNotFound, code: "model_not_found", param: "model",
		message: "the model " + strconv.Quote(short(name, 60)) + " does not exist; /v1/models lists what does"}
}

// bound is a number of a request with its limits.
type bound struct {
	name     string
	v        *float64
	low, top float64
	open     bool // low itself is not allowed
}

// job turns the shared fields into a job without a prompt. fallback is the number of tokens for requests
// that name none, -1 for as many as fit. follows tells that the text goes on in the middle of the prompt's.
func (s *Server) job(p *params, kind string, fallback int, follows bool) (job, error) {
	for _, b := range []bound{
		{"temperature", p.Temperature, 0, 100, false},
		{"top_p", p.TopP, 0, 1, true},
		{"min_p", p.MinP, 0, 1, false},
		{"repetition_penalty", p.Repetition, 0.01, 100, false},
		{"presence_penalty", p.Presence, -2, 2, false},
		{"frequency_penalty", p.Frequency, -2, 2, false},
	} {
		if b.v != nil && (*b.v < b.low || *b.v > b.top || b.open && *b.v == b.low) {
			at := "at least"
			if b.open {
				at = "above"
			}
			return job{}, refuse(b.name, "%s is %g, want %s %g and at most %g", b.name, *b.v, at, b.low, b.top)
		}
	}
	switch {
	case p.TopK != nil && (*p.TopK < -1 || *p.TopK > math.MaxInt32):
		return job{}, refuse("top_k", "top_k is %d, want -1 or 0 for all tokens, or their number", *p.TopK)
	case p.MinP != nil && *p.MinP == 1:
		return job{}, refuse("min_p", "min_p is %g, want below 1", *p.MinP)
	case p.MaxTokens != nil && *p.MaxTokens < 0:
		return job{}, refuse("max_tokens", "max_tokens is %d, want at least 0", *p.MaxTokens)
	case p.MinTokens < 0 || p.MaxTokens != nil && p.MinTokens > *p.MaxTokens:
		return job{}, refuse("min_tokens", "min_tokens is %d, want 0 to max_tokens", p.MinTokens)
	case p.PromptLogProbs != nil && (*p.PromptLogProbs < 0 || *p.PromptLogProbs > infer.MaxLogProbs):
		return job{}, refuse("prompt_logprobs", "prompt_logprobs is %d, want 0 to %d", *p.PromptLogProbs, infer.MaxLogProbs)
	case p.PromptLogProbs != nil && p.Stream:
		return job{}, refuse("prompt_logprobs", "prompt_logprobs are not streamed")
	case utf8.RuneCountInString(p.CacheSalt) > maxLetters:
		return job{}, refuse("cache_salt", "cache_salt has %d characters, at most %d", utf8.RuneCountInString(p.CacheSalt), maxLetters)
	}
	j := job{kind: kind, includeStop: p.IncludeStop, calls: -1, follows: follows, Request: infer.Request{
		Max: fallback, Min: p.MinTokens, IgnoreEnd: p.IgnoreEOS, LogProbs: -1, PromptLogProbs: -1,
		Experts: p.ReturnExperts, Priority: int(p.Priority), Salt: p.CacheSalt,
		Sampling: infer.Sampling{
			Temperature: float32(or(p.Temperature, 1)), TopK: max(0, or(p.TopK, 0)), TopP: max(float32(or(p.TopP, 1)), math.SmallestNonzeroFloat32),
			MinP: min(float32(or(p.MinP, 0)), math.Nextafter32(1, 0)), Repetition: float32(or(p.Repetition, 1)), Presence: float32(or(p.Presence, 0)),
			Frequency: float32(or(p.Frequency, 0)), Seed: rand.Uint64(),
		},
	}}
	if p.Seed != nil {
		j.Sampling.Seed = uint64(*p.Seed)
	}
	if p.MaxTokens != nil {
		j.Max = *p.MaxTokens
	}
	if p.PromptLogProbs != nil {
		j.PromptLogProbs = *p.PromptLogProbs
	}
	var err error
	if j.Stop, err = s.stopIDs(p.StopTokenIDs); err != nil {
		return job{}, err
	}
	if j.stops, err = stopStrings("stop", p.Stop); err != nil {
		return job{}, err
	}
	if j.Sampling.Bias, err = s.bias(p.LogitBias); err != nil {
		return job{}, err
	}
	j.grammar, err = s.constrain(p, follows)
	return j, err
}

func or[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

func (s *Server) stopIDs(in []*int32) (ids []int32, err error) {
	if len(in) > maxStops {
		return nil, refuse("stop_token_ids", "%d stop_token_ids, at most %d", len(in), maxStops)
	}
	for _, id := range in {
		if id == nil || *id < 0 || int(*id) >= s.model.Vocab {
			return nil, refuse("stop_token_ids", "stop_token_ids has %d, want 0 to %d", or(id, -1), s.model.Vocab-1)
		}
		ids = append(ids, *id)
	}
	return ids, nil
}

// stopStrings reads one text or a list of them.
func stopStrings(name string, raw json.RawMessage) ([]string, error) {
	if absent(raw) {
		return nil, nil
	}
	var list []string
	var single string
	switch {
	case one(raw, &single):
		list = []string{single}
	case !one(raw, &list):
		return nil, refuse(name, "%s is neither a string nor a list of strings", name)
	}
	if len(list) > maxStops {
		return nil, refuse(name, "%d stop strings, at most %d", len(list), maxStops)
	}
	for i, t := range list {
		if n := utf8.RuneCountInString(t); n < 1 || n > maxLetters {
			return nil, refuse(name, "stop string %d has %d characters, want 1 to %d", i, n, maxLetters)
		}
	}
	return list, nil
}

func (s *Server) bias(named map[string]float64) (map[int32]float32, error) {
	if len(named) == 0 {
		return nil, nil
	}
	if len(named) > maxBias {
		return nil, refuse("logit_bias", "logit_bias has %d tokens, at most %d", len(named), maxBias)
	}
	bias := make(map[int32]float32, len(named))
	for name, b := range named {
		id, err := strconv.ParseInt(name, 10, 32)
		if err != nil || id < 0 || int(id) >= s.model.Vocab || b < -100 || b > 100 {
			return nil, refuse("logit_bias", "logit_bias of %q is %g, want an id of 0 to %d and a bias of -100 to 100", short(name, 20), b, s.model.Vocab-1)
		}
		bias[int32(id)] = float32(b)
	}
	return bias, nil
}

// after gives the job its prompt. asked tells that the client named the number of tokens: then they must fit.
func (s *Server) after(j job, prompt []int32, asked bool) (job, error) {
	room := s.model.Context - len(prompt)
	if asked && j.Max > room || room < 0 || room == 0 && j.Max != 0 {
		return job{}, &failure{status: http.StatusBadRequest, code: "context_length_exceeded", param: "max_tokens",
			message: "the context is " + itoa(s.model.Context) + " tokens, but the prompt has " + itoa(len(prompt)) +
				" and " + itoa(max(j.Max, 1)) + " are asked for"}
	}
	if j.Max < 0 || j.Max > room {
		j.Max = room
	}
	j.Min = min(j.Min, j.Max)
	j.Prompt = prompt
	return j, nil
}

func itoa[T int | int64](n T) string { return strconv.FormatInt(int64(n), 10) }

// choices reads n, and best_of where that is known, against the limit of texts a request.
func (s *Server) choices(n, best *int, prompts int) (int, int, error) {
	keep := or(n, 1)
	made := or(best, keep)
	switch {
	case keep < 1 || keep > s.o.Texts:
		return 0, 0, refuse("n", "n is %d, want 1 to %d", keep, s.o.Texts)
	case made < keep || made > s.o.Texts:
		return 0, 0, refuse("best_of", "best_of is %d, want n, which is %d, to %d", made, keep, s.o.Texts)
	case made*prompts > max(s.o.Texts, maxPrompts):
		return 0, 0, refuse("n", "%d texts for each of %d prompts, at most %d in all", made, prompts, max(s.o.Texts, maxPrompts))
	}
	return keep, made, nil
}
