package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"mix/cmd/chat/openai"
)

// prompts is Megatron's client: it asks for a prompt and a number of tokens, and prints what the server says.
func (s *session) prompts(ctx context.Context) error {
	for {
		prompt, err := s.line(ctx, s.out, "Enter prompt: ")
		if err != nil {
			return err
		}
		tokens, err := s.number(ctx)
		if err != nil {
			return err
		}
		work := s.put
		if s.Stream {
			work = s.stream
		}
		stopped, err := s.during(ctx, func(ctx context.Context) error { return work(ctx, prompt, tokens) })
		if stopped {
			err = s.print("\n")
		}
		if ended(ctx, err) {
			return err
		}
		if err != nil {
			if err := s.print(told(err) + "\n"); err != nil {
				return err
			}
		}
	}
}

// number asks until it gets one.
func (s *session) number(ctx context.Context) (int, error) {
	for {
		text, err := s.line(ctx, s.out, "Enter number of tokens to generate: ")
		if err != nil {
			return 0, err
		}
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err == nil {
			return n, nil
		}
		fmt.Fprintf(s.err, "number of tokens is %q, want an integer\n", text)
	}
}

// put asks by PUT /api.
func (s *session) put(ctx context.Context, prompt string, tokens int) error {
	body := map[string]any{"prompts": []string{prompt}, "tokens_to_generate": tokens}
	if s.Temperature != nil {
		body["temperature"] = *s.Temperature
	}
	if s.TopK != nil {
		body["top_k"] = *s.TopK
	}
	if s.TopP != nil {
		body["top_p"] = *s.TopP
	}
	if s.Seed != nil {
		body["random_seed"] = *s.Seed
	}
	r, err := s.client.Send(ctx, http.MethodPut, "/api", body)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	var refusal string // these servers refuse with status 200 and a bare string
	if json.Unmarshal(b, &refusal) == nil {
		return &openai.Error{Status: r.StatusCode, Message: refusal}
	}
	var answer struct {
		Text []string `json:"text"`
	}
	if err := json.Unmarshal(b, &answer); err != nil || len(answer.Text) == 0 {
		return fmt.Errorf("%w: no text in %.100q", openai.ErrMalformed, b)
	}
	return s.print("Megatron Response: \n" + answer.Text[0] + "\n")
}

// stream asks over /v1/completions for what PUT /api would answer. Nothing is printed before the answer begins.
func (s *session) stream(ctx context.Context, prompt string, tokens int) error {
	bare := false
	a, err := s.ask(ctx, openai.Ask{Prompt: &prompt, MaxTokens: &tokens, AddSpecialTokens: &bare})
	if err != nil {
		return err
	}
	head := "Megatron Response: \n" + prompt
	begun := false
	_, err = s.client.Do(ctx, a, func(text string) error {
		if !begun {
			text, begun = head+text, true
		}
		return s.print(text)
	})
	switch {
	case err != nil && begun && ctx.Err() == nil:
		return errors.Join(s.print("\n"), err)
	case err != nil:
		return err
	case !begun:
		return s.print(head + "\n")
	}
	return s.print("\n")
}

// told is an error as Megatron's client prints it.
func told(err error) string {
	if e, ok := errors.AsType[*openai.Error](err); ok {
		return e.Error()
	}
	return "Error: " + err.Error()
}
