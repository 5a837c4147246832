// Command train trains a Mixtral, or adapters for one.
package main

import (
	"context"
	"os"

	"github.com/alecthomas/kong"

	"mix/internal/cli"
)

func main() {
	hugePages()
	ctx, stop := untilSignal()
	code := run(ctx, os.Args[1:], cli.IO{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(code)
}

// run is main without the process.
func run(ctx context.Context, args []string, streams cli.IO) int {
	c := new(command)
	values, embed := embedFixed()
	c.fixed = values
	return cli.Run(ctx, c, "train", "Train a Mixtral on text: from nothing, from a checkpoint, or adapters beside one.", args, streams, embed)
}

// Run checks everything that can be checked without weights, then trains.
func (c *command) Run(ctx context.Context, k *kong.Context, streams *cli.IO) error {
	p, err := c.plan()
	if err != nil {
		return err
	}
	if c.PrintConfig {
		return printConfig(streams.Out, settings(k, c.preset))
	}
	if err := c.ready(p); err != nil {
		return err
	}
	return c.train(ctx, p, settings(k, c.preset), streams)
}
