// Command data makes and inspects training data.
package main

import (
	"mix/internal/cli"
)

type command struct {
	Preprocess preprocess `cmd:"" help:"Tokenize jsonl into an indexed dataset, byte for byte as Megatron's preprocessing does."`
	Inspect    inspect    `cmd:"" help:"Tell what is in an indexed dataset."`
}

func main() { cli.Main(new(command), "data", "Make and inspect training data.") }
