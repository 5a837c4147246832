package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"mix/cmd/internal/flags"
	"mix/graph/token"
	"mix/internal/cli"
	"mix/serve"
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
	return readText(c.Text, model.Tokenizer, model.Config.Context)
}

// readTokens reads a list of lists of ids.
func readTokens(path string) ([][]int32, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var sequences [][]int32
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&sequences); err != nil || d.More() {
		return nil, fmt.Errorf("%s: want a list of lists of token ids: %v", path, err)
	}
	if len(sequences) == 0 {
		return nil, fmt.Errorf("%s: no sequences, want at least one", path)
	}
	return sequences, nil
}

// readText cuts a text's ids into sequences of the context's length, each behind a beginning-of-text id.
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
		return slices.Collect(slices.Chunk(ids, context)), 0, nil
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
		if room := e.Config().Context - len(prompt); room < c.Greedy {
			return fmt.Errorf("sequence %d: %w: %d tokens and %d greedy ones, want at most %d", i, serve.ErrTooLong, len(prompt), c.Greedy, e.Config().Context)
		}
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
