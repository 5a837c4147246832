// Command bench measures servers from outside.
package main

import (
	"mix/internal/cli"
)

type command struct {
	Load load `cmd:"" help:"Put load on a server that speaks OpenAI's HTTP, whichever, and measure its answers."`
}

func main() { cli.Main(new(command), "bench", "Measure servers.") }
