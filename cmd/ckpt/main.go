// Command ckpt lists, converts, verifies, compares and downloads checkpoints.
package main

import (
	"encoding/json"
	"fmt"
	"io"

	"mix/cmd/internal/flags"
	"mix/graph"
	"mix/internal/cli"
	"mix/sharding/axis"
	"mix/sharding/ckpt"
)

type command struct {
	List     list     `cmd:"" help:"List the tensors of a checkpoint with shapes, dtypes and bytes, and what is wrong."`
	Convert  convert  `cmd:"" help:"Turn a checkpoint into another format, or divide it for another mesh."`
	Plan     plan     `cmd:"" help:"Print the copies that convert would make."`
	Verify   verify   `cmd:"" help:"Read all of a checkpoint: checksums, every element of every weight once, copies equal."`
	Diff     diff     `cmd:"" help:"Compare the weights of two checkpoints: shapes, dtypes, largest difference."`
	Download download `cmd:"" help:"Download a snapshot of a repository from the Hugging Face hub."`
}

type list struct {
	flags.Device
	Dir  string `arg:"" help:"Folder of a checkpoint of Hugging Face, ours or Megatron, with its config.json."`
	JSON bool   `name:"json" help:"Print one JSON object instead of a table."`
}

// Run checks against the weights that config.json asks for; without a readable one only names are checked.
func (c *list) Run(streams *cli.IO) error {
	if _, err := c.Platform(); err != nil { // it runs nothing: the flags are there for scripts
		return err
	}
	var params []axis.Param
	config, wrong := flags.LoadConfig(c.Dir)
	if wrong == nil {
		params = graph.Params(config)
	}
	r, err := ckpt.Describe(c.Dir, params)
	if err != nil {
		return err
	}
	if wrong != nil {
		r.Wrong(wrong)
	}
	err = show(streams, c.JSON, r)
	if err == nil && len(r.Problems) > 0 {
		err = fmt.Errorf("%s: problems: %d", c.Dir, len(r.Problems))
	}
	return err
}

// show prints a result, as text or as one JSON object.
func show(streams *cli.IO, asJSON bool, result interface{ Print(w io.Writer) error }) error {
	if asJSON {
		return json.NewEncoder(streams.Out).Encode(result)
	}
	return result.Print(streams.Out)
}

func main() {
	cli.Main(new(command), "ckpt", "List, convert, verify, compare and download checkpoints.")
}
