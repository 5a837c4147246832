package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"path/filepath"
	"time"

	"mix/cmd/chat/openai"
	"mix/internal/cli"
)

type load struct {
	URL          string        `arg:"" name:"url" help:"The server: HOST:PORT or a URL, with or without /v1."`
	Rate         float64       `placeholder:"R" help:"Open loop: requests a second, at the times of a Poisson process, whether or not the server keeps up. Latencies count from when a request was due."`
	Concurrency  int           `placeholder:"N" help:"Closed loop: N clients, each asking anew when it is answered. Default without --rate: 8."`
	Requests     int           `placeholder:"N" help:"End after so many requests. Default without --duration: 64."`
	Duration     time.Duration `placeholder:"D" help:"Send no more requests after so long, e.g. 30s; those sent are waited for."`
	Warmup       int           `default:"1" placeholder:"N" help:"Requests before the measurement. Default: ${default}."`
	Endpoint     string        `default:"completions" enum:"completions,chat" help:"completions or chat. Default: ${default}."`
	PromptTokens lengths       `default:"128" placeholder:"L" help:"Tokens of a prompt of random words, about: N, MIN-MAX, normal:MEAN,SD or exp:MEAN. Default: ${default}."`
	MaxTokens    lengths       `default:"64" placeholder:"L" help:"Most tokens of an answer, in the same forms. Default: ${default}."`
	IgnoreEOS    bool          `name:"ignore-eos" help:"Ask for answers of just --max-tokens tokens; a field that not all servers know."`
	Temperature  *float64      `placeholder:"T" help:"Temperature. Default: the server's."`
	Dataset      string        `placeholder:"F.jsonl" help:"Take prompts from here: lines with prompt, text or messages, perhaps max_tokens; from the top again at the end."`
	Model        string        `placeholder:"NAME" help:"Model to ask for. Default: the server's first."`
	APIKey       string        `name:"api-key" env:"MIXTRAL_API_KEY" placeholder:"KEY" help:"Key to show to the server."`
	Stream       bool          `default:"true" negatable:"" help:"Ask for streams; without, only whole answers are timed. Default: on."`
	Usage        bool          `default:"true" negatable:"" help:"Ask for usage in streams; without, a chunk counts as a token. Default: on."`
	Timeout      time.Duration `default:"10m" help:"Longest wait for an answer. Default: ${default}."`
	Seed         uint64        `default:"1234" help:"Seed of times, lengths and words. Default: ${default}."`
	JSON         bool          `name:"json" help:"Print one JSON object; times in seconds."`
	Plot         string        `placeholder:"F" help:"Draw percentiles and timelines to F.html or F.svg."`
}

// Run measures and reports. Where a signal ends it, it reports what it has.
func (c *load) Run(ctx context.Context, streams *cli.IO) error {
	if err := c.check(); err != nil {
		return fmt.Errorf("%w: %w", cli.ErrUsage, err)
	}
	base, err := openai.Base(c.URL, false)
	if err != nil {
		return fmt.Errorf("%w: %w", cli.ErrUsage, err)
	}
	// A connection a request in flight: in HTTP/2 a client may queue requests by itself.
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: math.MaxInt32, DisableCompression: true, Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(true)
	defer transport.CloseIdleConnections()
	client := &openai.Client{Base: base, Key: c.APIKey, HTTP: &http.Client{Transport: transport}}
	if c.Model == "" {
		names, err := client.Models(ctx)
		if err != nil {
			return fmt.Errorf("asking for the models, as there is no --model: %w", err)
		}
		if len(names) == 0 {
			return errors.New("the server lists no model: --model says which to ask for")
		}
		c.Model = names[0]
	}
	source, err := c.source(ctx, client, streams.Err)
	if err != nil {
		return err
	}
	d := &driver{client: client, source: source, timeout: c.Timeout, progress: &progress{}}
	if c.Warmup > 0 {
		if _, err := d.closed(ctx, min(c.Warmup, max(1, c.Concurrency)), c.Warmup, 0, -c.Warmup); err != nil {
			return err
		}
	}
	d.progress = newProgress(streams.Err, c.Requests)
	records, interrupted := c.drive(ctx, d)
	d.progress.done()
	r := summarize(records)
	c.describe(&r, base)
	if err := c.print(streams.Out, r); err != nil {
		return err
	}
	if c.Plot != "" {
		page, err := plot(r, records, filepath.Ext(c.Plot) == ".html")
		if err != nil {
			return err
		}
		if err := cli.WriteFile(c.Plot, page); err != nil {
			return err
		}
	}
	if interrupted == nil && r.Completed == 0 {
		return fmt.Errorf("none of %d requests was answered", r.Requests)
	}
	return interrupted
}

func (c *load) check() error {
	ext := filepath.Ext(c.Plot)
	switch {
	case c.Rate < 0 || math.IsNaN(c.Rate) || c.Rate > 1e6:
		return fmt.Errorf("--rate is %g, want more than 0 and at most 1e6", c.Rate)
	case c.Concurrency < 0:
		return fmt.Errorf("--concurrency is %d, want at least 1", c.Concurrency)
	case c.Rate > 0 && c.Concurrency > 0:
		return errors.New("--rate and --concurrency: want one, an open loop or a closed one")
	case c.Requests < 0 || c.Duration < 0 || c.Warmup < 0 || c.Timeout <= 0:
		return errors.New("--requests, --duration and --warmup want at least 0, --timeout more")
	case ext != "" && ext != ".html" && ext != ".svg" || ext == "" && c.Plot != "":
		return fmt.Errorf("--plot is %q, want a name that ends in .html or .svg", c.Plot)
	}
	if c.Rate == 0 && c.Concurrency == 0 {
		c.Concurrency = 8
	}
	if c.Requests == 0 && c.Duration == 0 {
		c.Requests = 64
	}
	return nil
}

func (c *load) source(ctx context.Context, client *openai.Client, log io.Writer) (source, error) {
	a := openai.Ask{Model: c.Model, Temperature: c.Temperature, IgnoreEOS: c.IgnoreEOS, Stream: c.Stream}
	if c.Stream && c.Usage {
		a.StreamOptions = &openai.StreamOptions{IncludeUsage: true}
	}
	p := prompts{base: a, chat: c.Endpoint == "chat", answer: c.MaxTokens, seed: c.Seed}
	if c.Dataset != "" {
		lines, err := readDataset(c.Dataset)
		return &dataset{p, lines}, err
	}
	w := &words{prompts: p, prompt: c.PromptTokens}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	return w, w.calibrate(ctx, client, log)
}

func (c *load) drive(ctx context.Context, d *driver) ([]record, error) {
	if c.Rate > 0 {
		return d.open(ctx, c.Rate, c.Requests, c.Duration, c.Seed)
	}
	return d.closed(ctx, c.Concurrency, c.Requests, c.Duration, 0)
}

func (c *load) describe(r *summary, base string) {
	r.URL, r.Model, r.Endpoint, r.Seed, r.Stream = base, c.Model, c.Endpoint, c.Seed, c.Stream
	r.Loop, r.Rate, r.Concurrency = "closed", c.Rate, c.Concurrency
	if c.Rate > 0 {
		r.Loop = "open"
	}
	if !c.Stream {
		r.Textless = 0
	}
}

func (c *load) print(out io.Writer, r summary) error {
	text := r.table()
	if c.JSON {
		b, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		text = string(b) + "\n"
	}
	_, err := io.WriteString(out, text)
	return err
}
