package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"mix/cmd/internal/flags"
	"mix/graph"
	"mix/graph/token"
	"mix/internal/cli"
	"mix/serve"
	"mix/sharding/ckpt"
)

// sequences reads what is to be scored, and the size of the text in bytes, 0 where there are only ids.
func (c *command) sequences(model *flags.Opened) (ids [][]int32, size int, err error) {
	if c.Tokens != "" {
		ids, err = readTokens(c.Tokens)
		return ids, 0, err
	}
	if model.Tokenizer == nil {
		return nil, 0, model.TokenizerErr
	}
	return readText(c.Text, model.Tokenizer, c.context(model.Config))
}

// check refuses sequences before anything is loaded or written.
func (c *command) check(sequences [][]int32, cfg graph.Config) error {
	for i, ids := range sequences {
		if err := serve.CheckTokens(cfg, ids); err != nil {
			return fmt.Errorf("sequence %d: %w", i, err)
		}
		if len(ids)+c.Greedy > cfg.Context {
			return fmt.Errorf("sequence %d: %w: %d tokens and %d greedy ones, want at most %d", i, serve.ErrTooLong, len(ids), c.Greedy, cfg.Context)
		}
	}
	return nil
}

// targets checks the files that will be written before anything is computed, and follows their links.
func targets(paths ...*string) (err error) {
	taken := map[string]bool{}
	for _, p := range paths {
		if *p == "" {
			continue
		}
		if *p, err = ckpt.Target(*p); err != nil {
			return err
		}
		if taken[*p] {
			return fmt.Errorf("%w: %s would be written twice", cli.ErrUsage, *p)
		}
		taken[*p] = true
	}
	return nil
}

// readTokens reads a list of lists of ids.
func readTokens(path string) ([][]int32, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var lists [][]*int32
	d := json.NewDecoder(bytes.NewReader(b))
	err = d.Decode(&lists)
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong):
		err = fmt.Errorf("a %s ends at byte %d", wrong.Value, wrong.Offset)
	case err == nil && d.More():
		err = errors.New("more follows the list")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: want a list of lists of token ids: %v", path, err)
	}
	sequences := make([][]int32, len(lists))
	for i, list := range lists {
		for j, id := range list {
			if id == nil {
				return nil, fmt.Errorf("%s: token %d of sequence %d is null, want an id", path, j, i)
			}
			sequences[i] = append(sequences[i], *id)
		}
	}
	if len(sequences) == 0 {
		return nil, fmt.Errorf("%s: no sequences, want at least one", path)
	}
	return sequences, nil
}

// context is how many tokens a sequence of a text has.
func (c *command) context(cfg graph.Config) int {
	if c.Context > 0 {
		return min(c.Context, cfg.Context)
	}
	return min(4096, cfg.Context)
}

// readText cuts a text's ids into sequences of that many tokens, each behind a beginning-of-text id.
func readText(path string, t *token.Tokenizer, context int) (sequences [][]int32, size int, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, 0, err
	}
	ids, err := t.Encode(string(b), token.EncodeOptions{})
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	}
	if len(ids) == 0 {
		return nil, 0, fmt.Errorf("%s: no text, want at least one token", path)
	}
	if t.BOS() < 0 || context < 2 {
		return slices.Collect(slices.Chunk(ids, context)), len(b), nil
	}
	for part := range slices.Chunk(ids, context-1) {
		sequences = append(sequences, append([]int32{t.BOS()}, part...))
	}
	return sequences, len(b), nil
}

// continuations writes c.Greedy ids after each sequence.
func (c *command) continuations(ctx context.Context, e *serve.Engine, sequences [][]int32) error {
	all := make([][]int32, len(sequences))
	for i, prompt := range sequences {
		_, _, err := e.Generate(ctx, prompt, c.Greedy, serve.Sampling{TopP: 1}, nil, func(id int32) bool {
			all[i] = append(all[i], id)
			return true
		})
		if err != nil {
			return fmt.Errorf("sequence %d: %w", i, err)
		}
	}
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return cli.WriteFile(c.IDs, append(b, '\n'))
}
