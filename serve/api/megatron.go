package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"mix/graph/token"
	"mix/serve/infer"
)

// Era is a version of Megatron's server whose answers PUT /api gives.
type Era int

const (
	// Era2024 has beam search, and answers with logprobs, segments and text.
	Era2024 Era = iota
	// EraHead has no beam search; answers have tokens too, and logprobs when asked for.
	EraHead
)

// answer is what Megatron's server says: of each prompt, or of each beam.
type answer struct {
	text     []string
	segments [][]string // pieces of the vocabulary
	tokens   [][]int32
	logprobs [][]float32 // of all tokens but the first, from the raw logits
	scores   []float32   // of beams
}

// errLong is Megatron's word for a prompt that does not fit.
var errLong = &saying{http.StatusOK, "Length of prompt + tokens_to_generate longer than allowed"}

// megatron handles PUT /api. Its clients parse messages out of answers with status 200, so most refusals
// are bare JSON strings of that status, as they were recorded. Where the recorded server fails with a 500, for
// prompts that are no strings, this one answers 400.
func (s *Server) megatron(w http.ResponseWriter, r *http.Request) error {
	var raw json.RawMessage
	if err := s.readJSON(w, r, &raw); err != nil {
		switch f := asFailure(err); f.status {
		case http.StatusUnsupportedMediaType:
			f.message = "Did not attempt to load JSON data because the request Content-Type was not 'application/json'."
			return f
		case http.StatusBadRequest:
			f.message = "The browser (or proxy) sent a request that this server could not understand."
			return f
		default:
			return f
		}
	}
	var fields map[string]json.RawMessage
	_ = json.Unmarshal(raw, &fields) // what is no object has no prompts
	a, refusal := readAsk(fields, s.o.Megatron)
	if refusal != nil {
		return writePython(w, refusal.status, refusal.message)
	}
	a.start = time.Now()
	work := s.texts
	if a.beams > 0 {
		work = s.beam
	}
	out, err := work(r.Context(), a)
	var told *saying
	switch {
	case errors.As(err, &told):
		return writePython(w, told.status, told.message)
	case errors.Is(err, infer.ErrTooLong):
		return writePython(w, errLong.status, errLong.message)
	case errors.Is(err, infer.ErrRequest):
		return writePython(w, http.StatusOK, short(err.Error(), 400))
	case err != nil:
		return err
	}
	return writePython(w, http.StatusOK, s.body(a, out))
}

// body is the answer in the fields of the era.
func (s *Server) body(a ask, out answer) map[string]any {
	body := map[string]any{"text": out.text, "segments": out.segments}
	switch {
	case a.beams > 0:
		body["scores"] = floats(out.scores)
		return body
	case a.logprobs:
		all := make([]any, len(out.logprobs))
		for i, l := range out.logprobs {
			all[i] = floats(l)
		}
		body["logprobs"] = all
	case s.o.Megatron == Era2024:
		body["logprobs"] = nil
	}
	if s.o.Megatron == EraHead {
		body["tokens"] = out.tokens
	}
	return body
}

// megatronOptions handles OPTIONS /api.
func (s *Server) megatronOptions(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Allow", "OPTIONS, PUT")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusOK)
	return nil
}

// megatronTexts generates after each prompt.
func (s *Server) megatronTexts(ctx context.Context, a ask) (answer, error) {
	var jobs []job
	for i, text := range a.prompts {
		j, err := s.megatronJob(a, i, text)
		if err != nil {
			return answer{}, err
		}
		jobs = append(jobs, j)
	}
	if a.stepwise() {
		return s.stepwise(ctx, a, jobs)
	}
	results, err := s.results(ctx, a.start, jobs)
	if err != nil {
		return answer{}, err
	}
	var out answer
	for i, x := range results {
		s.append(&out, a.prompts[i], jobs[i].Prompt, x)
	}
	return out, nil
}

// append writes one result into the answer.
func (s *Server) append(out *answer, prompt string, ids []int32, x result) {
	tokens := append([]int32(nil), ids...)
	lps := make([]float32, 0, len(ids))
	for _, p := range x.prompt {
		lps = append(lps, p.Chosen.LogProb)
	}
	for _, t := range x.tokens {
		tokens = append(tokens, t.id)
		if t.place != nil {
			lps = append(lps, t.place.Chosen.LogProb)
		}
	}
	segments := make([]string, len(tokens))
	for i, id := range tokens {
		segments[i] = s.o.Tokenizer.Piece(id)
	}
	out.text = append(out.text, prompt+x.text)
	out.segments = append(out.segments, segments)
	out.tokens = append(out.tokens, tokens)
	out.logprobs = append(out.logprobs, lps)
}

func (s *Server) megatronJob(a ask, i int, text string) (job, error) {
	ids, err := s.o.Tokenizer.Encode(text, token.EncodeOptions{BOS: a.bos})
	if err != nil {
		return job{}, &saying{http.StatusOK, fmt.Sprintf("prompt %d: %s", i, short(err.Error(), 200))}
	}
	if len(ids)+a.tokens > s.model.Context {
		return job{}, errLong
	}
	seed := rand.Uint64()
	if a.seed >= 0 {
		seed = uint64(a.seed)
	}
	j := job{kind: writing, calls: -1, follows: true, includeStop: true, Request: infer.Request{
		ID: strconv.Itoa(i), Prompt: ids, Max: a.tokens, LogProbs: -1, PromptLogProbs: -1,
		Sampling: infer.Sampling{Temperature: float32(a.temperature), TopK: a.topK, TopP: 1, Repetition: 1, Seed: seed + uint64(i)},
	}}
	if a.topP > 0 {
		j.Sampling.TopP = max(float32(a.topP), math.SmallestNonzeroFloat32)
	}
	if a.topK == 1 {
		j.Sampling = infer.Greedy()
	}
	if a.logprobs {
		j.LogProbs, j.PromptLogProbs = 0, 0
	}
	if a.stopEOL {
		j.stops = append(j.stops, "\n")
	}
	if a.stopDouble {
		j.stops = append(j.stops, "\n\n")
	}
	// Their default is an id of another vocabulary; ids that this one has not mean the model's own end.
	if a.stopToken >= 0 && a.stopToken < s.model.Vocab {
		j.Stop, j.IgnoreEnd = []int32{int32(a.stopToken)}, true
	}
	return j, j.Validate(s.model)
}

// stepwise tells whether the way of drawing changes from token to token, which engines do not know.
func (a ask) stepwise() bool { return a.tokens > 0 && (a.topPDecay > 0 || a.noNewline) }

// stepwise asks for one token after the other, prompt by prompt. top-p falls by top_p_decay with each, down to
// top_p_bound; no newline comes after a colon.
func (s *Server) stepwise(ctx context.Context, a ask, jobs []job) (answer, error) {
	var out answer
	var newlines map[int32]float32
	if a.noNewline {
		newlines = s.newlines()
	}
	for i, j := range jobs {
		j.begun = i > 0
		x, err := s.step(ctx, a, j, newlines)
		if err != nil {
			return answer{}, err
		}
		s.metrics.made(a.start, len(jobs[i].Prompt), len(x.tokens), x.end.finish)
		s.append(&out, a.prompts[i], jobs[i].Prompt, x)
	}
	return out, nil
}

// step generates one text. newlines is the bias that keeps them from coming.
func (s *Server) step(ctx context.Context, a ask, j job, newlines map[int32]float32) (result, error) {
	var all result
	stream, stop := s.o.Tokenizer.StreamAfter(j.Prompt), stopper{stops: j.stops, include: true}
	j.stops, j.part = nil, true
	all.end.finish = infer.FinishLength
	for n := range a.tokens {
		j.Max = 1
		j.Sampling.Seed += 1 << 32
		j.Sampling.Bias = nil
		if a.noNewline && strings.HasSuffix(s.o.Tokenizer.Decode(j.Prompt), ":") {
			j.Sampling.Bias = newlines
		}
		if n > 0 && a.topPDecay > 0 && j.Sampling.TopP < 1 {
			j.Sampling.TopP = max(j.Sampling.TopP*float32(a.topPDecay), float32(a.topPBound), math.SmallestNonzeroFloat32)
		}
		r, err := s.results(ctx, a.start, []job{j})
		if err != nil {
			return result{}, err
		}
		all.prompt = append(all.prompt, r[0].prompt...)
		if len(r[0].tokens) == 0 { // the end of the text
			all.end.finish = infer.FinishStop
			break
		}
		j.PromptLogProbs, j.begun = -1, true
		t := r[0].tokens[0]
		j.Prompt = append(j.Prompt[:len(j.Prompt):len(j.Prompt)], t.id)
		all.tokens = append(all.tokens, t)
		text, hit := stop.push(stream.Push(t.id))
		all.text += text
		if hit != "" {
			all.end.finish = infer.FinishStop
			return all, nil
		}
	}
	rest, _ := stop.push(stream.Flush())
	all.text += rest + stop.flush()
	return all, nil
}

// newlines is a bias against all tokens that begin with a newline.
func (s *Server) newlines() map[int32]float32 {
	bias := map[int32]float32{}
	for id := range int32(min(s.model.Vocab, s.o.Tokenizer.VocabSize())) {
		if b := s.o.Tokenizer.Bytes(id); len(b) > 0 && b[0] == '\n' {
			bias[id] = -100
		}
	}
	return bias
}
