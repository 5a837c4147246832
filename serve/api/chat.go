package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"mix/graph/token"
	"mix/serve/infer"
)

// chatRequest is the body of POST /v1/chat/completions.
type chatRequest struct {
	params
	Messages      []chatMessage   `json:"messages"`
	MaxCompletion *int            `json:"max_completion_tokens"`
	LogProbs      bool            `json:"logprobs"`
	TopLogProbs   *int            `json:"top_logprobs"`
	Tools         []chatTool      `json:"tools"`
	ToolChoice    json.RawMessage `json:"tool_choice"`
	Parallel      *bool           `json:"parallel_tool_calls"`
}

type chatTool struct {
	Type     string `json:"type"`
	Function struct {
		Name        string          `json:"name"`
		Description string          `json:"description"`
		Parameters  json.RawMessage `json:"parameters"`
		Strict      bool            `json:"strict"` // calls keep to the parameters' schema; without, only calls that tool_choice demands
	} `json:"function"`
}

type chatChoice struct {
	Index    int           `json:"index"`
	Message  *chatReply    `json:"message,omitempty"`
	Delta    *chatDelta    `json:"delta,omitempty"`
	LogProbs *chatLogProbs `json:"logprobs"`
	Finish   *string       `json:"finish_reason"`
	Stop     any           `json:"stop_reason"`
	TokenIDs []int32       `json:"token_ids,omitempty"`
	Experts  [][][]int     `json:"experts,omitempty"`
}

// chatReply is a message of the answer. Clients want its null fields to be there.
type chatReply struct {
	Role    string     `json:"role"`
	Content *string    `json:"content"`
	Refusal *string    `json:"refusal"`
	Calls   []chatCall `json:"tool_calls,omitempty"`
}

type chatDelta struct {
	Role    string     `json:"role,omitempty"`
	Content *string    `json:"content,omitempty"`
	Calls   []chatCall `json:"tool_calls,omitempty"`
}

type chatCall struct {
	Index    *int     `json:"index,omitempty"` // in streams
	ID       string   `json:"id,omitempty"`
	Type     string   `json:"type,omitempty"`
	Function function `json:"function"`
}

type function struct {
	Name      string `json:"name,omitempty"`
	Arguments string `json:"arguments"`
}

type chatAnswer struct {
	ID             string            `json:"id"`
	Object         string            `json:"object"`
	Created        int64             `json:"created"`
	Model          string            `json:"model"`
	Choices        []chatChoice      `json:"choices"`
	Usage          *usage            `json:"usage,omitempty"`
	PromptLogProbs []map[string]seen `json:"prompt_logprobs,omitempty"`
	PromptIDs      []int32           `json:"prompt_token_ids,omitempty"`
}

// chatCompletions handles POST /v1/chat/completions.
func (s *Server) chatCompletions(w http.ResponseWriter, r *http.Request) error {
	start := time.Now()
	var c chatRequest
	if err := s.readJSON(w, r, &c); err != nil {
		return err
	}
	name, err := s.modelName(c.Model)
	if err != nil {
		return err
	}
	jobs, err := s.chatJobs(&c)
	if err != nil {
		return err
	}
	pieces, err := s.run(r.Context(), start, jobs)
	if err != nil {
		return err
	}
	a := chatAnswer{ID: "chatcmpl-" + newID(24), Object: "chat.completion", Created: start.Unix(), Model: name}
	if c.ReturnTokenIDs {
		a.PromptIDs = jobs[0].Prompt
	}
	if c.Stream {
		a.Object = "chat.completion.chunk"
		return s.chatStream(w, r, &c, jobs, a, pieces)
	}
	results, err := collect(r.Context(), pieces, len(jobs))
	if err != nil {
		return err
	}
	a.Usage = &usage{}
	for i, x := range results {
		a.Usage.add(x.end.usage, i == 0)
		a.Choices = append(a.Choices, s.chatChoice(&c, i, x))
	}
	if c.PromptLogProbs != nil {
		a.PromptLogProbs = s.promptSeen(jobs[0].Prompt, results[0].prompt, *c.PromptLogProbs)
	}
	writeJSON(w, http.StatusOK, a)
	return nil
}

// chatChoice is a whole answer.
func (s *Server) chatChoice(c *chatRequest, i int, x result) chatChoice {
	ch := chatChoice{Index: i, Message: &chatReply{Role: token.Assistant}}
	ch.Finish, ch.Stop = finish(&x.end)
	s.describe(c, &ch, x.tokens)
	text := x.text
	if x.calls != "" {
		var reader callReader
		calls := reader.push(x.calls)
		if rest := reader.rest(); len(calls) == 0 {
			text += rest // what is no call is shown as it came
		}
		for _, k := range calls {
			ch.Message.Calls = append(ch.Message.Calls, chatCall{ID: newID(9), Type: "function", Function: k})
		}
		if len(calls) > 0 && x.end.finish == infer.FinishStop {
			ch.Finish = new("tool_calls")
		}
	}
	if text != "" || len(ch.Message.Calls) == 0 {
		ch.Message.Content = &text
	}
	return ch
}

// describe adds what was asked for about tokens.
func (s *Server) describe(c *chatRequest, ch *chatChoice, tokens []tok) {
	if c.LogProbs {
		ch.LogProbs = &chatLogProbs{Content: []chatLogProb{}}
	}
	for _, t := range tokens {
		if c.LogProbs && t.place != nil {
			ch.LogProbs.Content = append(ch.LogProbs.Content, s.chatPlace(*t.place, or(c.TopLogProbs, 0)))
		}
		if c.ReturnTokenIDs {
			ch.TokenIDs = append(ch.TokenIDs, t.id)
		}
		if c.ReturnExperts {
			ch.Experts = append(ch.Experts, numbers(t.experts))
		}
	}
}

// chatJobs turns a conversation into n jobs.
func (s *Server) chatJobs(c *chatRequest) ([]job, error) {
	if c.MaxCompletion != nil {
		c.MaxTokens = c.MaxCompletion
	}
	switch {
	case c.MaxTokens != nil && *c.MaxTokens < 1:
		return nil, refuse("max_tokens", "max_tokens is %d, want at least 1", *c.MaxTokens)
	case c.TopLogProbs != nil && (*c.TopLogProbs < 0 || *c.TopLogProbs > infer.MaxLogProbs):
		return nil, refuse("top_logprobs", "top_logprobs is %d, want 0 to %d", *c.TopLogProbs, infer.MaxLogProbs)
	case or(c.TopLogProbs, 0) > 0 && !c.LogProbs:
		return nil, refuse("top_logprobs", "top_logprobs is %d, but logprobs is false", *c.TopLogProbs)
	}
	n, _, err := s.choices(c.N, nil, 1)
	if err != nil {
		return nil, err
	}
	messages, err := conversation(c.Messages)
	if err != nil {
		return nil, err
	}
	base, err := s.job(&c.params, chatting, -1, goesOn(messages))
	if err != nil {
		return nil, err
	}
	if c.LogProbs {
		base.LogProbs = or(c.TopLogProbs, 0)
	}
	use, err := c.toolUse()
	if err != nil {
		return nil, err
	}
	if base, err = s.prompt(base, messages, use, c.MaxTokens != nil); err != nil {
		return nil, err
	}
	jobs := slices.Repeat([]job{base}, n)
	for i := range jobs {
		jobs[i].ID = fmt.Sprint(i)
		jobs[i].Sampling.Seed += uint64(i)
	}
	return jobs, nil
}

// prompt writes a conversation before the job's text. asked tells that the client named a number of tokens.
func (s *Server) prompt(j job, messages []token.Message, use toolUse, asked bool) (job, error) {
	if len(use.shown) > 0 && s.chat != token.V3 {
		return job{}, refuse("tools", "the template of this model, %s, has no tools", s.chat)
	}
	ids, err := s.o.Tokenizer.EncodeChatWithTools(messages, use.shown, s.chat)
	if err != nil {
		return job{}, err
	}
	if len(use.shown) > 0 {
		j.calls, _ = s.o.Tokenizer.ID("[TOOL_CALLS]") // the template was written with it
	}
	tools := Constraint{Kind: ToolCalls, Tools: use.allowed, Parallel: use.parallel}
	switch {
	case use.must && j.grammar != nil:
		return job{}, refuse("tool_choice", "tool_choice demands a call, and another field narrows the answer, want one")
	case use.must:
		if j.grammar, err = s.compile(tools, "tool_choice"); err != nil {
			return job{}, err
		}
		ids, j.calling = append(ids, j.calls), true
	case use.strict && j.grammar == nil:
		tools.Tools, tools.After = use.shown, j.calls
		if j.grammar, err = s.compile(tools, "tools"); err != nil {
			return job{}, err
		}
	}
	if j, err = s.after(j, ids, asked); err != nil {
		return job{}, err
	}
	return j, j.Validate(s.model)
}

// goesOn tells whether the model goes on from the last message.
func goesOn(messages []token.Message) bool {
	return len(messages) > 0 && messages[len(messages)-1].Prefix
}
