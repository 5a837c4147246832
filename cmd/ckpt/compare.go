package main

import (
	"context"
	"errors"
	"fmt"

	"mix/cmd/internal/flags"
	"mix/internal/cli"
	"mix/sharding/ckpt"
)

type verify struct {
	flags.Device
	Dir  string `arg:"" help:"Folder of a checkpoint in any format."`
	JSON bool   `name:"json" help:"Print one JSON object."`
}

// Run reads all of the checkpoint.
func (c *verify) Run(ctx context.Context, streams *cli.IO) error {
	if _, err := c.Platform(); err != nil { // it runs nothing: the flags are there for scripts
		return err
	}
	params, err := weights(c.Dir)
	if err != nil {
		return err
	}
	x, err := ckpt.Examine(ctx, c.Dir, params)
	if err != nil {
		return err
	}
	err = show(streams, c.JSON, x)
	if err == nil && len(x.Problems) > 0 {
		err = fmt.Errorf("%s: problems: %d", c.Dir, len(x.Problems))
	}
	return err
}

type diff struct {
	flags.Device
	A    string `arg:"" help:"Folder of a checkpoint in any format."`
	B    string `arg:"" help:"Folder of another."`
	JSON bool   `name:"json" help:"Print one JSON object."`
}

// Run compares weight by weight; a difference is an error.
func (c *diff) Run(ctx context.Context, streams *cli.IO) (err error) {
	if _, err := c.Platform(); err != nil { // it runs nothing: the flags are there for scripts
		return err
	}
	var open [2]*ckpt.Checkpoint
	for i, dir := range []string{c.A, c.B} {
		params, err := weights(dir)
		if err != nil {
			return err
		}
		if open[i], err = ckpt.Open(dir, params, ckpt.Options{}); err != nil {
			return err
		}
		defer open[i].Close()
	}
	r, err := ckpt.Diff(ctx, open[0], open[1])
	if err != nil {
		return err
	}
	err = show(streams, c.JSON, r)
	if err == nil && r.Different {
		err = errors.New("the checkpoints differ")
	}
	return err
}
