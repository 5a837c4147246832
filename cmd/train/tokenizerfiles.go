package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"mix/graph"
	"mix/internal/demo"
)

// texts are the files beside the weights that go with a model from folder to folder.
var texts = []string{"tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
	"chat_template.jinja", "generation_config.json"}

// sentencepieceConfig makes transformers load a lone tokenizer.model as ours does.
const sentencepieceConfig = `{
  "tokenizer_class": "LlamaTokenizer",
  "bos_token": "<s>",
  "eos_token": "</s>",
  "unk_token": "<unk>",
  "add_bos_token": true,
  "add_eos_token": false,
  "clean_up_tokenization_spaces": false,
  "legacy": true
}
`

// files are those of a checkpoint beside its weights, which are of a dtype: config.json and the
// tokenizer's.
func (c *command) files(p plan, dtype string) (map[string][]byte, error) {
	all, err := c.tokenizerFiles(p)
	if err != nil {
		return nil, err
	}
	m := p.Model
	m.DType = dtype
	if all["config.json"], err = graph.Config.JSON(m); err != nil {
		return nil, err
	}
	return all, nil
}

// tokenizerFiles are the files of the tokenizer in use, none where there is none.
func (c *command) tokenizerFiles(p plan) (map[string][]byte, error) {
	all := map[string][]byte{}
	path := c.Tokenizer
	if path == "" {
		path = p.from
	}
	if path == "" {
		if p.tokenizer != nil {
			all["tokenizer.model"] = demo.Tokenizer()
		}
	} else if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if info.IsDir() {
		for _, name := range texts {
			b, err := os.ReadFile(filepath.Join(path, name))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			} else if err != nil {
				return nil, err
			}
			all[name] = b
		}
	} else {
		name := "tokenizer.model"
		if strings.EqualFold(filepath.Ext(path), ".json") {
			name = "tokenizer.json"
		}
		if all[name], err = os.ReadFile(path); err != nil {
			return nil, err
		}
	}
	if all["tokenizer.model"] != nil && all["tokenizer_config.json"] == nil {
		all["tokenizer_config.json"] = []byte(sentencepieceConfig)
	}
	return all, nil
}
