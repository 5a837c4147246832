package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"mix/internal/cli"
	"mix/internal/corpus"
	"mix/train/data"
)

// Names of what is embedded in the program, as values of --data.
const (
	embeddedText = "embedded:text"
	embeddedChat = "embedded:chat"
)

// source says what is trained on. It opens nothing: files tell what they are when data.OpenSets reads
// them.
func (c *command) source(p *plan) error {
	var said []string
	for _, f := range []struct {
		name  string
		given bool
	}{{"--data", c.Data != ""}, {"--data-path", c.DataPath != ""}, {"--train-data-path", c.TrainDataPath != ""}, {"--mock-data", c.MockData}} {
		if f.given {
			said = append(said, f.name)
		}
	}
	switch {
	case len(said) > 1:
		return fmt.Errorf("%s, want one of them", strings.Join(said, " and "))
	case c.ValidDataPath != "" && c.TrainDataPath == "":
		return fmt.Errorf("--valid-data-path without --train-data-path")
	case c.TrainDataPath != "" && c.ValidDataPath == "" && c.EvalInterval > 0:
		return fmt.Errorf("--train-data-path without --valid-data-path: want it, or --eval-interval 0 for no evaluation")
	case c.Seed > math.MaxUint32:
		return fmt.Errorf("--seed is %d, want at most %d", c.Seed, uint32(math.MaxUint32))
	}
	if len(said) == 0 {
		c.Data = embeddedText
	}
	p.data = data.Spec{Mock: c.MockData, Split: c.Split, Seq: p.Seq, Seed: uint32(c.Seed), Steps: p.Steps, Global: p.Global,
		EvalEvery: p.EvalEvery, EvalBatches: c.EvalIters, Tokenizer: p.tokenizer, Vocab: p.Model.Vocab, Key: c.JSONKey, Template: p.template,
		SkipBad: c.SkipBad, Workers: c.NumWorkers, Cache: c.DataCachePath, Pack: c.Pack, ResetPositions: c.ResetPositionIDs,
		ResetAttention: c.ResetAttentionMask, MaskEOD: c.EODMaskLoss}
	switch {
	case c.MockData:
		p.data.Split = "" // Megatron's own
	case c.TrainDataPath != "":
		p.data.Split = ""
		for part, path := range []string{c.TrainDataPath, c.ValidDataPath} {
			if path != "" {
				p.data.SplitPaths[part] = []string{path}
			}
		}
	case c.DataPath != "":
		p.data.Paths = []string{c.DataPath}
	case c.Data != embeddedText && c.Data != embeddedChat:
		p.data.Paths = []string{c.Data}
	}
	if c.Split != "" {
		if _, err := data.ParseSplit(c.Split); err != nil {
			return fmt.Errorf("--%w", err)
		}
	}
	return nil
}

// spec is the data with what is embedded, ready to be opened.
func (c *command) spec(p plan) (s data.Spec, err error) {
	s = p.data
	if s.Cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return s, fmt.Errorf("%w: no user's cache folder (%w): want --data-cache-path", cli.ErrUsage, err)
		}
		s.Cache = filepath.Join(dir, "mix", "data")
	}
	switch c.Data {
	case embeddedText:
		s.Documents, err = corpus.Documents()
	case embeddedChat:
		s.Chats, err = corpus.Chats()
	}
	return s, err
}
