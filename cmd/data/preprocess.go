package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"mix/graph/token"
	"mix/internal/cli"
	"mix/train/data"
)

type preprocess struct {
	Input        string `required:"" placeholder:"FILE" help:"One JSON object a line, with the text or a list of texts under --json-key; - is stdin. After an interruption the same command goes on where it was."`
	Tokenizer    string `required:"" placeholder:"PATH" help:"tokenizer.model, tokenizer.json, or a folder with one of them."`
	OutputPrefix string `required:"" placeholder:"PREFIX" help:"The files are PREFIX_KEY_document.bin, .idx and .json; the last tells how they were made."`
	JSONKey      string `name:"json-key" default:"text" help:"Key of the text."`
	AppendEOD    bool   `name:"append-eod" help:"End every document that is not empty with the tokenizer's end-of-text id."`
	PrependBOS   bool   `name:"prepend-bos" help:"Begin every text with the tokenizer's begin-of-text id, as Megatron did until 2024."`
	Workers      int    `placeholder:"N" help:"Tokenizing threads. The result is the same for any number. Default: one a processor."`
	SkipBad      bool   `help:"Leave out lines that are bad, and count them, rather than stop at the first."`
	JSON         bool   `name:"json" help:"Print one JSON object."`
}

// made is what preprocess prints.
type made struct {
	Prefix string `json:"prefix"`
	data.Counts
	DType           string  `json:"dtype"`
	Seconds         float64 `json:"seconds"`
	TokensPerSecond float64 `json:"tokens_per_second"`
}

// Run writes the dataset. Its files appear under their names only when they are whole.
func (c *preprocess) Run(ctx context.Context, streams *cli.IO) error {
	if c.Workers < 0 || c.JSONKey == "" {
		return fmt.Errorf("%w: %d workers and key %q, want at least 1 and some key", cli.ErrUsage, c.Workers, c.JSONKey)
	}
	t, err := tokenizer(c.Tokenizer)
	if err != nil {
		return err
	}
	m := made{Prefix: c.OutputPrefix + "_" + c.JSONKey + "_document", DType: data.DTypeFor(t.VocabSize()).String()}
	start := time.Now()
	if m.Counts, err = c.write(ctx, streams, m.Prefix, t); err != nil {
		return err
	}
	m.Seconds = time.Since(start).Seconds()
	m.TokensPerSecond = float64(m.Tokens) * float64(m.Bytes-m.Resumed) / float64(max(m.Bytes, 1)) / max(m.Seconds, 1e-9)
	if c.JSON {
		return json.NewEncoder(streams.Out).Encode(m)
	}
	_, err = fmt.Fprintf(streams.Out, "%s: %d documents, %d sequences, %d tokens in %s; %d bad lines; %.1f s, %.0f tokens/s\n",
		m.Prefix, m.Documents, m.Sequences, m.Tokens, m.DType, m.BadLines, m.Seconds, m.TokensPerSecond)
	return err
}

// write makes the dataset. A file is gone on with after an interruption, a stream is not.
func (c *preprocess) write(ctx context.Context, streams *cli.IO, prefix string, t *token.Tokenizer) (data.Counts, error) {
	o := data.TextOptions{Key: c.JSONKey, AppendEOD: c.AppendEOD, PrependBOS: c.PrependBOS, SkipBad: c.SkipBad, Workers: c.Workers}
	size := int64(-1)
	if c.Input != "-" {
		info, err := os.Stat(c.Input)
		if err != nil {
			return data.Counts{}, err
		}
		if info.Mode().IsRegular() {
			size = info.Size()
		}
	}
	progress, done := bar(streams.Err, size)
	defer done()
	o.Progress = progress
	switch {
	case size >= 0:
		return data.PreprocessFile(ctx, c.Input, prefix, t, o)
	case c.Input == "-":
		return data.Preprocess(ctx, streams.In, c.Input, prefix, t, o)
	}
	f, err := os.Open(c.Input)
	if err != nil {
		return data.Counts{}, err
	}
	defer f.Close()
	return data.Preprocess(ctx, f, c.Input, prefix, t, o)
}

// tokenizer reads a tokenizer from a file or a folder.
func tokenizer(path string) (*token.Tokenizer, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return token.Load(path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	parse := token.FromModel
	if strings.EqualFold(filepath.Ext(path), ".json") {
		parse = token.FromJSON
	}
	t, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// bar shows bytes read on a terminal; elsewhere progress is nil.
func bar(to io.Writer, size int64) (progress func(int64), done func()) {
	f, ok := to.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, func() {}
	}
	b := progressbar.NewOptions64(size, progressbar.OptionSetWriter(f), progressbar.OptionShowBytes(true),
		progressbar.OptionSetDescription("tokenizing"), progressbar.OptionSetPredictTime(true),
		progressbar.OptionThrottle(50*time.Millisecond), progressbar.OptionClearOnFinish())
	return func(n int64) { _ = b.Set64(n) }, func() { _ = b.Finish() }
}
