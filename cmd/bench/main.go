// Command bench measures servers from outside, and GPUs.
package main

import (
	"mix/internal/cli"
)

type command struct {
	Load load       `cmd:"" help:"Put load on a server that speaks OpenAI's HTTP, whichever, and measure its answers."`
	GPU  gpuCommand `cmd:"" name:"gpu" help:"Hold the kernels on a GPU to plain programs, measure them and the full-width model, and choose tiles."`
}

func main() { cli.Main(new(command), "bench", "Measure servers and GPUs.") }
