// Command eval scores a checkpoint.
package main

import (
	"context"
	"fmt"
	"math"

	"mix/cmd/internal/flags"
	"mix/internal/cli"
	"mix/serve"
)

type command struct {
	flags.Model
	flags.Device
	Tokens  string `placeholder:"FILE" help:"JSON file with a list of sequences, each a list of token ids."`
	Text    string `placeholder:"FILE" help:"Text file, cut into sequences of --context tokens."`
	Context int    `placeholder:"N" help:"Tokens a sequence of a text, the beginning-of-text id included. Default: the model's context, at most 4096."`
	Logits  string `placeholder:"FILE" help:"Write the logits, a tensor logits.N [position][vocab] a sequence, to this safetensors file."`
	Trace   string `placeholder:"FILE" help:"Write logits, hidden states of every layer and the router's answers to this safetensors file."`
	Greedy  int    `placeholder:"N" help:"Continue each sequence by N greedy tokens, end-of-text ids included; see --ids."`
	IDs     string `name:"ids" placeholder:"FILE" help:"Write the greedy ids, a list a sequence, to this JSON file."`
	JSON    bool   `name:"json" help:"Print one JSON object."`
}

func main() { cli.Main(new(command), "eval", "Score a checkpoint on token ids or text.") }

// Run prints loss, perplexity and speed on Out, and writes the files that were asked for.
func (c *command) Run(ctx context.Context, streams *cli.IO) error {
	switch {
	case (c.Tokens == "") == (c.Text == ""):
		return fmt.Errorf("%w: give either --tokens or --text", cli.ErrUsage)
	case c.Context < 0 || c.Context == 1:
		return fmt.Errorf("%w: context is %d, want at least 2 tokens", cli.ErrUsage, c.Context)
	case (c.Greedy > 0) != (c.IDs != "") || c.Greedy < 0:
		return fmt.Errorf("%w: --greedy N, at least 1, and --ids FILE go together", cli.ErrUsage)
	}
	model, err := c.Model.Open(streams.Err)
	if err != nil {
		return err
	}
	defer model.Weights.Close()
	sequences, size, err := c.sequences(model)
	if err == nil {
		err = c.check(sequences, model.Config)
	}
	if err == nil {
		err = targets(&c.Logits, &c.Trace, &c.IDs)
	}
	if err != nil {
		return err
	}
	e, stop, err := model.Start(ctx, c.Device, streams.Err)
	if err != nil {
		return err
	}
	defer stop()
	r, err := c.score(ctx, e, sequences)
	if err == nil && c.Greedy > 0 {
		err = c.continuations(ctx, e, sequences)
	}
	if err != nil {
		return err
	}
	if size > 0 {
		r.BitsPerByte = r.Loss * number(r.Tokens) / math.Ln2 / number(size)
	}
	return r.print(streams.Out, c.JSON)
}

// score runs all sequences, once for each file that is to be written.
func (c *command) score(ctx context.Context, e *serve.Engine, sequences [][]int32) (r result, err error) {
	s := newScorer(ctx, e, sequences)
	switch {
	case c.Logits == "" && c.Trace == "":
		err = s.all()
	case c.Logits == "":
		err = s.writeTrace(c.Trace)
	case c.Trace == "":
		err = s.writeLogits(c.Logits)
	default:
		if err = s.writeLogits(c.Logits); err == nil {
			err = s.writeTrace(c.Trace)
		}
	}
	if err != nil {
		return r, err
	}
	r = result{Sequences: len(sequences), Tokens: s.tokens, TokensPerSecond: float64(s.ran) / s.took.Seconds()}
	if r.Tokens > 0 {
		r.Loss = number(s.loss / float64(r.Tokens))
		r.Perplexity = number(math.Exp(float64(r.Loss)))
	}
	return r, nil
}
