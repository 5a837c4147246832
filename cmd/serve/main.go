// Command serve answers OpenAI's, Anthropic's and Megatron's HTTP for a Mixtral.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"mix/cmd/internal/flags"
	"mix/internal/cli"
)

type command struct {
	flags.Model
	flags.Device
	Host        string        `default:"127.0.0.1" help:"Address to listen on: 0.0.0.0 for all. Default: ${default}."`
	Port        int           `default:"5000" help:"Port, 0 for a free one. Default: ${default}."`
	Name        string        `placeholder:"NAME" help:"Name that clients ask for. Default: the checkpoint folder's."`
	APIKey      []string      `name:"api-key" env:"MIXTRAL_API_KEY" placeholder:"KEY" help:"Clients must show this key; may be repeated. Default: none needed."`
	TLSCert     string        `name:"tls-cert" placeholder:"FILE" help:"Certificate (PEM), for HTTPS."`
	TLSKey      string        `name:"tls-key" placeholder:"FILE" help:"Its key (PEM)."`
	Origin      []string      `placeholder:"ORIGIN" help:"Web pages of this origin may ask (CORS), * for all; may be repeated."`
	Concurrent  int           `name:"max-concurrent" default:"16" help:"Requests that run at once: the rows of a decode step. Default: ${default}."`
	Queue       int           `name:"max-queue" default:"256" help:"Requests that may wait beyond those; more are answered 429. Default: ${default}."`
	Context     int           `name:"max-model-len" placeholder:"N" help:"Longest prompt and answer together, in tokens. Default: the model's context, 4096 at most."`
	Chunk       int           `name:"prefill-chunk" placeholder:"N" help:"Tokens of a prompt run at a time. Default: 64 on a CPU, 1024 on a GPU."`
	Blocks      int           `name:"kv-blocks" placeholder:"N" help:"Blocks of 16 positions in the pool of keys and values. Default: enough for all at their longest."`
	Speculate   int           `name:"speculative-ngram" placeholder:"N" help:"Tokens guessed for a request in a step, at most, from what came before in its text; answers stay the same. Default: 0, none."`
	Timeout     time.Duration `placeholder:"D" help:"Longest time for one request, e.g. 60s. Default: none."`
	Drain       time.Duration `default:"30s" help:"Longest wait for running requests after SIGTERM. Default: ${default}."`
	MegatronEra string        `name:"megatron" default:"2024" enum:"2024,head" help:"Whose PUT /api is answered: 2024 or head. Default: ${default}."`
	Traces      string        `name:"otlp-traces-endpoint" placeholder:"URL" help:"Send traces to this OpenTelemetry collector, e.g. http://localhost:4318. Default: none are made."`
	LogLevel    string        `default:"info" enum:"debug,info,warn,error" help:"debug, info, warn or error. Default: ${default}."`
	Pprof       int           `placeholder:"PORT" help:"Serve Go's profiles on this port of the local machine."`
}

func main() {
	// The first signal drains; the second ends at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	code := cli.Run(ctx, new(command), "serve", "Serve a Mixtral over HTTP.", os.Args[1:], cli.IO{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(code)
}
