// Command generate continues a prompt.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"mix/cmd/internal/flags"
	"mix/internal/cli"
	"mix/serve"
)

type command struct {
	flags.Model
	flags.Device
	Prompt      *string  `help:"Text to continue. Default: standard input."`
	MaxTokens   int      `default:"128" help:"Tokens to generate at most. Default: ${default}."`
	Temperature float32  `default:"0.7" help:"Sampling temperature, 0 takes the best token. Default: ${default}."`
	TopK        int      `default:"0" help:"Sample from the K most likely tokens, 0 from all. Default: ${default}."`
	TopP        float32  `default:"1" help:"Sample from the smallest set of tokens whose probability reaches P, 1 for all. Default: ${default}."`
	MinP        float32  `default:"0.05" help:"Sample from tokens of at least P times the best one's probability, 0 for all. Default: ${default}."`
	Seed        uint64   `default:"1" help:"Seed: the same seed gives the same text. Default: ${default}."`
	Stop        []string `sep:"none" help:"End before this text. May be repeated."`
	Chat        bool     `help:"Take the prompt as a user's message in the Instruct template."`
}

func main() { cli.Main(new(command), "generate", "Continue a prompt with a Mixtral model.") }

// Run prints the continuation on Out as it is made, and the speed on Err.
func (c *command) Run(ctx context.Context, streams *cli.IO) error {
	sampling := serve.Sampling{Temperature: c.Temperature, TopK: c.TopK, TopP: c.TopP, MinP: c.MinP, Seed: c.Seed}
	if err := sampling.Validate(); err != nil {
		return fmt.Errorf("%w: %w", cli.ErrUsage, err)
	}
	if c.MaxTokens < 1 {
		return fmt.Errorf("%w: max-tokens is %d, want at least 1", cli.ErrUsage, c.MaxTokens)
	}
	model, err := c.Model.Open(streams.Err)
	if err != nil {
		return err
	}
	defer model.Weights.Close()
	text, err := c.prompt(ctx, streams.In)
	if err != nil {
		return err
	}
	prompt, err := model.Prompt(text, c.Chat)
	if err != nil {
		return err
	}
	if err := serve.CheckPrompt(model.Config, len(prompt)); err != nil { // before the weights are loaded
		return err
	}
	e, stop, err := model.Start(ctx, c.Device, streams.Err)
	if err != nil {
		return err
	}
	defer stop()

	w := newWriter(streams.Out, model.Stream(prompt, c.Chat), c.Stop)
	_, t, err := e.Generate(ctx, prompt, c.MaxTokens, sampling, model.Ends(), w.token)
	if err := errors.Join(w.finish(err != nil), err); err != nil {
		return err
	}
	fmt.Fprintf(streams.Err, "prompt %d tokens, %.1f tokens/s; decode %d tokens, %.1f tokens/s\n", t.PromptTokens,
		rate(t.PromptTokens, t.Prompt), t.DecodeTokens, rate(t.DecodeTokens, t.Decode))
	return nil
}

// prompt is the flag's text, or all of standard input, for which ctx does not wait.
func (c *command) prompt(ctx context.Context, in io.Reader) (string, error) {
	if c.Prompt != nil {
		return *c.Prompt, nil
	}
	type input struct {
		text []byte
		err  error
	}
	got := make(chan input, 1)
	go func() {
		b, err := io.ReadAll(in)
		got <- input{b, err}
	}()
	select {
	case x := <-got:
		return string(x.text), x.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
