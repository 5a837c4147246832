// Command chat asks a server from the terminal: as Megatron's command-line client does, or in turns.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"mix/internal/cli"
)

type command struct {
	Address     string   `arg:"" name:"host:port" help:"Where the server is, e.g. localhost:5000."`
	Chat        bool     `help:"Talk in turns over /v1/chat/completions, with a history."`
	Stream      bool     `help:"Show text as it comes: over /v1/completions, not PUT /api. With --chat always on."`
	System      string   `placeholder:"TEXT" help:"With --chat: system prompt to begin with."`
	Model       string   `placeholder:"NAME" help:"Model to ask for over /v1. Default: the server's first."`
	MaxTokens   int      `placeholder:"N" help:"With --chat: longest answer, in tokens. Default: the server's."`
	Temperature *float64 `placeholder:"T" help:"Temperature. Default: the server's."`
	TopK        *int     `placeholder:"K" help:"Draw from the K likeliest tokens; 1 is greedy. Default: the server's."`
	TopP        *float64 `placeholder:"P" help:"Draw from the likeliest tokens that make up P together. Default: the server's."`
	Seed        *int64   `placeholder:"N" help:"Seed of the drawing. Default: another each time."`
	APIKey      string   `name:"api-key" env:"MIXTRAL_API_KEY" placeholder:"KEY" help:"Key to show to the server."`
	HTTPS       bool     `name:"https" help:"Use HTTPS. A certificate of one's own is trusted by SSL_CERT_FILE=FILE in the environment."`
}

func main() {
	ctx, leave := context.WithCancel(context.Background())
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	i := &interrupts{got: make(chan os.Signal, 1), leave: leave}
	signal.Notify(i.got, os.Interrupt)
	code := cli.Run(ctx, new(command), "chat", "Ask a server. The end of input (Ctrl-D) leaves, Ctrl-C stops an answer.", os.Args[1:],
		cli.IO{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, kong.Bind(i))
	stop()
	leave()
	os.Exit(code)
}
