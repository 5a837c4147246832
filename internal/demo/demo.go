// Package demo embeds a small trained Mixtral, the model that commands run when they are given none.
package demo

import (
	_ "embed"

	"mix/sharding/ckpt"
)

var (
	//go:embed config.json
	config string
	//go:embed model.safetensors
	weights string
	//go:embed tokenizer.model
	tokenizer string
)

// Config is config.json, Tokenizer the sentencepiece model.
func Config() []byte    { return []byte(config) }
func Tokenizer() []byte { return []byte(tokenizer) }

// Files is the checkpoint's folder.
func Files() ckpt.MemFS { return ckpt.MemFS{"config.json": config, "model.safetensors": weights} }
