package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"mix/cmd/internal/flags"
	"mix/internal/cli"
	"mix/sharding/ckpt/hub"
)

type download struct {
	flags.Device
	Name     string   `arg:"" optional:"" placeholder:"OWNER/NAME" help:"Repository. Default: mistralai/Mixtral-8x7B-v0.1."`
	Repo     string   `placeholder:"OWNER/NAME" help:"The same as a flag."`
	Revision string   `default:"main" help:"Branch, tag or commit. Default: ${default}."`
	Include  []string `sep:"none" placeholder:"PATTERN" help:"Only files that match; * matches / too. May be repeated. Default: all."`
	Exclude  []string `sep:"none" placeholder:"PATTERN" help:"Not the files that match. May be repeated. Default: *.pt; --exclude= for none."`
	To       string   `placeholder:"DIR" help:"Folder for the files. Default: the Hugging Face cache, of HF_HUB_CACHE or HF_HOME."`
	HubCache string   `placeholder:"DIR" help:"Another Hugging Face cache."`
	Parallel int      `default:"8" help:"Files at a time, 1 to 64. Default: ${default}."`
	Offline  bool     `help:"Use what is here and ask nobody. HF_HUB_OFFLINE=1 says the same."`
	JSON     bool     `name:"json" help:"Print one JSON object instead of the folder."`
}

// Help says what comes from the environment.
func (download) Help() string {
	return "HF_TOKEN, or the file token in HF_HOME, opens gated and private repositories. HF_ENDPOINT names a mirror. " +
		"An interrupted download goes on where it stopped; every file is checked against the hub's checksum. " +
		"With HF_HUB_OFFLINE=1 what is here is used."
}

// Run prints the folder of the snapshot on stdout.
func (c *download) Run(ctx context.Context, streams *cli.IO) error {
	if _, err := c.Platform(); err != nil { // it runs nothing: the flags are there for scripts
		return err
	}
	o, err := hub.FromEnvironment(os.Getenv)
	if err != nil {
		return err
	}
	if c.Name != "" && c.Repo != "" && c.Name != c.Repo {
		return fmt.Errorf("%w: repository %s and --repo %s, want one", cli.ErrUsage, c.Name, c.Repo)
	}
	for _, name := range []string{c.Name, c.Repo} {
		if name != "" {
			o.Repo = name
		}
	}
	if len(c.Exclude) == 1 && c.Exclude[0] == "" {
		o.Exclude = nil
	} else if len(c.Exclude) > 0 {
		o.Exclude = c.Exclude
	}
	if c.HubCache != "" {
		o.Cache = c.HubCache
	}
	o.Revision, o.Include, o.To, o.Parallel, o.Progress = c.Revision, c.Include, c.To, c.Parallel, streams.Err
	o.Offline = o.Offline || c.Offline
	s, err := hub.Download(ctx, o)
	switch {
	case errors.Is(err, hub.ErrOptions):
		return fmt.Errorf("%w: %w", cli.ErrUsage, err)
	case err != nil:
		return err
	case c.JSON:
		return json.NewEncoder(streams.Out).Encode(s)
	}
	_, err = fmt.Fprintln(streams.Out, s.Path)
	return err
}
