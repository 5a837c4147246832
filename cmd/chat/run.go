package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"mix/cmd/chat/openai"
	"mix/internal/cli"
)

// session is one run of the command.
type session struct {
	*command
	*console
	client openai.Client
	model  string
}

// Run asks until the input ends.
func (c *command) Run(ctx context.Context, streams *cli.IO, stop *interrupts) error {
	if err := c.check(); err != nil {
		return fmt.Errorf("%w: %w", cli.ErrUsage, err)
	}
	base, err := openai.Base(c.Address, c.HTTPS)
	if err != nil {
		return fmt.Errorf("%w: %w", cli.ErrUsage, err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	s := &session{command: c, console: newConsole(streams, stop), model: c.Model,
		client: openai.Client{Base: base, Key: c.APIKey, HTTP: &http.Client{Transport: transport}}}
	if c.Chat {
		err = s.chat(ctx)
	} else {
		err = s.prompts(ctx)
	}
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case errors.Is(err, errInterrupt):
		stop.leave()
		return context.Canceled
	}
	return err
}

func (c *command) check() error {
	switch {
	case c.MaxTokens < 0:
		return fmt.Errorf("--max-tokens is %d, want at least 1", c.MaxTokens)
	case !c.Chat && c.MaxTokens > 0:
		return errors.New("--max-tokens goes with --chat; without it the number is asked for")
	case !c.Chat && c.System != "":
		return errors.New("--system goes with --chat")
	}
	return nil
}

// ask fills in what all requests over /v1 share.
func (s *session) ask(ctx context.Context, a openai.Ask) (openai.Ask, error) {
	if s.model == "" {
		names, err := s.client.Models(ctx)
		if err != nil {
			return a, err
		}
		if len(names) == 0 {
			return a, fmt.Errorf("/v1/models: %w: the server has no model", openai.ErrMalformed)
		}
		s.model = names[0]
	}
	a.Model, a.Stream = s.model, true
	a.Temperature, a.TopK, a.TopP, a.Seed = s.Temperature, s.TopK, s.TopP, s.Seed
	return a, nil
}

// ended tells whether an error ends the session, not only an answer.
func ended(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, errOutput)
}

// errOutput is wrapped by errors of writing to the terminal.
var errOutput = errors.New("output")
