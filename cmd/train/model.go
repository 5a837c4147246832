package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"mix/cmd/internal/flags"
	"mix/graph"
	"mix/graph/token"
	"mix/internal/cli"
	"mix/internal/demo"
	"mix/sharding/ckpt"
	"mix/train"
)

// padding is what Megatron-LM rounds a vocabulary up to.
const padding = 128

// startFrom finds the folder of the first weights: --init, or --load as Megatron has it. It may be "".
func (c *command) startFrom() (string, error) {
	if c.Load == "" {
		return c.Init, nil
	}
	if c.Init != "" {
		return "", fmt.Errorf("%w: --init %s and --load %s, want one: --init for weights, --load for a run to go on with", cli.ErrUsage, c.Init, c.Load)
	}
	switch same := c.Save != "" && filepath.Clean(c.Load) == filepath.Clean(c.Save); {
	case exists(c.Load, "config.json") || isMegatron(c.Load): // weights of a model
		if !c.NoLoadOptim && !same {
			return "", fmt.Errorf("%w: --load %s holds a model without an optimizer: want --no-load-optim too, or --init %[2]s", cli.ErrUsage, c.Load)
		}
		return c.Load, nil
	case same: // a run, if there is one
		return "", nil
	case c.NoLoadOptim:
		return newest(c.Load)
	}
	return "", fmt.Errorf("%w: --load %s and --save %q differ: to go on with that run, --save is its folder; to start another from its weights, want --no-load-optim too", cli.ErrUsage, c.Load, c.Save)
}

// newest is the last checkpoint in a run's folder: each is a Hugging Face folder.
func newest(dir string) (string, error) {
	steps := slices.DeleteFunc(checkpoints(dir), func(step string) bool { return !exists(step, "config.json") })
	if len(steps) == 0 {
		return "", fmt.Errorf("%w: --load %s: no config.json and no step-… folder with one", cli.ErrUsage, dir)
	}
	return steps[len(steps)-1], nil
}

// checkpoints lists the folders of a run's checkpoints, the newest last.
func checkpoints(dir string) (all []string) {
	list, _ := os.ReadDir(dir) // sorted, and numbers are padded; what cannot be read has none
	for _, f := range list {
		if f.IsDir() && strings.HasPrefix(f.Name(), "step-") {
			all = append(all, filepath.Join(dir, f.Name()))
		}
	}
	return all
}

// weightsFlag is the flag that names the folder of the first weights.
func (c *command) weightsFlag() string {
	if c.Init != "" {
		return "--init"
	}
	return "--load"
}

// checkStart refuses a folder of first weights that is none.
func (c *command) checkStart(from string) error {
	if from == "" {
		return nil
	}
	info, err := os.Stat(from)
	switch {
	case err != nil:
		err = reason(err)
	case !info.IsDir():
		err = errors.New("want a folder")
	case exists(from, train.AdapterFolder):
		err = fmt.Errorf("it holds adapters, in %s, want a model: the one that they were trained beside, or what --export wrote", train.AdapterFolder)
	case !exists(from, "config.json") && !isMegatron(from):
		err = errors.New("no config.json in it, want a Hugging Face folder, one of ours or of Megatron")
	default:
		return nil
	}
	return fmt.Errorf("%w: %s %s: %w", cli.ErrUsage, c.weightsFlag(), from, err)
}

// isMegatron says whether a folder is a checkpoint of Megatron, which needs no config.json.
func isMegatron(dir string) bool {
	format, err := ckpt.Detect(dir)
	return err == nil && format == ckpt.Megatron
}

func exists(dir, file string) bool {
	_, err := os.Stat(filepath.Join(dir, file))
	return err == nil
}

// model is the sizes, and the tokenizer if there is one, of the flags; from is the folder of the first
// weights. The flags get the values.
func (c *command) model(from string) (graph.Config, *token.Tokenizer, error) {
	t, err := c.tokenizer(from)
	if err != nil {
		return graph.Config{}, nil, err
	}
	var m graph.Config
	if from != "" {
		if m, err = flags.LoadConfig(from); err != nil {
			err = fmt.Errorf("%s: %w", c.weightsFlag(), err)
		}
	} else {
		m, err = sizes(c.preset.name)
	}
	if err != nil {
		return m, nil, err
	}
	if err := c.resize(&m, from); err != nil {
		return m, nil, err
	}
	if from == "" && t != nil {
		if c.VocabSize == nil && c.Tokenizer != "" {
			m.Vocab = (t.VocabSize() + padding - 1) / padding * padding
		}
		m.BOS, m.EOS = int(t.BOS()), nil
		if t.EOS() >= 0 {
			m.EOS = []int{int(t.EOS())}
		}
	}
	if t != nil && t.VocabSize() > m.Vocab {
		whose := "--tokenizer " + c.Tokenizer
		if c.Tokenizer == "" {
			whose = c.weightsFlag() + " " + from
		}
		return m, nil, fmt.Errorf("%w: %s: the tokenizer has %d ids, the model's vocabulary (--vocab-size) %d: want at most as many", cli.ErrUsage, whose, t.VocabSize(), m.Vocab)
	}
	if c.UntieEmbeddings && m.TieEmbedding {
		return m, nil, fmt.Errorf("%w: --untie-embeddings-and-output-weights, but %s ties them", cli.ErrUsage, from)
	}
	if c.MoEAuxLossCoeff != nil {
		m.AuxCoef = *c.MoEAuxLossCoeff
	}
	if err := m.Validate(); err != nil {
		return m, nil, sizesUsage(err)
	}
	c.VocabSize, c.MoEAuxLossCoeff = &m.Vocab, &m.AuxCoef
	return m, t, nil
}

// resize puts the flags' sizes into m, and m's into the flags that were not given. A checkpoint's sizes
// are what they are.
func (c *command) resize(m *graph.Config, from string) error {
	if from == "" && c.KVChannels == nil && (c.HiddenSize != nil || c.NumAttentionHeads != nil) {
		width, heads := or(c.HiddenSize, m.Width), or(c.NumAttentionHeads, m.Heads)
		if heads < 1 || width%heads != 0 {
			return fmt.Errorf("%w: --hidden-size %d is not divisible by --num-attention-heads %d: want --kv-channels, the width of a head", cli.ErrUsage, width, heads)
		}
		w := width / heads
		c.KVChannels = &w
	}
	for _, s := range []struct {
		name string
		flag **int
		size *int
	}{
		{"num-layers", &c.NumLayers, &m.Layers}, {"hidden-size", &c.HiddenSize, &m.Width}, {"ffn-hidden-size", &c.FFNHiddenSize, &m.Hidden},
		{"num-attention-heads", &c.NumAttentionHeads, &m.Heads}, {"num-query-groups", &c.NumQueryGroups, &m.KVHeads},
		{"kv-channels", &c.KVChannels, &m.HeadDim}, {"num-experts", &c.NumExperts, &m.Experts}, {"moe-router-topk", &c.MoERouterTopk, &m.TopK},
		{"max-position-embeddings", &c.MaxPositionEmbeddings, &m.Context}, {"vocab-size", &c.VocabSize, &m.Vocab},
	} {
		if *s.flag == nil {
			if s.name != "vocab-size" { // may follow the tokenizer
				*s.flag = s.size
			}
			continue
		}
		if from != "" && **s.flag != *s.size {
			return fmt.Errorf("%w: --%s is %d, but %s has %d", cli.ErrUsage, s.name, **s.flag, from, *s.size)
		}
		*s.size = **s.flag
	}
	for _, s := range []struct {
		name string
		flag **float64
		size *float64
	}{{"rotary-base", &c.RotaryBase, &m.RopeTheta}, {"norm-epsilon", &c.NormEpsilon, &m.NormEps}, {"init-method-std", &c.InitMethodStd, &m.InitStd}} {
		switch {
		case *s.flag == nil:
			*s.flag = s.size
		case from != "" && **s.flag != *s.size && s.name != "init-method-std": // nothing is initialized
			return fmt.Errorf("%w: --%s is %g, but %s has %g", cli.ErrUsage, s.name, **s.flag, from, *s.size)
		default:
			*s.size = **s.flag
		}
	}
	return nil
}

// tokenizer is the one of the flags, of the first weights' folder, or the demo's; nil for none.
func (c *command) tokenizer(from string) (*token.Tokenizer, error) {
	if c.Tokenizer != "" && c.TokenizerModel != "" && c.Tokenizer != c.TokenizerModel {
		return nil, fmt.Errorf("%w: --tokenizer %s and --tokenizer-model %s, want one", cli.ErrUsage, c.Tokenizer, c.TokenizerModel)
	}
	flag := "--tokenizer"
	if c.Tokenizer == "" && c.TokenizerModel != "" {
		flag = "--tokenizer-model"
		c.Tokenizer, c.TokenizerModel = c.TokenizerModel, ""
	}
	switch {
	case c.Tokenizer != "":
		return readTokenizer(flag, c.Tokenizer)
	case from != "":
		if exists(from, "tokenizer.model") || exists(from, "tokenizer.json") {
			return token.Load(from)
		}
	case c.preset.name == "demo":
		t, err := token.FromModel(demo.Tokenizer())
		if err != nil || c.VocabSize != nil && *c.VocabSize != t.VocabSize() {
			return nil, err
		}
		return t, nil
	}
	return nil, nil
}

// readTokenizer reads a tokenizer from a file or a folder that a flag names.
func readTokenizer(flag, path string) (t *token.Tokenizer, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %s %s: %w", cli.ErrUsage, flag, path, reason(err))
	}
	if info.IsDir() {
		if t, err = token.Load(path); err != nil {
			return nil, fmt.Errorf("%s: %w", flag, err)
		}
		return t, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %s %s: %w", cli.ErrUsage, flag, path, reason(err))
	}
	parse := token.FromModel
	if strings.EqualFold(filepath.Ext(path), ".json") {
		parse = token.FromJSON
	}
	if t, err = parse(b); err != nil {
		return nil, fmt.Errorf("%s %s: %w", flag, path, err)
	}
	return t, nil
}

func or[T any](p *T, d T) T {
	if p == nil {
		return d
	}
	return *p
}
